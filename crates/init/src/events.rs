//! Device events of the kernel (netlink, `NETLINK_KOBJECT_UEVENT`).

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// The multicast group of the kernel's own events.
const KERNEL_EVENTS: u32 = 1;
/// Room for a burst of events, in bytes.
const BUFFER: usize = 4 << 20;

/// A device event that needs an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A device appeared whose driver answers to this alias.
    Added(String),
    /// Events were lost: look at all devices again.
    Lost,
}

/// The kernel's stream of device events.
pub struct DeviceEvents {
    socket: OwnedFd,
}

impl DeviceEvents {
    /// Subscribes to the events.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the socket.
    pub fn open() -> anyhow::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)
            .context("the kernel offers no device events")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS)).context("the kernel offers no device events")?;
        // Without it a smaller buffer is used, and losses are noticed.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        Ok(Self { socket })
    }

    /// Waits for any event, at most `longest`, and forgets what came.
    pub fn wait(&self, longest: Duration) -> anyhow::Result<()> {
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)
            .context("waiting for devices failed")?;
        while self.next().is_some() {}
        Ok(())
    }

    /// The next event that matters; `None` when there is none for now.
    pub fn next(&self) -> Option<DeviceEvent> {
        let mut buffer = [0; 8192];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    if let Some(alias) = added(&buffer[..length]) {
                        return Some(DeviceEvent::Added(alias));
                    }
                }
                Err(Errno::ENOBUFS) => return Some(DeviceEvent::Lost),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for DeviceEvents {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `add@/devices/…`, then zero-separated `NAME=value`.
fn added(message: &[u8]) -> Option<String> {
    let mut fields = message.split(|&byte| byte == 0);
    fields.next().filter(|head| head.starts_with(b"add@"))?;
    let alias = fields.find_map(|field| field.strip_prefix(b"MODALIAS="))?;
    Some(String::from_utf8_lossy(alias).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_devices_with_an_alias_matter() {
        let alias = added(b"add@/devices/x\0ACTION=add\0MODALIAS=usb:v1\0SEQNUM=7\0");
        assert_eq!(alias.as_deref(), Some("usb:v1"));
        assert_eq!(added(b"remove@/devices/x\0ACTION=remove\0MODALIAS=usb:v1\0"), None);
        assert_eq!(added(b"add@/devices/x\0ACTION=add\0"), None);
        assert_eq!(added(b""), None);
    }
}

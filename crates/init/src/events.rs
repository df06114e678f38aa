//! The kernel's events about new devices (netlink, `NETLINK_KOBJECT_UEVENT`).

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// The netlink multicast group to which the kernel itself sends; group 2 belongs to udev.
const KERNEL_EVENTS: u32 = 1;
/// Size of the socket's receive buffer in bytes: room for a burst of events.
const BUFFER_BYTES: usize = 4 << 20;

/// A device event for which init may have to load a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A device with this `MODALIAS` was added.
    Added(String),
    /// The receive buffer was full and the kernel dropped events.
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
    /// The kernel refuses the socket.
    pub fn open() -> anyhow::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)
            .context("the kernel offers no device events")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS)).context("the kernel offers no device events")?;
        // If this fails, the default buffer is used; dropped events are reported as `Lost`.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
        Ok(Self { socket })
    }

    /// Waits for an event, at most for `timeout`, and discards all events that have arrived: the caller then looks at all
    /// devices.
    pub fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)
            .context("waiting for devices failed")?;
        while self.next().is_some() {}
        Ok(())
    }

    /// The next waiting event of a device with a `MODALIAS`; `None` if no event waits.
    pub fn next(&self) -> Option<DeviceEvent> {
        let mut buffer = [0; 8192];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    if let Some(alias) = added_alias(&buffer[..length]) {
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

/// The `MODALIAS` of a message that a device was added. A message is `ACTION@/devices/…`, then `NAME=value` fields, all
/// separated by zero bytes.
fn added_alias(message: &[u8]) -> Option<String> {
    let mut fields = message.split(|&byte| byte == 0);
    fields.next().filter(|head| head.starts_with(b"add@"))?;
    let alias = fields.find_map(|field| field.strip_prefix(b"MODALIAS="))?;
    Some(String::from_utf8_lossy(alias).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_added_devices_with_an_alias_give_an_event() {
        let alias = added_alias(b"add@/devices/x\0ACTION=add\0MODALIAS=usb:v1\0SEQNUM=7\0");
        assert_eq!(alias.as_deref(), Some("usb:v1"));
        assert_eq!(added_alias(b"remove@/devices/x\0ACTION=remove\0MODALIAS=usb:v1\0"), None);
        assert_eq!(added_alias(b"add@/devices/x\0ACTION=add\0"), None);
        assert_eq!(added_alias(b""), None);
    }
}

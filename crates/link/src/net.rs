//! Network interfaces by name, TCP listeners, and time limits of TCP sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, netdevice};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// Maximum number of connections that the kernel queues before they are accepted.
const LISTEN_BACKLOG: i32 = 128;

/// A network interface that may carry the peer link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name, such as `eno1`. It stays the same when the interface is removed and added again.
    pub name: String,
    /// Index in the kernel, never 0. It changes when the interface is removed and added again.
    pub index: u32,
}

impl Interface {
    /// The interface with this name; `None` if it does not exist.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(Self { name: name.to_owned(), index: index_of(name)? })
    }
}

/// The kernel's index of the interface with this name; `None` if it does not exist.
#[must_use]
pub fn index_of(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(&socket, name).ok()
}

/// A TCP listener on `address`; with port 0 the kernel chooses the port. An IPv6 listener accepts IPv6 only, so that
/// both families can be bound to one port. Needs a tokio runtime.
///
/// # Errors
/// The address cannot be bound, for instance because it is in use. The caller names the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes the kernel close a connected TCP socket on a dead path after about `timeout`: by the TCP user timeout while
/// data is unacknowledged, by keepalive probes (4 s or more) while the connection is idle.
///
/// # Errors
/// The system refuses one of the socket options. The caller names the peer.
pub fn set_dead_path_timeout(stream: &tokio::net::TcpStream, timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(timeout))?;
    let probe = (timeout / 4).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(probe).with_interval(probe).with_retries(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_exists_has_an_index_and_an_absent_one_is_none() {
        assert!(Interface::named("lo").is_some_and(|interface| interface.index > 0));
        assert_eq!(Interface::named("no-such-if0"), None);
    }

    #[tokio::test]
    async fn an_ipv6_and_an_ipv4_listener_share_one_port() {
        let six = listen("[::1]:0".parse().unwrap()).unwrap();
        let port = six.local_addr().unwrap().port();
        listen(([127, 0, 0, 1], port).into()).unwrap();
    }
}

//! One path for datagrams: its socket, and the address from which the peer was heard.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{MULTICAST_GROUP, net};

/// On an interface datagrams go to the peer's address if the peer was heard within this period, otherwise to the
/// multicast group.
const UNICAST_PERIOD: Duration = Duration::from_secs(1);
/// Traffic class "network control" (RFC 4594, CS6), by which cards and switches may prefer heartbeats to bulk data.
const TRAFFIC_CLASS: u32 = 0xc0;

/// The configuration of a path to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathConfig {
    /// By link-local multicast and link-local addresses on an interface.
    Interface {
        /// The interface's name, such as `eno2`.
        name: String,
    },
    /// Between two addresses, for networks without multicast and for tests.
    Unicast {
        /// Name of the path, for people.
        name: String,
        /// Address and port to bind.
        local: SocketAddr,
        /// Address of the peer; `None`: the address from which the peer is heard.
        peer: Option<SocketAddr>,
    },
}

impl PathConfig {
    /// Name of the path, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Interface { name } | Self::Unicast { name, .. } => name,
        }
    }
}

/// The state of a path, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStatus {
    pub name: String,
    /// Whether the socket is open.
    pub open: bool,
    /// The error of opening the socket, or of sending the last datagram; `None` if that succeeded.
    pub error: Option<String>,
    /// The address from which the peer was last heard.
    pub peer: Option<SocketAddr>,
    /// The time since the peer was last heard.
    pub heard: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct PathState {
    pub(super) config: PathConfig,
    socket: Option<UdpSocket>,
    /// Index of the interface to which the socket is bound; 0 for a unicast path.
    index: u32,
    /// Sender and time of the last fresh datagram of the peer.
    heard: Option<(SocketAddr, Instant)>,
    error: Option<io::Error>,
}

impl PathState {
    pub(super) fn new(config: PathConfig) -> Self {
        Self { config, socket: None, index: 0, heard: None, error: None }
    }

    /// Opens the socket if it is not open, or again if the interface was replaced; closes it if the interface is gone.
    pub(super) fn refresh(&mut self, port: u16) {
        let opened = match &self.config {
            PathConfig::Interface { name } => {
                let index = net::index_of(name).unwrap_or(0);
                if self.socket.is_some() && self.index == index {
                    return;
                }
                self.socket = None;
                self.index = index;
                match index {
                    0 => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such interface")),
                    index => open_multicast(name, index, port),
                }
            }
            PathConfig::Unicast { .. } if self.socket.is_some() => return,
            PathConfig::Unicast { local, .. } => open_unicast(*local),
        };
        match opened {
            Ok(socket) => (self.socket, self.error) = (Some(socket), None),
            Err(error) => self.error = Some(error),
        }
    }

    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Sends a datagram to the peer or to the multicast group. `false`: no address is known, or the kernel refused the
    /// datagram, and the status has the error.
    pub(super) fn send(&mut self, datagram: &[u8], now: Instant, port: u16) -> bool {
        let heard =
            self.heard.filter(|(_, at)| now.saturating_duration_since(*at) < UNICAST_PERIOD).map(|(from, _)| from);
        let target = match &self.config {
            PathConfig::Interface { .. } => {
                Some(heard.unwrap_or(SocketAddrV6::new(MULTICAST_GROUP, port, 0, self.index).into()))
            }
            PathConfig::Unicast { peer, .. } => peer.or(self.heard.map(|(from, _)| from)),
        };
        target.is_some_and(|target| self.send_to(datagram, target))
    }

    pub(super) fn send_to(&mut self, datagram: &[u8], target: SocketAddr) -> bool {
        let Some(socket) = &self.socket else { return false };
        match socket.send_to(datagram, target) {
            Ok(_) => {
                self.error = None;
                true
            }
            Err(error) => {
                self.error = Some(error);
                false
            }
        }
    }

    /// Reads one datagram: its length and sender. `None`: there is none, or the socket is not open.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        // An error belongs to an earlier datagram, which was sent to a closed port. Reading the error clears it, so a
        // second read follows.
        let socket = self.socket.as_ref()?;
        match socket.recv_from(buffer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => socket.recv_from(buffer).ok(),
            outcome => outcome.ok(),
        }
    }

    pub(super) fn heard_from(&mut self, from: SocketAddr, now: Instant) {
        self.heard = Some((from, now));
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.heard.map(|(from, _)| from)
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.socket.as_ref()?.local_addr().ok()
    }

    pub(super) fn status(&self, now: Instant) -> PathStatus {
        PathStatus {
            name: self.config.name().to_owned(),
            open: self.socket.is_some(),
            error: self.error.as_ref().map(ToString::to_string),
            peer: self.peer(),
            heard: self.heard.map(|(_, at)| now.saturating_duration_since(at)),
        }
    }
}

/// A socket that sends and receives on one interface only.
fn open_multicast(name: &str, index: u32, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.join_multicast_v6(&MULTICAST_GROUP, index)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_loop_v6(false)?;
    // Heartbeats also work without the traffic class.
    let _ = socket.set_tclass_v6(TRAFFIC_CLASS);
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket for [`PathConfig::Unicast`].
fn open_unicast(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&local.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

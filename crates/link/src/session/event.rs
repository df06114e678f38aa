//! Paths to the peer, and what happens on them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::hello::{PeerHello, Refused};
use super::outbox::Outbox;
use crate::frame::FrameError;

#[cfg(doc)]
use super::PeerLink;

/// One way to reach the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Its name for people, such as `eno2`.
    pub name: String,
    /// Where the peer listens; a link-local IPv6 address carries its scope id.
    pub peer: SocketAddr,
    /// The address to dial from, if it matters.
    pub local: Option<SocketAddr>,
}

/// What happens on the peer link.
#[derive(Debug)]
pub enum Event {
    /// A session with the peer is up. Dropping every clone of `outbox` ends it.
    Up {
        /// Grows with each session of this program, never reused.
        session: u64,
        /// What the peer says about itself.
        hello: PeerHello,
        /// The path's name (node A) or the address the peer came from (node B).
        path: String,
        /// The way to send.
        outbox: Outbox,
    },
    /// The peer sent this.
    Message {
        /// The session it came on.
        session: u64,
        /// The message, at most 2 MiB.
        payload: Bytes,
    },
    /// The session is over.
    Down {
        /// Which one.
        session: u64,
        /// Why.
        reason: Down,
    },
    /// Somebody answered, but not the right one or not in the right way. Told once until it changes.
    Refused {
        /// The path's name (node A) or the address the other side came from (node B).
        path: String,
        /// Why no session came about.
        reason: Refused,
    },
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Down {
    /// The peer closed it in order.
    #[error("the peer closed the session")]
    Closed,
    /// This side closed it by dropping its [`Outbox`] or the [`PeerLink`].
    #[error("this node closed the session")]
    Dropped,
    /// The peer opened a new one.
    #[error("the peer opened a new session")]
    Superseded,
    /// The path was taken out of [`PeerLink::set_paths`].
    #[error("the path of the session was removed")]
    PathRemoved,
    /// Not a byte came for too long.
    #[error("nothing came from the peer for {} ms", .0.as_millis())]
    Silent(Duration),
    /// The connection broke or carried nonsense.
    #[error(transparent)]
    Broken(FrameError),
}

impl Down {
    /// Whether the other side ended the connection, as its kernel also does for a daemon that was killed. A machine without
    /// power, or out of reach, ends nothing.
    #[must_use]
    pub fn is_from_afar(&self) -> bool {
        match self {
            Down::Closed | Down::Broken(FrameError::Truncated) => true,
            Down::Broken(FrameError::Io(error)) => {
                use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
                matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
            }
            _ => false,
        }
    }
}

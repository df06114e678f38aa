//! The paths to the peer, and the events of the peer link.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dyad_types::Session;

use super::hello::{PeerHello, Refused};
use super::outbox::Outbox;
use crate::frame::FrameError;

#[cfg(doc)]
use super::PeerLink;

/// A path to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Name for people, such as `eno2`.
    pub name: String,
    /// The address on which the peer listens; a link-local IPv6 address has its scope id.
    pub peer: SocketAddr,
    /// The local address to connect from; `None`: the kernel chooses.
    pub local: Option<SocketAddr>,
}

/// An event of the peer link.
#[derive(Debug)]
pub enum Event {
    /// A session with the peer is up. Dropping every clone of `outbox` ends it.
    Up {
        /// Number of the session. It grows with each session of this program.
        session: Session,
        /// The identity that the peer sent.
        hello: PeerHello,
        /// The path's name (node A) or the peer's address (node B).
        path: String,
        /// Sends messages to the peer.
        outbox: Outbox,
    },
    /// The peer sent a message.
    Message {
        /// Number of the session on which it was received.
        session: Session,
        /// The message, at most 2 MiB.
        payload: Bytes,
    },
    /// The session has ended.
    Down { session: Session, reason: Down },
    /// A connection was made but became no session. The same reason is reported once until it changes.
    Refused {
        /// The path's name (node A) or the address of the other side (node B).
        path: String,
        reason: Refused,
    },
}

/// The reason for which a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Down {
    /// The peer closed the session in order.
    #[error("the peer closed the session")]
    Closed,
    /// This side closed the session by dropping its [`Outbox`] or the [`PeerLink`].
    #[error("this node closed the session")]
    Dropped,
    /// The peer opened a new session.
    #[error("the peer opened a new session")]
    Superseded,
    /// The path was removed by [`PeerLink::set_paths`].
    #[error("the path of the session was removed")]
    PathRemoved,
    /// No byte was received for [`Timing::silence`].
    #[error("nothing came from the peer for {} ms", .0.as_millis())]
    Silent(Duration),
    /// The connection broke, or the peer sent an invalid message.
    #[error(transparent)]
    Broken(FrameError),
}

impl Down {
    /// Whether the other side ended the connection. Its kernel does so also for a daemon that was killed; a machine
    /// without power or without a path does not.
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

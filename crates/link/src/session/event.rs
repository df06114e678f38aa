//! The paths to the peer, and the events of the peer link.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dyad_types::Session;

use super::hello::{HandshakeError, PeerHello};
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
    /// A session with the peer has begun. It ends when the last clone of `outbox` is dropped.
    Up {
        /// Number of the session, from 1 on; it grows by one with each session of this link.
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
    Down { session: Session, reason: DownReason },
    /// A TCP connection was established but became no session. Repetitions are not reported: on node A of the same path
    /// and reason, on node B of the same reason.
    HandshakeFailed {
        /// The path's name (node A) or the address of the other side (node B).
        path: String,
        reason: HandshakeError,
    },
}

/// The reason for which a session ended.
#[derive(Debug, thiserror::Error)]
pub enum DownReason {
    /// The peer closed the connection with the TLS alert `close_notify`, between two frames.
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
    /// No byte was received for [`PeerLinkTiming::silence_timeout`](super::PeerLinkTiming::silence_timeout).
    #[error("nothing came from the peer for {} ms", .0.as_millis())]
    Silent(Duration),
    /// The connection broke, or the peer sent an invalid message.
    #[error(transparent)]
    Broken(FrameError),
}

impl DownReason {
    /// Whether the other side ended the connection. A killed daemon's kernel does so too. A machine that lost its power
    /// or its network does not: that session ends as [`DownReason::Silent`].
    #[must_use]
    pub fn ended_by_peer(&self) -> bool {
        match self {
            DownReason::Closed | DownReason::Broken(FrameError::Truncated) => true,
            DownReason::Broken(FrameError::Io(error)) => {
                use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
                matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
            }
            _ => false,
        }
    }
}

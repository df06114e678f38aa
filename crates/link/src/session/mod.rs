//! The session between the two nodes: one TLS connection on the first path that works.
//!
//! Node A dials, node B listens. A starts a TCP connection on every path, in the order given, each
//! a little later than the one before; the first that connects and greets well is used, the others
//! are closed. When a session ends A dials again at once. A new good greeting at B ends the
//! session B still believes in.
//!
//! ```text
//! A                                        B
//! Hello{pair, node, versions, …}   ──►     refuses: another pair, the same node, no common version
//!                                  ◄──     Welcome{…, version}
//! Use                              ──►     up
//! Data, Alive                      ◄─►     Data, Alive
//! ```
//!
//! A path is dead when nothing at all, not even a part of a frame, came for [`Timing::silence`];
//! each side sends `Alive` every [`Timing::alive`].
//!
//! **Invariants**
//! * [`Event::Up`] and [`Event::Down`] alternate, and every [`Event::Message`] stands between those
//!   of its session.
//! * An [`Outbox`] belongs to one session: what it could not send is lost with it, never sent later.
//! * An attempt that node A gave up never replaces a later one.

mod dial;
mod hello;
mod listen;
mod outbox;
mod pump;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use hello::{MAX_GREETING, PeerHello, Refused};
pub use outbox::{Outbox, SendError};

use crate::frame::FrameError;
use crate::tls::{Identity, TlsError};
use crate::{Fingerprint, PairId};
use dyad_types::NodeId;

/// Events that wait for the owner at most; beyond that the peer is not read.
const EVENTS: usize = 64;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life.
    pub alive: Duration,
    /// Without a byte for this long the path is dead.
    pub silence: Duration,
    /// For a TCP connection to be made.
    pub connect: Duration,
    /// Head start of each path over the next one.
    pub stagger: Duration,
    /// For TLS and the greeting together.
    pub handshake: Duration,
    /// Between two rounds over all paths when none works.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            alive: Duration::from_millis(200),
            silence: Duration::from_secs(1),
            connect: Duration::from_secs(1),
            stagger: Duration::from_millis(100),
            handshake: Duration::from_secs(2),
            retry: Duration::from_millis(250),
        }
    }
}

/// What a [`PeerLink`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The installation both nodes belong to.
    pub pair: PairId,
    /// Which node this is.
    pub node: NodeId,
    /// Drawn at random once per boot of this machine.
    pub boot: u128,
    /// Drawn at random once per start of this program.
    pub instance: u128,
    /// Versions of the messages on top that this program speaks; the highest common one is used.
    pub versions: RangeInclusive<u16>,
    /// Anything the peer should know with the greeting; at most [`MAX_GREETING`] bytes.
    pub greeting: Bytes,
    /// This node's key.
    pub identity: Identity,
    /// The peer's key.
    pub peer: Fingerprint,
    /// Bounds in time.
    pub timing: Timing,
    /// Messages an [`Outbox`] holds at most.
    pub queue_messages: usize,
    /// Bytes an [`Outbox`] holds at most; never less than one message of 2 MiB.
    pub queue_bytes: usize,
}

impl Config {
    /// A configuration with default timing and queues (4096 messages, 64 MiB), version 1 and an
    /// empty greeting; `boot` and `instance` are drawn at random.
    #[must_use]
    pub fn new(pair: PairId, node: NodeId, identity: Identity, peer: Fingerprint) -> Self {
        Self {
            pair,
            node,
            boot: u128::from_be_bytes(crate::random()),
            instance: u128::from_be_bytes(crate::random()),
            versions: 1..=1,
            greeting: Bytes::new(),
            identity,
            peer,
            timing: Timing::default(),
            queue_messages: 4096,
            queue_bytes: 64 << 20,
        }
    }
}

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

/// The peer link of this node. Dropping it ends it soon; [`PeerLink::close`] ends it now.
#[derive(Debug)]
pub struct PeerLink {
    events: mpsc::Receiver<Event>,
    paths: watch::Sender<Vec<Path>>,
    task: JoinHandle<()>,
}

impl Drop for PeerLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PeerLink {
    /// Starts the link of node A, which dials `paths` in this order of preference. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the identity cannot be used.
    pub fn dial(config: Config, paths: Vec<Path>) -> Result<Self, TlsError> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (sender, watched) = watch::channel(paths);
        let dialer = dial::Dialer::new(config, events)?;
        Ok(Self { events: receiver, paths: sender, task: tokio::spawn(dialer.run(watched)) })
    }

    /// Starts the link of node B, which is dialled on any of `listeners` (see
    /// [`crate::net::listen`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the identity cannot be used.
    pub fn listen(config: Config, listeners: Vec<TcpListener>) -> Result<Self, TlsError> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let listener = listen::Listener::new(config, events)?;
        let (sender, _) = watch::channel(Vec::new());
        Ok(Self { events: receiver, paths: sender, task: tokio::spawn(listener.run(listeners)) })
    }

    /// What happens next; may be cancelled. `None` only if the link's task died.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Ends the link. When this returns its ports are free and may be listened on again.
    pub async fn close(mut self) {
        self.task.abort();
        // An error only says that it was aborted, as it should be.
        let _ = (&mut self.task).await;
    }

    /// Replaces the paths node A dials. A session on a path that is gone, or has another address
    /// now, ends. Node B has nothing to dial and ignores this.
    pub fn set_paths(&self, paths: Vec<Path>) {
        self.paths.send_if_modified(|current| {
            let changed = *current != paths;
            *current = paths;
            changed
        });
    }
}

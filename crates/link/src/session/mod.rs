//! The session between the two nodes: one TLS connection on the first path that works.
//!
//! Node A connects, node B listens. A starts a TCP connection on every path, in the order given and each a little later
//! than the one before. The first connection that is greeted successfully is used; the others are closed. When a
//! session ends, A connects again at once, but at most once in [`PeerLinkTiming::retry_delay`]. A successful greeting
//! at B replaces B's present session.
//!
//! ```text
//! A                                        B
//! Hello{pair, node, versions, …}   ──►     refuses: another pair, the same node, no common version
//!                                  ◄──     Welcome{pair, node, versions, …}
//! Use                              ──►     the session is up
//! Data, Alive                      ◄─►     Data, Alive
//! ```
//!
//! A session ends when no byte was received for [`PeerLinkTiming::silence_timeout`]; each side sends `Alive` every
//! [`PeerLinkTiming::keepalive_interval`].
//!
//! **Invariants**
//! * [`Event::Up`] and [`Event::Down`] alternate, and every [`Event::Message`] comes between those of its session.
//! * An [`Outbox`] belongs to one session: messages that were not sent are lost with it and never sent later.
//! * A connection attempt that node A has given up never replaces a later one.

mod config;
mod dial;
mod event;
mod hello;
mod listen;
mod outbox;
mod transfer;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use config::{PeerLinkConfig, PeerLinkTiming};
pub use event::{DownReason, Event, Path};
pub use hello::{HandshakeError, MAX_GREETING, PeerHello};
pub use outbox::{Outbox, SendError};

use crate::tls::TlsError;

/// Maximum number of events that wait for the caller; when it is reached, the peer is not read.
const MAX_WAITING_EVENTS: usize = 64;

/// The peer link of this node. Dropping it aborts its task without waiting; [`PeerLink::close`] waits until the task
/// has ended.
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
    /// Starts the link of node A, which connects on `paths`, in this order of preference. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the identity cannot be used.
    pub fn dial(config: PeerLinkConfig, paths: Vec<Path>) -> Result<Self, TlsError> {
        let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        let (sender, watched) = watch::channel(paths);
        let dialer = dial::Dialer::new(config, events)?;
        Ok(Self { events: receiver, paths: sender, task: tokio::spawn(dialer.run(watched)) })
    }

    /// Starts the link of node B, which accepts connections on any of `listeners` (see [`crate::net::listen`]). Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the identity cannot be used.
    pub fn listen(config: PeerLinkConfig, listeners: Vec<TcpListener>) -> Result<Self, TlsError> {
        let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        let listener = listen::Listener::new(config, events)?;
        let (sender, _) = watch::channel(Vec::new());
        Ok(Self { events: receiver, paths: sender, task: tokio::spawn(listener.run(listeners)) })
    }

    /// The next event; may be cancelled. `None` only if the link's task has panicked.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Ends the link. On return its ports are free.
    pub async fn close(mut self) {
        self.task.abort();
        // The error is that the task was aborted, or that it panicked.
        let _ = (&mut self.task).await;
    }

    /// Replaces the paths on which node A connects. If the path of the session was removed or has another address now,
    /// the session ends. Without effect on node B.
    pub fn set_paths(&self, paths: Vec<Path>) {
        self.paths.send_if_modified(|current| {
            let changed = *current != paths;
            *current = paths;
            changed
        });
    }
}

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

mod config;
mod dial;
mod event;
mod hello;
mod listen;
mod outbox;
mod pump;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use config::{Config, Timing};
pub use event::{Down, Event, Path};
pub use hello::{MAX_GREETING, PeerHello, Refused};
pub use outbox::{Outbox, SendError};

use crate::tls::TlsError;

/// Events that wait for the owner at most; beyond that the peer is not read.
const EVENTS: usize = 64;

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

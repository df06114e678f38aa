//! Node B's side: accepts connections; a new session replaces the one before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dyad_types::Session;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::config::PeerLinkConfig;
use super::event::{DownReason, Event};
use super::hello::{GreetedConnection, HandshakeError, greet_as_listener};
use super::transfer;
use crate::net::set_dead_path_timeout;
use crate::tls::{Protocol, TlsError, Trust, accept, server_config};

/// Maximum number of concurrent handshakes; further connections are closed.
const MAX_HANDSHAKES: usize = 16;
/// Delay after the kernel failed to accept a connection, usually because no file descriptors are left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Instance and attempt of the last greeting that became a session; `None` before the first one.
type NewestAttempt = watch::Sender<Option<(u128, u64)>>;

pub(super) struct Listener {
    config: Arc<PeerLinkConfig>,
    tls: Arc<ServerConfig>,
    events: mpsc::Sender<Event>,
    newest: Arc<NewestAttempt>,
    session: Session,
    current: Option<RunningSession>,
    last_failure: Option<String>,
}

struct RunningSession {
    stop: transfer::Stop,
    task: JoinHandle<()>,
}

impl Drop for RunningSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a greeting is not newer than `newest`: the same instance of node A, and no higher attempt.
fn is_stale(newest: Option<(u128, u64)>, instance: u128, attempt: u64) -> bool {
    newest.is_some_and(|(known, latest)| known == instance && attempt <= latest)
}

impl Listener {
    pub(super) fn new(config: PeerLinkConfig, events: mpsc::Sender<Event>) -> Result<Self, TlsError> {
        let tls = server_config(&config.identity, Trust::Pinned(config.peer), &[Protocol::Peer])?;
        let newest = Arc::new(watch::Sender::new(None));
        Ok(Self {
            config: Arc::new(config),
            tls,
            events,
            newest,
            session: Session::default(),
            current: None,
            last_failure: None,
        })
    }

    pub(super) async fn run(mut self, listeners: Vec<TcpListener>) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                caller = accept_any(&listeners) => match caller {
                    Ok((stream, from)) if handshakes.len() < MAX_HANDSHAKES => {
                        handshakes.spawn(self.handshake(stream, from));
                    }
                    // The connection is closed; node A connects again.
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a caller could not be accepted");
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    }
                },
                Some(done) = handshakes.join_next() => match done {
                    Ok((from, Ok(greeted))) => self.replace_session(from, greeted).await,
                    Ok((from, Err(reason))) => self.report(from, reason).await,
                    Err(_) => {}
                },
            }
        }
    }

    fn handshake(
        &self,
        stream: TcpStream,
        from: SocketAddr,
    ) -> impl Future<Output = (SocketAddr, Result<GreetedConnection, HandshakeError>)> + Send + 'static {
        let (config, tls, newest) = (Arc::clone(&self.config), Arc::clone(&self.tls), Arc::clone(&self.newest));
        async move {
            let limit = config.timing.handshake_timeout;
            let greeting = async {
                set_dead_path_timeout(&stream, config.timing.silence_timeout * 10)
                    .map_err(|error| HandshakeError::Tls(TlsError::Io(error)))?;
                let channel = accept(stream, tls, limit).await.map_err(HandshakeError::Tls)?;
                greet_as_listener(channel, &config, |instance, attempt| is_stale(*newest.borrow(), instance, attempt))
                    .await
            };
            (from, tokio::time::timeout(limit, greeting).await.unwrap_or(Err(HandshakeError::Timeout)))
        }
    }

    /// Ends the present session and runs the greeted connection as the new one, unless it has become stale meanwhile.
    async fn replace_session(&mut self, from: SocketAddr, greeted: GreetedConnection) {
        let name = (greeted.hello.instance, greeted.attempt);
        if is_stale(*self.newest.borrow(), name.0, name.1) {
            return;
        }
        self.newest.send_replace(Some(name));
        if let Some(mut old) = self.current.take() {
            let (unused, _) = oneshot::channel();
            let _ = std::mem::replace(&mut old.stop, unused).send(DownReason::Superseded);
            let _ = (&mut old.task).await;
        }
        self.last_failure = None;
        let (stop, stopped) = oneshot::channel();
        let (config, events, session) = (Arc::clone(&self.config), self.events.clone(), self.session.advance());
        let task = tokio::spawn(async move {
            transfer::run(greeted, session, from.to_string(), &config, &events, stopped).await;
        });
        self.current = Some(RunningSession { stop, task });
    }

    async fn report(&mut self, from: SocketAddr, reason: HandshakeError) {
        let failure = reason.to_string();
        if self.last_failure.as_ref() != Some(&failure) {
            tracing::warn!(%from, %reason, "a caller was turned away");
            self.last_failure = Some(failure);
            let _ = self.events.send(Event::HandshakeFailed { path: from.to_string(), reason }).await;
        }
    }
}

/// Accepts the next connection on any of the listeners; may be cancelled. The listeners are borrowed, so that they are
/// dropped, and their ports free, as soon as the link's task ends.
async fn accept_any(listeners: &[TcpListener]) -> std::io::Result<(TcpStream, SocketAddr)> {
    std::future::poll_fn(|context| {
        let ready = listeners.iter().find_map(|listener| match listener.poll_accept(context) {
            Poll::Ready(caller) => Some(caller),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

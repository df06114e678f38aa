//! Node B's side: accepts connections and keeps the newest session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dyad_types::Session;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::config::Config;
use super::event::{Down, Event};
use super::hello::{Greeted, Refused, answer};
use super::pump;
use crate::net::bound_silence;
use crate::tls::{Protocol, TlsError, Trust, accept, server_config};

/// Maximum number of concurrent handshakes; further connections are closed.
const HANDSHAKES: usize = 16;
/// Delay after the system failed to accept a connection, usually because no file descriptors are left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Instance and attempt of the newest session.
type Newest = watch::Sender<Option<(u128, u64)>>;

pub(super) struct Listener {
    config: Arc<Config>,
    tls: Arc<ServerConfig>,
    events: mpsc::Sender<Event>,
    newest: Arc<Newest>,
    session: Session,
    current: Option<Running>,
    last_refusal: Option<String>,
}

struct Running {
    stop: pump::Stop,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is_stale(newest: Option<(u128, u64)>, instance: u128, attempt: u64) -> bool {
    newest.is_some_and(|(known, latest)| known == instance && attempt <= latest)
}

impl Listener {
    pub(super) fn new(config: Config, events: mpsc::Sender<Event>) -> Result<Self, TlsError> {
        let tls = server_config(&config.identity, Trust::Pinned(config.peer), &[Protocol::Peer])?;
        let newest = Arc::new(watch::Sender::new(None));
        Ok(Self {
            config: Arc::new(config),
            tls,
            events,
            newest,
            session: Session::default(),
            current: None,
            last_refusal: None,
        })
    }

    pub(super) async fn run(mut self, listeners: Vec<TcpListener>) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                caller = accept_any(&listeners) => match caller {
                    Ok((stream, from)) if handshakes.len() < HANDSHAKES => {
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
                    Ok((from, Ok(greeted))) => self.take(from, greeted).await,
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
    ) -> impl Future<Output = (SocketAddr, Result<Greeted, Refused>)> + Send + 'static {
        let (config, tls, newest) = (Arc::clone(&self.config), Arc::clone(&self.tls), Arc::clone(&self.newest));
        async move {
            let limit = config.timing.handshake;
            let greeting = async {
                bound_silence(&stream, config.timing.silence * 10)
                    .map_err(|error| Refused::Tls(TlsError::Io(error)))?;
                let channel = accept(stream, tls, limit).await.map_err(Refused::Tls)?;
                answer(channel, &config, |instance, attempt| is_stale(*newest.borrow(), instance, attempt)).await
            };
            (from, tokio::time::timeout(limit, greeting).await.unwrap_or(Err(Refused::Timeout)))
        }
    }

    /// Replaces the present session by a greeted connection.
    async fn take(&mut self, from: SocketAddr, greeted: Greeted) {
        let name = (greeted.hello.instance, greeted.attempt);
        if is_stale(*self.newest.borrow(), name.0, name.1) {
            return;
        }
        self.newest.send_replace(Some(name));
        if let Some(mut old) = self.current.take() {
            let (unused, _) = oneshot::channel();
            let _ = std::mem::replace(&mut old.stop, unused).send(Down::Superseded);
            let _ = (&mut old.task).await;
        }
        self.last_refusal = None;
        let (stop, stopped) = oneshot::channel();
        let (config, events, session) = (Arc::clone(&self.config), self.events.clone(), self.session.advance());
        let task = tokio::spawn(async move {
            pump::run(greeted, session, from.to_string(), &config, &events, stopped).await;
        });
        self.current = Some(Running { stop, task });
    }

    async fn report(&mut self, from: SocketAddr, reason: Refused) {
        let refusal = reason.to_string();
        if self.last_refusal.as_ref() != Some(&refusal) {
            tracing::warn!(%from, %reason, "a caller was turned away");
            self.last_refusal = Some(refusal);
            let _ = self.events.send(Event::Refused { path: from.to_string(), reason }).await;
        }
    }
}

/// The next connection on any of the listeners; may be cancelled. The caller keeps the listeners, so that their ports
/// are free as soon as the link is closed.
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

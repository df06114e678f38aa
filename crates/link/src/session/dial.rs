//! Node A's side: connects on the first path that works, runs the session, connects again.

use std::sync::Arc;
use std::time::Duration;

use dyad_types::Session;
use rustls::ClientConfig;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::config::PeerLinkConfig;
use super::event::{DownReason, Event, Path};
use super::hello::{GreetedConnection, HandshakeError, greet_as_dialer};
use super::transfer;
use crate::net::set_dead_path_timeout;
use crate::tls::{Protocol, TlsError, Trust, client_config, connect};

pub(super) struct Dialer {
    config: PeerLinkConfig,
    tls: Arc<ClientConfig>,
    events: mpsc::Sender<Event>,
    /// Number of the last greeting that was begun.
    attempt: u64,
    /// Number of the last session.
    session: Session,
    /// Path and reason of the last reported failure: a failure that is repeated four times a second is reported once.
    last_failure: Option<(String, String)>,
}

impl Dialer {
    pub(super) fn new(config: PeerLinkConfig, events: mpsc::Sender<Event>) -> Result<Self, TlsError> {
        let tls = client_config(&config.identity, Trust::Pinned(config.peer), Protocol::Peer)?;
        Ok(Self { config, tls, events, attempt: 0, session: Session::default(), last_failure: None })
    }

    pub(super) async fn run(mut self, mut paths: watch::Receiver<Vec<Path>>) {
        let mut failed_last = None;
        loop {
            let mut round = paths.borrow_and_update().clone();
            // A path on which a session broke may still accept connections, so the other paths are tried first.
            if let Some(at) = round.iter().position(|path| Some(&path.name) == failed_last.as_ref()) {
                round.rotate_left(at + 1);
            }
            if let Some((path, greeted)) = self.establish(round).await {
                failed_last = Some(path.name.clone());
                self.last_failure = None;
                let soonest = Instant::now() + self.config.timing.retry_delay;
                self.run_session(path, greeted, &mut paths).await;
                // Limits the rate of sessions with a peer that greets and closes at once.
                tokio::time::sleep_until(soonest).await;
                continue;
            }
            tokio::select! {
                changed = paths.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(self.config.timing.retry_delay) => {}
            }
        }
    }

    /// Runs the session until it ends; ends it when its path is removed or changed.
    async fn run_session(&mut self, path: Path, greeted: GreetedConnection, paths: &mut watch::Receiver<Vec<Path>>) {
        let (stop, stopped) = oneshot::channel();
        let session =
            transfer::run(greeted, self.session.advance(), path.name.clone(), &self.config, &self.events, stopped);
        let removed = async {
            // An error means that the `PeerLink`, and with it this task, is being dropped.
            let _ = paths.wait_for(|paths| !paths.contains(&path)).await;
            let _ = stop.send(DownReason::PathRemoved);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = session => {}
            () = removed => {}
        }
    }

    /// Connects on all `paths`, each [`PeerLinkTiming::path_stagger_delay`](super::PeerLinkTiming::path_stagger_delay)
    /// later than the one before, and greets on the first that connects. The other connections are kept until a
    /// greeting succeeds. `None`: no path works.
    async fn establish(&mut self, paths: Vec<Path>) -> Option<(Path, GreetedConnection)> {
        let timing = self.config.timing;
        let mut dials = JoinSet::new();
        let mut start = Duration::ZERO;
        for path in paths {
            dials.spawn(async move {
                tokio::time::sleep(start).await;
                let stream = tokio::time::timeout(timing.connect_timeout, dial(&path)).await;
                (path, stream)
            });
            start += timing.path_stagger_delay;
        }
        while let Some(dialled) = dials.join_next().await {
            let Ok((path, Ok(Ok(stream)))) = dialled else { continue };
            self.attempt += 1;
            let handshake = self.greet(stream);
            let refused = match tokio::time::timeout(timing.handshake_timeout, handshake).await {
                Ok(Ok(greeted)) => return Some((path, greeted)),
                Ok(Err(refused)) => refused,
                Err(_) => HandshakeError::Timeout,
            };
            self.report(path.name, refused).await;
        }
        None
    }

    async fn greet(&self, stream: TcpStream) -> Result<GreetedConnection, HandshakeError> {
        let timing = &self.config.timing;
        set_dead_path_timeout(&stream, timing.silence_timeout * 10)
            .map_err(|error| HandshakeError::Tls(TlsError::Io(error)))?;
        let channel =
            connect(stream, Arc::clone(&self.tls), timing.handshake_timeout).await.map_err(HandshakeError::Tls)?;
        greet_as_dialer(channel, &self.config, self.attempt).await
    }

    async fn report(&mut self, path: String, reason: HandshakeError) {
        let failure = (path.clone(), reason.to_string());
        if self.last_failure.as_ref() != Some(&failure) {
            self.last_failure = Some(failure);
            tracing::warn!(path, %reason, "no session on this path");
            let _ = self.events.send(Event::HandshakeFailed { path, reason }).await;
        }
    }
}

async fn dial(path: &Path) -> std::io::Result<TcpStream> {
    let socket = if path.peer.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if let Some(local) = path.local {
        socket.bind(local)?;
    }
    socket.connect(path.peer).await
}

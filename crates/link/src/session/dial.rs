//! Node A's side: connects on the first path that works, runs the session, connects again.

use std::sync::Arc;
use std::time::Duration;

use dyad_types::Session;
use rustls::ClientConfig;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::config::Config;
use super::event::{Down, Event, Path};
use super::hello::{Greeted, Refused, greet};
use super::pump;
use crate::net::bound_silence;
use crate::tls::{Protocol, TlsError, Trust, client_config, connect};

pub(super) struct Dialer {
    config: Config,
    tls: Arc<ClientConfig>,
    events: mpsc::Sender<Event>,
    attempt: u64,
    session: Session,
    /// The last reported refusal, so that a refusal that is repeated four times a second is one event.
    last_refusal: Option<(String, String)>,
}

impl Dialer {
    pub(super) fn new(config: Config, events: mpsc::Sender<Event>) -> Result<Self, TlsError> {
        let tls = client_config(&config.identity, Trust::Pinned(config.peer), Protocol::Peer)?;
        Ok(Self { config, tls, events, attempt: 0, session: Session::default(), last_refusal: None })
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
                self.last_refusal = None;
                let soonest = Instant::now() + self.config.timing.retry;
                self.run_session(path, greeted, &mut paths).await;
                // Limits the rate of connections to a peer that greets and closes at once.
                tokio::time::sleep_until(soonest).await;
                continue;
            }
            tokio::select! {
                changed = paths.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(self.config.timing.retry) => {}
            }
        }
    }

    /// Runs the session; ends it when its path is removed.
    async fn run_session(&mut self, path: Path, greeted: Greeted, paths: &mut watch::Receiver<Vec<Path>>) {
        let (stop, stopped) = oneshot::channel();
        let session =
            pump::run(greeted, self.session.advance(), path.name.clone(), &self.config, &self.events, stopped);
        let removed = async {
            // An error means that the link and this task are being dropped.
            let _ = paths.wait_for(|paths| !paths.contains(&path)).await;
            let _ = stop.send(Down::PathRemoved);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = session => {}
            () = removed => {}
        }
    }

    /// Connects on all `paths`, each [`Timing::stagger`](super::Timing::stagger) later than the one before, and greets
    /// on the first that connects. The others are kept until a greeting succeeds.
    async fn establish(&mut self, paths: Vec<Path>) -> Option<(Path, Greeted)> {
        let timing = self.config.timing;
        let mut dials = JoinSet::new();
        let mut start = Duration::ZERO;
        for path in paths {
            dials.spawn(async move {
                tokio::time::sleep(start).await;
                let stream = tokio::time::timeout(timing.connect, dial(&path)).await;
                (path, stream)
            });
            start += timing.stagger;
        }
        while let Some(dialled) = dials.join_next().await {
            let Ok((path, Ok(Ok(stream)))) = dialled else { continue };
            self.attempt += 1;
            let handshake = self.greet(stream);
            let refused = match tokio::time::timeout(timing.handshake, handshake).await {
                Ok(Ok(greeted)) => return Some((path, greeted)),
                Ok(Err(refused)) => refused,
                Err(_) => Refused::Timeout,
            };
            self.report(path.name, refused).await;
        }
        None
    }

    async fn greet(&self, stream: TcpStream) -> Result<Greeted, Refused> {
        let timing = &self.config.timing;
        bound_silence(&stream, timing.silence * 10).map_err(|error| Refused::Tls(TlsError::Io(error)))?;
        let channel = connect(stream, Arc::clone(&self.tls), timing.handshake).await.map_err(Refused::Tls)?;
        greet(channel, &self.config, self.attempt).await
    }

    async fn report(&mut self, path: String, reason: Refused) {
        let refusal = (path.clone(), reason.to_string());
        if self.last_refusal.as_ref() != Some(&refusal) {
            self.last_refusal = Some(refusal);
            tracing::warn!(path, %reason, "no session on this path");
            let _ = self.events.send(Event::Refused { path, reason }).await;
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

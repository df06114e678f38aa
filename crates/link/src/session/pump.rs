//! A running session: receives and sends frames and keepalive messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dyad_types::Session;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::config::{Config, Timing};
use super::event::{Down, Event};
use super::hello::{ALIVE, DATA, Greeted};
use super::outbox::{Outbox, QueueLimits, Queued};
use crate::frame::{FrameError, FrameReader, FrameWriter};

/// Maximum number of queued bytes in one write.
const BATCH: usize = 256 << 10;

/// A keepalive message, which also measures the round trip. Times in nanoseconds of the sender's session clock.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Alive {
    /// The time at which this was sent.
    sent: u64,
    /// `sent` of the last keepalive that was received; 0 if there is none.
    echo: u64,
    /// The time since that keepalive was received.
    held: u64,
}

/// The keepalive state that both directions share.
struct Keepalive {
    start: Instant,
    heard: AtomicU64,
    heard_at: AtomicU64,
    round_trip: Arc<AtomicU64>,
}

impl Keepalive {
    fn now(&self) -> u64 {
        // Never 0, which means that no keepalive was received.
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn send(&self) -> Alive {
        let sent = self.now();
        let echo = self.heard.load(Ordering::Relaxed);
        Alive { sent, echo, held: sent.saturating_sub(self.heard_at.load(Ordering::Relaxed)) }
    }

    fn on_keepalive(&self, alive: Alive) {
        let now = self.now();
        self.heard.store(alive.sent, Ordering::Relaxed);
        self.heard_at.store(now, Ordering::Relaxed);
        if alive.echo != 0 {
            let trip = now.saturating_sub(alive.echo).saturating_sub(alive.held).max(1);
            self.round_trip.store(trip, Ordering::Relaxed);
        }
    }
}

/// Ends a running session, also when it is dropped.
pub(super) type Stop = oneshot::Sender<Down>;

/// Runs a greeted connection as session number `session` and sends its events: `Up`, messages, `Down`.
pub(super) async fn run(
    greeted: Greeted,
    session: Session,
    path: String,
    config: &Config,
    events: &mpsc::Sender<Event>,
    stop: oneshot::Receiver<Down>,
) {
    let round_trip = Arc::new(AtomicU64::new(0));
    let limits = QueueLimits { messages: config.queue_messages, bytes: config.queue_bytes };
    let (outbox, queue) = Outbox::new(limits, Arc::clone(&round_trip));
    let keepalive = Arc::new(Keepalive {
        start: Instant::now(),
        heard: AtomicU64::new(0),
        heard_at: AtomicU64::new(0),
        round_trip,
    });
    tracing::info!(%session, path, version = greeted.hello.version, "the peer link is up");
    if events.send(Event::Up { session, hello: greeted.hello, path, outbox }).await.is_err() {
        return;
    }
    // Two tasks instead of two branches of one: a flood from the peer would use up the budget of a single task and
    // delay the messages of this side, including keepalives.
    let mut halves = JoinSet::new();
    halves.spawn(receive(greeted.channel.reader, session, config.timing, Arc::clone(&keepalive), events.clone()));
    halves.spawn(transmit(greeted.channel.writer, queue, config.timing.alive, keepalive));
    let reason = tokio::select! {
        biased;
        reason = stop => reason.unwrap_or(Down::Dropped),
        Some(reason) = halves.join_next() => reason.unwrap_or(Down::Dropped),
    };
    // No message of this session may come after its `Down`.
    halves.shutdown().await;
    tracing::info!(%session, %reason, "the peer link is down");
    // Fails only if the link was dropped.
    let _ = events.send(Event::Down { session, reason }).await;
}

async fn receive(
    mut reader: FrameReader<impl AsyncRead + Unpin>,
    session: Session,
    timing: Timing,
    keepalive: Arc<Keepalive>,
    events: mpsc::Sender<Event>,
) -> Down {
    loop {
        let before = reader.received();
        let frame = match tokio::time::timeout(timing.silence, reader.next()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return Down::Closed,
            Ok(Err(error)) => return Down::Broken(error),
            Err(_) if reader.received() == before => return Down::Silent(timing.silence),
            Err(_) => continue,
        };
        match frame.kind {
            DATA => {
                // While the caller is busy, the peer is not read and its silence is not counted.
                if events.send(Event::Message { session, payload: frame.payload }).await.is_err() {
                    return Down::Dropped;
                }
            }
            ALIVE => match frame.message() {
                Ok(alive) => keepalive.on_keepalive(alive),
                Err(error) => return Down::Broken(error),
            },
            kind => return Down::Broken(FrameError::Unexpected { kind }),
        }
    }
}

async fn transmit(
    mut writer: FrameWriter<impl AsyncWrite + Unpin>,
    mut queue: mpsc::Receiver<Queued>,
    alive: Duration,
    keepalive: Arc<Keepalive>,
) -> Down {
    let mut beat = tokio::time::interval(alive);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            biased;
            _ = beat.tick() => writer.send(ALIVE, &keepalive.send()).await,
            message = queue.recv() => match message {
                Some(message) => send_batch(&mut writer, &mut queue, message).await,
                None => {
                    // The session ends in either case; a clean close lets the peer know at once.
                    let _ = writer.close().await;
                    return Down::Dropped;
                }
            },
        };
        if let Err(error) = sent {
            return Down::Broken(error);
        }
    }
}

async fn send_batch(
    writer: &mut FrameWriter<impl AsyncWrite + Unpin>,
    queue: &mut mpsc::Receiver<Queued>,
    first: Queued,
) -> Result<(), FrameError> {
    let mut bytes = first.payload.len();
    writer.feed(DATA, &first.payload).await?;
    drop(first);
    while bytes < BATCH {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.payload.len();
        writer.feed(DATA, &next.payload).await?;
    }
    writer.flush().await
}

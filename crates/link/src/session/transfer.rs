//! A session after its greeting: receives and sends messages and keepalives until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dyad_types::Session;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::config::{PeerLinkConfig, PeerLinkTiming};
use super::event::{DownReason, Event};
use super::hello::{ALIVE, DATA, GreetedConnection};
use super::outbox::{Outbox, QueueLimits, Queued};
use crate::frame::{FrameError, FrameReader, FrameWriter};

/// Messages are collected into one write until it has at least this many payload bytes.
const BATCH_BYTES: usize = 256 << 10;

/// A keepalive message, which also measures the round-trip time. Times are in nanoseconds since the session began, each
/// side by its own clock.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Alive {
    /// The time at which this message was sent.
    sent: u64,
    /// `sent` of the last keepalive of the receiver, by the receiver's clock; 0 if none has arrived.
    echo: u64,
    /// The time between the arrival of that keepalive and the sending of this one.
    held: u64,
}

/// The keepalive state that the receiving and the sending task share.
struct Keepalive {
    start: Instant,
    /// [`Alive::sent`] of the last received keepalive; 0 if none has arrived.
    peer_sent: AtomicU64,
    /// Time of its reception.
    received_at: AtomicU64,
    /// Last measured round-trip time, in nanoseconds.
    round_trip: Arc<AtomicU64>,
}

impl Keepalive {
    fn now(&self) -> u64 {
        // Never 0: a 0 in `Alive::echo` means that no keepalive was received.
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn next_message(&self) -> Alive {
        let sent = self.now();
        let echo = self.peer_sent.load(Ordering::Relaxed);
        Alive { sent, echo, held: sent.saturating_sub(self.received_at.load(Ordering::Relaxed)) }
    }

    fn record(&self, alive: Alive) {
        let now = self.now();
        self.peer_sent.store(alive.sent, Ordering::Relaxed);
        self.received_at.store(now, Ordering::Relaxed);
        if alive.echo != 0 {
            let trip = now.saturating_sub(alive.echo).saturating_sub(alive.held).max(1);
            self.round_trip.store(trip, Ordering::Relaxed);
        }
    }
}

/// Ends a session with the reason that is sent, or, if it is dropped, with [`DownReason::Dropped`].
pub(super) type Stop = oneshot::Sender<DownReason>;

/// Runs a greeted connection as the session with this number, and sends its events: `Up`, its messages, `Down`.
pub(super) async fn run(
    greeted: GreetedConnection,
    session: Session,
    path: String,
    config: &PeerLinkConfig,
    events: &mpsc::Sender<Event>,
    stop: oneshot::Receiver<DownReason>,
) {
    let round_trip = Arc::new(AtomicU64::new(0));
    let limits = QueueLimits { messages: config.queue_messages, bytes: config.queue_bytes };
    let (outbox, queue) = Outbox::new(limits, Arc::clone(&round_trip));
    let keepalive = Arc::new(Keepalive {
        start: Instant::now(),
        peer_sent: AtomicU64::new(0),
        received_at: AtomicU64::new(0),
        round_trip,
    });
    tracing::info!(%session, path, version = greeted.hello.version, "the peer link is up");
    if events.send(Event::Up { session, hello: greeted.hello, path, outbox }).await.is_err() {
        return;
    }
    // Two tasks instead of two branches of one task: a flood from the peer would use up tokio's budget of the task and
    // delay this side's messages, including keepalives.
    let mut halves = JoinSet::new();
    halves.spawn(receive(greeted.channel.reader, session, config.timing, Arc::clone(&keepalive), events.clone()));
    halves.spawn(transmit(greeted.channel.writer, queue, config.timing.keepalive_interval, keepalive));
    let reason = tokio::select! {
        biased;
        reason = stop => reason.unwrap_or(DownReason::Dropped),
        Some(reason) = halves.join_next() => reason.unwrap_or(DownReason::Dropped),
    };
    // No message of this session may come after its `Down`.
    halves.shutdown().await;
    tracing::info!(%session, %reason, "the peer link is down");
    // Fails only if the `PeerLink` was dropped.
    let _ = events.send(Event::Down { session, reason }).await;
}

/// Receives frames until the session ends; returns the reason.
async fn receive(
    mut reader: FrameReader<impl AsyncRead + Unpin>,
    session: Session,
    timing: PeerLinkTiming,
    keepalive: Arc<Keepalive>,
    events: mpsc::Sender<Event>,
) -> DownReason {
    loop {
        let before = reader.received();
        let frame = match tokio::time::timeout(timing.silence_timeout, reader.next()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return DownReason::Closed,
            Ok(Err(error)) => return DownReason::Broken(error),
            Err(_) if reader.received() == before => return DownReason::Silent(timing.silence_timeout),
            Err(_) => continue,
        };
        match frame.kind {
            DATA => {
                // While the caller does not take events, nothing is read, and that time is not counted as silence.
                if events.send(Event::Message { session, payload: frame.payload }).await.is_err() {
                    return DownReason::Dropped;
                }
            }
            ALIVE => match frame.message() {
                Ok(alive) => keepalive.record(alive),
                Err(error) => return DownReason::Broken(error),
            },
            kind => return DownReason::Broken(FrameError::Unexpected { kind }),
        }
    }
}

/// Sends queued messages and keepalives until the session ends; returns the reason.
async fn transmit(
    mut writer: FrameWriter<impl AsyncWrite + Unpin>,
    mut queue: mpsc::Receiver<Queued>,
    alive: Duration,
    keepalive: Arc<Keepalive>,
) -> DownReason {
    let mut ticks = tokio::time::interval(alive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            biased;
            _ = ticks.tick() => writer.send(ALIVE, &keepalive.next_message()).await,
            message = queue.recv() => match message {
                Some(message) => send_batch(&mut writer, &mut queue, message).await,
                None => {
                    // The session ends whether or not this succeeds; after a TLS close the peer knows it at once.
                    let _ = writer.close().await;
                    return DownReason::Dropped;
                }
            },
        };
        if let Err(error) = sent {
            return DownReason::Broken(error);
        }
    }
}

/// Sends `first` and the messages that wait behind it, up to [`BATCH_BYTES`], in one write.
async fn send_batch(
    writer: &mut FrameWriter<impl AsyncWrite + Unpin>,
    queue: &mut mpsc::Receiver<Queued>,
    first: Queued,
) -> Result<(), FrameError> {
    let mut bytes = first.payload.len();
    writer.feed(DATA, &first.payload).await?;
    drop(first);
    while bytes < BATCH_BYTES {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.payload.len();
        writer.feed(DATA, &next.payload).await?;
    }
    writer.flush().await
}

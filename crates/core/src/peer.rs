//! The data session with the peer: the task that keeps it connected, and the handle by which `CoreState` uses it.

use crate::event::{Event, EventSender};
use crate::peer_wire::{CoreMessage, PeerEvent};
use dyad_link::session::{self, Outbox, Path, PeerLink, PeerLinkConfig};
use dyad_types::NodeId;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Most bytes of the peer's messages that wait for the core's state thread: eight messages of the greatest length.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Bytes that a shorter message counts for, because an event has its own length.
const MIN_MESSAGE_BYTES: usize = 1 << 10;

enum PeerRequest {
    Connect(Box<PeerLinkConfig>),
    Paths(Vec<Path>),
    Stop,
}

/// The handle of `CoreState`: the queue of messages to the peer, and the requests to the session's task.
pub struct PeerHandle {
    outbox: Option<Outbox>,
    requests: mpsc::UnboundedSender<PeerRequest>,
}

impl PeerHandle {
    /// Starts the task; it does nothing until [`PeerHandle::connect`].
    pub fn start(event_sender: EventSender) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(receiver, event_sender));
        Self { outbox: None, requests }
    }

    /// Has the task keep a session with the peer that `config` names, in place of an earlier peer.
    pub fn connect(&mut self, config: PeerLinkConfig) {
        self.outbox = None;
        let _ = self.requests.send(PeerRequest::Connect(Box::new(config)));
    }

    /// Ends the session; no other one is made until [`PeerHandle::connect`].
    pub fn stop(&mut self) {
        self.outbox = None;
        let _ = self.requests.send(PeerRequest::Stop);
    }

    /// Sets the addresses at which the peer is dialled, one for each path. Without effect on node B, which accepts
    /// sessions.
    pub fn set_paths(&self, paths: Vec<Path>) {
        let _ = self.requests.send(PeerRequest::Paths(paths));
    }

    /// Sends on this session from now on.
    pub fn use_session(&mut self, outbox: Outbox) {
        self.outbox = Some(outbox);
    }

    /// Ends the session; the task makes a new one.
    pub fn disconnect(&mut self) {
        // The session ends when its last outbox is dropped.
        self.outbox = None;
    }

    /// Appends a message to the queue to the peer. Without a session it is dropped, which the mirror allows. If the queue
    /// is full, the session is ended: after the handshake of the next one the mirrors make their replicas equal again.
    pub fn send(&mut self, message: CoreMessage) {
        let Some(outbox) = &self.outbox else { return };
        let bytes = postcard::to_stdvec(&message).expect("a message of plain data is always encodable");
        if let Err(e) = outbox.try_send(bytes.into()) {
            tracing::warn!(error = %e, "the session to the peer is ended");
            self.outbox = None;
        }
    }

    /// Last measured round trip in microseconds.
    pub fn round_trip_us(&self) -> Option<u64> {
        self.outbox.as_ref()?.round_trip().map(|rtt| rtt.as_micros() as u64)
    }
}

/// The messages of the peer that wait for the core's state thread, limited in bytes. The queue of events itself has no limit.
struct WaitingMessages {
    room: Arc<Semaphore>,
}

impl WaitingMessages {
    fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)) }
    }

    /// Waits until the state thread has handled enough earlier messages for this event. Only messages need room.
    async fn room_for(&self, event: Option<&session::Event>) -> OwnedSemaphorePermit {
        let bytes = match event {
            Some(session::Event::Message { payload, .. }) => payload.len().clamp(MIN_MESSAGE_BYTES, MAX_WAITING_BYTES),
            _ => 0,
        };
        self.room.clone().acquire_many_owned(bytes as u32).await.expect("the semaphore is never closed")
    }
}

async fn run(mut requests: mpsc::UnboundedReceiver<PeerRequest>, event_sender: EventSender) {
    let waiting = WaitingMessages::new();
    let mut link: Option<PeerLink> = None;
    let mut paths = Vec::new();
    let mut up_session = None;
    // The event that waits for room. Meanwhile the link is not read, which slows the peer down.
    let mut held: Option<session::Event> = None;
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                None => return,
                Some(PeerRequest::Paths(new)) => {
                    paths = new;
                    if let Some(link) = &link {
                        link.set_paths(paths.clone());
                    }
                }
                Some(request @ (PeerRequest::Stop | PeerRequest::Connect(_))) => {
                    // The old link, and with it its listening socket, must be gone before a new one listens.
                    if let Some(link) = link.take() {
                        link.close().await;
                    }
                    held = None;
                    if let Some(session) = up_session.take() {
                        let reason = "this node ended it".into();
                        event_sender.send(Event::Peer(PeerEvent::Down { session, reason, closed: false }));
                    }
                    if let PeerRequest::Connect(config) = request {
                        link = open(*config, paths.clone(), &event_sender);
                    }
                }
            },
            event = next(&mut link), if held.is_none() => match event {
                Some(event) => held = Some(event),
                None => link = None,
            },
            room = waiting.room_for(held.as_ref()), if held.is_some() => if let Some(event) = held.take() {
                let event = translate(event, room);
                match &event {
                    PeerEvent::Up { session, .. } => up_session = Some(*session),
                    PeerEvent::Down { session, .. } if up_session == Some(*session) => up_session = None,
                    _ => {}
                }
                event_sender.send(Event::Peer(event));
            },
        }
    }
}

/// The next event of the link; without a link it never returns.
async fn next(link: &mut Option<PeerLink>) -> Option<session::Event> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

fn open(config: PeerLinkConfig, paths: Vec<Path>, event_sender: &EventSender) -> Option<PeerLink> {
    let opened = match config.node {
        NodeId::A => PeerLink::dial(config, paths).map_err(|e| e.to_string()),
        NodeId::B => listeners()
            .map_err(|e| format!("the peer port cannot be opened: {e}"))
            .and_then(|listeners| PeerLink::listen(config, listeners).map_err(|e| e.to_string())),
    };
    opened.map_err(|reason| event_sender.send(Event::Peer(PeerEvent::Refused { path: "local".into(), reason }))).ok()
}

fn listeners() -> std::io::Result<Vec<tokio::net::TcpListener>> {
    let any = (std::net::Ipv6Addr::UNSPECIFIED, dyad_link::PEER_PORT);
    Ok(vec![dyad_link::net::listen(any.into())?])
}

fn translate(event: session::Event, room: OwnedSemaphorePermit) -> PeerEvent {
    match event {
        session::Event::Up { session, path, outbox, .. } => PeerEvent::Up { session, path, outbox },
        session::Event::Down { session, reason } => {
            PeerEvent::Down { session, reason: reason.to_string(), closed: reason.ended_by_peer() }
        }
        session::Event::HandshakeFailed { path, reason } => PeerEvent::Refused { path, reason: reason.to_string() },
        session::Event::Message { session, payload } => match postcard::from_bytes(&payload) {
            Ok(message) => PeerEvent::Message { session, message, room },
            Err(_) => {
                let reason = "the peer said something that is not understood".into();
                PeerEvent::Down { session, reason, closed: false }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_types::Session;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_peer_is_not_read_while_16_mib_of_its_messages_wait() {
        let waiting = WaitingMessages::new();
        let message = |bytes: usize| session::Event::Message { session: Session(1), payload: vec![0; bytes].into() };
        let longest = message(2 << 20);
        let mut rooms = Vec::new();
        for _ in 0..8 {
            rooms.push(waiting.room_for(Some(&longest)).await);
        }
        let hour = Duration::from_secs(3600);
        let short = message(1);
        assert!(tokio::time::timeout(hour, waiting.room_for(Some(&short))).await.is_err(), "also a short one waits");
        drop(waiting.room_for(None).await);
        rooms.pop();
        rooms.push(waiting.room_for(Some(&longest)).await);
        rooms.clear();
        for _ in 0..MAX_WAITING_BYTES / MIN_MESSAGE_BYTES {
            rooms.push(waiting.room_for(Some(&short)).await);
        }
        assert!(tokio::time::timeout(hour, waiting.room_for(Some(&short))).await.is_err());
    }
}

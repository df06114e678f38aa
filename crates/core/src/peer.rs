//! The data session with the peer: the task that keeps it up, and the handle that `CoreState` has of it.

use crate::event::{Event, Inbox};
use crate::peer_wire::{PeerEvent, Wire};
use dyad_link::session::{self, Config, Outbox, Path, PeerLink};
use dyad_types::NodeId;
use tokio::sync::mpsc;

enum PeerRequest {
    Connect(Box<Config>),
    Paths(Vec<Path>),
    Stop,
}

/// What `CoreState` holds of the session: the queue to the peer, and the requests to the session's task.
pub struct PeerHandle {
    outbox: Option<Outbox>,
    requests: mpsc::UnboundedSender<PeerRequest>,
}

impl PeerHandle {
    /// Starts the task; it does nothing until [`PeerHandle::connect`].
    pub fn start(inbox: Inbox) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(receiver, inbox));
        Self { outbox: None, requests }
    }

    /// The peer is known: keep a session with it. Replaces an earlier peer.
    pub fn connect(&mut self, config: Config) {
        self.outbox = None;
        let _ = self.requests.send(PeerRequest::Connect(Box::new(config)));
    }

    /// Ends the session for good: none is made any more.
    pub fn stop(&mut self) {
        self.outbox = None;
        let _ = self.requests.send(PeerRequest::Stop);
    }

    /// Where the peer can be dialled now, best path first.
    pub fn set_paths(&self, paths: Vec<Path>) {
        let _ = self.requests.send(PeerRequest::Paths(paths));
    }

    /// A session stands: send on it from now on.
    pub fn adopt(&mut self, outbox: Outbox) {
        self.outbox = Some(outbox);
    }

    /// Ends the session; a new one is made.
    pub fn disconnect(&mut self) {
        // The session ends with its last outbox.
        self.outbox = None;
    }

    /// Sends. Without a session the message is dropped, as the mirror expects. A peer so slow that the queue is full
    /// is disconnected: the handshake of the next session makes both equal again.
    pub fn send(&mut self, wire: Wire) {
        let Some(outbox) = &self.outbox else { return };
        let bytes = postcard::to_stdvec(&wire).expect("a message of plain data is always encodable");
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

async fn run(mut requests: mpsc::UnboundedReceiver<PeerRequest>, inbox: Inbox) {
    let mut link: Option<PeerLink> = None;
    let mut paths = Vec::new();
    let mut up = None;
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
                Some(PeerRequest::Stop) => {
                    if let Some(link) = link.take() {
                        link.close().await;
                    }
                    if let Some(session) = up.take() {
                        let reason = "this node ended it".into();
                        inbox.send(Event::Peer(PeerEvent::Down { session, reason, closed: false }));
                    }
                }
                Some(PeerRequest::Connect(config)) => {
                    // The old link, and with it its listening socket, must be gone before a new one listens.
                    if let Some(link) = link.take() {
                        link.close().await;
                    }
                    link = open(*config, paths.clone(), &inbox);
                }
            },
            event = next(&mut link) => match event {
                Some(event) => {
                    let event = translate(event);
                    match &event {
                        PeerEvent::Up { session, .. } => up = Some(*session),
                        PeerEvent::Down { session, .. } if up == Some(*session) => up = None,
                        _ => {}
                    }
                    inbox.send(Event::Peer(event));
                }
                None => link = None,
            },
        }
    }
}

/// The next event, or never without a link.
async fn next(link: &mut Option<PeerLink>) -> Option<session::Event> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

fn open(config: Config, paths: Vec<Path>, inbox: &Inbox) -> Option<PeerLink> {
    let opened = match config.node {
        NodeId::A => PeerLink::dial(config, paths).map_err(|e| e.to_string()),
        NodeId::B => listeners()
            .map_err(|e| format!("the peer port cannot be opened: {e}"))
            .and_then(|listeners| PeerLink::listen(config, listeners).map_err(|e| e.to_string())),
    };
    opened.map_err(|reason| inbox.send(Event::Peer(PeerEvent::Refused { path: "local".into(), reason }))).ok()
}

fn listeners() -> std::io::Result<Vec<tokio::net::TcpListener>> {
    let any = (std::net::Ipv6Addr::UNSPECIFIED, dyad_link::PEER_PORT);
    Ok(vec![dyad_link::net::listen(any.into())?])
}

fn translate(event: session::Event) -> PeerEvent {
    match event {
        session::Event::Up { session, path, outbox, .. } => PeerEvent::Up { session, path, outbox },
        session::Event::Down { session, reason } => {
            PeerEvent::Down { session, reason: reason.to_string(), closed: reason.is_from_afar() }
        }
        session::Event::Refused { path, reason } => PeerEvent::Refused { path, reason: reason.to_string() },
        session::Event::Message { session, payload } => match postcard::from_bytes(&payload) {
            Ok(wire) => PeerEvent::Wire { session, wire },
            Err(_) => {
                let reason = "the peer said something that is not understood".into();
                PeerEvent::Down { session, reason, closed: false }
            }
        },
    }
}

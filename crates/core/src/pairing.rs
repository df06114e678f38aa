//! Pairing with the second node, enrolment at a witness, and the use of the keys and addresses that both store in the
//! identity.

use crate::event::{Event, EventSender};
use crate::options::Options;
use crate::peer::PeerHandle;
use crate::witness::WitnessHandle;
use dyad_control::{DiskCandidate, Enrol, Refusal, chain};
use dyad_link::discovery::{ANNOUNCE_INTERVAL, Announcer, Endpoint, Offer};
use dyad_link::pairing::{self, CodeForm, Codes, PairingError, Purpose};
use dyad_link::{Fingerprint, PEER_PORT, PairId, net, session, tls};
use dyad_provision::admission::{Admission, Hello};
use dyad_provision::disks;
use dyad_provision::identity::{NodeIdentity, Peer, Welcome, Witness};
use dyad_types::NodeId;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A pairing code, shown on this node's screens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCode {
    /// The digits that the operator types on the second node.
    pub digits: String,
    expires_at: Instant,
}

impl OpenCode {
    /// Whether it may still be used.
    pub fn is_open(&self) -> bool {
        !self.time_left().is_zero()
    }

    /// Time until it expires; zero if it has expired.
    pub fn time_left(&self) -> Duration {
        self.expires_at.saturating_duration_since(Instant::now())
    }
}

/// Pairing with a second node and enrolment at a witness, on a member.
pub struct Pairing {
    options: Options,
    tls: tls::TlsIdentity,
    codes: Arc<Codes>,
    endpoints: Vec<Endpoint>,
    witness: WitnessHandle,
    event_sender: EventSender,
    runtime: tokio::runtime::Handle,
    /// The task that waits for the second node.
    host_task: Option<tokio::task::JoinHandle<()>>,
    /// The code that was opened last, unless it was used; it may have expired.
    newest_code: Option<OpenCode>,
}

impl Pairing {
    /// Without an open code. `tls` is this node's key; an open code is announced on `endpoints`.
    pub fn new(
        options: Options,
        tls: tls::TlsIdentity,
        endpoints: Vec<Endpoint>,
        witness: WitnessHandle,
        event_sender: EventSender,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            options,
            tls,
            codes: Arc::default(),
            endpoints,
            witness,
            event_sender,
            runtime,
            host_task: None,
            newest_code: None,
        }
    }

    /// The disks of this node that could become pool disks, for [`dyad_control::Request::Disks`].
    pub fn disks(&self) -> Vec<DiskCandidate> {
        disks::list(&self.options.disks, &self.options.run)
    }

    /// Opens a new code in place of an earlier one. A task announces this node on every link and waits for the second node
    /// until the code expires.
    pub fn open_code(&mut self, identity: &NodeIdentity) -> OpenCode {
        let _in_runtime = self.runtime.enter();
        let before = self.host_task.take();
        let open = self.codes.open(CodeForm::Node, Instant::now());
        let code = OpenCode { digits: open.code, expires_at: Instant::now() + open.left };
        let host = PairingHost {
            tls: self.tls.clone(),
            codes: self.codes.clone(),
            identity: identity.clone(),
            endpoints: self.endpoints.clone(),
            event_sender: self.event_sender.clone(),
            code_expires_at: code.expires_at,
        };
        self.host_task = Some(self.runtime.spawn(async move {
            if let Some(before) = before {
                before.abort();
                // The aborted task holds the pairing port until it has ended.
                let _ = before.await;
            }
            host.run().await;
        }));
        self.newest_code = Some(code.clone());
        code
    }

    /// The digits of the open code, if it may still be used.
    pub fn shown_code(&self) -> Option<String> {
        self.newest_code.as_ref().filter(|code| code.is_open()).map(|code| code.digits.clone())
    }

    /// Stops showing the code, after its use.
    pub fn close_code(&mut self) {
        self.newest_code = None;
    }

    /// Has the session's task keep a data session with the peer that the identity names. Without a peer it does nothing.
    pub fn connect(&self, identity: &NodeIdentity, session: &mut PeerHandle) {
        let Some(peer) = &identity.peer else { return };
        let Ok(fingerprint) = peer.fingerprint.parse::<Fingerprint>() else {
            tracing::error!("the peer's fingerprint in the identity is damaged");
            return;
        };
        let pair = PairId(identity.pair_number());
        let mut config = session::PeerLinkConfig::new(pair, identity.me, self.tls.clone(), fingerprint);
        config.boot = crate::clock::boot_id();
        session.connect(config);
    }

    /// Tells the witness's task the witness that the identity names. Without a witness it does nothing.
    pub fn use_witness(&self, identity: &NodeIdentity) {
        if let Some(witness) = &identity.witness {
            self.witness.use_witness(identity.pair_number(), self.tls.clone(), witness.clone());
        }
    }

    /// Has the witness's task send the peer's key to the witness, so that the witness answers the peer too.
    pub fn add_peer_to_witness(&self, identity: &NodeIdentity) {
        if let (Some(_), Some(peer)) = (&identity.witness, &identity.peer) {
            self.witness.add_key(identity.me.peer(), peer.fingerprint.clone());
        }
    }

    /// Makes this pair known to a witness with the one-time code that the witness has printed. The work is in the returned
    /// future, which needs no borrow of `self`.
    pub fn enrol(
        &self,
        identity: &NodeIdentity,
        request: Enrol,
    ) -> impl Future<Output = Result<Witness, Refusal>> + Send + use<> {
        dyad_provision::enrol::enrol(identity.clone(), self.tls.clone(), request)
    }
}

/// Reasons for which the second node was not admitted.
#[derive(Debug, thiserror::Error)]
enum AdmissionError {
    /// The connection failed, or the code is wrong.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// The second node has the name of the first.
    #[error("The first node is already named {node}; give the second one another name.")]
    NameTaken { node: String },
    /// The connection ended before the second node was ready.
    #[error("the second node did not finish its setup")]
    Unfinished { node: String, source: PairingError },
    /// The core could not store the identity of the second node.
    #[error("the second node could not be written down")]
    NotStored { node: String },
}

/// Waits for the second node while a code is open.
struct PairingHost {
    tls: tls::TlsIdentity,
    codes: Arc<Codes>,
    identity: NodeIdentity,
    endpoints: Vec<Endpoint>,
    event_sender: EventSender,
    code_expires_at: Instant,
}

impl PairingHost {
    async fn run(self) {
        // On node B the peer port accepts the data sessions of node A, so the system chooses another port; the offer names
        // it.
        let port = if self.identity.me == NodeId::A { PEER_PORT } else { 0 };
        let opened = net::listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let (listener, port) = match opened.and_then(|listener| Ok((listener.local_addr()?.port(), listener))) {
            Ok((port, listener)) => (listener, port),
            Err(e) => return tracing::error!(error = %e, "the pairing port cannot be opened"),
        };
        tokio::select! {
            () = self.announce(port) => {}
            () = self.accept(&listener) => {}
            () = tokio::time::sleep(self.code_expires_at.saturating_duration_since(Instant::now())) => {}
        }
    }

    /// Sends the offer on every link at [`ANNOUNCE_INTERVAL`]; never returns.
    async fn announce(&self, port: u16) {
        let announcer = Announcer::open(&self.endpoints);
        let offer = Offer {
            pair: PairId(self.identity.pair_number()),
            pair_name: self.identity.pair.clone(),
            node_name: self.identity.node.clone(),
            port,
            fingerprint: self.tls.fingerprint(),
        };
        let mut ticks = tokio::time::interval(ANNOUNCE_INTERVAL);
        loop {
            ticks.tick().await;
            announcer.announce(&offer);
        }
    }

    /// Pairs with the nodes that connect, one after the other; returns after a node was admitted.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            let Ok((stream, from)) = listener.accept().await else { continue };
            match self.pair(stream).await {
                Ok(()) => return,
                Err(e) => tracing::warn!(%from, error = chain(&e), "a node could not be paired"),
            }
        }
    }

    async fn pair(&self, stream: tokio::net::TcpStream) -> Result<(), AdmissionError> {
        let mut paired = pairing::host(stream, &self.tls, &self.codes, Purpose::Node).await?;
        let hello: Hello = paired.receive().await?;
        if hello.node == self.identity.node {
            let taken = AdmissionError::NameTaken { node: hello.node };
            paired.send(&Admission::Refused(taken.to_string())).await?;
            return Err(taken);
        }
        let welcome = Welcome {
            pair_id: self.identity.pair_id.clone(),
            pair: self.identity.pair.clone(),
            pair_key: self.identity.pair_key.clone(),
            joining_node: self.identity.me.peer(),
            peer: Peer {
                node: self.identity.node.clone(),
                fingerprint: self.tls.fingerprint().to_string(),
                incarnation: self.identity.incarnation,
            },
            witness: self.identity.witness.clone(),
        };
        paired.send(&Admission::Welcome(Box::new(welcome))).await?;
        // The second node sends `false` at intervals while it formats its disks, and `true` when it is ready.
        let unfinished = |source| AdmissionError::Unfinished { node: hello.node.clone(), source };
        while !paired.receive::<bool>().await.map_err(unfinished)? {}
        let peer =
            Peer { node: hello.node.clone(), fingerprint: paired.peer().to_string(), incarnation: hello.incarnation };
        let (done, admitted) = oneshot::channel();
        self.event_sender.send(Event::Paired { peer, admitted: done });
        let admitted = admitted.await.unwrap_or(false);
        paired.send(&admitted).await?;
        paired.close().await?;
        if admitted { Ok(()) } else { Err(AdmissionError::NotStored { node: hello.node }) }
    }
}

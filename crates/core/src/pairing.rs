//! Pairing with the second node, enrolment at a witness, and the keys and addresses that both leave behind.

use crate::event::{Event, Inbox};
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

/// A code shown on this node's screens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCode {
    /// What is typed on the second node.
    pub digits: String,
    until: Instant,
}

impl OpenCode {
    /// Whether it may still be used.
    pub fn is_open(&self) -> bool {
        !self.left().is_zero()
    }

    /// For how long it may still be used.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Pairing and enrolment on a member, and what both need.
pub struct Pairing {
    options: Options,
    tls: tls::TlsIdentity,
    codes: Arc<Codes>,
    endpoints: Vec<Endpoint>,
    witness: WitnessHandle,
    inbox: Inbox,
    runtime: tokio::runtime::Handle,
    hosting: Option<tokio::task::JoinHandle<()>>,
    /// The newest code; it may have expired.
    open: Option<OpenCode>,
}

impl Pairing {
    /// Uses this node's key and announces on these links.
    pub fn new(
        options: Options,
        tls: tls::TlsIdentity,
        endpoints: Vec<Endpoint>,
        witness: WitnessHandle,
        inbox: Inbox,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self { options, tls, codes: Arc::default(), endpoints, witness, inbox, runtime, hosting: None, open: None }
    }

    /// Disks that could become pool disks.
    pub fn disks(&self) -> Vec<DiskCandidate> {
        disks::list(&self.options.disks, &self.options.run)
    }

    /// Opens a code, announces it on every link and waits for the second node.
    pub fn open_code(&mut self, identity: &NodeIdentity) -> OpenCode {
        let _in_runtime = self.runtime.enter();
        let before = self.hosting.take();
        let open = self.codes.open(CodeForm::Node, Instant::now());
        let code = OpenCode { digits: open.code, until: Instant::now() + open.left };
        let host = Host {
            tls: self.tls.clone(),
            codes: self.codes.clone(),
            identity: identity.clone(),
            endpoints: self.endpoints.clone(),
            inbox: self.inbox.clone(),
            until: code.until,
        };
        self.hosting = Some(self.runtime.spawn(async move {
            if let Some(before) = before {
                before.abort();
                // The aborted task holds the port of the pairing until it has ended; the new host could not listen on it.
                let _ = before.await;
            }
            host.run().await;
        }));
        self.open = Some(code.clone());
        code
    }

    /// The digits of the open code, if it may still be used.
    pub fn shown_code(&self) -> Option<String> {
        self.open.as_ref().filter(|code| code.is_open()).map(|code| code.digits.clone())
    }

    /// The code was used: it is no longer shown.
    pub fn close_code(&mut self) {
        self.open = None;
    }

    /// Keeps a data session with the peer, if there is one.
    pub fn connect(&self, identity: &NodeIdentity, link: &mut PeerHandle) {
        let Some(peer) = &identity.peer else { return };
        let Ok(fingerprint) = peer.fingerprint.parse::<Fingerprint>() else {
            tracing::error!("the peer's fingerprint in the identity is damaged");
            return;
        };
        let pair = PairId(identity.pair_number());
        let mut config = session::Config::new(pair, identity.me, self.tls.clone(), fingerprint);
        config.boot = crate::clock::boot_id();
        link.connect(config);
    }

    /// Starts asking the witness, if there is one.
    pub fn use_witness(&self, identity: &NodeIdentity) {
        if let Some(witness) = &identity.witness {
            self.witness.use_witness(identity.pair_number(), self.tls.clone(), witness.clone());
        }
    }

    /// Tells the witness the key of the second node, so that it answers it too.
    pub fn add_peer_to_witness(&self, identity: &NodeIdentity) {
        if let (Some(_), Some(peer)) = (&identity.witness, &identity.peer) {
            self.witness.add_key(identity.me.peer(), peer.fingerprint.clone());
        }
    }

    /// Makes this pair known to a witness with the one-time code that the witness has shown; `answer` gets the result.
    pub fn enrol(
        &self,
        identity: &NodeIdentity,
        at: Enrol,
    ) -> impl Future<Output = Result<Witness, Refusal>> + Send + use<> {
        dyad_provision::enrol::enrol(identity.clone(), self.tls.clone(), at)
    }
}

/// Why the second node was not admitted.
#[derive(Debug, thiserror::Error)]
enum AdmissionError {
    /// The connection failed, or the code is wrong.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// Both nodes have one name.
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
struct Host {
    tls: tls::TlsIdentity,
    codes: Arc<Codes>,
    identity: NodeIdentity,
    endpoints: Vec<Endpoint>,
    inbox: Inbox,
    until: Instant,
}

impl Host {
    async fn run(self) {
        // On node B the usual port waits for the sessions of node A; the offer names the one to be used.
        let port = if self.identity.me == NodeId::A { PEER_PORT } else { 0 };
        let opened = net::listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let (listener, port) = match opened.and_then(|listener| Ok((listener.local_addr()?.port(), listener))) {
            Ok((port, listener)) => (listener, port),
            Err(e) => return tracing::error!(error = %e, "the pairing port cannot be opened"),
        };
        tokio::select! {
            () = self.announce(port) => {}
            () = self.accept(&listener) => {}
            () = tokio::time::sleep(self.until.saturating_duration_since(Instant::now())) => {}
        }
    }

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

    /// Ends after the first node that proves the code.
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
            you: self.identity.me.peer(),
            peer: Peer {
                node: self.identity.node.clone(),
                fingerprint: self.tls.fingerprint().to_string(),
                incarnation: self.identity.incarnation,
            },
            witness: self.identity.witness.clone(),
        };
        paired.send(&Admission::Welcome(Box::new(welcome))).await?;
        // The second node formats its disks and says so now and then, and when it is ready.
        let unfinished = |source| AdmissionError::Unfinished { node: hello.node.clone(), source };
        while !paired.receive::<bool>().await.map_err(unfinished)? {}
        let peer =
            Peer { node: hello.node.clone(), fingerprint: paired.peer().to_string(), incarnation: hello.incarnation };
        let (done, admitted) = oneshot::channel();
        self.inbox.send(Event::Paired { peer, admitted: done });
        let admitted = admitted.await.unwrap_or(false);
        paired.send(&admitted).await?;
        paired.close().await?;
        if admitted { Ok(()) } else { Err(AdmissionError::NotStored { node: hello.node }) }
    }
}

//! Client of the witness: the task that sends the requests of the quorum thread to it.

use crate::clock;
use crate::quorum_handle::{QuorumHandle, QuorumInput};
use crate::quorum_update::WitnessHealth;
use dyad_link::{Fingerprint, PairId, tls};
use dyad_provision::identity::Witness;
use dyad_quorum::{AcceptorReply, Event, WitnessReply, WitnessRequest, WitnessRequestId};
use dyad_types::{BootTime, NodeId};
use dyad_witness::client::{AskError, Client, Target};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

enum WitnessCommand {
    Use(u128, tls::TlsIdentity, Box<Witness>),
    AddKey(NodeId, String),
}

/// Sends requests, the witness to use and the peer's key to the task.
pub struct WitnessHandle {
    requests: UnboundedSender<(WitnessRequestId, WitnessRequest)>,
    commands: UnboundedSender<WitnessCommand>,
}

impl WitnessHandle {
    /// Starts the task. Each request is answered with `NoAnswer` until `use_witness` names a witness.
    pub fn start(quorum_thread: QuorumHandle) -> Self {
        let (requests, receiver) = unbounded_channel();
        let (commands, command_receiver) = unbounded_channel();
        tokio::spawn(run(receiver, command_receiver, quorum_thread));
        Self { requests, commands }
    }

    /// The queue for the requests of the quorum thread.
    pub fn requests(&self) -> UnboundedSender<(WitnessRequestId, WitnessRequest)> {
        self.requests.clone()
    }

    /// Sends requests to this witness from now on.
    pub fn use_witness(&self, pair: u128, tls: tls::TlsIdentity, witness: Witness) {
        let _ = self.commands.send(WitnessCommand::Use(pair, tls, Box::new(witness)));
    }

    /// Has the witness answer the node with this key too. The key is sent before the next request.
    pub fn add_key(&self, node: NodeId, fingerprint: String) {
        let _ = self.commands.send(WitnessCommand::AddKey(node, fingerprint));
    }
}

/// Reasons for which a request got no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// This node knows no witness.
    #[error("none is enrolled")]
    NotEnrolled,
    /// The witness cannot be reached, or refuses.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Time limit of one request. The quorum machine decides without an answer that takes longer, and would ignore it.
///
/// A request that first has to connect takes three round trips, which must fit for a round trip of 3 s.
const WITNESS_REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

struct Task {
    quorum_thread: QuorumHandle,
    client: Option<Client>,
    /// The peer's key, until the witness has it.
    pending_key: Option<(NodeId, Fingerprint)>,
    last_answer: Option<BootTime>,
}

async fn run(
    mut requests: UnboundedReceiver<(WitnessRequestId, WitnessRequest)>,
    mut commands: UnboundedReceiver<WitnessCommand>,
    quorum_thread: QuorumHandle,
) {
    let mut task = Task { quorum_thread, client: None, pending_key: None, last_answer: None };
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(command) => task.apply(command),
                None => return,
            },
            request = requests.recv() => match request {
                Some((id, request)) => task.handle(id, &request).await,
                None => return,
            },
        }
    }
}

impl Task {
    fn apply(&mut self, command: WitnessCommand) {
        match command {
            WitnessCommand::AddKey(node, fingerprint) => {
                self.pending_key = fingerprint.parse().ok().map(|key| (node, key))
            }
            WitnessCommand::Use(pair, identity, witness) => {
                let client = witness.fingerprint.parse().ok().and_then(|fingerprint| {
                    let address = witness.address.clone();
                    Client::new(&Target { address, pair: PairId(pair), identity, witness: fingerprint }).ok()
                });
                if client.is_none() {
                    tracing::error!("the witness in the identity is damaged: enrol it again");
                }
                self.client = client;
            }
        }
    }

    async fn handle(&mut self, id: WitnessRequestId, request: &WitnessRequest) {
        let reply = match self.request(request).await {
            Ok((reply, rtt)) => {
                self.last_answer = Some(clock::now());
                self.quorum_thread
                    .send(QuorumInput::Witness(WitnessHealth::Answers { rtt_us: rtt.as_micros() as u64 }));
                WitnessReply::Received(reply)
            }
            Err(why) => {
                tracing::warn!(%why, "the witness gave no answer");
                self.quorum_thread.send(QuorumInput::Witness(WitnessHealth::Silent { since: self.last_answer }));
                WitnessReply::NoAnswer
            }
        };
        self.quorum_thread.send(QuorumInput::Quorum(Event::Witness { id, reply }));
    }

    async fn request(&mut self, request: &WitnessRequest) -> Result<(AcceptorReply, Duration), NoAnswer> {
        let client = self.client.as_mut().ok_or(NoAnswer::NotEnrolled)?;
        // The peer's key is sent before the request, so that the witness already answers the peer when the request takes
        // effect.
        if let Some((node, key)) = self.pending_key {
            match client.add_key(node, key, WITNESS_REQUEST_TIMEOUT).await {
                Ok(()) => self.pending_key = None,
                Err(e) if e.is_unreachable() => return Err(e.into()),
                Err(e) => tracing::error!(error = %e, "the witness does not take the second node's key"),
            }
        }
        let reply = client.ask(request, WITNESS_REQUEST_TIMEOUT).await?;
        Ok((reply, client.round_trip().unwrap_or_default()))
    }
}

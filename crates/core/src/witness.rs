//! The witness as this node uses it: the task that sends the requests of the quorum thread.

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

/// Sends requests and identities to the task.
pub struct WitnessHandle {
    requests: UnboundedSender<(WitnessRequestId, WitnessRequest)>,
    commands: UnboundedSender<WitnessCommand>,
}

impl WitnessHandle {
    /// Starts the task. Each request gets `Unreachable` until `use_witness` names a witness.
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

    /// Requests go to this witness from now on.
    pub fn use_witness(&self, pair: u128, tls: tls::TlsIdentity, witness: Witness) {
        let _ = self.commands.send(WitnessCommand::Use(pair, tls, Box::new(witness)));
    }

    /// The witness shall answer the holder of this key too.
    pub fn add_key(&self, node: NodeId, fingerprint: String) {
        let _ = self.commands.send(WitnessCommand::AddKey(node, fingerprint));
    }
}

/// Why the witness gave no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// This node knows no witness.
    #[error("none is enrolled")]
    NotEnrolled,
    /// The witness cannot be reached, or refuses.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// An ask that takes longer is as good as none: the rules go on without it and a late answer is ignored.
///
/// A cold one takes three round trips, which must fit for a witness 3 s away.
const WITNESS_REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

struct Task {
    quorum_thread: QuorumHandle,
    client: Option<Client>,
    /// A key that the witness does not know yet.
    key: Option<(NodeId, Fingerprint)>,
    answered: Option<BootTime>,
}

async fn run(
    mut requests: UnboundedReceiver<(WitnessRequestId, WitnessRequest)>,
    mut commands: UnboundedReceiver<WitnessCommand>,
    quorum_thread: QuorumHandle,
) {
    let mut task = Task { quorum_thread, client: None, key: None, answered: None };
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
            WitnessCommand::AddKey(node, fingerprint) => self.key = fingerprint.parse().ok().map(|key| (node, key)),
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
                self.answered = Some(clock::now());
                self.quorum_thread
                    .send(QuorumInput::Witness(WitnessHealth::Answers { rtt_us: rtt.as_micros() as u64 }));
                WitnessReply::Received(reply)
            }
            Err(why) => {
                tracing::warn!(%why, "the witness gave no answer");
                self.quorum_thread.send(QuorumInput::Witness(WitnessHealth::Silent { since: self.answered }));
                WitnessReply::Unreachable
            }
        };
        self.quorum_thread.send(QuorumInput::Quorum(Event::Witness { id, reply }));
    }

    async fn request(&mut self, request: &WitnessRequest) -> Result<(AcceptorReply, Duration), NoAnswer> {
        let client = self.client.as_mut().ok_or(NoAnswer::NotEnrolled)?;
        // The second node's key goes first, so that the witness answers it from the moment it is asked.
        if let Some((node, key)) = self.key {
            match client.add_key(node, key, WITNESS_REQUEST_TIMEOUT).await {
                Ok(()) => self.key = None,
                Err(e) if e.is_unreachable() => return Err(e.into()),
                Err(e) => tracing::error!(error = %e, "the witness does not take the second node's key"),
            }
        }
        let reply = client.ask(request, WITNESS_REQUEST_TIMEOUT).await?;
        Ok((reply, client.round_trip().unwrap_or_default()))
    }
}

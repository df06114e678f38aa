//! Client of the witness: the task that sends the requests of the quorum thread to it.
//!
//! One request is in flight at a time, and at most one of each kind waits. A witness that swallows requests counts as away,
//! like a witness that refuses them: the first two requests in a row for a decision are given up after a silence that is
//! shorter than a lease, later ones after a longer one. A decision waits for no other request longer than that.

mod queue;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::quorum_handle::{QuorumHandle, QuorumInput};
use crate::quorum_update::WitnessHealth;
use crate::repetition::Repetition;
use dyad_link::{Fingerprint, PairId, tls};
use dyad_provision::identity::Witness;
use dyad_quorum::{AcceptorReply, Event, WitnessReply, WitnessRequest, WitnessRequestId};
use dyad_types::{BootTime, NodeId};
use dyad_witness::client::{AskError, Client, Target};
use queue::{QueuedRequest, RequestKind, WitnessQueue};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// A connection to a witness.
trait WitnessLine: Send {
    /// Sends a request and waits for its answer.
    fn ask(
        &mut self,
        request: &WitnessRequest,
        limit: Duration,
    ) -> impl Future<Output = Result<AcceptorReply, AskError>> + Send;

    /// Has the witness answer the node with this key too.
    fn add_key(
        &mut self,
        node: NodeId,
        key: Fingerprint,
        limit: Duration,
    ) -> impl Future<Output = Result<(), AskError>> + Send;

    /// Round-trip time of the last answered request.
    fn round_trip(&self) -> Option<Duration>;
}

impl WitnessLine for Client {
    async fn ask(&mut self, request: &WitnessRequest, limit: Duration) -> Result<AcceptorReply, AskError> {
        Client::ask(self, request, limit).await
    }

    async fn add_key(&mut self, node: NodeId, key: Fingerprint, limit: Duration) -> Result<(), AskError> {
        Client::add_key(self, node, key, limit).await
    }

    fn round_trip(&self) -> Option<Duration> {
        Client::round_trip(self)
    }
}

enum WitnessCommand<L> {
    /// Send requests here from now on; `None` = to no witness.
    Use(Option<Box<L>>),
    AddKey(NodeId, String),
}

/// Sends requests, the witness to use and the peer's key to the task.
pub struct WitnessHandle {
    requests: UnboundedSender<(WitnessRequestId, WitnessRequest)>,
    commands: UnboundedSender<WitnessCommand<Client>>,
}

impl WitnessHandle {
    /// Starts the task of node `me`. Each request is answered with `NoAnswer` until `use_witness` names a witness.
    pub fn start(quorum_thread: QuorumHandle, me: NodeId) -> Self {
        let (requests, receiver) = unbounded_channel();
        let (commands, command_receiver) = unbounded_channel();
        tokio::spawn(Task::new(quorum_thread, me, receiver, command_receiver).run());
        Self { requests, commands }
    }

    /// The queue for the requests of the quorum thread.
    pub fn requests(&self) -> UnboundedSender<(WitnessRequestId, WitnessRequest)> {
        self.requests.clone()
    }

    /// Sends requests to this witness from now on.
    pub fn use_witness(&self, pair: u128, tls: tls::TlsIdentity, witness: Witness) {
        let client = witness.fingerprint.parse().ok().and_then(|fingerprint| {
            let target = Target { address: witness.address, pair: PairId(pair), identity: tls, witness: fingerprint };
            Client::new(&target).ok()
        });
        if client.is_none() {
            tracing::error!("the witness in the identity is damaged: enrol it again");
        }
        let _ = self.commands.send(WitnessCommand::Use(client.map(Box::new)));
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
    /// The witness, or the network, swallowed the request.
    #[error("it did not answer within {} ms", .0.as_millis())]
    Swallowed(Duration),
    /// A request that must not wait any longer took its place.
    #[error("it did not answer while a more important request waited")]
    Displaced,
}

/// Shortest time limit of a request for a decision. Below the lease of 2 s, so that the next attempt, or the attempt through
/// the peer, begins before the lease of the survivor ends.
const WITNESS_DECISION_TIMEOUT: Duration = Duration::from_millis(1500);

/// A request for a decision may take this many round trips, if that is longer than [`WITNESS_DECISION_TIMEOUT`]: three for
/// a new connection, and one more for the sync of the witness's disk.
const DECISION_ROUND_TRIPS: u32 = 4;

/// Time limit of a read, and upper bound of that of a decision. A read that first has to connect takes three round trips,
/// which must fit for a round trip of 3 s. A waiting decision does not wait for it: see [`Task::exchange`].
const WITNESS_READ_TIMEOUT: Duration = Duration::from_secs(12);

/// The task of the client.
struct Task<L> {
    quorum_thread: QuorumHandle,
    requests: UnboundedReceiver<(WitnessRequestId, WitnessRequest)>,
    commands: UnboundedReceiver<WitnessCommand<L>>,
    queue: WitnessQueue,
    line: Option<Box<L>>,
    /// The peer's key, until the witness has it.
    pending_key: Option<(NodeId, Fingerprint)>,
    last_answer: Option<BootTime>,
    /// The last request was answered.
    answers: bool,
    /// Number of requests for a decision in a row that got no answer in time.
    late_decisions: u32,
    /// The newest reason for which there was no answer.
    failure: Repetition,
}

impl<L: WitnessLine> Task<L> {
    fn new(
        quorum_thread: QuorumHandle,
        me: NodeId,
        requests: UnboundedReceiver<(WitnessRequestId, WitnessRequest)>,
        commands: UnboundedReceiver<WitnessCommand<L>>,
    ) -> Self {
        let queue = WitnessQueue::new(me);
        Self {
            quorum_thread,
            requests,
            commands,
            queue,
            line: None,
            pending_key: None,
            last_answer: None,
            answers: false,
            late_decisions: 0,
            failure: Repetition::default(),
        }
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.apply(command),
                    None => return,
                },
                request = self.requests.recv() => match request {
                    Some((id, request)) => drop(self.queue.put(id, request)),
                    None => return,
                },
            }
            while let Some(request) = self.queue.take() {
                self.handle(request).await;
                // A new witness does not wait for requests that the old one swallows one after the other.
                while let Ok(command) = self.commands.try_recv() {
                    self.apply(command);
                }
            }
        }
    }

    fn apply(&mut self, command: WitnessCommand<L>) {
        match command {
            WitnessCommand::AddKey(node, fingerprint) => {
                self.pending_key = fingerprint.parse().ok().map(|key| (node, key))
            }
            WitnessCommand::Use(line) => self.line = line,
        }
    }

    async fn handle(&mut self, queued: QueuedRequest) {
        let reply = match self.exchange(&queued).await {
            Ok((reply, rtt)) => {
                self.answers = true;
                self.late_decisions = 0;
                self.failure.ended();
                self.last_answer = Some(clock::now());
                self.quorum_thread
                    .send(QuorumInput::Witness(WitnessHealth::Answers { rtt_us: rtt.as_micros() as u64 }));
                WitnessReply::Received(reply)
            }
            Err(why) => {
                self.answers = false;
                let late = matches!(why, NoAnswer::Swallowed(_) | NoAnswer::Ask(AskError::Timeout(_)));
                if late && queued.kind != RequestKind::Read {
                    self.late_decisions = self.late_decisions.saturating_add(1);
                }
                if self.failure.is_due(&why.to_string(), std::time::Instant::now()) {
                    tracing::warn!(%why, "the witness gave no answer");
                }
                self.quorum_thread.send(QuorumInput::Witness(WitnessHealth::Silent { since: self.last_answer }));
                WitnessReply::NoAnswer
            }
        };
        self.quorum_thread.send(QuorumInput::Quorum(Event::Witness { id: queued.id, reply }));
    }

    /// Time limit of a request for a decision. From the third one in a row on it doubles: the lease has ended by then, and a
    /// name server or the path to the witness may have become slower than any fixed limit.
    fn decision_limit(&self) -> Duration {
        let round_trip = self.line.as_ref().and_then(|line| line.round_trip()).unwrap_or_default();
        let first = (DECISION_ROUND_TRIPS * round_trip).max(WITNESS_DECISION_TIMEOUT);
        let doubled = self.late_decisions.saturating_sub(1).min(4);
        first.saturating_mul(1 << doubled).min(WITNESS_READ_TIMEOUT)
    }

    /// Sends the request and waits for its answer. Meanwhile it takes new requests into the queue. A request that outranks
    /// this one takes its place at once if the witness did not answer the last request, else when this one has got no
    /// answer for the time limit of a decision: the witness then has probably swallowed it.
    async fn exchange(&mut self, queued: &QueuedRequest) -> Result<(AcceptorReply, Duration), NoAnswer> {
        let decision_limit = self.decision_limit();
        let limit = if queued.kind == RequestKind::Read { WITNESS_READ_TIMEOUT } else { decision_limit };
        let displaceable = Instant::now() + if self.answers { decision_limit } else { Duration::ZERO };
        let Self { quorum_thread, requests, queue, line, pending_key, .. } = self;
        let line = line.as_mut().ok_or(NoAnswer::NotEnrolled)?;
        let asked = tokio::time::timeout(limit, ask(line.as_mut(), pending_key, &queued.request, limit));
        tokio::pin!(asked);
        loop {
            let outranked = queue.outranks(queued);
            tokio::select! {
                biased;
                answer = &mut asked => return answer.unwrap_or(Err(NoAnswer::Swallowed(limit))),
                // The repetition of the request in flight gets the answer to it.
                Some((id, request)) = requests.recv() => {
                    let displaced = if id == queued.id { None } else { queue.put(id, request) };
                    if let Some(id) = displaced {
                        quorum_thread.send(QuorumInput::Quorum(Event::Witness { id, reply: WitnessReply::NoAnswer }));
                    }
                }
                () = tokio::time::sleep_until(displaceable), if outranked => return Err(NoAnswer::Displaced),
            }
        }
    }
}

/// One request over the line, with the peer's key before it.
async fn ask<L: WitnessLine>(
    line: &mut L,
    pending_key: &mut Option<(NodeId, Fingerprint)>,
    request: &WitnessRequest,
    limit: Duration,
) -> Result<(AcceptorReply, Duration), NoAnswer> {
    // The peer's key is sent before the request, so that the witness already answers the peer when the request takes effect.
    if let Some((node, key)) = *pending_key {
        match line.add_key(node, key, limit).await {
            Ok(()) => *pending_key = None,
            Err(e) if e.is_unreachable() => return Err(e.into()),
            Err(e) => tracing::error!(error = %e, "the witness does not take the second node's key"),
        }
    }
    let reply = line.ask(request, limit).await?;
    Ok((reply, line.round_trip().unwrap_or_default()))
}

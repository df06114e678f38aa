//! Answers the local socket.

use super::changes::Pending;
use super::{CoreState, LeaveWaiter};
use crate::cgroup_fence::{self};
use crate::documents::DocumentRequest;
use crate::event::{Event, Ticket};
use crate::identity::{Peer, Witness};
use crate::pairing::OpenCode;
use crate::peer_wire::Wire;
use crate::quorum_handle::QuorumInput;
use crate::selftest;
use dyad_control::{Enrol, Refusal, RefusalCode, Reply, Request};
use dyad_desired::{Change, Document, NodeRecord, Vm};
use dyad_quorum as quorum;
use tokio::sync::oneshot;

/// How long a planned leave may take before it is called off.
const LEAVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

impl CoreState {
    pub(super) fn question(&mut self, request: Request, answer: oneshot::Sender<Reply>) {
        let reply = match request {
            Request::CreatePair(_) | Request::Join(_) => Reply::refused(
                RefusalCode::AlreadySetUp,
                format!(
                    "This node already belongs to the pair {}; erase it first (dyad erase).",
                    self.deps.identity.pair
                ),
            ),
            Request::Disks => Reply::Disks { disks: self.deps.pairing.disks() },
            Request::Offers => Reply::Offers { offers: Vec::new() },
            Request::OpenPairingCode => self.open_pairing_code(),
            Request::Document => match &self.document {
                Some(document) => Reply::Document { document: Box::new(document.clone()) },
                None => Reply::refused(
                    RefusalCode::NoDocument,
                    "The pair's document is not readable yet; ask again in a moment.",
                ),
            },
            Request::Change { change } => return self.change(change, Pending::ReplyTo(answer)),
            Request::Enrol(at) => return self.enrol(at, answer),
            Request::Timeline { since } => Reply::Timeline { events: self.deps.timeline.since(since) },
            Request::Running { vms } => {
                self.running_are(vms.into_iter().collect());
                Reply::Done
            }
            Request::ProveWatchdog => return self.prove_watchdog(answer),
            Request::Erase { disk, confirm } => return self.erase(disk.as_deref(), &confirm, answer),
            Request::Leave => return self.begin_leave(LeaveWaiter::ReplyTo(answer)),
            // Answered by the server itself.
            Request::Status | Request::Watch | Request::Import { .. } => {
                Reply::refused(RefusalCode::BadRequest, "This question is not for the owner.")
            }
        };
        let _ = answer.send(reply);
    }

    /// Hands over to the other node, if it can be done in time.
    pub(super) fn begin_leave(&mut self, waiter: LeaveWaiter) {
        self.leave_waiters.push(waiter);
        self.deps.quorum_thread.tell(quorum::Event::Leave);
        let inbox = self.deps.inbox.clone();
        self.deps.runtime.spawn(async move {
            tokio::time::sleep(LEAVE_TIMEOUT).await;
            inbox.send(Event::LeaveTimedOut);
        });
    }

    /// Calls off a leave that a person asked for; one that the pool's failure asks for goes on.
    pub(super) fn cancel_leave(&self) {
        if !self.pool_failed {
            self.deps.quorum_thread.tell(quorum::Event::CancelLeave);
        }
    }

    /// The supervisor tells which VMs run; the timeline shows what is new.
    fn running_are(&mut self, vms: std::collections::BTreeSet<String>) {
        for vm in vms.difference(&self.running) {
            self.deps.timeline.note("vm-running", format!("The VM {vm} runs on this node."));
        }
        for vm in self.running.difference(&vms) {
            self.deps.timeline.note("vm-ended", format!("The VM {vm} does not run on this node any more."));
        }
        self.running = vms;
    }

    /// Nobody took over in time: this node stays what it is, and whoever asked may go on.
    pub(super) fn leave_timed_out(&mut self) {
        if !self.leave_waiters.is_empty() {
            self.cancel_leave();
            let text = "Nobody takes over: the other node is away.";
            self.tell_leave_waiters(&Err(Refusal::new(RefusalCode::NoPeer, text)));
        }
    }

    /// The leave has ended.
    pub(super) fn tell_leave_waiters(&mut self, result: &Result<(), Refusal>) {
        for waiter in self.leave_waiters.drain(..) {
            let result = result.clone();
            match waiter {
                LeaveWaiter::ReplyTo(answer) => drop(answer.send(result.into())),
                // Behind what the quorum thread has said meanwhile: the erasure looks at the configuration.
                LeaveWaiter::Erase(answer) => self.deps.inbox.send(Event::LeftForErase { result, answer }),
            }
        }
    }

    /// Has a change of the document made: here if this node leads, else by the peer. Its end is [`Event::ChangeDone`].
    pub(super) fn change(&mut self, change: Change, pending: Pending) {
        let ticket = self.changes.open(pending);
        if self.pool_failed {
            let text = "The pool of this node failed: ask the other node.";
            self.refuse_change(ticket, Refusal::new(RefusalCode::PoolFailed, text));
        } else if self.leads() {
            let request = DocumentRequest::Change { change, ticket, asked: std::time::Instant::now() };
            if self.deps.documents.send(request).is_err() {
                self.refuse_change(ticket, Refusal::stopping());
            }
        } else if self.connected {
            self.changes.passed_on(ticket);
            let change = serde_json::to_string(&change).unwrap_or_default();
            self.deps.peer.send(Wire::Change { id: ticket.0, change });
        } else {
            let text = "The other node leads the pair and is not connected; ask again when it is back.";
            self.refuse_change(ticket, Refusal::new(RefusalCode::NotLead, text));
        }
    }

    /// Ends a change that nobody decides. Through the queue, as every end of a change.
    pub(super) fn refuse_change(&self, ticket: Ticket, refusal: Refusal) {
        self.deps.inbox.send(Event::ChangeDone { ticket, result: Err(refusal) });
    }

    /// A change is decided.
    pub(super) fn change_done(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        match self.changes.close(ticket) {
            Some(Pending::ReplyTo(answer)) => drop(answer.send(result.into())),
            Some(Pending::ForwardToPeer { id }) => self.answer_peer(id, result),
            Some(Pending::ImportBegun { volume, answer }) => self.import_begun(volume, result, answer),
            Some(Pending::ImportClosed { volume, answer }) => self.import_closed(&volume, result, answer),
            Some(Pending::FailOver) => self.failover_ended(),
            Some(Pending::Nothing) | None => {}
        }
    }

    /// Lets the watchdog go hungry until it resets this node, which nothing may notice.
    fn prove_watchdog(&mut self, answer: oneshot::Sender<Reply>) {
        let unproven = self.deps.watchdog.as_ref().filter(|facts| !facts.proven);
        let Some(watchdog) = unproven.map(|facts| facts.identity.clone()) else {
            let _ = answer.send(Reply::Done);
            return;
        };
        if self.proving {
            let _ = answer.send(Reply::refused(
                RefusalCode::Proving,
                "The watchdog is being proven already: this node restarts now.",
            ));
            return;
        }
        if self.runs_vms() {
            let text = "VMs run on this node: stop them before its watchdog is proven.";
            let _ = answer.send(Reply::refused(RefusalCode::VmRunning, text));
            return;
        }
        self.proving = true;
        let _ = answer.send(Reply::Done);
        self.deps.timeline.note("watchdog", "The watchdog is being proven: this node restarts now.");
        self.deps.quorum_thread.send(QuorumInput::StopFeeding(true));
        let (state, run, inbox) = (self.deps.state.clone(), self.deps.run.clone(), self.deps.inbox.clone());
        let prove = move || {
            let Err(sentence) = selftest::run(&state, &run, &watchdog, false) else { return };
            inbox.send(Event::SelfTestEnded { sentence });
        };
        std::thread::Builder::new().name("prove".into()).spawn(prove).expect("the system can start a thread");
    }

    /// The watchdog did not reset this node: it is fed again, and VMs may start.
    pub(super) fn self_test_ended(&mut self, sentence: String) {
        self.proving = false;
        self.deps.quorum_thread.send(QuorumInput::StopFeeding(false));
        self.deps.timeline.note("watchdog", sentence);
    }

    /// Whether the kernel knows of a VM here, or one is about to start.
    fn runs_vms(&self) -> bool {
        let starts =
            |document: &Document| self.permits.iter().any(|vm| document.vms.get(vm).is_some_and(Vm::shall_run));
        cgroup_fence::populated(self.deps.vms.as_deref()) || self.document.as_ref().is_some_and(starts)
    }

    fn open_pairing_code(&mut self) -> Reply {
        if !self.leads() {
            return Reply::refused(RefusalCode::NotLead, "The other node leads the pair: open the pairing code there.");
        }
        if self.config.incarnations[self.me.peer().index()] != 0 && self.config.members == quorum::Members::Both {
            return Reply::refused(RefusalCode::PairComplete, "The pair already has two nodes in sync.");
        }
        match self.deps.pairing.open_code(&self.deps.identity) {
            Ok(open) => {
                let reply = Reply::Code { code: open.digits.clone(), expires_s: open.left().as_secs() };
                self.deps.timeline.note("pairing-open", "A pairing code is open.");
                self.pairing_code = Some(open);
                reply
            }
            Err(sentence) => Reply::refused(RefusalCode::Pairing, sentence),
        }
    }

    /// The other node has proven the code and is ready: remember it, admit its store, connect. It becomes a node of the
    /// pair only when it is told the `true` that this returns; if that is lost, it is blank and another one may come.
    pub(super) fn paired(&mut self, peer: Peer) -> bool {
        self.pairing_code = None::<OpenCode>;
        let name = peer.node.clone();
        let before = self.deps.identity.peer.replace(peer);
        if let Err(e) = self.deps.identity.save(&self.deps.state) {
            self.deps.identity.peer = before;
            self.error = Some(format!("The identity of this node cannot be written: {e:#}."));
            return false;
        }
        self.deps.timeline.note("paired", format!("The node {name} has joined."));
        self.deps.pairing.connect(&self.deps.identity, &mut self.deps.peer);
        self.deps.pairing.add_peer_to_witness(&self.deps.identity);
        self.repeat_introductions();
        let record = NodeRecord { name, addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        // Refused only if the names clash, which pairing has checked; what the node reports later replaces it.
        self.change(Change::SetNode { node: self.me.peer(), record }, Pending::Nothing);
        true
    }

    fn enrol(&mut self, at: Enrol, answer: oneshot::Sender<Reply>) {
        if !self.leads() {
            let _ = answer
                .send(Reply::refused(RefusalCode::NotLead, "The other node leads the pair: enrol the witness there."));
            return;
        }
        let inbox = self.deps.inbox.clone();
        let enrolment = self.deps.pairing.enrol(&self.deps.identity, at);
        self.deps.runtime.spawn(async move {
            match enrolment.await {
                Ok(witness) => inbox.send(Event::Enrolled { witness, answer }),
                Err(refusal) => drop(answer.send(refusal.into())),
            }
        });
    }

    pub(super) fn enrolled(&mut self, witness: Witness, answer: oneshot::Sender<Reply>) {
        self.deps.timeline.note("enrolled", format!("The witness {} is enrolled.", witness.address));
        let info = witness.info();
        if let Err(sentence) = self.use_witness(witness) {
            let _ = answer.send(Reply::refused(RefusalCode::State, sentence));
            return;
        }
        self.repeat_introductions();
        self.change(Change::SetWitness { witness: Some(info) }, Pending::ReplyTo(answer));
    }

    /// Tells the quorum of a peer or witness that no configuration admits yet. It forgets them when it restarts.
    pub(super) fn repeat_introductions(&self) {
        let identity = &self.deps.identity;
        if let Some(peer) = &identity.peer
            && self.config.exists()
            && self.config.members.has(self.me)
            && self.config.incarnations[self.me.peer().index()] != peer.incarnation
        {
            self.deps.quorum_thread.tell(quorum::Event::Admit { incarnation: peer.incarnation });
        }
        if let Some(witness) = &identity.witness
            && let Ok(id) = u128::from_str_radix(&witness.id, 16)
            && witness.incarnation != 0
            && self.config.witness.0 != id
        {
            let (witness, incarnation) = (quorum::WitnessId(id), witness.incarnation);
            self.deps.quorum_thread.tell(quorum::Event::Enrol { witness, incarnation });
        }
    }

    fn use_witness(&mut self, witness: Witness) -> Result<(), String> {
        self.deps.identity.witness = Some(witness);
        self.deps.pairing.use_witness(&self.deps.identity);
        let saved = self.deps.identity.save(&self.deps.state);
        saved.map_err(|e| format!("The identity of this node cannot be written: {e:#}."))
    }

    /// The document names a witness that this node does not know yet (the other node enrolled it).
    pub(super) fn remember_witness(&mut self) {
        // What was kept from an earlier life may name an earlier witness.
        let read = self.document.as_ref().filter(|_| self.term.document_term.is_some());
        let Some(info) = read.and_then(|document| document.witness.clone()) else { return };
        if self.deps.identity.witness.as_ref().is_some_and(|known| known.id == info.id) {
            return;
        }
        let witness = Witness { address: info.address, fingerprint: info.fingerprint, id: info.id, incarnation: 0 };
        if let Err(sentence) = self.use_witness(witness) {
            tracing::error!(sentence, "the witness is forgotten at the next start");
        }
    }
}

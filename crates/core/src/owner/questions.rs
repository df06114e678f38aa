//! Answers the local socket.

use super::Owner;
use super::votes::node;
use crate::conductor::Input;
use crate::contacts::OpenCode;
use crate::documents::Order;
use crate::event::Event;
use crate::identity::{Peer, Witness};
use crate::{enforcer, selftest};
use dyad_control::{Enrol, Reply, Request};
use dyad_desired::{Change, Document, NodeRecord, Vm};
use dyad_quorum as quorum;
use tokio::sync::oneshot;

/// How long a planned leave may take before it is called off.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(10);

impl Owner {
    pub(super) fn question(&mut self, request: Request, answer: oneshot::Sender<Reply>) {
        let reply = match request {
            Request::Found(_) | Request::Join(_) => Reply::refused(
                "already-set-up",
                format!(
                    "This node already belongs to the pair {}; erase it first (dyad erase).",
                    self.parts.identity.pair
                ),
            ),
            Request::Disks => Reply::Disks { disks: self.parts.contacts.disks() },
            Request::Offers => Reply::Offers { offers: Vec::new() },
            Request::OpenPairingCode => self.open_pairing_code(),
            Request::Document => match &self.document {
                Some(document) => Reply::Document { document: Box::new(document.clone()) },
                None => {
                    Reply::refused("no-document", "The pair's document is not readable yet; ask again in a moment.")
                }
            },
            Request::Change { change } => {
                return self.change_and_then(change, |_, reply| drop(answer.send(reply)));
            }
            Request::Enrol(at) => return self.enrol(at, answer),
            Request::Timeline { since } => Reply::Timeline { events: self.parts.timeline.since(since) },
            Request::Running { vms } => {
                self.running_are(vms.into_iter().collect());
                Reply::Done
            }
            Request::ProveWatchdog => return self.prove_watchdog(answer),
            Request::Erase { disk, confirm } => return self.erase(disk.as_deref(), &confirm, answer),
            Request::Goodbye => return self.say_goodbye(answer),
            // Answered by the server itself.
            Request::Status | Request::Watch | Request::Import { .. } => {
                Reply::refused("bad-request", "This question is not for the owner.")
            }
        };
        let _ = answer.send(reply);
    }

    /// Hands over to the other node, if it can be done in time.
    pub(super) fn say_goodbye(&mut self, answer: oneshot::Sender<Reply>) {
        self.goodbye.push(answer);
        self.parts.conductor.tell(quorum::Event::Goodbye);
        let inbox = self.parts.inbox.clone();
        self.parts.runtime.spawn(async move {
            tokio::time::sleep(GOODBYE).await;
            inbox.send(Event::Call(Box::new(Owner::give_up_goodbye)));
        });
    }

    /// Calls off a leave that a person asked for; one that the pool's failure asks for goes on.
    pub(super) fn stay(&self) {
        if !self.pool_failed {
            self.parts.conductor.tell(quorum::Event::Stay);
        }
    }

    /// The supervisor tells which VMs run; the timeline shows what is new.
    fn running_are(&mut self, vms: std::collections::BTreeSet<String>) {
        for vm in vms.difference(&self.running) {
            self.parts.timeline.note("vm-running", format!("The VM {vm} runs on this node."));
        }
        for vm in self.running.difference(&vms) {
            self.parts.timeline.note("vm-ended", format!("The VM {vm} does not run on this node any more."));
        }
        self.running = vms;
    }

    /// Nobody took over in time: this node stays what it is, and whoever asked may go on.
    fn give_up_goodbye(&mut self) {
        if !self.goodbye.is_empty() {
            self.stay();
            for answer in self.goodbye.drain(..) {
                let _ = answer.send(Reply::refused("no-peer", "Nobody takes over: the other node is away."));
            }
        }
    }

    /// Makes a change here if this node leads, else through the peer.
    pub(super) fn change(&mut self, change: Change) -> oneshot::Receiver<Reply> {
        let (answer, reply) = oneshot::channel();
        if self.pool_failed {
            let text = "The pool of this node failed: ask the other node.";
            let _ = answer.send(Reply::refused("pool-failed", text));
        } else if self.leads() {
            let _ = self.parts.documents.send(Order::Change { change, answer, asked: std::time::Instant::now() });
        } else if self.connected {
            let id = self.next_request;
            self.next_request += 1;
            self.forwarded.insert(id, answer);
            let change = serde_json::to_string(&change).unwrap_or_default();
            self.parts.peer.send(crate::peer::Wire::Change { id, change });
        } else {
            let text = "The other node leads the pair and is not connected; ask again when it is back.";
            let _ = answer.send(Reply::refused("no-lead", text));
        }
        reply
    }

    /// Makes a change, and lets the owner hear the answer.
    pub(super) fn change_and_then(&mut self, change: Change, then: impl FnOnce(&mut Owner, Reply) + Send + 'static) {
        let (reply, inbox) = (self.change(change), self.parts.inbox.clone());
        self.parts.runtime.spawn(async move {
            let stopping = || Reply::refused("stopping", "The core is stopping; ask again in a moment.");
            let reply = reply.await.unwrap_or_else(|_| stopping());
            inbox.send(Event::Call(Box::new(move |owner| then(owner, reply))));
        });
    }

    /// Lets the watchdog go hungry until it resets this node, which nothing may notice.
    fn prove_watchdog(&mut self, answer: oneshot::Sender<Reply>) {
        let unproven = self.parts.watchdog.as_ref().filter(|facts| !facts.proven);
        let Some(watchdog) = unproven.map(|facts| facts.identity.clone()) else {
            let _ = answer.send(Reply::Done);
            return;
        };
        if self.proving {
            let _ =
                answer.send(Reply::refused("proving", "The watchdog is being proven already: this node restarts now."));
            return;
        }
        if self.runs_vms() {
            let text = "VMs run on this node: stop them before its watchdog is proven.";
            let _ = answer.send(Reply::refused("vm-running", text));
            return;
        }
        self.proving = true;
        let _ = answer.send(Reply::Done);
        self.parts.timeline.note("watchdog", "The watchdog is being proven: this node restarts now.");
        self.parts.conductor.send(Input::Starve(true));
        let (state, run, inbox) = (self.parts.state.clone(), self.parts.run.clone(), self.parts.inbox.clone());
        let prove = move || {
            let Err(sentence) = selftest::run(&state, &run, &watchdog, false) else { return };
            inbox.send(Event::Call(Box::new(move |owner| {
                owner.proving = false;
                owner.parts.conductor.send(Input::Starve(false));
                owner.parts.timeline.note("watchdog", sentence);
            })));
        };
        std::thread::Builder::new().name("prove".into()).spawn(prove).expect("the system can start a thread");
    }

    /// Whether the kernel knows of a VM here, or one is about to start.
    fn runs_vms(&self) -> bool {
        let starts =
            |document: &Document| self.permits.iter().any(|vm| document.vms.get(vm).is_some_and(Vm::shall_run));
        enforcer::populated(self.parts.vms.as_deref()) || self.document.as_ref().is_some_and(starts)
    }

    fn open_pairing_code(&mut self) -> Reply {
        if !self.leads() {
            return Reply::refused("not-lead", "The other node leads the pair: open the pairing code there.");
        }
        if self.config.incarnations[self.me.peer().index()] != 0 && self.config.members == quorum::Members::Both {
            return Reply::refused("pair-complete", "The pair already has two nodes in sync.");
        }
        match self.parts.contacts.open_code(&self.parts.identity) {
            Ok(open) => {
                let reply = Reply::Code { code: open.digits.clone(), expires_s: open.left().as_secs() };
                self.parts.timeline.note("pairing-open", "A pairing code is open.");
                self.pairing_code = Some(open);
                reply
            }
            Err(sentence) => Reply::refused("pairing", sentence),
        }
    }

    /// The other node has proven the code and is ready: remember it, admit its store, connect. It becomes a node of the
    /// pair only when it is told the `true` that this returns; if that is lost, it is blank and another one may come.
    pub fn paired(&mut self, peer: Peer) -> bool {
        self.pairing_code = None::<OpenCode>;
        let name = peer.node.clone();
        let before = self.parts.identity.peer.replace(peer);
        if let Err(e) = self.parts.identity.save(&self.parts.state) {
            self.parts.identity.peer = before;
            self.trouble = Some(format!("The identity of this node cannot be written: {e:#}."));
            return false;
        }
        self.parts.timeline.note("paired", format!("The node {name} has joined."));
        self.parts.contacts.connect(&self.parts.identity, &mut self.parts.peer);
        self.parts.contacts.add_peer_to_witness(&self.parts.identity);
        self.repeat_introductions();
        let record = NodeRecord { name, addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        // Refused only if the names clash, which pairing has checked; what the node reports later replaces it.
        drop(self.change(Change::SetNode { node: node(self.me.peer()), record }));
        true
    }

    fn enrol(&mut self, at: Enrol, answer: oneshot::Sender<Reply>) {
        if !self.leads() {
            let _ = answer.send(Reply::refused("not-lead", "The other node leads the pair: enrol the witness there."));
            return;
        }
        let inbox = self.parts.inbox.clone();
        let enrolment = self.parts.contacts.enrol(&self.parts.identity, at);
        self.parts.runtime.spawn(async move {
            match enrolment.await {
                Ok(enrolled) => inbox.send(Event::Call(Box::new(move |owner| owner.enrolled(enrolled, answer)))),
                Err(refusal) => drop(answer.send(refusal)),
            }
        });
    }

    fn enrolled(&mut self, witness: Witness, answer: oneshot::Sender<Reply>) {
        self.parts.timeline.note("enrolled", format!("The witness {} is enrolled.", witness.address));
        let info = witness.info();
        if let Err(sentence) = self.use_witness(witness) {
            let _ = answer.send(Reply::refused("state", sentence));
            return;
        }
        self.repeat_introductions();
        self.change_and_then(Change::SetWitness { witness: Some(info) }, |_, reply| drop(answer.send(reply)));
    }

    /// Tells the quorum of a peer or witness that no configuration admits yet. It forgets them when it restarts.
    pub(super) fn repeat_introductions(&self) {
        let identity = &self.parts.identity;
        if let Some(peer) = &identity.peer
            && self.config.exists()
            && self.config.members.has(self.me)
            && self.config.incarnations[self.me.peer().index()] != peer.incarnation
        {
            self.parts.conductor.tell(quorum::Event::Admit { incarnation: peer.incarnation });
        }
        if let Some(witness) = &identity.witness
            && let Ok(id) = u128::from_str_radix(&witness.id, 16)
            && witness.incarnation != 0
            && self.config.witness.0 != id
        {
            let (witness, incarnation) = (quorum::WitnessId(id), witness.incarnation);
            self.parts.conductor.tell(quorum::Event::Enrol { witness, incarnation });
        }
    }

    fn use_witness(&mut self, witness: Witness) -> Result<(), String> {
        self.parts.identity.witness = Some(witness);
        self.parts.contacts.use_witness(&self.parts.identity);
        let saved = self.parts.identity.save(&self.parts.state);
        saved.map_err(|e| format!("The identity of this node cannot be written: {e:#}."))
    }

    /// The document names a witness that this node does not know yet (the other node enrolled it).
    pub(super) fn remember_witness(&mut self) {
        // What was kept from an earlier life may name an earlier witness.
        let read = self.document.as_ref().filter(|_| self.tenure.read_in.is_some());
        let Some(info) = read.and_then(|document| document.witness.clone()) else { return };
        if self.parts.identity.witness.as_ref().is_some_and(|known| known.id == info.id) {
            return;
        }
        let witness = Witness { address: info.address, fingerprint: info.fingerprint, id: info.id, incarnation: 0 };
        if let Err(sentence) = self.use_witness(witness) {
            tracing::error!(sentence, "the witness is forgotten at the next start");
        }
    }
}

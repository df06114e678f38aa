//! The second node and the witness: pairing, enrolment, and telling the quorum machine of both.

use super::CoreState;
use super::parts::Pending;
use crate::event::Event;
use dyad_control::{Enrol, RefusalCode, Reply, TimelineKind, chain};
use dyad_desired::{Change, NodeRecord};
use dyad_provision::identity::{IdentityError, Peer, Witness};
use dyad_quorum as quorum;
use tokio::sync::oneshot;

impl CoreState {
    /// Opens or renews the code with which the second node joins.
    pub(super) fn open_pairing_code(&mut self) -> Reply {
        if !self.leads() {
            return Reply::refused(RefusalCode::NotLead, "The other node leads the pair: open the pairing code there.");
        }
        if self.membership.peer_incarnation() != 0 && self.membership.config.members == quorum::Members::Both {
            return Reply::refused(RefusalCode::PairComplete, "The pair already has two nodes in sync.");
        }
        let open = self.out.pairing.open_code(&self.identity);
        self.out.timeline.note(TimelineKind::PairingOpen, "A pairing code is open.");
        Reply::Code { code: open.digits.clone(), expires_s: open.left().as_secs() }
    }

    /// Admits the second node, which has proven the code and is ready: writes it down, connects, and has the quorum machine
    /// admit its store. It becomes a node of the pair when it receives the `true` that this returns; if that is lost, it is
    /// blank and pairs again.
    pub(super) fn paired(&mut self, peer: Peer) -> bool {
        self.out.pairing.close_code();
        let name = peer.node.clone();
        let before = self.identity.peer.replace(peer);
        if let Err(e) = self.identity.save(&self.out.paths.state) {
            self.identity.peer = before;
            self.report.error = Some(unwritten(&e));
            return false;
        }
        self.out.timeline.note(TimelineKind::Paired, format!("The node {name} has joined."));
        self.out.pairing.connect(&self.identity, &mut self.out.peer);
        self.out.pairing.add_peer_to_witness(&self.identity);
        self.repeat_introductions();
        let record = NodeRecord { name, addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        // Refused only if the names clash, which pairing has checked; what the node reports later replaces it.
        self.change(Change::SetNode { node: self.me.peer(), record }, Pending::Nothing);
        true
    }

    /// Enrols the pair at a witness; the end is [`Event::Enrolled`].
    pub(super) fn enrol(&mut self, at: Enrol, answer: oneshot::Sender<Reply>) {
        if !self.leads() {
            let _ = answer
                .send(Reply::refused(RefusalCode::NotLead, "The other node leads the pair: enrol the witness there."));
            return;
        }
        let inbox = self.out.inbox.clone();
        let enrolment = self.out.pairing.enrol(&self.identity, at);
        self.out.runtime.spawn(async move {
            match enrolment.await {
                Ok(witness) => inbox.send(Event::Enrolled { witness, answer }),
                Err(refusal) => drop(answer.send(refusal.into())),
            }
        });
    }

    /// The pair is enrolled: the quorum machine and the document learn of the witness.
    pub(super) fn enrolled(&mut self, witness: Witness, answer: oneshot::Sender<Reply>) {
        self.out.timeline.note(TimelineKind::Enrolled, format!("The witness {} is enrolled.", witness.address));
        let info = witness.info();
        if let Err(error) = self.use_witness(witness) {
            let _ = answer.send(Reply::refused(RefusalCode::State, unwritten(&error)));
            return;
        }
        self.repeat_introductions();
        self.change(Change::SetWitness { witness: Some(info) }, Pending::ReplyTo(answer));
    }

    /// Tells the quorum machine of a peer or witness that no configuration admits yet: it forgets them at a restart.
    pub(super) fn repeat_introductions(&self) {
        let identity = &self.identity;
        if let Some(peer) = &identity.peer
            && self.membership.config.exists()
            && self.membership.config.members.has(self.me)
            && self.membership.peer_incarnation() != peer.incarnation
        {
            self.out.quorum_thread.tell(quorum::Event::Admit { incarnation: peer.incarnation });
        }
        if let Some(witness) = &identity.witness
            && let Ok(id) = u128::from_str_radix(&witness.id, 16)
            && witness.incarnation != 0
            && self.membership.config.witness.0 != id
        {
            let (witness, incarnation) = (quorum::WitnessId(id), witness.incarnation);
            self.out.quorum_thread.tell(quorum::Event::Enrol { witness, incarnation });
        }
    }

    fn use_witness(&mut self, witness: Witness) -> Result<(), IdentityError> {
        self.identity.witness = Some(witness);
        self.out.pairing.use_witness(&self.identity);
        self.identity.save(&self.out.paths.state)
    }

    /// The document names a witness that this node does not know yet (the other node enrolled it).
    pub(super) fn remember_witness(&mut self) {
        // A document of the cache may name an earlier witness.
        let Some(info) = self.document.of_this_run().and_then(|document| document.witness.clone()) else { return };
        if self.identity.witness.as_ref().is_some_and(|known| known.id == info.id) {
            return;
        }
        let witness = Witness { address: info.address, fingerprint: info.fingerprint, id: info.id, incarnation: 0 };
        if let Err(error) = self.use_witness(witness) {
            tracing::error!(error = unwritten(&error), "the witness is forgotten at the next start");
        }
    }
}

/// The sentence for an identity that cannot be written.
fn unwritten(error: &IdentityError) -> String {
    format!("The identity of this node cannot be written: {}.", chain(error))
}

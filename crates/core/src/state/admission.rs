//! Pairing with the second node, enrolment at a witness, and the introduction of both to the quorum machine.

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
        if !self.placement.leads() {
            return Reply::refused(RefusalCode::NotLead, "The other node leads the pair: open the pairing code there.");
        }
        if self.placement.peer_incarnation() != 0 && self.placement.config().members == quorum::Members::Both {
            return Reply::refused(RefusalCode::PairComplete, "The pair already has two nodes in sync.");
        }
        let open = self.handles.pairing.open_code(&self.identity);
        self.handles.timeline.note(TimelineKind::PairingOpen, "A pairing code is open.");
        Reply::Code { code: open.digits.clone(), expires_s: open.time_left().as_secs() }
    }

    /// Admits the second node, which has proven the code and is ready: stores it in the identity, connects to it, and has
    /// the quorum machine admit its store. Returns whether the identity was stored. The second node becomes a node of the
    /// pair when it receives `true`; if that message is lost, it is blank again and may pair again.
    pub(super) fn admit_second_node(&mut self, peer: Peer) -> bool {
        self.handles.pairing.close_code();
        let name = peer.node.clone();
        let before = self.identity.peer.replace(peer);
        if self.save_identity().is_err() {
            self.identity.peer = before;
            return false;
        }
        self.handles.timeline.note(TimelineKind::Paired, format!("The node {name} has joined."));
        self.handles.pairing.connect(&self.identity, &mut self.handles.peer);
        self.handles.pairing.add_peer_to_witness(&self.identity);
        self.repeat_introductions();
        let record = NodeRecord { name, addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        // Refused only if the names clash, which pairing has checked. The record that the node reports later replaces this
        // one.
        self.change(Change::SetNode { node: self.me.peer(), record }, Pending::Nothing);
        true
    }

    /// Enrols the pair at a witness. A success is sent as [`Event::Enrolled`]; a refusal is answered at once.
    pub(super) fn enrol(&mut self, request: Enrol, answer: oneshot::Sender<Reply>) {
        if !self.placement.leads() {
            let _ = answer
                .send(Reply::refused(RefusalCode::NotLead, "The other node leads the pair: enrol the witness there."));
            return;
        }
        let event_sender = self.handles.event_sender.clone();
        let enrolment = self.handles.pairing.enrol(&self.identity, request);
        self.handles.runtime.spawn(async move {
            match enrolment.await {
                Ok(witness) => event_sender.send(Event::Enrolled { witness, answer }),
                Err(refusal) => drop(answer.send(refusal.into())),
            }
        });
    }

    /// Stores the witness at which the pair was enrolled, and passes it to the quorum machine and to the document.
    pub(super) fn enrolled(&mut self, witness: Witness, answer: oneshot::Sender<Reply>) {
        self.handles.timeline.note(TimelineKind::Enrolled, format!("The witness {} is enrolled.", witness.address));
        let info = witness.info();
        if let Err(error) = self.use_witness(witness) {
            let _ = answer.send(Reply::refused(RefusalCode::State, not_written(&error)));
            return;
        }
        self.repeat_introductions();
        self.change(Change::SetWitness { witness: Some(info) }, Pending::ReplyTo(answer));
    }

    /// Tells the quorum machine of a peer's store or a witness that the configuration does not name yet. Repeated after
    /// each start, because the quorum machine does not store introductions.
    pub(super) fn repeat_introductions(&self) {
        let identity = &self.identity;
        if let Some(peer) = &identity.peer
            && self.placement.is_member()
            && self.placement.peer_incarnation() != peer.incarnation
        {
            self.handles.quorum_thread.tell(quorum::Event::Admit { incarnation: peer.incarnation });
        }
        if let Some(witness) = &identity.witness
            && let Ok(id) = u128::from_str_radix(&witness.id, 16)
            && witness.incarnation != 0
            && self.placement.config().witness.0 != id
        {
            let (witness, incarnation) = (quorum::WitnessId(id), witness.incarnation);
            self.handles.quorum_thread.tell(quorum::Event::Enrol { witness, incarnation });
        }
    }

    /// Sends requests to this witness from now on, and stores it in the identity.
    fn use_witness(&mut self, witness: Witness) -> Result<(), IdentityError> {
        self.identity.witness = Some(witness);
        self.handles.pairing.use_witness(&self.identity);
        self.save_identity()
    }

    /// Writes the identity, and shows in the status that it cannot be written as long as that is so.
    pub(super) fn save_identity(&mut self) -> Result<(), IdentityError> {
        let saved = self.identity.save(&self.handles.paths.state);
        self.report.identity_error = saved.as_ref().err().map(not_written);
        saved
    }

    /// Takes over the witness that the document names if this node does not use it yet: the other node enrolled it.
    pub(super) fn remember_witness(&mut self) {
        // The cached document of an earlier run may name an earlier witness.
        let Some(info) = self.placement.document().of_this_run().and_then(|document| document.witness.clone()) else {
            return;
        };
        if self.identity.witness.as_ref().is_some_and(|known| known.id == info.id) {
            return;
        }
        let witness = Witness { address: info.address, fingerprint: info.fingerprint, id: info.id, incarnation: 0 };
        if let Err(error) = self.use_witness(witness) {
            tracing::error!(error = not_written(&error), "the witness is forgotten at the next start");
        }
    }
}

/// The sentence for an identity that cannot be written.
fn not_written(error: &IdentityError) -> String {
    format!("The identity of this node cannot be written: {}.", chain(error))
}

//! The change of a volume's writer from one member to the other.
//!
//! The document names the writer of a volume, and each member reads it at another moment. If a node wrote a volume as soon as
//! it has read the new document itself, the peer could still take itself for the writer and would end the session.
//!
//! **Invariant.** While both nodes are members, a node that was not the writer of a volume becomes it only after the peer has
//! told that it knows a document at least as new, or after [`HANDOVER_TIMEOUT`]. If the peer, or the lead that has written the
//! document and not flushed it, takes longer than that, nothing is lost: the mirror of the old writer ends the session at the
//! first write, and the documents are read again when the next session begins.

use super::Placement;
use crate::event::Action;
use crate::mutants::Mutant;
use crate::parts::Awaited;
use dyad_desired::{Document, Volume};
use dyad_quorum::Members;
use dyad_types::{BootTime, VolumeId};

/// Longest wait for the peer's answer, in nanoseconds. A volume without a writer has no requests, so nothing else limits how
/// long its guest waits.
const HANDOVER_TIMEOUT: u64 = 3_000_000_000;

impl Placement {
    /// Takes the generation of the document that the peer knows. A newer one than this node's is read.
    pub(crate) fn peer_knows(&mut self, now: BootTime, generation: u64, actions: &mut Vec<Action>) {
        self.peer_knowledge.peer = self.peer_knowledge.peer.max(Some(generation));
        let newest = self.authoritative_document().map(|document| document.generation);
        if newest < Some(generation) {
            self.read_document(now, actions);
        }
    }

    /// Notes the volumes that `next`, a document of the present term, gives to this node and whose writer was or may have been
    /// the peer.
    pub(crate) fn await_handover(&mut self, now: BootTime, next: &Document) {
        let before = self.authoritative_document();
        let mine = next.volumes.values().filter(|volume| volume.primary == self.me);
        let ids = mine.flat_map(|volume| volume.ids().map(move |id| (volume, id)));
        let awaited = &self.peer_knowledge.awaited;
        let new = Awaited { generation: next.generation, since: now };
        self.peer_knowledge.awaited = ids
            .filter(|(volume, id)| awaited.contains_key(id) || !self.is_certainly_mine(before, next, volume, *id))
            .map(|(_, id)| (id, awaited.get(&id).copied().unwrap_or(new)))
            .collect();
    }

    /// Whether the peer has certainly never written the volume `id` of this record: the document before named this node as
    /// its writer, or the number is new in `next`.
    fn is_certainly_mine(&self, before: Option<&Document>, next: &Document, volume: &Volume, id: VolumeId) -> bool {
        let Some(before) = before else { return false };
        let names = |id: VolumeId| before.volumes.values().find(|volume| volume.ids().any(|of| of == id));
        match names(id) {
            Some(named) => named.primary == self.me,
            // A generation that this node has not read may have named the peer. The image of an import is sent to the node
            // that writes the volume already.
            None => {
                let import = id != volume.id && names(volume.id).is_some_and(|named| named.primary == self.me);
                import || next.generation <= before.generation + 1
            }
        }
    }

    /// Whether this node may become the writer of the volume now. From then on it is no longer waited for.
    pub(crate) fn is_handed_over(&mut self, now: BootTime, volume: VolumeId) -> bool {
        let Some(awaited) = self.peer_knowledge.awaited.get(&volume) else { return true };
        let over = self.membership.config.members != Members::Both
            || self.peer_knowledge.peer >= Some(awaited.generation)
            || now.since(awaited.since) >= HANDOVER_TIMEOUT
            || self.mutants.has(Mutant::NoHandover);
        if over {
            self.peer_knowledge.awaited.remove(&volume);
        }
        over
    }

    /// Tells the peer which document this node knows, once its writers are settled.
    pub(crate) fn tell_peer(&mut self, actions: &mut Vec<Action>) {
        let known = self.authoritative_document().map(|document| document.generation);
        let connected = self.peer_knowledge.connected;
        if let Some(generation) = known.filter(|_| connected && known != self.peer_knowledge.told) {
            self.peer_knowledge.told = known;
            actions.push(Action::TellPeer { generation });
        }
    }
}

//! Volumes of the pool that the document names no more: deleted ones, what an image replaced, what came of one that failed.
//!
//! **Invariant.** The lead deletes a volume only if its number was given and the document that rules has it no more. Numbers
//! are never given twice, so that is final: no document of this pair, older or newer, will bring it back. A number not given
//! yet may be of a volume that is just being made.

use super::Owner;
use crate::event::Event;
use crate::guests::Outcome;
use dyad_mirror::{VolumeChange, VolumeId};
use std::time::{Duration, Instant};

/// Between two looks that nothing gave a reason for. Whoever leads now may have read the document before it did.
const PACE: Duration = Duration::from_secs(1);

/// Where the deletion of what is left over stands.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// One is being deleted.
    deleting: bool,
    /// When there was last nothing to delete, or a deletion was refused.
    looked: Option<Instant>,
}

impl Leftovers {
    /// The document was read or changed.
    pub(super) fn look_now(&mut self) {
        self.looked = None;
    }
}

impl Owner {
    /// Deletes them one after the other, whoever dropped them and whenever: a node may die between the change of the
    /// document and the deletion. By now the writers of this very document are settled: no request follows a deletion into
    /// the store.
    pub(super) fn settle_leftovers(&mut self) {
        let due = !self.leftovers.deleting && self.leftovers.looked.is_none_or(|last| last.elapsed() >= PACE);
        if !due || !self.leads() {
            return;
        }
        let Some(document) = self.rules() else { return };
        let (stored, given) = (document.stored(), 1..document.next_volume);
        let volumes = self.parts.mirror.volumes();
        let left = volumes.iter().find(|volume| given.contains(&volume.id) && !stored.contains_key(&volume.id));
        let Some(id) = left.map(|volume| volume.id) else {
            self.leftovers.looked = Some(Instant::now());
            return;
        };
        self.leftovers.deleting = true;
        let inbox = self.parts.inbox.clone();
        let done = move |outcome: Outcome| {
            inbox.send(Event::Call(Box::new(move |owner| owner.leftover_deleted(id, outcome))));
        };
        self.apply(Event::VolumeTable { change: VolumeChange::Delete { id }, done: Box::new(done) });
    }

    fn leftover_deleted(&mut self, id: VolumeId, outcome: Outcome) {
        self.leftovers.deleting = false;
        if let Err(why) = outcome {
            self.leftovers.looked = Some(Instant::now());
            tracing::info!(volume = id, why, "a volume that nobody can reach any more still takes room");
        }
    }
}

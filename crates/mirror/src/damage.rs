//! Damage that the store has reported and that is not repaired yet.
//!
//! **Invariant.** A report is forgotten only when the extent can be read here again, when the peer cannot give its blocks either, after
//! [`MAX_TRIES`] repairs, or with its volume.

use crate::types::*;
use std::collections::VecDeque;

/// Limit of the extents that wait for repair. A report beyond it is dropped; on the node that writes the volume the extent is then
/// repaired when a guest reads it.
const MAX_FOUND: usize = 4096;
/// Most repairs of one extent. A repair ends without effect if the peer cannot give the extent now, or if its copy is lost with the
/// session.
const MAX_TRIES: u32 = 100;
/// Shortest time between two repairs, in nanoseconds: a disk that damages what is repaired takes part of the line to the peer
/// only.
const REPAIR_INTERVAL: u64 = 50_000_000;

/// A damaged extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub volume: VolumeId,
    pub extent: ExtentIndex,
    /// Number of repairs that were begun.
    tries: u32,
}

/// The damaged extents, in the order of their repair.
#[derive(Debug, Default)]
pub(crate) struct DamageQueue {
    queue: VecDeque<Damage>,
    /// Time before which no further repair begins.
    next_at: BootTime,
}

impl DamageQueue {
    /// Takes a report of the store.
    pub fn report(&mut self, volume: VolumeId, extent: ExtentIndex) {
        self.push(Damage { volume, extent, tries: 0 });
    }

    /// The repair has not ended, or had no effect: another one follows.
    pub fn try_again(&mut self, damage: Damage) {
        if damage.tries < MAX_TRIES {
            self.push(damage);
        }
    }

    fn push(&mut self, damage: Damage) {
        let is_same = |known: &Damage| (known.volume, known.extent) == (damage.volume, damage.extent);
        if self.queue.len() >= MAX_FOUND || self.queue.iter().any(is_same) {
            return;
        }
        // Without its document a lone node cannot take over.
        match damage.volume == VolumeId::DOCUMENT {
            true => self.queue.push_front(damage),
            false => self.queue.push_back(damage),
        }
    }

    /// Takes the first extent that is not locked, if the time has come.
    pub fn next(&mut self, now: BootTime, locked: impl Fn(VolumeId, ExtentIndex) -> bool) -> Option<Damage> {
        if now < self.next_at {
            return None;
        }
        let at = self.queue.iter().position(|damage| !locked(damage.volume, damage.extent))?;
        let mut damage = self.queue.remove(at)?;
        damage.tries += 1;
        self.next_at = now + REPAIR_INTERVAL;
        Some(damage)
    }

    /// The volume was deleted.
    pub fn forget(&mut self, volume: VolumeId) {
        self.queue.retain(|damage| damage.volume != volume);
    }
}

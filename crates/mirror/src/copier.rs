//! Copies extents to the peer, for reconciliation and for resync, with a bounded number in flight. Each extent is
//! locked from the read until its copy is sent, so that a later write is sent after the copy.

use crate::event::{Action, LostReason, StoreCommand, StoreError, StoreOutput};
use crate::machine::{Mirror, Phase};
use crate::message::Body;
use crate::peer::Ask;
use crate::store::Purpose;
use crate::types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most extents of one resync whose unreadable blocks are given up. More of them are the failure of a disk, not of blocks:
/// their blocks may come back with it, so their extents stay parked.
const MAX_LOST_EXTENTS: usize = 64;

/// Extents to copy and under way.
#[derive(Debug, Default)]
pub(crate) struct Copier {
    /// Extents not yet read.
    pub work: BTreeMap<VolumeId, ExtentSet>,
    /// Extents unreadable here or refused by the peer; repeated every [`Tuning::retry`].
    parked: BTreeMap<VolumeId, ExtentSet>,
    /// Time of the first read that found unreadable blocks, by extent.
    unreadable: BTreeMap<(VolumeId, ExtentIndex), BootTime>,
    /// Volumes that the peer has not created yet.
    pub missing: BTreeSet<VolumeId>,
    /// Extents being read, or sent and not acknowledged.
    under_way: usize,
    /// Bytes of extents that the peer has acknowledged.
    copied: u64,
    since: BootTime,
    retry_at: BootTime,
    told: BootTime,
}

impl Copier {
    pub fn new(now: BootTime, work: BTreeMap<VolumeId, ExtentSet>) -> Self {
        Self { work, since: now, retry_at: now, told: now, ..Self::default() }
    }

    /// Whether nothing is left to copy.
    pub fn is_done(&self) -> bool {
        self.under_way == 0 && self.work.is_empty() && self.parked.is_empty() && self.missing.is_empty()
    }

    /// Whether no extent of `range` was read for a copy yet.
    pub fn holds_all(&self, volume: VolumeId, range: &Range<ExtentIndex>) -> bool {
        let work = self.work.get(&volume);
        let parked = self.parked.get(&volume);
        match (work, parked) {
            (Some(work), None) => work.contains_all(range),
            (work, Some(parked)) => {
                range.clone().each().all(|e| parked.contains(e) || work.is_some_and(|work| work.contains(e)))
            }
            (None, None) => false,
        }
    }

    /// Whether an extent of `range` was not read for a copy yet.
    pub fn holds_any(&self, volume: VolumeId, range: &Range<ExtentIndex>) -> bool {
        [&self.work, &self.parked].iter().any(|sets| sets.get(&volume).is_some_and(|set| set.contains_any(range)))
    }

    /// The volume was deleted.
    pub fn forget(&mut self, volume: VolumeId) {
        self.work.remove(&volume);
        self.parked.remove(&volume);
        self.missing.remove(&volume);
    }

    fn next(&mut self) -> Option<(VolumeId, ExtentIndex)> {
        let (&volume, set) = self.work.iter_mut().find(|(volume, _)| !self.missing.contains(volume))?;
        let extent = set.pop_first()?;
        if set.is_empty() {
            self.work.remove(&volume);
        }
        Some((volume, extent))
    }

    /// Records a read at `now` of an extent that found unreadable blocks. Returns whether it is to be repeated before these
    /// blocks count as lost, which they do after `lost_after` nanoseconds. Extents above the number `most` are always read
    /// again.
    fn read_again(&mut self, at: (VolumeId, ExtentIndex), now: BootTime, lost_after: u64, most: usize) -> bool {
        if !self.unreadable.contains_key(&at) && self.unreadable.len() >= most {
            return true;
        }
        let first = *self.unreadable.entry(at).or_insert(now);
        now.since(first) < lost_after
    }

    fn park(&mut self, volume: VolumeId, extent: ExtentIndex) {
        self.parked.entry(volume).or_default().insert(extent.run(1));
    }

    pub fn progress(&self) -> crate::event::Progress {
        let left: u64 = self.work.values().chain(self.parked.values()).map(ExtentSet::len).sum();
        crate::event::Progress {
            copied: self.copied,
            left: (left + self.under_way as u64) * EXTENT_BYTES,
            since: self.since,
            unreadable: self.parked.values().map(ExtentSet::len).sum(),
        }
    }
}

impl Mirror {
    /// Progress of the resync, if one runs.
    pub fn progress(&self) -> Option<crate::event::Progress> {
        (self.phase == Phase::Source).then(|| self.copier.as_ref().map(Copier::progress))?
    }

    pub(crate) fn tick_copier(&mut self) {
        let (now, tuning) = (self.now, self.tuning);
        let resync = self.phase == Phase::Source;
        let Some(copier) = &mut self.copier else {
            return;
        };
        if now >= copier.retry_at + tuning.retry {
            copier.retry_at = now;
            for (volume, set) in std::mem::take(&mut copier.parked) {
                copier.work.entry(volume).or_default().union(&set);
            }
        }
        if resync && now >= copier.told + 1_000_000_000 && !copier.is_done() {
            copier.told = now;
            self.out.push(Action::Progress(copier.progress()));
        }
    }

    pub(crate) fn advance_copier(&mut self) {
        let busy = self.tickets.busy() && self.phase == Phase::Source;
        let window = if busy { self.tuning.window_busy } else { self.tuning.window };
        while let Some(copier) = &mut self.copier {
            if copier.under_way >= window {
                return;
            }
            let Some((volume, extent)) = copier.next() else {
                return;
            };
            if self.locks.contains(&(volume, extent)) {
                // The extent is under repair for a guest: it stays in `work`.
                copier.work.entry(volume).or_default().insert(extent.run(1));
                return;
            }
            copier.under_way += 1;
            self.read_copy(volume, extent);
        }
    }

    /// Locks an extent in order to send it.
    pub(crate) fn read_copy(&mut self, volume: VolumeId, extent: ExtentIndex) {
        self.locks.insert((volume, extent));
        self.copy_waits.insert((volume, extent));
        self.pump_copy_reads();
    }

    /// Reads locked extents whose writes in flight are all in the store. A write that waits for space would be
    /// missing from the copy and would never be sent.
    pub(crate) fn pump_copy_reads(&mut self) {
        if self.copy_waits.is_empty() {
            return;
        }
        for (volume, extent) in self.copy_waits.clone() {
            if self.all_stored(volume, &extent.run(1)) {
                self.copy_waits.remove(&(volume, extent));
                self.emit_copy_read(volume, extent);
            }
        }
    }

    fn emit_copy_read(&mut self, volume: VolumeId, extent: ExtentIndex) {
        let purpose = Purpose::CopyRead { generation: self.generation, volume, extent };
        self.command(StoreCommand::ReadExtent { volume, extent }, purpose);
    }

    pub(crate) fn on_copy_read(
        &mut self,
        volume: VolumeId,
        extent: ExtentIndex,
        result: Result<StoreOutput, StoreError>,
    ) {
        let image = match result {
            Ok(StoreOutput::Extent(image)) => {
                assert!(image.is_valid(), "the store answered with an image that does not add up");
                image
            }
            Err(StoreError::NoVolume) => return self.copy_over(volume, extent, true),
            // The store failed: whether the blocks can be read is not known. The caller was told that the node is faulty.
            _ => return self.copy_over(volume, extent, false),
        };
        if image.bad == 0 {
            return self.send_copy(volume, extent, image, 0);
        }
        match self.phase {
            // The damaged blocks are fetched from the peer; the lock stays until they are here.
            Phase::Reconcile => {
                let op = self.ask(Ask::ReconcileFetch { volume, extent, mine: image });
                self.send(Body::Fetch { op, volume, extent });
            }
            // The peer's copy may be stale, which cannot be detected, so it is not used.
            Phase::Source => {
                let lost = image.bad;
                self.send_lost(volume, extent, image, lost, LostReason::PeerOutOfDate);
            }
            // The peer asked for its own damaged blocks, which may be good here.
            _ => self.send_copy(volume, extent, image, 0),
        }
    }

    /// Sends a copy with the mask of the blocks that no replica can give, or parks the extent in order to read it again.
    fn send_lost(&mut self, volume: VolumeId, extent: ExtentIndex, image: ExtentImage, lost: u16, reason: LostReason) {
        // All guests wait for a reconciliation, and both nodes have tried to read the blocks.
        let (lost_after, most) = match self.phase {
            Phase::Reconcile => (2 * self.tuning.retry, usize::MAX),
            _ => (self.tuning.lost_after, MAX_LOST_EXTENTS),
        };
        let now = self.now;
        if self.copier.as_mut().is_some_and(|copier| copier.read_again((volume, extent), now, lost_after, most)) {
            return self.copy_over(volume, extent, false);
        }
        self.tell_lost(volume, extent, reason);
        self.send_copy(volume, extent, image, lost);
    }

    /// Sends a copy; writes to the extent may be sent after it at once. `lost` is the mask of the bad blocks that the peer
    /// marks as lost; it keeps its own copy of the other bad blocks.
    fn send_copy(&mut self, volume: VolumeId, extent: ExtentIndex, image: ExtentImage, lost: u16) {
        self.locks.remove(&(volume, extent));
        let Some(stamp) = self.copy_stamp(volume) else {
            return self.copy_over(volume, extent, true);
        };
        let op = self.ask(Ask::Copy { volume, extent });
        self.send(match lost {
            0 => Body::Extent { op, volume, stamp, extent, image },
            _ => Body::ExtentWithLost { op, volume, stamp, extent, image, lost },
        });
    }

    /// Stamp to store a copy under. During reconciliation it is the receiver's own newest stamp, so that a half-copied
    /// replica never has the newer stamp.
    fn copy_stamp(&self, volume: VolumeId) -> Option<Stamp> {
        match &self.reconcile {
            Some(reconcile) => reconcile.stamps.get(&volume).copied(),
            None => self.volumes.get(&volume).map(|state| Stamp { epoch: self.epoch(), seq: state.assigned }),
        }
    }

    pub(crate) fn on_copy_held(&mut self, volume: VolumeId, extent: ExtentIndex, ok: bool) {
        if ok && let Some(copier) = &mut self.copier {
            copier.copied += EXTENT_BYTES;
        }
        self.copy_over(volume, extent, ok);
    }

    fn copy_over(&mut self, volume: VolumeId, extent: ExtentIndex, ok: bool) {
        self.locks.remove(&(volume, extent));
        let known = self.volumes.contains_key(&volume);
        let Some(copier) = &mut self.copier else {
            return; // a single copy that the peer requested for its damaged blocks
        };
        copier.under_way -= 1;
        if !ok && known {
            copier.park(volume, extent);
        }
    }

    /// The peer's store found a damaged extent of a volume that the peer does not write.
    pub(crate) fn on_peer_want(&mut self, volume: VolumeId, extent: ExtentIndex) {
        let known = self.volumes.get(&volume).is_some_and(|state| state.extents().contains(&extent));
        if known && self.writer(volume) != Writer::Peer && !self.locks.contains(&(volume, extent)) {
            self.read_copy(volume, extent);
        }
    }

    /// Whether the peer's replica lacks writes that it had acknowledged to this node, because it has lost power. Then its version of a
    /// block may be an older one, which cannot be detected.
    fn peer_misses_acknowledged_writes(&self, volume: VolumeId) -> bool {
        let held = self.volumes.get(&volume).map_or(Seq::default(), |state| state.held);
        self.copy_stamp(volume).is_some_and(|theirs| theirs.seq < held)
    }

    pub(crate) fn on_reconcile_fetched(
        &mut self,
        volume: VolumeId,
        extent: ExtentIndex,
        mine: ExtentImage,
        theirs: Option<ExtentImage>,
    ) {
        let Some(theirs) = theirs else {
            // The peer could not look for its copy. Both nodes are members, so its quorum or this one's handles the fault.
            return self.copy_over(volume, extent, false);
        };
        if self.peer_misses_acknowledged_writes(volume) {
            let lost = mine.bad;
            return self.send_lost(volume, extent, mine, lost, LostReason::PeerOutOfDate);
        }
        let (wanted, lost) = (mine.bad & !theirs.bad, mine.bad & theirs.bad);
        if wanted != 0 {
            let stamp = self.volumes.get(&volume).map_or(Stamp::default(), |state| state.last);
            let command =
                StoreCommand::WriteExtent { volume, stamp, extent, image: theirs, wanted, lost: 0, use_reserve: true };
            self.command(command, Purpose::IgnoreResult);
            self.out.push(Action::Healed { volume, extent });
        }
        match lost {
            0 => self.send_copy(volume, extent, mine, 0),
            // Both replicas may become readable again with different versions of a write that was never acknowledged.
            _ => self.send_lost(volume, extent, mine, lost, LostReason::UnreadableOnBoth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tuning;

    /// A disk or controller that is away for seconds makes every block of a resync unreadable.
    #[test]
    fn blocks_are_given_up_only_after_a_minute_and_only_of_64_extents() {
        let mut copier = Copier::default();
        let tuning = Tuning::default();
        let mut again = |extent: u64, seconds: u64| {
            let at = (VolumeId(1), ExtentIndex(extent));
            let now = BootTime(seconds * 1_000_000_000);
            copier.read_again(at, now, tuning.lost_after, MAX_LOST_EXTENTS)
        };
        assert!((0..80).all(|extent| again(extent, 100)));
        assert!((0..80).all(|extent| again(extent, 159)));
        let given_up: Vec<u64> = (0..80).filter(|extent| !again(*extent, 160)).collect();
        assert_eq!(given_up, (0..64).collect::<Vec<_>>());
        assert!(again(64, 1_000_000));
    }
}

//! Executes the peer's requests at the local store, under the epoch and in the order of the peer.

use crate::event::*;
use crate::machine::{Mirror, Phase};
use crate::message::{Answer, Change, PeerOp, PeerOpError};
use crate::store::Purpose;
use crate::types::*;

impl Mirror {
    fn replica(&self, op: PeerOp) -> Purpose {
        Purpose::Replica { generation: self.generation, op }
    }

    pub(crate) fn on_peer_write(
        &mut self,
        op: PeerOp,
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        data: Change,
    ) {
        if self.phase == Phase::Steady && self.writer(volume) == Writer::Me {
            return self.disconnect(Reason::TwoWriters);
        }
        let Some(state) = self.volumes.get_mut(&volume) else {
            return self.answer(op, Err(PeerOpError::Unreadable));
        };
        let count = match &data {
            Change::Data(data) => (data.len() / BLOCK) as u64,
            Change::Discard(count) => *count,
        };
        let whole = !matches!(&data, Change::Data(data) if !data.len().is_multiple_of(BLOCK));
        let fits = block.0.checked_add(count).is_some_and(|end| end <= state.blocks());
        if !whole || count == 0 || !fits || stamp.seq <= state.heard {
            return self.disconnect(Reason::Protocol);
        }
        state.heard = stamp.seq;
        state.assigned = state.assigned.max(stamp.seq);
        let command = match data {
            Change::Data(data) => StoreCommand::Write { volume, stamp, block, data },
            Change::Discard(count) => StoreCommand::Discard { volume, stamp, block, count },
        };
        let purpose = self.replica(op);
        self.command(command, purpose);
    }

    pub(crate) fn on_peer_extent(
        &mut self,
        op: PeerOp,
        volume: VolumeId,
        stamp: Stamp,
        extent: ExtentIndex,
        image: ExtentImage,
        lost: u16,
    ) {
        let Some(state) = self.volumes.get(&volume) else {
            return self.answer(op, Err(PeerOpError::Unreadable));
        };
        if !image.is_valid() || lost & !image.bad != 0 || !state.extents().contains(&extent) {
            return self.disconnect(Reason::Protocol);
        }
        if self.phase == Phase::Steady && self.writer(volume) == Writer::Me {
            // This extent was requested while the peer was the writer; the writer has changed since. The next try of the
            // repair fetches it.
            return self.answer(op, Ok(Answer::Ok));
        }
        if self.phase == Phase::Reconcile && stamp > state.last {
            // With this stamp a half-copied replica would count as newer than its source.
            return self.disconnect(Reason::Protocol);
        }
        let purpose = self.replica(op);
        // Guests and deletions wait for the end of a reconciliation, so it must not wait for the space that they free.
        let use_reserve = self.phase == Phase::Reconcile;
        self.command(
            StoreCommand::WriteExtent { volume, stamp, extent, image, wanted: u16::MAX, lost, use_reserve },
            purpose,
        );
    }

    pub(crate) fn on_peer_volume(&mut self, op: PeerOp, change: VolumeChange) {
        self.apply_change(change);
        self.out.push(Action::VolumesChanged);
        let purpose = self.replica(op);
        self.command(StoreCommand::Volume(change), purpose);
    }

    pub(crate) fn on_peer_sync(&mut self, op: PeerOp) {
        let purpose = self.replica(op);
        self.command(StoreCommand::Sync, purpose);
    }

    pub(crate) fn on_peer_fetch(&mut self, op: PeerOp, volume: VolumeId, extent: ExtentIndex) {
        if self.volumes.get(&volume).is_none_or(|state| !state.extents().contains(&extent)) {
            return self.answer(op, Err(PeerOpError::Unreadable));
        }
        let purpose = Purpose::ReplicaFetch { generation: self.generation, op };
        self.command(StoreCommand::ReadExtent { volume, extent }, purpose);
    }

    pub(crate) fn on_peer_confirm(&mut self, through: Vec<(VolumeId, Seq)>) {
        for (volume, seq) in through {
            if self.volumes.contains_key(&volume) {
                self.command(StoreCommand::Confirm { volume, seq }, Purpose::IgnoreResult);
            }
        }
    }

    pub(crate) fn on_replica_stored(&mut self, generation: u64, op: PeerOp, result: Result<StoreOutput, StoreError>) {
        if generation == self.generation {
            let result = result.map(|_| Answer::Ok).map_err(|error| match error {
                StoreError::NoVolume => PeerOpError::Unreadable,
                _ => PeerOpError::Disk,
            });
            self.answer(op, result);
        }
    }

    pub(crate) fn on_fetch_stored(&mut self, generation: u64, op: PeerOp, result: Result<StoreOutput, StoreError>) {
        if generation != self.generation {
            return;
        }
        let result = match result {
            Ok(StoreOutput::Extent(image)) => Ok(Answer::Extent(image)),
            _ => Err(PeerOpError::Unreadable),
        };
        self.answer(op, result);
    }

    /// Applies a change to the volume table in memory. Idempotent.
    pub(crate) fn apply_change(&mut self, change: VolumeChange) {
        match change {
            VolumeChange::Create { id, size } | VolumeChange::Resize { id, size } => {
                if matches!(change, VolumeChange::Resize { .. }) && !self.volumes.contains_key(&id) {
                    return;
                }
                let volume = self.volumes.entry(id).or_default();
                volume.size = volume.size.max(size);
            }
            VolumeChange::Delete { id } => {
                self.close(id, GuestError::NoVolume);
                self.volumes.remove(&id);
                self.tickets.map.retain(|_, ticket| ticket.volume != id);
                self.locks.retain(|&(volume, _)| volume != id);
                self.draining.remove(&id);
                self.heals.forget(id);
                if let Some(copier) = &mut self.copier {
                    copier.forget(id);
                }
            }
        }
    }
}

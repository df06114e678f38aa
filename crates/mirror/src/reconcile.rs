//! Making two members equal again after a session or an epoch began.
//!
//! Both replicas received the same stream of writes per volume (guarantee 5), so the replica with the newer stamp
//! holds all writes that the other holds. It is the source: it sends every extent that either journal touched after
//! the last common flush. Copies are stored under the receiver's own newest stamp, so that a half-copied receiver
//! still has the older stamp and the next attempt chooses the same source.

use crate::copier::Copier;
use crate::event::{Action, StoreCommand};
use crate::machine::{Mirror, Phase};
use crate::message::Body;
use crate::store::Purpose;
use crate::types::*;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Reconcile {
    /// Volumes of which this node is the source, with the receiver's newest stamp.
    pub stamps: BTreeMap<VolumeId, Stamp>,
    copied: bool,
    peer_copied: bool,
    syncing: bool,
    synced: bool,
    peer_synced: bool,
}

impl Mirror {
    pub(crate) fn enter_reconcile(
        &mut self,
        peer: BTreeMap<VolumeId, VolumeInfo>,
        mut touched: BTreeMap<VolumeId, ExtentSet>,
        lead: bool,
    ) {
        assert!(self.store.drained(), "reconciliation starts on a store at rest");
        self.trusted = false;
        self.phase = Phase::Reconcile;
        self.link.asks.clear();
        self.match_tables(&peer);
        let mut reconcile = Reconcile::default();
        touched.retain(|id, _| {
            let (Some(mine), Some(theirs)) = (self.volumes.get(id), peer.get(id)) else {
                return false;
            };
            let is_source = mine.last > theirs.last || (mine.last == theirs.last && lead);
            if is_source {
                reconcile.stamps.insert(*id, theirs.last);
            }
            is_source
        });
        self.copier = Some(Copier::new(self.now, touched));
        self.reconcile = Some(reconcile);
    }

    /// Makes the two volume tables equal. A volume that exists on one node only belongs to a creation or deletion
    /// that was not answered, so it is deleted. Of two sizes the larger is kept.
    fn match_tables(&mut self, peer: &BTreeMap<VolumeId, VolumeInfo>) {
        let mut changes = Vec::new();
        for (&id, volume) in &self.volumes {
            match peer.get(&id) {
                None => changes.push(VolumeChange::Delete { id }),
                Some(theirs) if theirs.size > volume.size => {
                    changes.push(VolumeChange::Resize { id, size: theirs.size });
                }
                Some(_) => {}
            }
        }
        for &change in &changes {
            self.apply_change(change);
            self.command(StoreCommand::Volume(change), Purpose::IgnoreResult);
        }
        if !changes.is_empty() {
            self.out.push(Action::VolumesChanged);
        }
    }

    pub(crate) fn advance_reconcile(&mut self) {
        if self.phase != Phase::Reconcile {
            return;
        }
        let done = self.copier.as_ref().is_none_or(Copier::is_done);
        let Some(reconcile) = &mut self.reconcile else {
            return;
        };
        if done && !reconcile.copied {
            reconcile.copied = true;
            self.send(Body::Copied);
        }
        let Some(reconcile) = &mut self.reconcile else {
            return;
        };
        if reconcile.copied && reconcile.peer_copied && !reconcile.syncing && self.store.drained() {
            reconcile.syncing = true;
            let purpose = Purpose::ReconcileSync { generation: self.generation };
            self.command(StoreCommand::Sync, purpose);
        }
        if self.reconcile.as_ref().is_some_and(|r| r.synced && r.peer_synced) {
            self.enter_steady();
        }
    }

    pub(crate) fn on_copied(&mut self) {
        if let Some(reconcile) = &mut self.reconcile {
            reconcile.peer_copied = true;
        }
    }

    pub(crate) fn on_reconcile_synced(&mut self) {
        if let Some(reconcile) = &mut self.reconcile {
            reconcile.synced = true;
            self.send(Body::Synced);
        }
    }

    pub(crate) fn on_synced(&mut self) {
        if let Some(reconcile) = &mut self.reconcile {
            reconcile.peer_synced = true;
        }
        // Here and not only in `settle`: the peer's first write may be the next message, and it needs the phase
        // `Steady`.
        self.advance_reconcile();
    }

    /// Both stores are equal and durable: starts the phase `Steady`.
    fn enter_steady(&mut self) {
        self.reconcile = None;
        self.copier = None;
        self.phase = Phase::Steady;
        self.forgive_reconciliation();
        self.trusted = true;
        self.locks.clear();
        self.copy_waits.clear();
        let mut equal = Vec::new();
        for (&id, volume) in &mut self.volumes {
            // A number of its own for the reconciliation: the confirmation below then covers the copies, which have
            // old stamps.
            volume.unconfirmed = false;
            volume.held = Seq::default();
            equal.push((id, volume.assigned.advance()));
        }
        for (volume, seq) in equal {
            self.command(StoreCommand::Confirm { volume, seq }, Purpose::IgnoreResult);
        }
        self.clear_marks();
        self.requeue_all();
        self.out.push(Action::Progress(Default::default()));
    }
}

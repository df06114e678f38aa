//! Making two members equal again after a session or an epoch began.
//!
//! Both replicas received one stream of writes per volume (guarantee 5), so the one with the newer stamp holds all that the
//! other holds. It gives its content of every extent that either journal touched after the last common flush.
//! Copies are stored under the receiver's own newest stamp: half-copied, it still looks older, and the next attempt
//! chooses the same side.

use crate::copier::Copier;
use crate::event::{Action, StoreCommand};
use crate::machine::{Mirror, Phase};
use crate::message::Body;
use crate::store::Purpose;
use crate::types::*;
use std::collections::BTreeMap;

/// A reconciliation under way.
#[derive(Debug, Default)]
pub(crate) struct Reconcile {
    /// Volumes this node gives, with the receiver's newest stamp.
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
            let give = mine.last > theirs.last || (mine.last == theirs.last && lead);
            if give {
                reconcile.stamps.insert(*id, theirs.last);
            }
            give
        });
        self.copier = Some(Copier::new(self.now, touched));
        self.reconcile = Some(reconcile);
    }

    /// A volume on one side only is a creation or a deletion that nobody was told of as done: it goes. The larger of
    /// two sizes stands.
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
            self.command(StoreCommand::Volume(change), Purpose::Quiet);
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
        // At once and not in `settle`: the peer's first write may be the next message.
        self.advance_reconcile();
    }

    /// Both stores are equal and durable.
    fn enter_steady(&mut self) {
        self.reconcile = None;
        self.copier = None;
        self.phase = Phase::Steady;
        self.trusted = true;
        self.locks.clear();
        self.copy_waits.clear();
        let mut equal = Vec::new();
        for (&id, volume) in &mut self.volumes {
            // One number is spent on the comparison itself: copies bear old stamps, and the tails shall forget them too.
            volume.assigned += 1;
            volume.unconfirmed = false;
            equal.push((id, volume.assigned));
        }
        for (volume, seq) in equal {
            self.command(StoreCommand::Confirm { volume, seq }, Purpose::Quiet);
        }
        self.clear_marks();
        self.requeue_all();
        self.out.push(Action::Progress(Default::default()));
    }
}

//! Bringing a returned peer back in sync while this node is the only member.
//!
//! Copied are the extents marked dirty here and those that either journal touched after the last common flush. The
//! marks stay until both nodes are members again, so after a crash of either node the resync starts again from the
//! marks.
//!
//! ```text
//! copying ──nothing left──▶ draining ──all acknowledged──▶ syncing ──both durable──▶ clean (PeerClean)
//!    ▲                                                                                 │
//!    └────────────────── session lost (PeerDirty if it was clean) ◀────────────────────┘
//! ```

use crate::copier::Copier;
use crate::event::{Action, StoreCommand};
use crate::machine::{Mirror, Phase};
use crate::message::{Body, PeerOp};
use crate::peer::Ask;
use crate::store::Purpose;
use crate::types::*;
use std::collections::{BTreeMap, BTreeSet};

/// The last steps of a resync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Clean {
    /// Extents are left to copy, or there is no resync.
    No,
    /// Every new write waits for the peer; the requests sent before `before` are being acknowledged.
    Draining { before: PeerOp },
    /// Both stores are being synced.
    Syncing { local: bool, peer: bool, confirm: Vec<(VolumeId, Seq)> },
    /// The peer holds everything and may be made a member.
    Yes,
}

impl Mirror {
    pub(crate) fn enter_source(
        &mut self,
        peer: BTreeMap<VolumeId, VolumeInfo>,
        touched: BTreeMap<VolumeId, ExtentSet>,
    ) {
        self.phase = Phase::Source;
        let mut work = touched;
        let mut missing = BTreeSet::new();
        for (&id, volume) in &self.volumes {
            let set = work.entry(id).or_default();
            // A write in flight since before this session may have no mark yet; the copy of its extents waits for it.
            for span in volume.writing.values() {
                set.insert(extents_of(span.blocks()));
            }
            if peer.contains_key(&id) {
                set.union(&volume.dirty);
            } else {
                set.insert(volume.extents());
                missing.insert(id);
            }
        }
        work.retain(|_, set| !set.is_empty());
        let mut copier = Copier::new(self.now, work);
        copier.missing = missing;
        // The first progress report of a resync contains the total amount.
        self.out.push(Action::Progress(copier.progress()));
        self.copier = Some(copier);
        for (&id, theirs) in &peer {
            match self.volumes.get(&id).map(|volume| volume.size) {
                None => self.tell_change(VolumeChange::Delete { id }),
                Some(size) if size > theirs.size => self.tell_change(VolumeChange::Resize { id, size }),
                Some(_) => {}
            }
        }
        self.rerun_changes();
        // A proposal that adds the peer is under way: the peer must now hold the writes that were kept local.
        if self.writes_need_peer() {
            self.requeue_unsent();
        }
        self.recheck = true;
    }

    fn tell_change(&mut self, change: VolumeChange) {
        let op = self.ask(Ask::IgnoreResult);
        self.send(Body::Volume { op, change });
    }

    /// Creates missing volumes at the peer. All extents of such a volume are marked dirty first: if the session ends
    /// before the copy is complete, the marks still say that the peer's volume is incomplete.
    fn create_missing(&mut self) {
        let missing = self.copier.as_ref().map(|copier| copier.missing.clone()).unwrap_or_default();
        for id in missing {
            let Some(volume) = self.volumes.get(&id) else {
                continue;
            };
            let (size, all) = (volume.size, volume.extents());
            if self.marked(id, &all) {
                self.tell_change(VolumeChange::Create { id, size });
                if let Some(copier) = &mut self.copier {
                    copier.missing.remove(&id);
                }
            }
        }
    }

    pub(crate) fn advance_resync(&mut self) {
        if self.phase != Phase::Source {
            return;
        }
        self.create_missing();
        self.advance_copier();
        let done = self.copier.as_ref().is_some_and(Copier::is_done);
        match &self.clean {
            Clean::No if done && !self.unsent_in_flight() => {
                self.clean = Clean::Draining { before: self.link.next_ask() };
                self.advance_resync();
            }
            Clean::Draining { before } if self.link.answered_before(*before) => {
                let confirm = self.volumes.iter().map(|(&id, volume)| (id, volume.completed_through())).collect();
                self.clean = Clean::Syncing { local: false, peer: false, confirm };
                let purpose = Purpose::BarrierSync { generation: self.generation };
                self.command(StoreCommand::Sync, purpose);
                let op = self.ask(Ask::BarrierSync);
                self.send(Body::Sync { op });
            }
            _ => {}
        }
    }

    pub(crate) fn on_barrier_synced(&mut self, at_peer: bool) {
        let Clean::Syncing { local, peer, confirm } = &mut self.clean else {
            return;
        };
        *local |= !at_peer;
        *peer |= at_peer;
        if !(*local && *peer) {
            return;
        }
        let confirm = std::mem::take(confirm);
        let done = self.copier.as_ref().is_some_and(Copier::is_done);
        assert!(done && !self.unsent_in_flight(), "a clean peer has every write");
        self.clean = Clean::Yes;
        self.confirm(confirm);
        if let Some(copier) = &self.copier {
            self.out.push(Action::Progress(copier.progress()));
        }
        self.out.push(Action::PeerClean);
    }
}

//! Handshake at the start of each session and each epoch: both nodes send their volume tables and the extents that may
//! differ.

use crate::event::{StoreCommand, StoreError, StoreOutput};
use crate::machine::{Mirror, Phase};
use crate::message::{Body, MAX_RANGES};
use crate::store::Purpose;
use crate::types::*;
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Debug, Default)]
pub(crate) struct Handshake {
    asked: bool,
    /// Number of lists of unconfirmed extents that the store has not returned yet.
    missing: usize,
    /// Unconfirmed extents of this node and, for a target, its old dirty marks.
    pub unconfirmed: BTreeMap<VolumeId, ExtentSet>,
    /// This node's volume table and ranges are sent.
    pub sent: bool,
    peer: Option<Vec<(VolumeInfo, Seq)>>,
    touched: BTreeMap<VolumeId, Vec<Range<ExtentIndex>>>,
    ready: bool,
}

impl Mirror {
    /// Starts the handshake again, if there are a session and a view.
    pub(crate) fn restart_handshake(&mut self) {
        self.reset_peer();
        if self.link.session.is_none() || self.view.is_none() {
            return;
        }
        self.phase = Phase::Handshake;
        self.handshake = Some(Handshake::default());
        for volume in self.volumes.values_mut() {
            volume.heard = Seq(0);
        }
        self.repeat_full_to_new_session();
        self.replay_early();
    }

    /// Whether this node is the only member: it then sends no extents, and its guests do not wait for the handshake.
    fn is_source(&self) -> bool {
        self.in_sync() && !self.both()
    }

    pub(crate) fn advance_handshake(&mut self) {
        let source = self.is_source();
        if !source && self.handshake.as_ref().is_some_and(|handshake| !handshake.asked) {
            self.requeue_stalled();
        }
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        if !handshake.asked {
            // The unconfirmed extents must describe the store, so no command that changes data may be in flight.
            if !source && !self.store.drained() {
                return;
            }
            handshake.asked = true;
            handshake.missing = self.volumes.len();
            let volumes: Vec<VolumeId> = self.volumes.keys().copied().collect();
            for volume in volumes {
                let purpose = Purpose::ListUnconfirmed { generation: self.generation, volume };
                self.command(StoreCommand::ListUnconfirmed { volume }, purpose);
            }
        }
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        if handshake.missing == 0 && !handshake.sent {
            handshake.sent = true;
            self.link_opened(source);
        }
        if self.handshake.as_ref().is_some_and(|h| h.sent && h.ready) {
            self.conclude();
        }
    }

    fn link_opened(&mut self, source: bool) {
        let volumes = self.volumes().into_iter().map(|info| (info, self.volumes[&info.id].assigned)).collect();
        self.send(Body::Hello { volumes });
        if !source {
            if !self.in_sync() {
                self.add_own_dirty();
            }
            let unconfirmed = self.handshake.as_ref().map(|h| h.unconfirmed.clone()).unwrap_or_default();
            for (volume, extents) in unconfirmed {
                let ranges: Vec<_> = extents.ranges().map(|range| (range.start, range.length())).collect();
                for chunk in ranges.chunks(MAX_RANGES) {
                    self.send(Body::Touched { volume, ranges: chunk.to_vec() });
                }
            }
        }
        self.send(Body::Ready);
    }

    /// Adds the dirty marks of a target, which are from an earlier time as a source. Copying these extents again is
    /// safe.
    fn add_own_dirty(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            for (&id, volume) in &self.volumes {
                handshake.unconfirmed.entry(id).or_default().union(&volume.dirty);
            }
        }
    }

    pub(crate) fn on_unconfirmed(&mut self, volume: VolumeId, result: Result<StoreOutput, StoreError>) {
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        match result {
            Ok(StoreOutput::Unconfirmed(extents)) => {
                handshake.unconfirmed.insert(volume, extents);
                handshake.missing -= 1;
            }
            Err(StoreError::NoVolume) => handshake.missing -= 1,
            // Without its unconfirmed extents this node cannot list the extents that may differ: the handshake does not continue.
            _ => {}
        }
    }

    pub(crate) fn on_hello(&mut self, volumes: Vec<(VolumeInfo, Seq)>) {
        if let Some(handshake) = &mut self.handshake {
            handshake.peer = Some(volumes);
        }
    }

    pub(crate) fn on_touched(&mut self, volume: VolumeId, ranges: Vec<(ExtentIndex, u64)>) {
        if let Some(handshake) = &mut self.handshake {
            let ranges = ranges.into_iter().map(|(start, count)| start.run(count));
            handshake.touched.entry(volume).or_default().extend(ranges);
        }
    }

    pub(crate) fn on_ready(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            handshake.ready = handshake.peer.is_some();
        }
    }

    /// Both nodes' tables and ranges are known: enters the phase that the view requires.
    fn conclude(&mut self) {
        let Some(handshake) = self.handshake.take() else {
            return;
        };
        let mut peer = BTreeMap::new();
        for (info, assigned) in handshake.peer.unwrap_or_default() {
            peer.insert(info.id, info);
            if let Some(volume) = self.volumes.get_mut(&info.id) {
                // From here on both nodes number writes from the same value.
                volume.assigned = volume.assigned.max(info.last.seq).max(assigned);
            }
        }
        let mut touched = handshake.unconfirmed;
        for (id, ranges) in handshake.touched {
            let set = touched.entry(id).or_default();
            // The peer's numbers are cut to the volume's size before they cost memory.
            let end = self.volumes.get(&id).map_or(ExtentIndex(0), |volume| volume.extents().end);
            for range in ranges {
                set.insert(range.start..range.end.min(end));
            }
        }
        for (id, set) in &mut touched {
            set.truncate(self.volumes.get(id).map_or(ExtentIndex(0), |volume| volume.extents().end));
        }
        touched.retain(|_, set| !set.is_empty());
        match self.view {
            Some(view) if view.me && view.peer => self.enter_reconcile(peer, touched, view.lead),
            Some(view) if view.me => self.enter_source(peer, touched),
            _ => self.phase = Phase::Target,
        }
    }
}

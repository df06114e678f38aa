//! The opening of each session and of each epoch: both sides tell their volume tables and what may differ.

use crate::event::{StoreCommand, StoreError, StoreOutput};
use crate::machine::{Mirror, Phase};
use crate::message::{Body, MAX_RANGES};
use crate::store::Purpose;
use crate::types::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// A handshake under way.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    asked: bool,
    /// Tails the store has not told yet.
    missing: usize,
    /// Own tails (and, for a target, own stale dirty marks).
    pub tails: BTreeMap<VolumeId, ExtentSet>,
    /// Own part is sent.
    pub sent: bool,
    peer: Option<Vec<(VolumeInfo, Seq)>>,
    touched: BTreeMap<VolumeId, Vec<Range<u64>>>,
    ready: bool,
}

impl Mirror {
    /// Begins anew with whatever session and view there are.
    pub(crate) fn restart_handshake(&mut self) {
        self.reset_peer();
        if self.link.session.is_none() || self.view.is_none() {
            return;
        }
        self.phase = Phase::Handshake;
        self.handshake = Some(Handshake::default());
        for volume in self.volumes.values_mut() {
            volume.heard = 0;
        }
        self.announce_full();
        self.replay_early();
    }

    /// This node is the only member: its own history needs no telling, and its guests need not wait.
    fn is_source(&self) -> bool {
        self.in_sync() && !self.both()
    }

    pub(crate) fn advance_handshake(&mut self) {
        let source = self.is_source();
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        if !handshake.asked {
            // What is told must be what the store holds, so nothing may be on its way into it.
            if !source && !self.store.drained() {
                return;
            }
            handshake.asked = true;
            handshake.missing = self.volumes.len();
            let volumes: Vec<VolumeId> = self.volumes.keys().copied().collect();
            for volume in volumes {
                let purpose = Purpose::Tail { generation: self.generation, volume };
                self.command(StoreCommand::Tail { volume }, purpose);
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

    /// Sends the own part.
    fn link_opened(&mut self, source: bool) {
        let volumes = self.volumes().into_iter().map(|info| (info, self.volumes[&info.id].assigned)).collect();
        self.send(Body::Hello { volumes });
        if !source {
            if !self.in_sync() {
                self.add_own_dirty();
            }
            let tails = self.handshake.as_ref().map(|h| h.tails.clone()).unwrap_or_default();
            for (volume, tail) in tails {
                let ranges: Vec<(u64, u64)> = tail.ranges().map(|r| (r.start, r.end - r.start)).collect();
                for chunk in ranges.chunks(MAX_RANGES) {
                    self.send(Body::Touched { volume, ranges: chunk.to_vec() });
                }
            }
        }
        self.send(Body::Ready);
    }

    /// A target's dirty marks are from an earlier time as a source; copying them again costs little and is safe.
    fn add_own_dirty(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            for (&id, volume) in &self.volumes {
                handshake.tails.entry(id).or_default().union(&volume.dirty);
            }
        }
    }

    pub(crate) fn on_tail(&mut self, volume: VolumeId, result: Result<StoreOutput, StoreError>) {
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        match result {
            Ok(StoreOutput::Tail(tail)) => {
                handshake.tails.insert(volume, tail);
                handshake.missing -= 1;
            }
            Err(StoreError::NoVolume) => handshake.missing -= 1,
            // Without its tail this node cannot say what may differ: it stays silent and faulty.
            _ => {}
        }
    }

    pub(crate) fn on_hello(&mut self, volumes: Vec<(VolumeInfo, Seq)>) {
        if let Some(handshake) = &mut self.handshake {
            handshake.peer = Some(volumes);
        }
    }

    pub(crate) fn on_touched(&mut self, volume: VolumeId, ranges: Vec<(u64, u64)>) {
        if let Some(handshake) = &mut self.handshake {
            let ranges = ranges.into_iter().map(|(start, count)| start..start.saturating_add(count));
            handshake.touched.entry(volume).or_default().extend(ranges);
        }
    }

    pub(crate) fn on_ready(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            handshake.ready = handshake.peer.is_some();
        }
    }

    /// Both parts are known: goes where the view says.
    fn conclude(&mut self) {
        let Some(handshake) = self.handshake.take() else {
            return;
        };
        let mut peer = BTreeMap::new();
        for (info, assigned) in handshake.peer.unwrap_or_default() {
            peer.insert(info.id, info);
            if let Some(volume) = self.volumes.get_mut(&info.id) {
                // From here on both sides count from the same number.
                volume.assigned = volume.assigned.max(info.last.seq).max(assigned);
            }
        }
        let mut touched = handshake.tails;
        for (id, ranges) in handshake.touched {
            let set = touched.entry(id).or_default();
            // The peer's numbers are cut to the volume's size before they cost memory.
            let extents = self.volumes.get(&id).map_or(0, |volume| volume.extents());
            for range in ranges {
                set.insert(range.start..range.end.min(extents));
            }
        }
        for (id, set) in &mut touched {
            set.truncate(self.volumes.get(id).map_or(0, |volume| volume.extents()));
        }
        touched.retain(|_, set| !set.is_empty());
        match self.view {
            Some(view) if view.me && view.peer => self.enter_reconcile(peer, touched, view.lead),
            Some(view) if view.me => self.enter_source(peer, touched),
            _ => self.phase = Phase::Target,
        }
    }
}

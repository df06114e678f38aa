//! Durable dirty marks: requested by writes that go to this node only, collected into one command at a time.

use crate::event::StoreCommand;
use crate::machine::Mirror;
use crate::store::Purpose;
use dyad_types::{ExtentIndex, ExtentSet, VolumeId};
use std::collections::BTreeMap;
use std::ops::Range;

/// Marks requested and in flight.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    wanted: BTreeMap<VolumeId, ExtentSet>,
    in_flight: bool,
    /// Incremented when marks are cleared; the result of a mark command of an earlier era is ignored.
    era: u64,
    /// The store refused marks: wait for a tick before the next attempt.
    pub paused: bool,
}

impl Mirror {
    /// Whether every extent of `range` is marked durably; requests the missing marks.
    pub(crate) fn marked(&mut self, volume: VolumeId, range: &Range<ExtentIndex>) -> bool {
        let Some(state) = self.volumes.get(&volume) else {
            return true;
        };
        if state.dirty.contains_all(range) {
            return true;
        }
        let wanted = self.marks.wanted.entry(volume).or_default();
        for gap in state.dirty.missing(range) {
            wanted.insert(gap);
        }
        false
    }

    pub(crate) fn pump_marks(&mut self) {
        if self.marks.in_flight || self.marks.paused || self.marks.wanted.is_empty() {
            return;
        }
        let wanted = std::mem::take(&mut self.marks.wanted);
        let marks: Vec<_> = wanted
            .into_iter()
            .filter(|(id, _)| self.volumes.contains_key(id))
            .map(|(id, set)| (id, set.ranges().collect::<Vec<_>>()))
            .collect();
        if marks.is_empty() {
            return;
        }
        self.marks.in_flight = true;
        let purpose = Purpose::Mark { era: self.marks.era, marks: marks.clone() };
        self.command(StoreCommand::MarkDirty { marks }, purpose);
    }

    pub(crate) fn on_marked(&mut self, era: u64, marks: Vec<(VolumeId, Vec<Range<ExtentIndex>>)>, ok: bool) {
        self.marks.in_flight = false;
        self.recheck = true;
        self.marks.paused = !ok;
        if !ok || era != self.marks.era {
            return; // the waiting writes request their marks again
        }
        for (id, ranges) in marks {
            if let Some(volume) = self.volumes.get_mut(&id) {
                for range in ranges {
                    volume.dirty.insert(range);
                }
            }
        }
    }

    /// Both replicas are equal and durable: no extent is dirty any more.
    pub(crate) fn clear_marks(&mut self) {
        assert!(self.both(), "dirty marks are cleared only while both nodes are members");
        self.marks.era += 1;
        self.marks.wanted.clear();
        let mut any = self.marks.in_flight;
        for volume in self.volumes.values_mut() {
            any |= !volume.dirty.is_empty();
            volume.dirty = ExtentSet::new();
        }
        if any {
            self.command(StoreCommand::ClearDirty, Purpose::IgnoreResult);
        }
    }
}

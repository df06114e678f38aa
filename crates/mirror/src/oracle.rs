//! Reference model of a replicated disk: the set of values that a read of each block may return, given the completed
//! requests.
//!
//! For tests and the simulator (feature `testing`). It must never know nodes or messages.

use bytes::Bytes;
use dyad_types::{BLOCK, BlockIndex, IndexRange, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A value written to a block: unique over a run; 0 is "never written or discarded".
pub type Value = u64;

/// The values that a block may have.
#[derive(Debug, Clone)]
struct Cell {
    /// Values a read may return now.
    now: BTreeSet<Value>,
    /// Values the block may have after every in-sync node lost its memory.
    durable: BTreeSet<Value>,
    /// Values of writes that are issued and not answered.
    open: BTreeSet<Value>,
}

impl Default for Cell {
    fn default() -> Self {
        Self { now: BTreeSet::from([0]), durable: BTreeSet::from([0]), open: BTreeSet::new() }
    }
}

/// The values that are durable once a flush is answered.
#[derive(Debug, Clone)]
pub struct FlushMark {
    cells: BTreeMap<BlockIndex, BTreeSet<Value>>,
    values: Value,
}

#[derive(Debug, Default)]
pub struct Oracle {
    cells: BTreeMap<(VolumeId, BlockIndex), Cell>,
    values: Value,
    /// Values of discards: they read as zeros.
    discards: BTreeSet<Value>,
}

/// The bytes of a block with this value.
pub fn fill(value: Value) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK / 8)
}

/// The value of a block.
///
/// # Errors
/// The block is short, or its words differ.
pub fn value_of(block: &[u8]) -> Result<Value, String> {
    let first: [u8; 8] = block[..8].try_into().map_err(|_| "a short block".to_owned())?;
    if block.chunks(8).all(|chunk| chunk == first) {
        Ok(Value::from_le_bytes(first))
    } else {
        Err("a block is a mixture of values".into())
    }
}

/// The value that a read of such a block returns.
fn shown(discards: &BTreeSet<Value>, value: Value) -> Value {
    if discards.contains(&value) { 0 } else { value }
}

impl Oracle {
    /// A discard of these blocks begins: its value, for [`Oracle::acknowledge`].
    pub fn issue_discard(&mut self, volume: VolumeId, blocks: Range<BlockIndex>) -> Value {
        let (value, _) = self.issue(volume, blocks);
        self.discards.insert(value);
        value
    }

    /// A write of these blocks begins. Returns its value and the data to write.
    pub fn issue(&mut self, volume: VolumeId, blocks: Range<BlockIndex>) -> (Value, Bytes) {
        self.values += 1;
        let value = self.values;
        let count = blocks.length();
        for block in blocks.each() {
            let cell = self.cells.entry((volume, block)).or_default();
            cell.now.insert(value);
            cell.durable.insert(value);
            cell.open.insert(value);
        }
        (value, Bytes::from(fill(value).repeat(count as usize)))
    }

    /// Whether a write to these blocks is open. The tests issue no overlapping writes, whose order would be undefined.
    pub fn is_open(&self, volume: VolumeId, blocks: Range<BlockIndex>) -> bool {
        blocks.each().any(|b| self.cells.get(&(volume, b)).is_some_and(|c| !c.open.is_empty()))
    }

    /// A write was answered as done.
    pub fn acknowledge(&mut self, volume: VolumeId, blocks: Range<BlockIndex>, value: Value) {
        for block in blocks.each() {
            if let Some(cell) = self.cells.get_mut(&(volume, block)) {
                cell.open.remove(&value);
                cell.now = BTreeSet::from([value]);
            }
        }
    }

    /// The guest ended: its open writes get no answer any more. Each may have been executed or not, so both contents stay
    /// allowed.
    pub fn guest_ended(&mut self, volume: VolumeId) {
        for (_, cell) in self.cells.range_mut((volume, BlockIndex(0))..=(volume, BlockIndex(u64::MAX))) {
            cell.open.clear();
        }
    }

    /// This write gets no answer any more, as in [`Self::guest_ended`]. Other writes of the volume stay open.
    pub fn write_ended(&mut self, volume: VolumeId, blocks: Range<BlockIndex>, value: Value) {
        for block in blocks.each() {
            if let Some(cell) = self.cells.get_mut(&(volume, block)) {
                cell.open.remove(&value);
            }
        }
    }

    pub fn flush_begins(&self, volume: VolumeId) -> FlushMark {
        let cells = self.cells.range((volume, BlockIndex(0))..=(volume, BlockIndex(u64::MAX)));
        FlushMark { cells: cells.map(|(&(_, b), cell)| (b, cell.now.clone())).collect(), values: self.values }
    }

    pub fn flushed(&mut self, volume: VolumeId, mark: &FlushMark) {
        for (&block, then) in &mark.cells {
            if let Some(cell) = self.cells.get_mut(&(volume, block)) {
                let durable: BTreeSet<Value> =
                    cell.durable.iter().copied().filter(|value| *value > mark.values || then.contains(value)).collect();
                cell.durable = durable;
            }
        }
    }

    /// Every node that held acknowledged writes in memory lost them: only flushed writes are guaranteed.
    pub fn memories_lost(&mut self) {
        for cell in self.cells.values_mut() {
            cell.now = cell.durable.clone();
        }
    }

    /// Checks the data that a guest read.
    ///
    /// # Errors
    /// Names the first block with a value that it must not have.
    pub fn read(&mut self, volume: VolumeId, block: BlockIndex, data: &[u8]) -> Result<(), String> {
        for (i, bytes) in data.chunks(BLOCK).enumerate() {
            let block = block + i as u64;
            let value = value_of(bytes)?;
            let discards = &self.discards;
            let cell = self.cells.entry((volume, block)).or_default();
            let seen: BTreeSet<Value> = cell.now.iter().copied().filter(|v| shown(discards, *v) == value).collect();
            if seen.is_empty() {
                return Err(format!(
                    "volume {volume} block {block} reads as {value}, allowed: {:?}, open: {:?}",
                    cell.now, cell.open
                ));
            }
            if cell.open.is_empty() {
                // A value that was read once must not be replaced by an older one.
                cell.now = seen;
            }
        }
        Ok(())
    }

    /// Whether a block of a volume may hold this value; does not count as a read of the guest.
    pub fn allows(&self, cell: (VolumeId, BlockIndex), value: Value) -> bool {
        self.cells.get(&cell).map_or(value == 0, |cell| cell.now.iter().any(|v| shown(&self.discards, *v) == value))
    }

    /// The values that a read of a block of a volume may return now.
    pub fn allowed(&self, cell: (VolumeId, BlockIndex)) -> BTreeSet<Value> {
        let shown = |cell: &Cell| cell.now.iter().map(|value| shown(&self.discards, *value)).collect();
        self.cells.get(&cell).map_or(BTreeSet::from([0]), shown)
    }

    /// Every block that was written at least once.
    pub fn blocks(&self) -> impl Iterator<Item = (VolumeId, BlockIndex)> + '_ {
        self.cells.keys().copied()
    }
}

//! A store in memory: finished commands survive a crash of the process, synced ones survive a loss of power.

use crate::oracle::{fill, value_of};
use crate::*;
use bytes::Bytes;
use dyad_types::{IndexRange, Run, Seq};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub volumes: BTreeMap<VolumeId, Content>,
    pub dirty: BTreeMap<VolumeId, ExtentSet>,
}

#[derive(Debug, Clone, Default)]
pub struct Content {
    pub size: u64,
    pub last: Stamp,
    /// Value of each block; a missing block reads as zeros.
    pub blocks: BTreeMap<BlockIndex, u64>,
    /// Blocks that are marked as lost.
    pub lost: BTreeSet<BlockIndex>,
    pub confirmed: Seq,
    /// extent → newest unconfirmed number that touched it
    pub touched: BTreeMap<ExtentIndex, Seq>,
}

#[derive(Debug, Default)]
pub struct FakeStore {
    pub live: Disk,
    durable: Disk,
    /// Commands that `durable` does not contain, oldest first. A loss of power keeps a prefix of them.
    journal: Vec<StoreCommand>,
    /// Blocks that fail their checksum here.
    pub bad: BTreeSet<(VolumeId, BlockIndex)>,
    /// Data commands are refused, but those that may use the reserve, until a deletion frees space.
    pub full: bool,
    /// A disk has failed: every command is refused.
    pub failed: bool,
}

impl FakeStore {
    pub fn inventory(&self) -> Inventory {
        Inventory {
            volumes: self.live.volumes.iter().map(|(&id, c)| VolumeInfo { id, size: c.size, last: c.last }).collect(),
            dirty: self.live.dirty.clone().into_iter().collect(),
        }
    }

    /// Whether a block is damaged or marked as lost.
    pub fn unreadable(&self, volume: VolumeId, block: BlockIndex) -> bool {
        self.bad.contains(&(volume, block))
            || self.live.volumes.get(&volume).is_some_and(|content| content.lost.contains(&block))
    }

    /// Loss of power: of the unsynced commands the first `keep` (modulo their number plus one) survive.
    pub fn power_loss(&mut self, keep: usize) {
        let journal = std::mem::take(&mut self.journal);
        self.live = self.durable.clone();
        for command in journal.iter().take(keep % (journal.len() + 1)) {
            apply(&mut self.live, command);
        }
        self.durable = self.live.clone();
    }

    pub fn run(&mut self, command: &StoreCommand) -> Result<StoreOutput, StoreError> {
        if self.failed {
            return Err(StoreError::Io);
        }
        match command {
            StoreCommand::Read { volume, block, count } => {
                let content = self.live.volumes.get(volume).ok_or(StoreError::NoVolume)?;
                let range = block.run(*count).each();
                let bad: Vec<_> = range.clone().filter(|b| self.unreadable(*volume, *b)).collect();
                if !bad.is_empty() {
                    return Err(StoreError::Corrupt { blocks: bad });
                }
                let data: Vec<u8> = range.flat_map(|b| fill(content.blocks.get(&b).copied().unwrap_or(0))).collect();
                Ok(StoreOutput::Data(Bytes::from(data)))
            }
            StoreCommand::ReadExtent { volume, extent } => {
                let content = self.live.volumes.get(volume).ok_or(StoreError::NoVolume)?;
                let mut image = ExtentImage::default();
                let mut data = Vec::new();
                for bit in 0..EXTENT_BLOCKS {
                    let block = extent.first_block() + bit;
                    if self.unreadable(*volume, block) {
                        image.bad |= 1 << bit;
                    } else if let Some(&value) = content.blocks.get(&block) {
                        image.present |= 1 << bit;
                        data.extend(fill(value));
                    }
                }
                image.data = Bytes::from(data);
                Ok(StoreOutput::Extent(image))
            }
            StoreCommand::ListUnconfirmed { volume } => {
                let content = self.live.volumes.get(volume).ok_or(StoreError::NoVolume)?;
                Ok(StoreOutput::Unconfirmed(content.touched.keys().copied().collect()))
            }
            StoreCommand::Sync => {
                self.durable = self.live.clone();
                self.journal.clear();
                Ok(StoreOutput::Done)
            }
            StoreCommand::MarkDirty { .. } | StoreCommand::ClearDirty | StoreCommand::Volume(_) => {
                if matches!(command, StoreCommand::Volume(VolumeChange::Delete { .. })) {
                    self.full = false;
                }
                apply(&mut self.live, command);
                // Changes of metadata are durable at once, with all earlier commands of the same journal.
                self.durable = self.live.clone();
                self.journal.clear();
                Ok(StoreOutput::Done)
            }
            StoreCommand::Confirm { .. } => {
                apply(&mut self.live, command);
                self.journal.push(command.clone());
                Ok(StoreOutput::Done)
            }
            StoreCommand::Write { volume, .. }
            | StoreCommand::Discard { volume, .. }
            | StoreCommand::WriteExtent { volume, .. } => {
                if self.full && !matches!(command, StoreCommand::WriteExtent { use_reserve: true, .. }) {
                    return Err(StoreError::NoSpace);
                }
                if !self.live.volumes.contains_key(volume) {
                    return Err(StoreError::NoVolume);
                }
                apply(&mut self.live, command);
                self.journal.push(command.clone());
                self.bad.retain(|&(v, b)| v != *volume || !writes(command, b));
                Ok(StoreOutput::Done)
            }
        }
    }
}

/// Whether a command changes a block.
fn writes(command: &StoreCommand, block: BlockIndex) -> bool {
    match command {
        StoreCommand::Write { block: first, data, .. } => first.run((data.len() / BLOCK) as u64).contains(&block),
        StoreCommand::Discard { block: first, count, .. } => first.run(*count).contains(&block),
        StoreCommand::WriteExtent { extent, image, wanted, .. } => {
            block.extent() == *extent && wanted & !image.bad & (1 << block.place_in_extent()) != 0
        }
        _ => false,
    }
}

fn apply(disk: &mut Disk, command: &StoreCommand) {
    let mut touch = |volume: &VolumeId, stamp: &Stamp, runs: Vec<Run>| {
        let Some(content) = disk.volumes.get_mut(volume) else { return };
        content.last = content.last.max(*stamp);
        for run in runs {
            let (first, values): (BlockIndex, Vec<Option<u64>>) = match run {
                Run::Data(first, data) => {
                    (first, data.chunks(BLOCK).map(|b| Some(value_of(b).expect("whole values"))).collect())
                }
                Run::Absent(blocks) => (blocks.start, vec![None; blocks.length() as usize]),
            };
            for (block, value) in first.run(values.len() as u64).each().zip(values) {
                content.lost.remove(&block);
                match value {
                    Some(value) => content.blocks.insert(block, value),
                    None => content.blocks.remove(&block),
                };
                // Copies and repairs have old stamps; they count as touched as well.
                content.touched.insert(block.extent(), stamp.seq.max(content.confirmed.next()));
            }
        }
    };
    match command {
        StoreCommand::Write { volume, stamp, block, data } => {
            touch(volume, stamp, vec![Run::Data(*block, data.clone())]);
        }
        StoreCommand::Discard { volume, stamp, block, count } => {
            touch(volume, stamp, vec![Run::Absent(block.run(*count))]);
        }
        StoreCommand::WriteExtent { volume, stamp, extent, image, wanted, lost, .. } => {
            assert_eq!(lost & (wanted & !image.bad), 0, "a lost block is not written");
            touch(volume, stamp, image.runs(*extent, *wanted, u64::MAX));
            if let Some(content) = disk.volumes.get_mut(volume).filter(|_| *lost != 0) {
                let marked = extent.blocks().each().filter(|block| lost & 1 << block.place_in_extent() != 0);
                content.lost.extend(marked);
                content.touched.insert(*extent, stamp.seq.max(content.confirmed.next()));
            }
        }
        StoreCommand::Confirm { volume, seq } => {
            if let Some(content) = disk.volumes.get_mut(volume) {
                content.confirmed = content.confirmed.max(*seq);
                content.touched.retain(|_, touched| *touched > *seq);
            }
        }
        StoreCommand::MarkDirty { marks } => {
            for (volume, ranges) in marks {
                let set = disk.dirty.entry(*volume).or_default();
                for range in ranges {
                    set.insert(range.clone());
                }
            }
        }
        StoreCommand::ClearDirty => disk.dirty.clear(),
        StoreCommand::Volume(VolumeChange::Create { id, size } | VolumeChange::Resize { id, size }) => {
            let content = disk.volumes.entry(*id).or_default();
            content.size = content.size.max(*size);
        }
        StoreCommand::Volume(VolumeChange::Delete { id }) => {
            disk.volumes.remove(id);
            disk.dirty.remove(id);
        }
        StoreCommand::Read { .. }
        | StoreCommand::ReadExtent { .. }
        | StoreCommand::ListUnconfirmed { .. }
        | StoreCommand::Sync => {}
    }
}

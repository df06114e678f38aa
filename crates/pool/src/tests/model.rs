//! The reference model of a pool, and the operations that model and pool execute.

use super::fixture::blocks;
use crate::{MetaEntry, Pool, Position, ReadError, StoreError};
use dyad_testkit::Prng;
use dyad_types::{BLOCK, BlockIndex, EXTENT_BLOCKS, Epoch, ExtentIndex, Seq, Stamp, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Blocks of each volume: twelve and a half extents.
pub(crate) const BLOCKS: u64 = 200;
/// Numbers of the volumes.
pub(crate) const VOLUMES: [u64; 2] = [1, 2];

/// An operation of the pool with the parameters that matter to the model.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write {
        volume: u64,
        block: u64,
        count: u64,
    },
    Discard {
        volume: u64,
        block: u64,
        count: u64,
    },
    /// Marks the blocks of the mask `blocks` of an extent as lost.
    MarkLost {
        volume: u64,
        extent: u64,
        blocks: u16,
    },
    /// Marks the extents `from..to` as dirty.
    MarkDirty {
        volume: u64,
        from: u64,
        to: u64,
    },
    /// Clears the dirty marks of the extents `from..to`.
    ClearDirty {
        volume: u64,
        from: u64,
        to: u64,
    },
    /// Sets a named value, or deletes it.
    Meta {
        key: u8,
        set: bool,
    },
    /// Confirms all writes but the last `back` sequence numbers.
    Confirm {
        volume: u64,
        back: u64,
    },
}

/// Expected content of the pool. For the unconfirmed extents it is a lower bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    /// Tag of each block that exists, by volume and block.
    pub blocks: BTreeMap<(u64, u64), u64>,
    /// Blocks that are marked as lost, by volume and block.
    pub lost: BTreeSet<(u64, u64)>,
    /// The dirty extents, by volume and extent.
    pub dirty: BTreeSet<(u64, u64)>,
    pub meta: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Sequence number of the newest write or discard, by volume.
    pub last: BTreeMap<u64, u64>,
    /// Sequence number of the newest write or discard in each extent, by volume and extent.
    pub touched: BTreeMap<(u64, u64), u64>,
}

/// Number of seeds that a test tries: the environment variable `DYAD_SEEDS`, or `default`.
pub(crate) fn seeds(default: u64) -> u64 {
    std::env::var("DYAD_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

impl Op {
    /// A write so large that a few dozen of them fill a journal of 4 MiB.
    pub fn large_write(prng: &mut Prng) -> Op {
        let count = 20 + prng.below(20);
        Op::Write { volume: 1 + prng.below(2), block: prng.below(BLOCKS - count), count }
    }

    pub fn random(prng: &mut Prng) -> Op {
        let volume = 1 + prng.below(2);
        let count = if prng.below(4) == 0 { 1 + prng.below(40) } else { 1 + prng.below(4) };
        let block = prng.below(BLOCKS - count);
        let from = prng.below(12);
        match prng.below(21) {
            20 => Op::MarkLost {
                volume,
                extent: prng.below(BLOCKS.div_ceil(EXTENT_BLOCKS)),
                blocks: prng.below(1 << 16) as u16,
            },
            0..12 => Op::Write { volume, block, count },
            12..15 => Op::Discard { volume, block, count },
            15 => Op::MarkDirty { volume, from, to: from + 1 + prng.below(12 - from) },
            16 => Op::ClearDirty { volume, from, to: from + 1 + prng.below(12 - from) },
            17 => Op::Meta { key: prng.below(4) as u8, set: prng.below(3) > 0 },
            _ => Op::Confirm { volume, back: prng.below(5) },
        }
    }
}

impl Model {
    /// Executes `op` on the model, with `tag` as sequence number and content.
    pub fn apply(&mut self, op: &Op, tag: u64) {
        match *op {
            Op::Write { volume, block, count } | Op::Discard { volume, block, count } => {
                for b in block..block + count {
                    self.lost.remove(&(volume, b));
                    match op {
                        Op::Write { .. } => self.blocks.insert((volume, b), tag),
                        _ => self.blocks.remove(&(volume, b)),
                    };
                    self.touched.insert((volume, b / EXTENT_BLOCKS), tag);
                }
                self.last.insert(volume, tag);
            }
            Op::MarkLost { volume, extent, blocks } => {
                let inside = (extent * EXTENT_BLOCKS..BLOCKS).zip(0..EXTENT_BLOCKS);
                let marked: Vec<_> =
                    inside.filter(|(_, bit)| blocks & 1 << bit != 0).map(|(b, _)| (volume, b)).collect();
                if marked.is_empty() {
                    return;
                }
                self.blocks.retain(|block, _| !marked.contains(block));
                self.lost.extend(marked);
                self.touched.insert((volume, extent), tag);
                self.last.insert(volume, tag);
            }
            Op::MarkDirty { volume, from, to } => self.dirty.extend((from..to).map(|e| (volume, e))),
            Op::ClearDirty { volume, from, to } => (from..to).for_each(|e| {
                self.dirty.remove(&(volume, e));
            }),
            Op::Meta { key, set: true } => {
                self.meta.insert(vec![key], tag.to_le_bytes().to_vec());
            }
            Op::Meta { key, set: false } => {
                self.meta.remove(&vec![key]);
            }
            Op::Confirm { .. } => {}
        }
    }

    /// Executes `op` on the pool, with `tag` as sequence number and content.
    pub fn perform(pool: &mut Pool, op: &Op, tag: u64) -> Result<Position, StoreError> {
        match *op {
            Op::Write { volume, block, count } => pool.write(
                VolumeId(volume),
                Stamp { epoch: Epoch(1), seq: Seq(tag) },
                BlockIndex(block),
                blocks(tag, count as usize),
            ),
            Op::Discard { volume, block, count } => pool.discard(
                VolumeId(volume),
                Stamp { epoch: Epoch(1), seq: Seq(tag) },
                BlockIndex::range(block..block + count),
            ),
            Op::MarkLost { volume, extent, blocks } => {
                pool.mark_lost(VolumeId(volume), Stamp { epoch: Epoch(1), seq: Seq(tag) }, ExtentIndex(extent), blocks)
            }
            Op::MarkDirty { volume, from, to } => pool.mark_dirty(VolumeId(volume), ExtentIndex::range(from..to)),
            Op::ClearDirty { volume, from, to } => pool.clear_dirty(VolumeId(volume), ExtentIndex::range(from..to)),
            Op::Meta { key, set: true } => pool.meta_put(MetaEntry { key: &[key], value: &tag.to_le_bytes() }),
            Op::Meta { key, set: false } => pool.meta_delete(&[key]),
            Op::Confirm { volume, back } => {
                let last = pool.last(VolumeId(volume)).map_or(0, |stamp| stamp.seq.0);
                pool.confirm(VolumeId(volume), Seq(last.saturating_sub(back)))?;
                Ok(pool.last_position())
            }
        }
    }

    /// The content of the pool as a model, with the tag that [`tag_of`] finds in each block. `touched` stays empty.
    pub fn observe(pool: &Pool) -> Result<Model, ReadError> {
        let mut model = Model::default();
        for volume in VOLUMES {
            let Some(info) = pool.volume(VolumeId(volume)) else { continue };
            let mut extents = Vec::new();
            for extent in 0..info.blocks.div_ceil(EXTENT_BLOCKS) {
                extents.push(match pool.read_extent(VolumeId(volume), ExtentIndex(extent)) {
                    Err(ReadError::Corrupt { .. }) => None,
                    image => Some(image?),
                });
            }
            for block in 0..info.blocks {
                let Some(image) = &extents[(block / EXTENT_BLOCKS) as usize] else {
                    match pool.read(VolumeId(volume), BlockIndex::range(block..block + 1)) {
                        Err(ReadError::Corrupt { .. }) => drop(model.lost.insert((volume, block))),
                        Ok(data) if data[..] == [0; BLOCK] => {}
                        data => drop(model.blocks.insert((volume, block), tag_of(&data?))),
                    }
                    continue;
                };
                let place = BlockIndex(block).place_in_extent();
                if image.present & 1 << place != 0 {
                    let data = image.block(place).expect("a present block is not bad");
                    model.blocks.insert((volume, block), tag_of(&data));
                } else {
                    assert_eq!(
                        pool.read(VolumeId(volume), BlockIndex::range(block..block + 1))?,
                        [0; BLOCK][..],
                        "absent blocks are zeros"
                    );
                }
            }
            model.dirty.extend(pool.dirty(VolumeId(volume)).into_iter().flat_map(|d| d.iter()).map(|e| (volume, e.0)));
            if info.last.seq > Seq(0) {
                model.last.insert(volume, info.last.seq.0);
            }
        }
        model.meta = pool.meta_keys().map(|k| (k.to_vec(), pool.meta_get(k).unwrap_or_default().to_vec())).collect();
        Ok(model)
    }

    /// Whether `seen`, which was observed on the pool, equals this model. The pool's set of unconfirmed extents may
    /// contain further extents.
    pub fn matches(&self, seen: &Model, pool: &Pool) -> bool {
        let unconfirmed_is_complete = self.touched.iter().all(|((volume, extent), seq)| {
            pool.confirmed(VolumeId(*volume)).is_some_and(|c| *seq <= c.0)
                || pool.unconfirmed(VolumeId(*volume)).is_some_and(|t| t.contains(ExtentIndex(*extent)))
        });
        unconfirmed_is_complete
            && self.blocks == seen.blocks
            && self.lost == seen.lost
            && self.dirty == seen.dirty
            && self.meta == seen.meta
            && self.last == seen.last
    }
}

/// The tag of a block made by [`blocks`]; `u64::MAX` if the words of the block differ or hold no tag.
///
/// Each word of such a block is the tag times an odd constant, xor the block's number within its write (0..40).
pub(crate) fn tag_of(data: &[u8]) -> u64 {
    const INVERSE: u64 = 0xf1de_83e1_9937_733d;
    let word = u64::from_le_bytes(data[..8].try_into().expect("eight bytes"));
    if data[8..] != data[..data.len() - 8] {
        return u64::MAX;
    }
    (0..40).map(|i| (word ^ i).wrapping_mul(INVERSE)).find(|tag| *tag < 1 << 32).unwrap_or(u64::MAX)
}

#[test]
fn the_tag_of_a_block_is_read_back_and_a_changed_bit_noticed() {
    let data = blocks(77, 40);
    assert!(data.chunks(BLOCK).all(|b| tag_of(b) == 77));
    let mut bad = data.to_vec();
    bad[100] ^= 1;
    assert_eq!(tag_of(&bad[..BLOCK]), u64::MAX);
}

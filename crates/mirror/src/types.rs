//! The words of the mirror: units, identities, what a guest may ask and what a store may answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Nanoseconds on a clock that never jumps (CLOCK_BOOTTIME on a node, virtual in the simulator).
pub type Time = u64;
/// A volume of the pair. 0 is the replicated document.
pub type VolumeId = u64;
/// The number of a membership, given by `quorum`; grows by one at each change.
pub type Epoch = u64;
/// The number of a write within its volume; grows across epochs, never reused.
pub type Seq = u64;
/// Names one request of a guest or of the document; chosen by the caller, unique while the request is open.
pub type RequestId = u64;
/// Names one connection to the peer; only equality matters.
pub type Session = u64;
/// Names one store command; chosen by the mirror.
pub type StoreOp = u64;

/// Bytes of one block, the unit of checksums and of guest requests.
pub const BLOCK: usize = 4096;
/// Blocks of one extent, the unit of resync.
pub const EXTENT_BLOCKS: u64 = 16;
/// Bytes of one extent.
pub const EXTENT: u64 = EXTENT_BLOCKS * BLOCK as u64;
/// The largest single write, in bytes: it must fit a frame of the peer link.
pub const MAX_WRITE: usize = 1 << 20;

/// The extents a run of blocks touches.
pub fn extents_of(block: u64, count: u64) -> Range<u64> {
    if count == 0 {
        return 0..0;
    }
    block / EXTENT_BLOCKS..(block + count - 1) / EXTENT_BLOCKS + 1
}

/// The place of a write in its volume's history. Ordered by epoch first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Membership the write was made under.
    pub epoch: Epoch,
    /// Number within the volume.
    pub seq: Seq,
}

/// Who may write a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writer {
    /// Nobody at the moment (no VM runs, or a hand-over is under way).
    Nobody,
    /// This node.
    Me,
    /// The other node.
    Peer,
}

/// What `quorum` says about the membership, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Number of the newest known chosen configuration. Never goes back.
    pub epoch: Epoch,
    /// This node is in the in-sync set.
    pub me: bool,
    /// The peer is in the in-sync set.
    pub peer: bool,
    /// The peer must acknowledge although it may not be in `peer` yet (a proposal that adds it is under way),
    /// or still (`peer` is true).
    pub ack_peer: bool,
    /// This node is the lead of the configuration: breaks ties, nothing else.
    pub lead: bool,
}

/// A volume as the volume table of a store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Its number.
    pub id: VolumeId,
    /// Bytes; a multiple of [`BLOCK`].
    pub size: u64,
    /// The newest write its store holds.
    pub last: Stamp,
}

/// A change of the volume table. Each is idempotent at the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeChange {
    /// Makes an empty volume; fine if it exists.
    Create {
        /// New number, never used before.
        id: VolumeId,
        /// Bytes, a multiple of [`BLOCK`].
        size: u64,
    },
    /// Frees a volume; fine if it is gone.
    Delete {
        /// Its number.
        id: VolumeId,
    },
    /// Grows a volume; fine if it is that large already. Volumes never shrink.
    Resize {
        /// Its number.
        id: VolumeId,
        /// Bytes, a multiple of [`BLOCK`].
        size: u64,
    },
}

impl VolumeChange {
    /// The volume it is about.
    pub fn id(&self) -> VolumeId {
        match *self {
            Self::Create { id, .. } | Self::Delete { id } | Self::Resize { id, .. } => id,
        }
    }
}

/// What a guest (or the document, volume 0) asks. Blocks of 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestOp {
    /// Reads `count` blocks from `block`.
    Read {
        /// First block.
        block: u64,
        /// Number of blocks.
        count: u64,
    },
    /// Reads the local replica although another node may be the writer. May show a write that is not acknowledged
    /// yet; refused with [`GuestError::NotInSync`] when this replica is not in sync.
    Peek {
        /// First block.
        block: u64,
        /// Number of blocks.
        count: u64,
    },
    /// Writes whole blocks, at most [`MAX_WRITE`] bytes.
    Write {
        /// First block.
        block: u64,
        /// A non-zero multiple of [`BLOCK`] bytes.
        data: Bytes,
    },
    /// Makes blocks read as zeros and frees them.
    Discard {
        /// First block.
        block: u64,
        /// Number of blocks.
        count: u64,
    },
    /// Makes every write completed before it durable on each in-sync node.
    Flush,
}

/// What the smallest change counts in flight, in bytes.
pub const MIN_WEIGHT: usize = 16 << 10;

impl GuestOp {
    /// First block and number of blocks it touches; `(0, 0)` for a flush.
    pub fn span(&self) -> (u64, u64) {
        match self {
            Self::Read { block, count } | Self::Peek { block, count } | Self::Discard { block, count } => {
                (*block, *count)
            }
            Self::Write { block, data } => (*block, (data.len() / BLOCK) as u64),
            Self::Flush => (0, 0),
        }
    }

    /// What a change counts in flight, in bytes: the data it carries, and something for being a message at all.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len().max(MIN_WEIGHT),
            _ => MIN_WEIGHT,
        }
    }
}

/// A successful answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Written, discarded, flushed, or the volume table changed.
    Done,
    /// The blocks read.
    Data(Bytes),
}

/// Why a request was refused. Faults of a node or link are never among them: those are waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// Neither replica has a good copy.
    #[error("these blocks are damaged and no good copy exists on either node; restore them from a backup")]
    Corrupt,
    /// The volume does not exist.
    #[error("this volume does not exist; list the volumes and choose another")]
    NoVolume,
    /// Beyond the end, empty, too large, or not whole blocks.
    #[error("the request lies outside the volume or is not made of whole 4 KiB blocks; correct its range")]
    Range,
    /// The volume was closed while the request waited.
    #[error("the volume was closed before the request ran; open it again and repeat the request")]
    Closed,
    /// A peek at a replica that is not in sync.
    #[error("this node's copy is out of date; ask the other node or wait for the resync")]
    NotInSync,
    /// The disks of a node refused a change of the volume table.
    #[error("a node could not change its volume table; look at its disks and repeat the request")]
    Disk,
}

/// The content of one extent.
///
/// Bit `i` stands for block `i` of the extent. `data` holds the blocks that are present and good, in order, each
/// [`BLOCK`] bytes. Blocks neither present nor bad read as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExtentImage {
    /// Blocks that were ever written and not discarded, good ones only.
    pub present: u16,
    /// Blocks that could not be read; a receiver leaves its own copy of them alone.
    pub bad: u16,
    /// The present blocks.
    pub data: Bytes,
}

/// A stretch of an [`ExtentImage`]; blocks count from the start of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Blocks to write.
    Data(u64, Bytes),
    /// Blocks to discard: first and number.
    Absent(u64, u64),
}

impl ExtentImage {
    /// Whether the masks and the length of the data agree; what comes off the wire is checked with this.
    pub fn is_sound(&self) -> bool {
        self.present & self.bad == 0 && self.data.len() == self.present.count_ones() as usize * BLOCK
    }

    /// The blocks of the image that `wanted` names, as stretches to write or discard in a volume of `blocks` blocks.
    pub fn runs(&self, extent: u64, wanted: u16, blocks: u64) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut at = 0;
        for bit in 0..EXTENT_BLOCKS {
            let block = extent * EXTENT_BLOCKS + bit;
            let mask = 1u16 << bit;
            let here = at;
            if self.present & mask != 0 {
                at += BLOCK;
            }
            if self.bad & mask != 0 || wanted & mask == 0 || block >= blocks {
                continue;
            }
            if self.present & mask != 0 {
                match runs.last_mut() {
                    Some(Run::Data(first, data)) if *first + (data.len() / BLOCK) as u64 == block => {
                        let start = here - data.len();
                        *data = self.data.slice(start..here + BLOCK);
                    }
                    _ => runs.push(Run::Data(block, self.data.slice(here..here + BLOCK))),
                }
            } else {
                match runs.last_mut() {
                    Some(Run::Absent(first, count)) if *first + *count == block => *count += 1,
                    _ => runs.push(Run::Absent(block, 1)),
                }
            }
        }
        runs
    }

    /// One block of the image: `None` if it is bad.
    pub fn block(&self, bit: u64) -> Option<Bytes> {
        let mask = 1u16 << bit;
        if self.bad & mask != 0 {
            return None;
        }
        if self.present & mask == 0 {
            return Some(Bytes::from_static(&[0; BLOCK]));
        }
        let before = (self.present & (mask - 1)).count_ones() as usize * BLOCK;
        Some(self.data.slice(before..before + BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_falls_into_the_stretches_it_is_made_of() {
        let data: Vec<u8> = [1u8, 2, 3].iter().flat_map(|&b| vec![b; BLOCK]).collect();
        let image = ExtentImage { present: 0b1011, bad: 0b100_0000, data: Bytes::from(data) };
        assert!(image.is_sound());
        let runs = image.runs(2, u16::MAX, 32 + 9);
        let seen: Vec<(u64, usize, bool)> = runs
            .iter()
            .map(|run| match run {
                Run::Data(block, data) => (*block, data.len() / BLOCK, true),
                Run::Absent(block, count) => (*block, *count as usize, false),
            })
            .collect();
        assert_eq!(seen, [(32, 2, true), (34, 1, false), (35, 1, true), (36, 2, false), (39, 2, false)]);
        assert_eq!(runs[0], Run::Data(32, Bytes::from([vec![1u8; BLOCK], vec![2; BLOCK]].concat())));
        assert_eq!(image.block(3).unwrap()[0], 3);
        assert_eq!(image.block(2).unwrap()[0], 0);
        assert_eq!(image.block(6), None);
    }

    #[test]
    fn extents_of_a_run() {
        assert_eq!(extents_of(0, 16), 0..1);
        assert_eq!(extents_of(15, 2), 0..2);
        assert_eq!(extents_of(40, 1), 2..3);
        assert!(extents_of(40, 0).is_empty());
    }
}

//! Units, identifiers, requests of guests, and the view of the membership.

use bytes::Bytes;
pub(crate) use dyad_types::{
    BLOCK, BlockIndex, BootTime, EXTENT_BLOCKS, EXTENT_BYTES, Epoch, ExtentImage, ExtentIndex, ExtentSet, IndexRange,
    Seq, Session, Stamp, VolumeId, number,
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

number! {
    /// Identifies one request of a guest or of the document; chosen by the caller, unique while the request is open.
    pub struct RequestId;
}

number! {
    /// Identifies one store command; chosen by the mirror.
    pub struct StoreOp;
}

/// The largest single write, in bytes: it must fit a frame of the peer link.
pub const MAX_WRITE: usize = 1 << 20;

/// The extents a run of blocks touches.
pub fn extents_of(blocks: Range<BlockIndex>) -> Range<ExtentIndex> {
    if blocks.is_empty() {
        return ExtentIndex(0).run(0);
    }
    blocks.start.extent()..ExtentIndex(blocks.end.0.div_ceil(EXTENT_BLOCKS))
}

/// The node that may write a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writer {
    /// Neither node: no VM runs, or the right to write is being handed over.
    None,
    Me,
    Peer,
}

/// What `quorum` says about the membership, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Number of the newest known chosen configuration. Never decreases.
    pub epoch: Epoch,
    /// This node is in the in-sync set.
    pub me: bool,
    /// The peer is in the in-sync set.
    pub peer: bool,
    /// The peer must acknowledge writes: `peer` is true, or a proposal that adds the peer is under way.
    pub ack_peer: bool,
    /// This node is the lead of the configuration. Used only to choose the source of a reconciliation when both
    /// replicas have the same stamp.
    pub lead: bool,
}

/// A volume as the volume table of a store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    pub id: VolumeId,
    /// Bytes; a multiple of [`BLOCK`].
    pub size: u64,
    /// The newest write its store holds.
    pub last: Stamp,
}

/// A change of the volume table. Each is idempotent at the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeChange {
    /// Creates an empty volume; succeeds if it exists.
    Create {
        /// Never used before.
        id: VolumeId,
        /// Bytes, a multiple of [`BLOCK`].
        size: u64,
    },
    /// Deletes a volume; succeeds if it does not exist.
    Delete { id: VolumeId },
    /// Grows a volume; succeeds if it is that large already. Volumes never shrink.
    Resize {
        id: VolumeId,
        /// Bytes, a multiple of [`BLOCK`].
        size: u64,
    },
}

impl VolumeChange {
    pub fn id(&self) -> VolumeId {
        match *self {
            Self::Create { id, .. } | Self::Delete { id } | Self::Resize { id, .. } => id,
        }
    }
}

/// A request of a guest, or of the document (volume 0). Blocks of 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestOp {
    /// Reads `count` blocks from `block`.
    Read { block: BlockIndex, count: u64 },
    /// Reads the local replica although another node may be the writer. May show a write that is not acknowledged
    /// yet; refused with [`GuestError::NotInSync`] when this replica is not in sync.
    Peek { block: BlockIndex, count: u64 },
    /// Writes whole blocks, at most [`MAX_WRITE`] bytes.
    Write {
        block: BlockIndex,
        /// A non-zero multiple of [`BLOCK`] bytes.
        data: Bytes,
    },
    /// Makes blocks read as zeros and frees them.
    Discard { block: BlockIndex, count: u64 },
    /// Makes every write completed before it durable on each in-sync node.
    Flush,
}

/// Least weight of a write or discard in flight, in bytes.
pub const MIN_WEIGHT: usize = 16 << 10;

impl GuestOp {
    /// First block and number of blocks of the request; `(0, 0)` for a flush.
    pub fn span(&self) -> (BlockIndex, u64) {
        match self {
            Self::Read { block, count } | Self::Peek { block, count } | Self::Discard { block, count } => {
                (*block, *count)
            }
            Self::Write { block, data } => (*block, (data.len() / BLOCK) as u64),
            Self::Flush => (BlockIndex(0), 0),
        }
    }

    /// Weight of a request in flight, in bytes: its data, and at least [`MIN_WEIGHT`] for the message.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len().max(MIN_WEIGHT),
            _ => MIN_WEIGHT,
        }
    }
}

/// A successful answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestReply {
    /// Written, discarded, flushed, or the volume table changed.
    Done,
    /// The blocks read.
    Data(Bytes),
}

/// Why a request was refused. A fault of a node or of the link is no reason: the request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// Neither replica has a good copy.
    #[error("these blocks are damaged and no good copy exists on either node; restore them from a backup")]
    Corrupt,
    /// The volume does not exist.
    #[error("this volume does not exist; list the volumes and choose another")]
    NoVolume,
    /// The range is beyond the end, empty, too large, or not whole blocks.
    #[error("the request lies outside the volume or is not made of whole 4 KiB blocks; correct its range")]
    Range,
    /// The volume was closed while the request waited.
    #[error("the volume was closed before the request ran; open it again and repeat the request")]
    Closed,
    /// A [`GuestOp::Peek`] at a replica that is not in sync.
    #[error("this node's copy is out of date; ask the other node or wait for the resync")]
    NotInSync,
    /// The disks of a node refused a change of the volume table.
    #[error("a node could not change its volume table; look at its disks and repeat the request")]
    Disk,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_of_a_run() {
        let extents = |blocks| extents_of(BlockIndex::range(blocks));
        assert_eq!(extents(0..16), ExtentIndex::range(0..1));
        assert_eq!(extents(15..17), ExtentIndex::range(0..2));
        assert_eq!(extents(40..41), ExtentIndex::range(2..3));
        assert!(extents(40..40).is_empty());
    }
}

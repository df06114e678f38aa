//! Errors, one enum for each kind of call. A text says what to do and does not repeat its source.

use crate::disk::Fault;
use dyad_types::{BlockIndex, VolumeId};
use std::path::PathBuf;

/// A disk of the pool has failed: every operation fails until the pool is opened again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("disk {disk} failed")]
pub struct DiskFailed {
    /// As given to the opened [`crate::PoolDisk`].
    pub disk: String,
}

/// Why an operation that changes the store was refused. A refused operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The volume does not exist or is being deleted.
    #[error("volume {volume} does not exist in this pool; create it first")]
    NoVolume { volume: VolumeId },
    /// A volume of this id exists, or its deletion has not ended.
    #[error("volume {volume} exists or is still being deleted; choose another id or wait for the deletion")]
    Exists { volume: VolumeId },
    /// The range is outside the volume, empty or too long, or the data is not whole blocks.
    #[error("{count} blocks from block {block} of volume {volume} are outside the volume or the limits of one call")]
    Range { volume: VolumeId, block: BlockIndex, count: u64 },
    /// A key, a value or all values together are longer than allowed.
    #[error("the value is too long to be kept in the pool's small store")]
    TooLong,
    /// No free extent. The caller pauses the guest, runs a checkpoint, which frees discarded extents, and repeats.
    #[error("the pool has no space left; free some by deleting or discarding, or add a disk")]
    NoSpace,
    /// The journal or the overlay is full. The caller runs checkpoint steps and repeats.
    #[error("the journal is full until a checkpoint moves on; run checkpoint steps and retry")]
    JournalFull,
    /// A disk failed now or earlier. Every operation fails until the pool is opened again.
    #[error("disk {disk} failed; the store refuses everything until it is opened again")]
    Failed {
        /// As given to [`crate::Pool::open`].
        disk: String,
        /// `None` if the disk failed earlier.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The index lost or changed a record since it was opened.
    #[error("the index of disk {disk} is damaged: {what}; replace this replica from the peer")]
    IndexDamaged {
        disk: String,
        /// What does not fit.
        what: String,
    },
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        StoreError::Failed { disk: fault.disk, source: Some(fault.source) }
    }
}

/// Why a read returned no data.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Blocks do not match their checksums. The caller fetches them from the peer and writes them again.
    #[error("{} blocks of volume {volume} are corrupt, the first is {}; fetch them from the peer", blocks.len(), blocks[0])]
    Corrupt {
        volume: VolumeId,
        /// Ascending, at least one.
        blocks: Vec<BlockIndex>,
    },
    /// The disk refused the read. The caller fetches the range from the peer.
    #[error("disk {disk} could not be read; fetch the blocks from the peer")]
    Io {
        disk: String,
        #[source]
        source: std::io::Error,
    },
    /// The volume does not exist or is being deleted.
    #[error("volume {volume} does not exist in this pool")]
    NoVolume { volume: VolumeId },
    /// The range is outside the volume, empty or too long.
    #[error("{count} blocks from block {block} of volume {volume} are outside the volume or too many for one read")]
    Range { volume: VolumeId, block: BlockIndex, count: u64 },
    /// A disk failed earlier.
    #[error("disk {disk} failed; read from the peer until the pool is opened again")]
    Failed { disk: String },
    /// The index lost or changed a record since it was opened.
    #[error("the index of disk {disk} is damaged: {what}; read from the peer and replace this replica")]
    IndexDamaged {
        disk: String,
        /// What does not fit.
        what: String,
    },
}

/// Why a pool was not formatted. The disks are unchanged unless the error is `Io` or `Index`.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No disk, more than 24 disks, a repeated id, or a name that is too long.
    #[error("{0}")]
    Plan(&'static str),
    /// The disk is not blank, and only blank disks may be overwritten.
    #[error("disk {disk} is not blank ({what}); confirm its erasure or choose another disk")]
    NotBlank {
        disk: String,
        /// Content found on the disk.
        what: String,
    },
    /// The disk is too small for labels, journal and 64 extents.
    #[error("disk {disk} has {bytes} bytes; a pool disk needs at least {needed}")]
    TooSmall {
        disk: String,
        bytes: u64,
        /// Bytes that this pool needs on the disk.
        needed: u64,
    },
    /// A read or write of the disk failed.
    #[error("disk {disk} could not be written; check or replace it")]
    Io {
        disk: String,
        #[source]
        source: std::io::Error,
    },
    /// The index could not be created in its directory.
    #[error("the index in {path} could not be created; check its file system")]
    Index { path: PathBuf, what: String },
}

impl From<Fault> for FormatError {
    fn from(fault: Fault) -> Self {
        FormatError::Io { disk: fault.disk, source: fault.source }
    }
}

/// Why a pool was not opened. The disks are unchanged unless the error is `Io`.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk has no label.
    #[error("disk {disk} carries no Dyad label ({what}); it is not a pool disk")]
    NoLabel {
        disk: String,
        /// Content found on the disk.
        what: String,
    },
    /// There are labels, but each copy is damaged.
    #[error("all four labels of disk {disk} are damaged; replace the disk and let the peer refill it")]
    LabelDamaged { disk: String },
    /// The disk belongs to another pair or node.
    #[error("disk {disk} belongs to node {node} of the pair \"{pair}\"; it is not used here")]
    ForeignDisk { disk: String, pair: String, node: String },
    /// A newer version of the program wrote the label.
    #[error("disk {disk} has format {version}, newer than this program knows; update the node")]
    Version { disk: String, version: u32 },
    /// A disk of the pool was not given.
    #[error("pool disk {number} of {count} is missing; attach it")]
    DiskMissing {
        /// Number of the disk, from 0.
        number: u16,
        /// Number of disks of the pool.
        count: u16,
    },
    /// Two disks have the same number, or were formatted for different pools.
    #[error("disk {disk} does not fit the others of this pool; give only disks formatted together")]
    Mixed { disk: String },
    /// The device is shorter than when it was formatted.
    #[error("disk {disk} is cut short: {bytes} bytes where its label says {expected}; restore its size")]
    Truncated {
        disk: String,
        bytes: u64,
        /// Bytes according to the label.
        expected: u64,
    },
    /// The journal is damaged at a record that is known to have been durable.
    #[error("the journal on disk {disk} is damaged at record {record}: {what}; refill this replica from the peer")]
    JournalDamaged {
        disk: String,
        /// Number of the first record that is bad.
        record: u64,
        /// How the damage is known.
        what: String,
    },
    /// The index is damaged, missing, of another disk, or older than the label.
    #[error("the index of disk {disk} cannot be used: {what}; refill this replica from the peer")]
    IndexDamaged {
        disk: String,
        /// What does not fit.
        what: String,
    },
    /// A read or write of the disk failed.
    #[error("disk {disk} could not be read or written; check or replace it")]
    Io {
        disk: String,
        #[source]
        source: std::io::Error,
    },
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        OpenError::Io { disk: fault.disk, source: fault.source }
    }
}

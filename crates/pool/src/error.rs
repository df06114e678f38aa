//! Errors, one enum for each kind of call. An error's text says what the operator can do, and does not repeat its
//! source.

use crate::disk::DiskError;
use dyad_types::{BlockIndex, VolumeId};
use std::path::PathBuf;

/// The disk that has failed. Every operation of its pool fails until the pool is opened again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("disk {disk} failed")]
pub struct DiskFailed {
    /// The name from [`crate::PoolDisk`].
    pub disk: String,
}

/// The reason why an operation that changes the store was refused. The operation has changed nothing, except after
/// `Failed` and in [`crate::Pool::write_extent`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The volume does not exist, or is being deleted.
    #[error("volume {volume} does not exist in this pool; create it first")]
    NoVolume { volume: VolumeId },
    /// A volume with this id exists, or is still being deleted.
    #[error("volume {volume} exists or is still being deleted; choose another id or wait for the deletion")]
    Exists { volume: VolumeId },
    /// The range is outside the volume, empty or too long, or the data is not whole blocks.
    #[error("{count} blocks from block {block} of volume {volume} are outside the volume or the limits of one call")]
    Range { volume: VolumeId, block: BlockIndex, count: u64 },
    /// The key is empty, or key, value or all entries together are longer than allowed.
    #[error("the value is too long to be kept in the pool's small store")]
    TooLong,
    /// No slot is free for a new extent. The caller lets the guest wait, runs a checkpoint, which frees discarded
    /// extents, and repeats the write.
    #[error("the pool has no space left; free some by deleting or discarding, or add a disk")]
    NoSpace,
    /// The journal or the overlay is full. The caller runs checkpoint steps and repeats the operation.
    #[error("the journal is full until a checkpoint moves on; run checkpoint steps and retry")]
    JournalFull,
    /// A disk failed now or earlier. Every operation fails until the pool is opened again.
    #[error("disk {disk} failed; the store refuses everything until it is opened again")]
    Failed {
        /// The name from [`crate::PoolDisk`].
        disk: String,
        /// `None` if the disk failed earlier.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A record of the index is missing or damaged that was good when the pool was opened.
    #[error("the index of disk {disk} is damaged: {what}; replace this replica from the peer")]
    IndexDamaged {
        disk: String,
        /// The difference that was found.
        what: String,
    },
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        StoreError::Failed { disk: error.disk, source: Some(error.source) }
    }
}

/// The reason why a read returned no data.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Blocks do not match their checksums. The caller fetches these blocks from the peer and writes them again.
    #[error("{} blocks of volume {volume} are corrupt, the first is {}; fetch them from the peer", blocks.len(), blocks[0])]
    Corrupt {
        volume: VolumeId,
        /// At least one block, in ascending order.
        blocks: Vec<BlockIndex>,
    },
    /// The disk refused the read. The caller fetches the range from the peer.
    #[error("disk {disk} could not be read; fetch the blocks from the peer")]
    Io {
        disk: String,
        #[source]
        source: std::io::Error,
    },
    /// The volume does not exist, or is being deleted.
    #[error("volume {volume} does not exist in this pool")]
    NoVolume { volume: VolumeId },
    /// The range is outside the volume, empty or too long.
    #[error("{count} blocks from block {block} of volume {volume} are outside the volume or too many for one read")]
    Range { volume: VolumeId, block: BlockIndex, count: u64 },
    /// A write or sync of the disk failed earlier.
    #[error("disk {disk} failed; read from the peer until the pool is opened again")]
    Failed { disk: String },
    /// A record of the index is missing or damaged that was good when the pool was opened.
    #[error("the index of disk {disk} is damaged: {what}; read from the peer and replace this replica")]
    IndexDamaged {
        disk: String,
        /// The difference that was found.
        what: String,
    },
}

/// The reason why a pool was not formatted. The disks are unchanged unless the error is `Io` or `Index`.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// There is no disk, there are more than 24 disks, the ids are not one per disk and all different, or a name is
    /// longer than 255 bytes.
    #[error("{0}")]
    InvalidOptions(&'static str),
    /// The disk is not blank, and [`crate::Overwrite::BlankOnly`] was given.
    #[error("disk {disk} is not blank ({what}); confirm its erasure or choose another disk")]
    NotBlank {
        disk: String,
        /// Description of the content, for people.
        what: String,
    },
    /// The disk is too small for labels, journal and 64 extents.
    #[error("disk {disk} has {bytes} bytes; a pool disk needs at least {needed}")]
    TooSmall {
        disk: String,
        bytes: u64,
        /// Smallest size in bytes that a disk with this label and journal may have.
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

impl From<DiskError> for FormatError {
    fn from(error: DiskError) -> Self {
        FormatError::Io { disk: error.disk, source: error.source }
    }
}

/// The reason why a pool was not opened. The disks are unchanged unless the error is `Io`.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No label was found on the disk.
    #[error("disk {disk} carries no Dyad label ({what}); it is not a pool disk")]
    NoLabel {
        disk: String,
        /// Description of the content, for people.
        what: String,
    },
    /// Labels were found, but each copy is damaged or cannot be read.
    #[error("all four labels of disk {disk} are damaged; replace the disk and let the peer refill it")]
    LabelDamaged { disk: String },
    /// The label names another pair or node than [`crate::OpenOptions`] expects.
    #[error("disk {disk} belongs to node {node} of the pair \"{pair}\"; it is not used here")]
    ForeignDisk { disk: String, pair: String, node: String },
    /// The format version of the label is newer than the versions that this program reads.
    #[error("disk {disk} has format {version}, newer than this program knows; update the node")]
    Version { disk: String, version: u32 },
    /// A disk that the labels list was not given.
    #[error("pool disk {number} of {count} is missing; attach it")]
    DiskMissing {
        /// Number of the missing disk; the first is 0.
        number: u16,
        /// Number of disks of the pool.
        count: u16,
    },
    /// Two disks have the same number, or were formatted for different pools.
    #[error("disk {disk} does not fit the others of this pool; give only disks formatted together")]
    Mixed { disk: String },
    /// The device has become shorter since it was formatted.
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
        /// Number of the first damaged record.
        record: u64,
        /// The evidence that the record was durable before.
        what: String,
    },
    /// The index is damaged, missing or of another disk, or its checkpoint does not fit the label's.
    #[error("the index of disk {disk} cannot be used: {what}; refill this replica from the peer")]
    IndexDamaged {
        disk: String,
        /// The difference that was found.
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

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        OpenError::Io { disk: error.disk, source: error.source }
    }
}

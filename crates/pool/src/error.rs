//! What can go wrong, one enum per kind of call. Texts say what to do and never repeat their source.

use crate::disk::Fault;
use dyad_types::VolumeId;
use std::path::PathBuf;

/// Why an operation that changes the store was refused. A refused operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The volume does not exist or is being deleted.
    #[error("volume {volume} does not exist in this pool; create it first")]
    NoVolume {
        /// The volume asked for.
        volume: VolumeId,
    },
    /// A volume of this id exists, or its deletion is not finished.
    #[error("volume {volume} exists or is still being deleted; choose another id or wait for the deletion")]
    Exists {
        /// The volume asked for.
        volume: VolumeId,
    },
    /// Blocks outside the volume, an empty or too long range, or data that is not whole blocks.
    #[error("{count} blocks from block {block} of volume {volume} are outside the volume or the limits of one call")]
    Range {
        /// The volume asked for.
        volume: VolumeId,
        /// First block.
        block: u64,
        /// Blocks.
        count: u64,
    },
    /// A key, a value or all values together are longer than allowed.
    #[error("the value is too long to be kept in the pool's small store")]
    TooLong,
    /// No free extent. Pause the guest, run a checkpoint (it frees what was discarded), retry.
    #[error("the pool has no space left; free some by deleting or discarding, or add a disk")]
    NoSpace,
    /// The journal or the overlay is full. Run checkpoint steps and retry.
    #[error("the journal is full until a checkpoint moves on; run checkpoint steps and retry")]
    JournalFull,
    /// A disk failed: now, or earlier. Nothing works until the pool is opened again.
    #[error("disk {disk} failed; the store refuses everything until it is opened again")]
    Failed {
        /// Name of the disk, as given to open.
        disk: String,
        /// The system's reason, when the failure is new.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The index lost or changed a record since it was opened.
    #[error("the index of disk {disk} is damaged: {what}; replace this replica from the peer")]
    IndexDamaged {
        /// Name of the disk.
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

/// Why a read gave no data.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// These blocks do not match their checksums. Fetch them from the peer and write them again.
    #[error("{} blocks of volume {volume} are corrupt, the first is {}; fetch them from the peer", blocks.len(), blocks[0])]
    Corrupt {
        /// The volume read.
        volume: VolumeId,
        /// The corrupt blocks in ascending order, at least one.
        blocks: Vec<u64>,
    },
    /// The disk refused the read. Fetch the range from the peer.
    #[error("disk {disk} could not be read; fetch the blocks from the peer")]
    Io {
        /// Name of the disk.
        disk: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The volume does not exist or is being deleted.
    #[error("volume {volume} does not exist in this pool")]
    NoVolume {
        /// The volume asked for.
        volume: VolumeId,
    },
    /// Blocks outside the volume or too many.
    #[error("{count} blocks from block {block} of volume {volume} are outside the volume or too many for one read")]
    Range {
        /// The volume asked for.
        volume: VolumeId,
        /// First block.
        block: u64,
        /// Blocks.
        count: u64,
    },
    /// A disk failed earlier.
    #[error("disk {disk} failed; read from the peer until the pool is opened again")]
    Failed {
        /// Name of the disk.
        disk: String,
    },
    /// The index lost or changed a record since it was opened.
    #[error("the index of disk {disk} is damaged: {what}; read from the peer and replace this replica")]
    IndexDamaged {
        /// Name of the disk.
        disk: String,
        /// What does not fit.
        what: String,
    },
}

/// Why a pool was not formatted. Nothing was changed unless the error is `Io` or `Index`.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No disk, more than 24, or names that are too long.
    #[error("{0}")]
    Plan(&'static str),
    /// A disk that is not blank, and no leave to overwrite it.
    #[error("disk {disk} is not blank ({what}); confirm its erasure or choose another disk")]
    NotBlank {
        /// Name of the disk.
        disk: String,
        /// What was found on it.
        what: String,
    },
    /// Too small to hold labels, journal and 64 extents.
    #[error("disk {disk} has {bytes} bytes; a pool disk needs at least {needed}")]
    TooSmall {
        /// Name of the disk.
        disk: String,
        /// Its length.
        bytes: u64,
        /// What this pool needs there.
        needed: u64,
    },
    /// The disk refused.
    #[error("disk {disk} could not be written; check or replace it")]
    Io {
        /// Name of the disk.
        disk: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The index directory refused.
    #[error("the index in {path} could not be created; check its file system")]
    Index {
        /// The directory.
        path: PathBuf,
        /// What the database said.
        what: String,
    },
}

impl From<Fault> for FormatError {
    fn from(fault: Fault) -> Self {
        FormatError::Io { disk: fault.disk, source: fault.source }
    }
}

/// Why a pool was not opened. Nothing on the disks was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No label at all.
    #[error("disk {disk} carries no Dyad label ({what}); it is not a pool disk")]
    NoLabel {
        /// Name of the disk.
        disk: String,
        /// What is on it instead.
        what: String,
    },
    /// Label places are used, but no copy is whole.
    #[error("all four labels of disk {disk} are damaged; replace the disk and let the peer refill it")]
    LabelDamaged {
        /// Name of the disk.
        disk: String,
    },
    /// The disk belongs to someone else.
    #[error("disk {disk} belongs to node {node} of the pair \"{pair}\"; it is not used here")]
    ForeignDisk {
        /// Name of the disk.
        disk: String,
        /// The other pair's name.
        pair: String,
        /// The other node's name.
        node: String,
    },
    /// A newer program wrote it.
    #[error("disk {disk} has format {version}, newer than this program knows; update the node")]
    Version {
        /// Name of the disk.
        disk: String,
        /// The format found.
        version: u32,
    },
    /// The pool has more disks than were given.
    #[error("pool disk {number} of {count} is missing; attach it")]
    DiskMissing {
        /// Which one, from 0.
        number: u16,
        /// How many the pool has.
        count: u16,
    },
    /// Two disks claim one place, or disks of different poolings are mixed.
    #[error("disk {disk} does not fit the others of this pool; give only disks formatted together")]
    Mixed {
        /// Name of the disk.
        disk: String,
    },
    /// The device is shorter than when it was formatted.
    #[error("disk {disk} is cut short: {bytes} bytes where its label says {expected}; restore its size")]
    Truncated {
        /// Name of the disk.
        disk: String,
        /// Bytes now.
        bytes: u64,
        /// Bytes in the label.
        expected: u64,
    },
    /// The journal is damaged where it is known to have been durable.
    #[error("the journal on disk {disk} is damaged at record {record}: {what}; refill this replica from the peer")]
    JournalDamaged {
        /// Name of the disk.
        disk: String,
        /// Number of the first record that is bad.
        record: u64,
        /// How it is known.
        what: String,
    },
    /// The index is damaged, missing, of another disk, or older than the label.
    #[error("the index of disk {disk} cannot be used: {what}; refill this replica from the peer")]
    IndexDamaged {
        /// Name of the disk.
        disk: String,
        /// What does not fit.
        what: String,
    },
    /// The disk refused.
    #[error("disk {disk} could not be read or written; check or replace it")]
    Io {
        /// Name of the disk.
        disk: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        OpenError::Io { disk: fault.disk, source: fault.source }
    }
}

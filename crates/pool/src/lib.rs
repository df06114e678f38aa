//! # dyad-pool: the on-disk store of one node
//!
//! Writes of 4 KiB blocks go to a journal. Checkpoints copy them to 64 KiB extents, which take space only once they are
//! written. Each byte that is read from a disk is verified with a checksum that is stored apart from the data. The
//! store also holds the metadata that the mirror needs: which extents are dirty, which were written since the last
//! confirmation, and a few named values.
//!
//! This crate must never know the peer, the network, the meaning of epochs (it only stores the number), time,
//! threads (it returns jobs, which the caller runs on any thread) or a source of random numbers (they are arguments).
//!
//! ## Path of a write
//!
//! ```text
//! write() ──► journal ring (page cache)  ──begin_sync/complete_sync──► durable
//!                │ overlay: (volume, extent) -> journal page + checksum
//!                ▼ checkpoint
//! journal sync ─► extents (O_DIRECT) ─► sync of the disks ─► index commits ─► labels ─► journal tail moves
//! ```
//!
//! ## Invariants
//!
//! * **An operation whose call has returned survives SIGKILL**: its journal record is in the page cache. Only
//!   [`Pool::confirm`] may be lost: it is not journalled each time.
//!   **An operation that a completed sync covers survives loss of power**: it is on stable storage.
//! * A position counts as durable only if a sync began after its record was written, and succeeded.
//! * A block is written to its extent only after its journal record is durable; an index is committed only
//!   after the extents that it names are durable; the journal tail moves, and freed slots are reused, only
//!   after every index has committed and the label with the new tail is durable.
//! * Replay is idempotent. If the journal has a record of a block, the block's state after replay depends on the
//!   journal alone; otherwise on an index record, which no unfinished checkpoint has changed.
//! * Each byte that a read returns from the journal or from an extent matched its CRC32C in the same read. All other
//!   bytes are zeros of blocks that were never written or were discarded.
//! * `ExtentMap` in memory says which extents are stored; an index without a record of such an extent is damaged.
//! * After a failed write or sync the disk and its pool refuse every operation until the pool is opened again.
//!
//! ## Limits of memory use
//!
//! | part | limit |
//! | --- | --- |
//! | overlays (active and frozen) | each about 1.5 × [`OVERLAY_LIMIT`] extents of about 230 B: 90 MB together |
//! | extent map | 1 B per 64 KiB stored, in chunks of 4 KiB: 16 MiB per TiB of data |
//! | free slots | 1 bit per 64 KiB of disk: 2 MiB per TiB |
//! | dirty and unconfirmed extents | 1 bit per 64 KiB written, at most 5 such sets per volume: 2 MiB per TiB and set |
//! | values of `meta_put` | [`META_TOTAL_MAX`] |
//! | jobs in flight | one sync, one checkpoint job of the caller's budget (64 KiB per extent), the caller's reads |

mod birth;
mod buffer;
mod checkpoint;
mod checksum;
mod codec;
mod disk;
mod error;
mod extent_map;
mod index;
mod inspect;
mod journal;
mod label;
mod layout;
mod open;
mod overlay;
mod pool;
mod read;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod space;
mod state;
mod sync;
#[cfg(test)]
mod tests;

pub use checkpoint::{CheckpointDone, CheckpointJob, Progress};
pub use disk::{Access, Disk, FileDisk, PoolDisk};
pub use error::{DiskFailed, FormatError, OpenError, ReadError, StoreError};
pub use inspect::{Inspection, erase, inspect};
pub use label::PoolIdentity;
pub use layout::index_bytes;
pub use open::{FormatOptions, OpenOptions, OpenReport, Overwrite};
pub use pool::{MetaEntry, Pool, Usage, VolumeInfo};
pub use read::ReadJob;
pub use sync::{SyncDone, SyncJob};

/// Largest number of blocks of one [`Pool::write`] (1 MiB).
pub const MAX_WRITE_BLOCKS: u64 = 256;
/// Largest number of blocks of one [`Pool::read`] (16 MiB).
pub const MAX_READ_BLOCKS: u64 = 4096;
/// Largest number of blocks of one [`Pool::discard`] (1 GiB).
pub const MAX_DISCARD_BLOCKS: u64 = 1 << 18;
/// Largest number of blocks of a volume (4 PiB).
pub const MAX_VOLUME_BLOCKS: u64 = 1 << 40;
/// Number of extents in the active overlay at which writes are refused with [`StoreError::JournalFull`] until a
/// checkpoint begins. Discards are refused at 1.25 times this number.
pub const OVERLAY_LIMIT: usize = 128 * 1024;
/// Largest length of a key of [`Pool::meta_put`], in bytes.
pub const META_KEY_MAX: usize = 256;
/// Largest length of a value of [`Pool::meta_put`], in bytes.
pub const META_VALUE_MAX: usize = 64 * 1024;
/// Largest sum of the lengths of all keys and values of [`Pool::meta_put`], in bytes.
pub const META_TOTAL_MAX: usize = 4 << 20;

/// The number of a journal record, as a point in the journal. An operation is durable once [`Pool::durable`] is not
/// lower than its position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

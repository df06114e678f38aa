//! # dyad-pool: the on-disk store of one node
//!
//! Takes writes of 4 KiB blocks into a journal, moves them to thin 64 KiB extents at checkpoints,
//! and verifies every byte it returns with a checksum that is stored apart from the data. It also stores
//! the metadata the mirror needs: which extents are dirty, which were touched since the last common
//! flush, and a few named values.
//!
//! It must never know: the peer, the network, the meaning of epochs (it only stores the number), time,
//! threads (it returns jobs, and the caller runs them on any thread) or randomness (an argument).
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
//! * **An acknowledged operation survives SIGKILL**: it is in the page cache when the call returns.
//!   **An operation that a completed sync covers survives loss of power**: it is on stable storage.
//! * A position is called durable only if the sync began after it was written and did not fail.
//! * An extent is written in place only after its journal record is durable; an index is committed only
//!   after the extents it names are durable; the journal tail moves, and freed slots are reused, only
//!   after every index has committed and the labels are durable.
//! * Replay is idempotent: a block's state after replay depends on the journal alone if the journal
//!   touches it, and on an index record that no unfinished checkpoint changed otherwise.
//! * Every byte returned by a read matched its CRC32C in the same read, from the journal as from an extent.
//! * `ExtentMap` in memory says which extents exist; an index without a record of such an extent is corrupt.
//! * After a failed write or sync the disk and the pool refuse every operation until the pool is opened again.
//!
//! ## Bounds on memory
//!
//! | what | bound |
//! | --- | --- |
//! | overlay (active + frozen) | 2 × [`OVERLAY_LIMIT`] entries of about 230 B: 60 MiB |
//! | extent_map | 1 B per 64 KiB stored, in chunks of 4 KiB: 16 MiB per TiB of data |
//! | free map | 1 bit per 64 KiB of disk: 2 MiB per TiB |
//! | dirty map, unconfirmed extents | 1 bit per 64 KiB touched, at most 5 such sets per volume: 2 MiB per TiB and set |
//! | values of `meta_put` | [`META_TOTAL_MAX`] |
//! | jobs in flight | one sync, one checkpoint job of the caller's budget (64 KiB per extent) |

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

/// Most blocks of one [`Pool::write`].
pub const MAX_WRITE_BLOCKS: u64 = 256;
/// Most blocks of one [`Pool::read`].
pub const MAX_READ_BLOCKS: u64 = 4096;
/// Most blocks of one [`Pool::discard`] (1 GiB).
pub const MAX_DISCARD_BLOCKS: u64 = 1 << 18;
/// Most blocks of a volume (4 PiB).
pub const MAX_VOLUME_BLOCKS: u64 = 1 << 40;
/// Extents in the overlay from which on a write is refused with [`StoreError::JournalFull`] until a checkpoint.
pub const OVERLAY_LIMIT: usize = 128 * 1024;
/// Longest key of [`Pool::meta_put`], in bytes.
pub const META_KEY_MAX: usize = 256;
/// Longest value of [`Pool::meta_put`], in bytes.
pub const META_VALUE_MAX: usize = 64 * 1024;
/// Bytes all values and keys of [`Pool::meta_put`] may take together.
pub const META_TOTAL_MAX: usize = 4 << 20;

/// A point in the journal. An operation is durable once [`Pool::durable`] is at or past its position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

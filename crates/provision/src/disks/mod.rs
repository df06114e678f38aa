//! The disks of this node: search for candidates, formatting, opening and erasing of pool disks.
//!
//! A pool disk is a GPT disk with two partitions of our own types: `dyad-index` (ext4, holds the LMDB index) and
//! `dyad-pool` (raw: labels, journal, extents), so it is self-contained. In tests and on a laptop a pool disk is a
//! plain file, such as `one.disk`, with the directory `one.index` beside it.

mod error;
mod format;
mod layout;
mod open;
mod scan;

pub use error::DiskError;
pub use format::{erase, prepare};
pub use layout::{INDEX_TYPE, Index, MIN_DISK_BYTES, POOL_TYPE, PoolDiskPaths};
pub use open::open;
pub use scan::{find_pool_disks, list, parts};

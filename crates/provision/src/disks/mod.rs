//! The disks of this node: what is there, making pool disks of them, opening them again.
//!
//! A pool disk is a GPT disk with two partitions of our own types: `dyad-index` (ext4, holds the LMDB index) and
//! `dyad-pool` (raw: labels, journal, extents). So a disk is self-contained. On a laptop a pool disk is a plain file
//! `F` with the directory `F.index` beside it.

mod error;
mod format;
mod layout;
mod open;
mod scan;

pub use error::DiskError;
pub use format::{erase, prepare};
pub use layout::{INDEX_TYPE, Index, POOL_TYPE, PoolDiskPaths, SMALLEST_DISK};
pub use open::open;
pub use scan::{find_pool_disks, list, parts};

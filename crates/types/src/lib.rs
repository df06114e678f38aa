//! Identifiers, numbers and sizes that all crates share.
//!
//! A type is here when two crates would otherwise define it: the node of a pair, the unit of checksums, the unit of
//! resync. A type that one crate owns stays in that crate.
//!
//! This crate must never know a crate of the workspace, a clock, a socket, a disk or the layout of a format. It depends
//! on std, serde and `bytes` only; `bytes` because the content of an extent is shared by store and wire without a copy.
//!
//! **Invariants**
//! * Identifiers and numbers are `Copy`, and a wrapper of a number has the size and the serialised form of
//!   that number, so that formats on disk and on the wire do not depend on whether a field is wrapped.
//! * The serialised form of [`NodeId`] is `"A"` or `"B"` in JSON and the index 0 or 1 in postcard; documents, registers,
//!   datagrams and the API hold it.

mod boot_time;
mod disk;
mod extent_image;
mod extent_set;
mod node;
#[macro_use]
mod number;
mod numbers;
mod sizes;

pub use boot_time::BootTime;
pub use disk::DiskContent;
pub use extent_image::{BlockMasks, ExtentImage, Run};
pub use extent_set::{CHUNK_BYTES, CHUNK_EXTENTS, ExtentSet, Ranges};
pub use node::{NodeId, ParseNodeError};
pub use numbers::{BlockIndex, Epoch, ExtentIndex, IndexRange, Seq, Session, Stamp, VolumeId};
pub use sizes::{BLOCK, BLOCK_BYTES, EXTENT, EXTENT_BLOCKS, EXTENT_BYTES, MIB, WITNESS_PORT};

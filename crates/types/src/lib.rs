//! Identifiers, numbers and sizes that all crates share.
//!
//! A type is here if two crates would otherwise define it, such as the node of a pair, the block and the extent. A type
//! that only one crate defines stays in that crate.
//!
//! This crate must never know a crate of the workspace, a clock, a socket, a disk or the layout of a format. It depends
//! on std, serde and `bytes` only; on `bytes` because store and peer link share the content of an extent without a
//! copy.
//!
//! **Invariants**
//! * Identifiers and numbers are `Copy`. A type that wraps a number has the size and the serialised form of that
//!   number, so that formats on disk and on the wire do not change if a field gets such a type.
//! * The serialised form of [`NodeId`] is `"A"` or `"B"` in JSON and the index 0 or 1 in postcard. Documents,
//!   registers, datagrams and the API contain it.

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

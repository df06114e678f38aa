//! A blank node becomes a member of a pair, and a member becomes blank: disks, identity, register, setup, erasing.
//!
//! ```text
//!             setup::create_pair, setup::join
//!        ┌──────────────────────────────────────────▶
//!  blank                                               member   (identity.json, pool disks, register)
//!        ◀──────────────────────────────────────────┘
//!             erase::decommission, then erase::undo
//! ```
//!
//! This crate must never know a running pair: no mirror, no lease, no VM. The core decides when a node may be erased;
//! this crate erases it.
//!
//! **Invariants.** Before the first label of a pair is written on a disk, and until the last erasable label is
//! erased, a file on the state partition names that pair ([`identity`]). So [`erase::undo`] undoes a setup that was
//! interrupted anywhere, and leaves a blank node. Setup never writes on a disk that carries the label of a pair; a
//! person must erase it first ([`erase::disk`]).

pub mod admission;
pub mod disks;
pub mod document_cache;
pub mod enrol;
pub mod erase;
pub mod identity;
pub mod paths;
pub mod refusal;
pub mod register;
pub mod setup;

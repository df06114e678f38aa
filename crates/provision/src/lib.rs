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
//! It must never know a running pair: no mirror, no lease, no VM. The daemon says when a node may be erased; this crate
//! says how.
//!
//! **Invariants.** Before the first label of a pair is written on a disk, and until the last one is erased, a file on the
//! state partition names that pair ([`identity`]). So setup that was cut short anywhere is undone by [`erase::undo`] and
//! leaves a blank node. A disk that carries the label of another pair is never written.

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

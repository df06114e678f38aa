//! The replicated document: what the people who own the pair want it to be.
//!
//! One [`Document`] names the nodes, the volumes, the VMs, the users, the witness and the policies. It changes only
//! through [`apply`], which takes the old document and one [`Change`] and gives the new document or one clear
//! [`Refusal`]; it lies in volume 0 of the pool as two alternating slots ([`slots`]).
//!
//! This crate must never know: files, sockets, clocks, threads, HTTP, QEMU, or which node it runs on.
//!
//! **Invariants** (checked by [`Document::check`], kept by every change, shown by `tests/apply.rs`):
//! * every name is a good name ([`names::check`]), every number lies in the range its constant states;
//! * a volume is a disk of at most one VM, each disk names a volume that exists, and the volume's primary is the VM's
//!   node;
//! * a volume id is never 0 (that is the document itself) and never given twice;
//! * no image is on its way into the disk of a VM;
//! * the generation grows by exactly one per change, so of two documents the newer one is known.

mod change;
mod document;
pub mod limits;
pub mod names;
mod refusal;
pub mod slots;

pub use change::{Change, NewVm, apply, fail_over};
pub use document::{
    Document, Firmware, Intent, NodeRecord, Policies, User, UserRole, Vm, Volume, VolumeId, WitnessInfo,
};
pub use refusal::Refusal;

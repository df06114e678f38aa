//! The replicated document: the desired state of a pair.
//!
//! One [`Document`] names the nodes, the volumes, the VMs, the users, the witness and the policies. It changes only
//! through [`apply`], which takes the old document and one [`Change`] and returns the new document or a [`Refusal`]. It
//! is stored in volume 0 of the pool, in two alternating slots ([`slots`]).
//!
//! This crate must never know files, sockets, clocks, threads, HTTP, QEMU, or which node it runs on.
//!
//! **Invariants** (kept by every change, tested by `tests/apply.rs`; [`Document::check`] checks those that can be seen in
//! one document):
//! * every name follows the rule of [`names::check`], every number is in the range of its constant;
//! * a volume is a disk of at most one VM, each disk names a volume that exists, and the volume's primary is the VM's
//!   node;
//! * a volume id is never 0, which is the document, and is never assigned twice;
//! * no image is sent into a volume that is a disk of a VM;
//! * the generation grows by exactly one with each change, so that the newer of two documents is known.

mod change;
mod document;
pub mod limits;
pub mod names;
mod refusal;
pub mod slots;

pub use change::{Change, apply, fail_over};
pub use document::{
    ADMIN, Document, Firmware, Intent, NodeRecord, Policies, User, UserRole, Vm, VmConfig, Volume, WitnessInfo,
};
pub use refusal::Refusal;

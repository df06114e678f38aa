//! Placement: which node writes each volume, which volumes are served, and which VMs may run.
//!
//! `quorum` decides who is in sync and who may run VMs, `mirror` what a write needs. This crate holds the rules between them
//! and the rest of a node. The daemon and the simulator drive the same [`Placement`]; neither has a copy of a rule.
//!
//! ```text
//! quorum thread ──► configuration, acknowledgement set, right to run ─┐
//! mirror ─────────► peer clean, peer dirty ───────────────────────────┤   Placement
//! document ───────► nodes of VMs, primaries of volumes ───────────────┤      │
//! kernel, pool ───► LocalState ───────────────────────────────────────┘      ▼
//!              writers, device servers, permits, the level "VMs may exist here", the fail-over, clean and dirty for quorum
//! ```
//!
//! It must never know: files, sockets, threads, clocks, randomness, QEMU, HTTP.
//!
//! **Invariants.**
//! * A volume has a device server only while this node is in the in-sync set and writes it.
//! * A VM is permitted only while all its disks have servers, and `quorum` is told that VMs may exist before the permit is
//!   given ([`Placement::settle_permits`]).
//! * While this node leaves or is decommissioned, and after its pool has failed, nothing is served and nothing permitted,
//!   whatever its right to run VMs.
//! * The node that writes a volume and the node that runs a VM are taken only from a document that was read in the current
//!   membership term ([`Placement::authoritative_document`]).
//! * While both nodes are members, this node begins to write a volume that the peer may have written before only after the
//!   peer has said that it knows the document that changes the writer, or after 3 s (`rules/handover.rs`).
//! * The peer is not reported clean while its VMs are being failed over.
//! * A VM or volume of a node outside the in-sync set stays as it is until that node's fence is over
//!   ([`Placement::refuse_change`]).

mod cgroup_rule;
mod document_task;
mod event;
mod lifecycle;
mod mutants;
mod parts;
mod rules;

pub use cgroup_rule::{CgroupCommand, CgroupRule, CgroupState, CgroupWrite};
pub use document_task::{ChangeError, ChangeTicket, DocumentAction, DocumentRequest, DocumentTask};
pub use event::{Action, Event, LocalState, RightToRun};
pub use lifecycle::{LeaveCause, LeaveEnd, Lifecycle, Timer};
pub use mutants::{Mutant, Mutants};
pub use parts::{DocumentCopy, MembershipTerm};
pub use rules::{ChangeRefusal, Placement};

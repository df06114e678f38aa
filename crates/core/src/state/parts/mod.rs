//! The parts of the state. Each owns its values and keeps its own invariants. None knows [`super::CoreState`], another
//! part, or a thread, socket or file. The handling of events, which may concern several parts, is in the files beside this
//! folder.

mod changes;
mod document;
mod guest_access;
mod imports;
mod lifecycle;
mod membership;
mod replication;
mod report;
mod self_test;
mod volume_gc;

pub(super) use changes::{Changes, Pending};
pub(super) use document::DocumentCopy;
pub(super) use guest_access::{GuestAccess, ServedVolume};
pub(super) use imports::Imports;
pub(super) use lifecycle::{LeaveWaiter, Lifecycle};
pub(super) use membership::{FailOver, Membership};
pub(super) use replication::{Replication, ReplyReceiver};
pub(super) use report::Report;
pub(super) use self_test::SelfTest;
pub(super) use volume_gc::VolumeGc;

//! The parts of the state. Each owns its values and keeps its own invariants. None knows [`super::CoreState`], another
//! part, or a thread, socket or file. The handling of events, which may concern several parts, is in the files beside this
//! folder.

mod changes;
mod guest_access;
mod leave_waiter;
mod placement_actions;
mod replication;
mod report;
mod self_test;

pub(super) use changes::{Changes, Pending};
pub(super) use guest_access::{GuestAccess, ServedVolume};
pub(super) use leave_waiter::LeaveWaiter;
pub(super) use placement_actions::PlacementActions;
pub(super) use replication::{Replication, ReplyReceiver};
pub(super) use report::Report;
pub(super) use self_test::SelfTest;

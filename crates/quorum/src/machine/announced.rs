//! What the machine has already told the daemon, so that each thing is told once.

use super::*;

/// How much of the peer's fence was told since this node became solo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FenceAnnounced {
    /// Nothing.
    Nothing,
    /// That it must be waited for.
    Wait,
    /// That it is over.
    Over,
}

/// What was last told. `settle` compares it with the state and tells the difference.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    /// The configuration of the start was told.
    pub config: bool,
    /// [`Action::LeaveDone`] was told.
    pub leave_done: bool,
    /// The witness was called lost.
    pub witness_lost: bool,
    pub fence: FenceAnnounced,
    pub ack_set: Option<Members>,
    pub alarms: BTreeSet<Alarm>,
}

impl Announced {
    /// At the start of the daemon: nothing.
    pub(super) fn nothing() -> Announced {
        Announced {
            config: false,
            leave_done: false,
            witness_lost: false,
            fence: FenceAnnounced::Nothing,
            ack_set: None,
            alarms: BTreeSet::new(),
        }
    }
}

//! The state that was last announced to the daemon, so that each change is announced once.

use crate::event::Alarm;
use crate::types::Members;
use std::collections::BTreeSet;

/// The announcements of the peer's fence since this node became solo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FenceAnnounced {
    Nothing,
    /// [`crate::Note::FenceWait`] was sent.
    Wait,
    /// [`crate::Note::FenceOver`] and [`crate::Action::PeerVmsAllowed`] were sent.
    Over,
}

/// The announced state. `settle` compares it with the state in force and announces the difference.
///
/// Invariant: it changes only where the action that announces the change is appended to the list of actions. Two
/// changes withdraw an announcement, so that it is repeated: a configuration without this node as the only member
/// (`fence`), and [`crate::Event::CancelLeave`] (`leave_done`).
#[derive(Clone, Debug)]
pub(super) struct Announced {
    /// [`crate::Action::Config`] was sent for the configuration of the start, or there was none.
    pub initial_config: bool,
    /// [`crate::Action::LeaveDone`] was sent.
    pub leave_done: bool,
    /// [`crate::Note::WitnessLost`] was sent, and [`crate::Note::WitnessBack`] was not sent since.
    pub witness_lost: bool,
    pub fence: FenceAnnounced,
    pub ack_set: Option<Members>,
    pub alarms: BTreeSet<Alarm>,
}

impl Announced {
    /// The state at the start of the daemon.
    pub(super) fn nothing() -> Announced {
        Announced {
            initial_config: false,
            leave_done: false,
            witness_lost: false,
            fence: FenceAnnounced::Nothing,
            ack_set: None,
            alarms: BTreeSet::new(),
        }
    }
}

//! What was already announced to the daemon, so that each change is announced once.

use super::*;

/// What was announced of the peer's fence since this node became solo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FenceAnnounced {
    Nothing,
    /// [`Note::FenceWait`].
    Wait,
    /// [`Note::FenceOver`] and [`Action::PeerVmsAllowed`].
    Over,
}

/// The announced state. `settle` compares it with the state in force and announces the difference.
///
/// Invariant: it changes only where the action that announces the change is appended to the list of actions. Two changes
/// withdraw an announcement, so that it is repeated: a configuration without this node as the only member (`fence`), and
/// [`Event::CancelLeave`] (`leave_done`).
#[derive(Clone, Debug)]
pub(super) struct Announced {
    /// [`Action::Config`] for the configuration of the start.
    pub config: bool,
    /// [`Action::LeaveDone`].
    pub leave_done: bool,
    /// [`Note::WitnessLost`], and not yet [`Note::WitnessBack`].
    pub witness_lost: bool,
    pub fence: FenceAnnounced,
    pub ack_set: Option<Members>,
    pub alarms: BTreeSet<Alarm>,
}

impl Announced {
    /// At the start of the daemon.
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

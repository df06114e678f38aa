//! The state of this node as a proposer: the active proposal, and the limits on the next ballot.

use crate::event::Reason;
use crate::message::WitnessRequestId;
use crate::proposer::Proposal;
use crate::types::{Acceptor, Ballot, BootTime, Config};

/// A proposal under way and the progress of its request.
#[derive(Clone, Debug)]
pub(super) struct ActiveProposal {
    pub proposal: Proposal,
    pub why: Reason,
    /// Start of the proposal.
    pub begun: BootTime,
    /// Time at which the request was last sent; `None` until the promise of this node is durable.
    pub sent_at: Option<BootTime>,
    /// Id of the request to the witness, also when the peer relays it.
    pub request_id: WitnessRequestId,
    /// The request was sent to the witness directly, and the witness was not reported unreachable since.
    pub waiting: bool,
    /// The peer was asked to relay the request to the witness.
    pub relayed: bool,
    /// The target's vote. It is kept here until VMs have stopped or another write is complete.
    pub voted: Option<(Ballot, Config)>,
}

/// The state of this node as a proposer. It is kept in memory only: a restart forgets it.
///
/// Invariants: at most one proposal is active. A ballot is never reused. A proposal that is given up sets `abandoned`,
/// because an acceptor may have accepted its value.
#[derive(Clone, Debug)]
pub(super) struct Proposals {
    pub active: Option<ActiveProposal>,
    /// A proposal of this epoch was given up, or lost in a restart, after it may have reached an acceptor.
    pub abandoned: bool,
    /// The next ballot must have a higher round than this one.
    pub ballot_floor: Ballot,
    /// Earliest time of the next ballot.
    pub not_before: BootTime,
    /// The next ballot goes to the other acceptor, where that is allowed.
    pub try_other: bool,
}

impl Proposals {
    /// The state at the start of the daemon. `abandoned`: the record holds a promise that an earlier run gave to
    /// itself.
    pub(super) fn at_start(now: BootTime, abandoned: bool) -> Proposals {
        Proposals { active: None, abandoned, ballot_floor: Ballot::ZERO, not_before: now, try_other: false }
    }

    /// Gives up the active proposal, if any.
    pub(super) fn give_up(&mut self) {
        if let Some(active) = self.active.take() {
            self.abandoned |= active.sent_at.is_some();
        }
    }

    /// Stores an acceptor's vote for `value` at `ballot`, if the active proposal asked this acceptor at this ballot.
    pub(super) fn on_accepted(&mut self, from: Acceptor, ballot: Ballot, value: &Config) {
        if let Some(active) = &mut self.active
            && active.proposal.target == from
            && active.proposal.request.ballot == ballot
            && active.sent_at.is_some()
        {
            active.voted = Some((ballot, value.clone()));
        }
    }

    /// Drops the active proposal if it has this `ballot`: the acceptor had promised a higher one. The next ballot of
    /// this node is above `promised`, and not earlier than `not_before`.
    pub(super) fn on_nack(&mut self, ballot: Ballot, promised: Ballot, not_before: BootTime) {
        let nacked = |active: &mut ActiveProposal| active.proposal.request.ballot == ballot && active.voted.is_none();
        if self.active.take_if(nacked).is_some() {
            self.ballot_floor = self.ballot_floor.max(promised);
            self.not_before = not_before;
        }
    }

    /// Resets the state, which belonged to the epoch that is decided now.
    pub(super) fn on_chosen(&mut self, now: BootTime) {
        *self = Proposals::at_start(now, false);
    }

    /// Configurations that are not in force but may become so: see [`crate::rules::NodeRights::pending`].
    pub(super) fn pending(&self) -> [Option<&Config>; 2] {
        let active = self.active.as_ref();
        [
            active.map(|active| active.proposal.value()),
            active.and_then(|active| active.voted.as_ref()).map(|(_, value)| value),
        ]
    }
}

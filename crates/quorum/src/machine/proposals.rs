//! The proposer's state of this node: the active proposal and what delays or steers the next one.

use crate::event::Reason;
use crate::message::WitnessRequestId;
use crate::proposer::Proposal;
use crate::types::{Acceptor, Ballot, BootTime, Config};

/// A proposal under way.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub proposal: Proposal,
    pub why: Reason,
    pub begun: BootTime,
    /// When it was last sent; `None` until its own promise is durable.
    pub sent_at: Option<BootTime>,
    /// Id of the request to the witness, also when the peer relays it.
    pub request_id: WitnessRequestId,
    /// The witness was asked directly and has neither answered nor been reported unreachable.
    pub waiting: bool,
    /// The peer was asked to relay it to the witness.
    pub relayed: bool,
    /// The target's vote. It waits here for VMs to stop or for another write.
    pub voted: Option<(Ballot, Config)>,
}

/// The proposer's state. It lives in memory only: a restart forgets it.
///
/// Invariants: at most one proposal is active. A ballot is never reused: a proposal that is given up leaves
/// `abandoned`, because its value may lie at an acceptor.
#[derive(Clone, Debug)]
pub(super) struct Proposals {
    pub active: Option<Active>,
    /// A proposal was given up after it may have reached an acceptor.
    pub abandoned: bool,
    /// New ballots are above this one.
    pub ballot_floor: Ballot,
    /// No new ballot before this time.
    pub not_before: BootTime,
    /// The next ballot goes to the other acceptor, where that is allowed.
    pub try_other: bool,
}

impl Proposals {
    /// At the start of the daemon. `abandoned`: the record holds an own promise of an earlier run.
    pub(super) fn at_start(now: BootTime, abandoned: bool) -> Proposals {
        Proposals { active: None, abandoned, ballot_floor: Ballot::ZERO, not_before: now, try_other: false }
    }

    /// Gives up the active proposal.
    pub(super) fn give_up(&mut self) {
        if let Some(active) = self.active.take() {
            self.abandoned |= active.sent_at.is_some();
        }
    }

    /// An acceptor voted for `value` at `ballot`. Counts only if the active proposal asked this acceptor at this ballot.
    pub(super) fn on_accepted(&mut self, from: Acceptor, ballot: Ballot, value: &Config) {
        if let Some(active) = &mut self.active
            && active.proposal.target == from
            && active.proposal.request.ballot == ballot
            && active.sent_at.is_some()
        {
            active.voted = Some((ballot, value.clone()));
        }
    }

    /// The acceptor had promised a higher ballot: the next own ballot goes above it, not before `not_before`.
    pub(super) fn on_nack(&mut self, ballot: Ballot, promised: Ballot, not_before: BootTime) {
        let nacked = |active: &mut Active| active.proposal.request.ballot == ballot && active.voted.is_none();
        if self.active.take_if(nacked).is_some() {
            self.ballot_floor = self.ballot_floor.max(promised);
            self.not_before = not_before;
        }
    }

    /// An epoch was decided: all of this belonged to it.
    pub(super) fn on_chosen(&mut self, now: BootTime) {
        *self = Proposals::at_start(now, false);
    }

    /// Configurations under way here. They take rights away and give none.
    pub(super) fn pending(&self) -> [Option<&Config>; 2] {
        let active = self.active.as_ref();
        [
            active.map(|active| active.proposal.value()),
            active.and_then(|active| active.voted.as_ref()).map(|(_, value)| value),
        ]
    }
}

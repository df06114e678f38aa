//! Derives [`RunState`] from the state of [`Quorum`].

use super::*;
use crate::run_state::{Fence, MissingVote, RunState};

impl Quorum {
    /// The run state of this node after the newest event.
    pub fn run_state(&self) -> RunState {
        let base = self.register.newest();
        let peer = self.peer_id();
        let peer_alive = self.peer.alive_since.is_some();
        if !base.exists() {
            return RunState::NotSetUp;
        }
        if self.register_failed() {
            return RunState::RegisterFailed;
        }
        if !base.members.has(self.setup.me) {
            return RunState::OutOfSync { holder: peer, holder_alive: peer_alive };
        }
        if !self.register.record().may_vote_as(Acceptor::from(self.setup.me)) {
            return RunState::UnadmittedStore;
        }
        if self.own.leaving {
            return RunState::Leaving;
        }
        if self.may_run(self.now) {
            return match base.members {
                Members::Both => RunState::InSync {
                    tie: base.tie,
                    peer_alive,
                    witness_alive: self.witness_is_enrolled() && self.witness_reached(),
                },
                _ => RunState::Solo { fence: self.fence(), peer_alive },
            };
        }
        RunState::Paused { missing: self.missing_vote() }
    }

    /// Whether the witness answers this node or, as the peer reports, the peer, and was not rolled back.
    fn witness_reached(&self) -> bool {
        let there = self.peer.health().is_some_and(|health| health.witness_lost_ms == 0);
        (self.witness.up() || (self.peer.alive_since.is_some() && there)) && !self.witness.rolled_back
    }

    fn fence(&self) -> Fence {
        if self.fence_over().is_some() {
            Fence::Over
        } else if self.peer.watchdog_proven {
            Fence::Until(self.leases.granted_until())
        } else {
            Fence::NeedsProof
        }
    }

    fn missing_vote(&self) -> MissingVote {
        let base = self.register.base();
        let in_progress =
            self.peer.alive_since.is_some() || self.register.is_writing() || self.now < self.silent_from();
        match base.tie {
            _ if in_progress => MissingVote::InProgress,
            Acceptor::W if self.witness.up() => MissingVote::InProgress,
            Acceptor::W => MissingVote::PeerOrWitness,
            Acceptor::A => MissingVote::Node(NodeId::A),
            Acceptor::B => MissingVote::Node(NodeId::B),
        }
    }
}

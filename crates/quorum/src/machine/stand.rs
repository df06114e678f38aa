//! The standing of a node, derived from epoch, leases and reachability together.

use super::*;
use crate::run_state::{Fence, Need, RunState};
use dyad_types::NodeId;

impl Quorum {
    /// Why this node can or cannot run VMs now.
    pub fn run_state(&self) -> RunState {
        let base = self.newest();
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
        if !self.record.votes(Acceptor::from(self.setup.me)) {
            return RunState::UnadmittedStore;
        }
        if self.leaving {
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
        RunState::Paused { needs: self.need() }
    }

    /// The witness answers here or told the peer.
    fn witness_reached(&self) -> bool {
        let there = peer_reaches(self.peer.health());
        (self.witness.up() || (self.peer.alive_since.is_some() && there)) && !self.witness.rolled_back
    }

    fn fence(&self) -> Fence {
        if self.fence_over().is_some() {
            Fence::Over
        } else if self.peer_watchdog {
            Fence::Until(self.leases.granted_until())
        } else {
            Fence::NeedsProof
        }
    }

    fn need(&self) -> Need {
        let base = &self.record.base;
        let moment = self.peer.alive_since.is_some() || self.write.is_some() || self.now < self.silent_from();
        match base.tie {
            _ if moment => Need::Moment,
            Acceptor::W if self.witness.up() => Need::Moment,
            Acceptor::W => Need::PeerOrWitness,
            Acceptor::A => Need::Node(NodeId::A),
            Acceptor::B => Need::Node(NodeId::B),
        }
    }
}

fn peer_reaches(health: Option<crate::message::Health>) -> bool {
    health.is_some_and(|health| health.witness_lost_ms == 0)
}

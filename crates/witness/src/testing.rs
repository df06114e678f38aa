//! Configurations and requests for tests, behind the feature `testing`.

use dyad_link::PairId;
use dyad_quorum::{Acceptor, Ballot, Config, Learn, Members, TryDecide, WitnessRequest};
use dyad_types::{Epoch, NodeId};

use crate::protocol::Enrolled;

/// Epoch 3: both nodes in sync, the tie vote at the witness that was just enrolled.
#[must_use]
pub fn both(enrolled: Enrolled) -> Config {
    Config {
        epoch: Epoch(3),
        incarnations: [11, 12, enrolled.incarnation],
        witness: enrolled.witness,
        ..Config::none()
    }
}

/// The request of node A, which knows of `seen` changes of the witness, to learn what was decided after `base`.
#[must_use]
pub fn learn(pair: PairId, base: &Config, seen: u64) -> WitnessRequest {
    WitnessRequest::Learn(Learn { pair: pair.0, sender: NodeId::A, base: base.clone(), witness_changes: seen })
}

/// The request of `node`, which knows of `seen` changes of the witness, to become the only node in sync.
#[must_use]
pub fn solo(pair: PairId, node: NodeId, base: &Config, seen: u64) -> WitnessRequest {
    let want = Config {
        epoch: base.epoch.next(),
        members: Members::only(node),
        tie: Acceptor::from(node),
        lead: node,
        ..base.clone()
    };
    WitnessRequest::TryDecide(TryDecide {
        pair: pair.0,
        sender: node,
        incarnation: base.incarnations[node.index()],
        base: base.clone(),
        ballot: Ballot { round: 1, node },
        accepted: None,
        want,
        witness_changes: seen,
    })
}

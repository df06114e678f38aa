//! Configurations and requests for tests, behind the feature `testing`.

use dyad_link::PairId;
use dyad_quorum::{Acceptor, Ballot, Config, Learn, Members, TryDecide, WitnessRequest};
use dyad_types::{Epoch, NodeId};

use crate::protocol::Enrolled;

/// A configuration of epoch 3: both nodes in sync, the tie vote at the witness, as it was just enrolled.
#[must_use]
pub fn both_in_sync(enrolled: Enrolled) -> Config {
    Config {
        epoch: Epoch(3),
        incarnations: [11, 12, enrolled.incarnation],
        witness: enrolled.witness,
        ..Config::none()
    }
}

/// The request of node A to learn what was decided after `base`. `seen` is the highest count of changes of the witness
/// that the node has seen.
#[must_use]
pub fn learn_request(pair: PairId, base: &Config, seen: u64) -> WitnessRequest {
    WitnessRequest::Learn(Learn { pair: pair.0, sender: NodeId::A, base: base.clone(), witness_changes: seen })
}

/// The request of `node` to become the only node in sync. `seen` is the highest count of changes of the witness that
/// the node has seen.
#[must_use]
pub fn solo_request(pair: PairId, node: NodeId, base: &Config, seen: u64) -> WitnessRequest {
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

//! A pool that does not answer, and nodes that call each other stuck: exactly one node is removed, and the right one.

mod pair;

use dyad_quorum::{Alarm, Event, MS, Members, Note, Reason, SEC};
use dyad_types::NodeId;
use pair::Pair;
use pair::fixtures::time_of_note;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;

/// Interval at which a mirror repeats that the peer is stuck.
const STUCK_REPORT_INTERVAL: u64 = 3 * SEC;

/// Whether the node began a decision for this reason.
fn decided_for(pair: &Pair, node: NodeId, wanted: Reason) -> bool {
    time_of_note(pair, node, |note| matches!(note, Note::Deciding { why, .. } if *why == wanted)).is_some()
}

fn has_alarm(pair: &Pair, node: NodeId) -> bool {
    pair.nodes[node.index()].quorum().alarms().any(|alarm| alarm == Alarm::StorageStuck)
}

#[test]
fn a_node_whose_pool_does_not_answer_is_removed_for_its_pool() {
    for (sick, well) in [(A, B), (B, A)] {
        let mut pair = Pair::protected(500 + sick.index() as u64);
        pair.send_event(sick, Event::StorageStuck);
        pair.until("the other node goes on alone", 2, |pair| pair.has_shape(&format!("S({well})")));
        assert!(decided_for(&pair, well, Reason::PeerStorage), "{}", pair.describe());
        assert!(has_alarm(&pair, sick) && !has_alarm(&pair, well));
        let vm = sick.index();
        pair.until("its VM moves without a wait for the fence", 2, |pair| pair.node_of(vm) == Some(well));
        pair.run(60 * SEC);
        assert!(pair.has_shape(&format!("S({well})")), "it stays removed while its pool does not answer");
        pair.send_event(sick, Event::StorageAnswers);
        pair.until("it is a member again", 30, |pair| pair.has_shape("D(W)"));
        assert!(!has_alarm(&pair, sick));
        pair.assert_invariants();
    }
}

#[test]
fn a_node_whose_register_is_on_the_pool_that_does_not_answer_is_removed() {
    let mut pair = Pair::protected(502);
    pair.nodes[0].disk.register_hangs = true;
    pair.send_event(A, Event::StorageStuck);
    pair.until("B goes on alone", 2, |pair| pair.nodes[1].config().members == Members::OnlyB);
    assert!(decided_for(&pair, B, Reason::PeerStorage), "{}", pair.describe());
    pair.until("B runs all", 15, |pair| pair.node_of(0) == Some(B) && pair.node_of(1) == Some(B));
    pair.assert_invariants();
}

#[test]
fn without_the_witness_the_node_votes_for_its_own_removal() {
    let mut pair = Pair::protected(503);
    pair.witness_up = false;
    pair.send_event(B, Event::StorageStuck);
    pair.until("B votes", 4, |pair| pair.has_shape("S(A)") && pair.nodes[1].kills == 1);
    pair.assert_invariants();
}

/// The lead asks first, so without this rule it would win although its own pool is the reason.
#[test]
fn the_node_whose_own_pool_does_not_answer_goes_even_if_it_calls_its_peer_stuck() {
    for (sick, well) in [(A, B), (B, A)] {
        for early in [true, false] {
            let mut pair = Pair::protected(510 + sick.index() as u64);
            pair.send_event(well, Event::PeerStuck);
            pair.send_event(sick, Event::PeerStuck);
            if early {
                // The mirror calls the peer stuck shortly before it notices that its own pool is.
                pair.run(200 * MS);
            }
            pair.send_event(sick, Event::StorageStuck);
            for _ in 0..4 {
                pair.run(STUCK_REPORT_INTERVAL);
                pair.send_event(sick, Event::PeerStuck);
            }
            assert!(pair.has_shape(&format!("S({well})")), "{}", pair.describe());
            assert!(decided_for(&pair, well, Reason::PeerStorage), "{}", pair.describe());
            assert_eq!(pair.nodes[well.index()].kills, 0);
            pair.assert_invariants();
        }
    }
}

#[test]
fn of_two_nodes_that_call_each_other_stuck_exactly_one_goes() {
    for (first, second) in [(A, B), (B, A)] {
        for gap in [0, 1, 50, 250, 300, 800] {
            let mut pair = Pair::protected(520 + gap);
            pair.send_event(first, Event::PeerStuck);
            pair.run(gap * MS);
            pair.send_event(second, Event::PeerStuck);
            pair.until("one goes on alone", 3, |pair| pair.has_shape("S(A)") || pair.has_shape("S(B)"));
            let kills: u64 = pair.nodes.iter().map(|node| node.kills).sum();
            assert_eq!(kills, 1, "gap {gap} ms: {}", pair.describe());
            let one = if pair.has_shape("S(A)") { A } else { B };
            pair.until("it runs all", 3, |pair| pair.node_of(0) == Some(one) && pair.node_of(1) == Some(one));
            pair.assert_invariants();
        }
    }
}

#[test]
fn if_neither_pool_answers_none_goes_until_one_answers_again() {
    let mut pair = Pair::protected(530);
    pair.send_event(A, Event::StorageStuck);
    pair.send_event(B, Event::StorageStuck);
    for _ in 0..10 {
        pair.send_event(A, Event::PeerStuck);
        pair.send_event(B, Event::PeerStuck);
        pair.run(STUCK_REPORT_INTERVAL);
    }
    assert!(pair.has_shape("D(W)") && has_alarm(&pair, A) && has_alarm(&pair, B), "{}", pair.describe());
    pair.send_event(B, Event::StorageAnswers);
    pair.until("B goes on alone", 3, |pair| pair.has_shape("S(B)"));
    pair.assert_invariants();
}

/// A storage network that stalls, or one slow sync that both nodes do, hangs both pools for the same time.
#[test]
fn none_goes_if_both_pools_answer_again_at_nearly_the_same_time() {
    for (seed, first, gap_ms) in [(531, A, 0), (532, A, 50), (533, B, 50), (534, A, 150), (535, B, 150), (536, A, 300)]
    {
        let mut pair = Pair::protected(seed);
        let before = pair.oracle.decisions;
        for node in [A, B] {
            pair.send_event(node, Event::StorageStuck);
            pair.send_event(node, Event::PeerStuck);
        }
        pair.run(2 * SEC);
        pair.send_event(first, Event::StorageAnswers);
        pair.run(gap_ms * MS);
        pair.send_event(first.peer(), Event::StorageAnswers);
        pair.run(10 * SEC);
        assert_eq!(pair.oracle.decisions, before, "{gap_ms} ms apart\n{}", pair.describe());
        pair.assert_invariants();
    }
}

/// A silent peer may be dead, so this node must be able to go on; if the peer lives, it asks first.
#[test]
fn a_node_whose_pool_does_not_answer_still_removes_a_silent_peer_but_asks_last() {
    let mut pair = Pair::protected(540);
    pair.send_event(A, Event::StorageStuck);
    pair.cut_all(true);
    pair.until("B wins the cut", 5, |pair| pair.nodes[1].config().members == Members::OnlyB);
    let mut pair = Pair::protected(541);
    pair.power_off(B);
    pair.send_event(A, Event::StorageStuck);
    pair.until("A goes on alone", 10, |pair| pair.has_shape("S(A)"));
    pair.assert_invariants();
}

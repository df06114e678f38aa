//! Rows 1 to 21 of the fault table (`docs/internals/faults.md`), on a simulated pair of machines with the shipped `Quorum`.
//!
//! Method: each test starts from a state of the table, causes the fault, and asserts the outcome of its row; the oracle
//! checks I1 to I5 after every event. `docs/internals/faults.md` names the tests of the rows that are missing here: they
//! need what this crate does not know (wall clock, migration, disks, many pairs, other versions).

mod pair;

use dyad_quorum::{Acceptor, MS, Members, MissingVote, Note, RunState, SEC, acceptor};
use dyad_types::NodeId;
use pair::Pair;
use pair::fixtures::*;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;

#[test]
fn a_pair_forms_and_is_protected() {
    let mut pair = Pair::protected(1);
    pair.run(60 * SEC);
    pair.assert_invariants();
    assert!(pair.is("D(W)"), "{}", pair.describe());
    assert_eq!((pair.runner(0), pair.runner(1)), (Some(A), Some(B)), "{}", pair.describe());
    assert_eq!(pair.nodes[0].freezes + pair.nodes[1].freezes, 0);
    assert_eq!(pair.nodes[0].q().alarms().count(), 0);
}

fn lose_power(node: NodeId) {
    let other = node.peer();
    let mut pair = Pair::protected(2);
    let start = pair.now;
    let fence = pair.nodes[0].q().grant_until().max(pair.nodes[1].q().grant_until());
    pair.power_off(node);
    let own = other.index();
    assert_eq!(longest_pause(&mut pair, own, 2 * SEC), 0, "the survivor's own VM goes on");
    let shape = format!("S({other})");
    assert!(pair.is(&shape), "{}", pair.describe());
    let chosen = noted(&pair, other, |note| matches!(note, Note::Chosen { .. })).expect("noted");
    assert!(chosen - start <= DECISION_TIMEOUT + 300 * MS, "{}", pair.describe());
    assert!(noted(&pair, other, |note| matches!(note, Note::PeerSilent { .. })).is_some());
    pair.until("the dead node's VM starts", 10, |pair| pair.runner(node.index()) == Some(other));
    let fence_prime = pair.timing.fence_grantor();
    assert!(pair.now >= start + fence_prime - 200 * MS && pair.now <= start + fence_prime + SEC, "{fence}");
    pair.assert_invariants();
    // The lost node returns and becomes a member without an operator.
    pair.power_on(node);
    pair.until("protected again", 60, |pair| pair.is("D(W)"));
    pair.run(10 * SEC);
    pair.assert_invariants();
}

#[test]
fn row_01_b_loses_power() {
    lose_power(B);
}

#[test]
fn row_02_a_loses_power() {
    lose_power(A);
}

#[test]
fn row_03_all_links_cut_with_the_witness_in_sight() {
    for seed in 0..20 {
        let mut pair = Pair::protected(seed);
        let before = pair.oracle.decisions;
        pair.cut_all(true);
        pair.until("one decision", 5, |pair| pair.is("S(A)"));
        pair.until("the loser kills", 5, |pair| pair.nodes[1].kills == 1);
        pair.until("its VM moves", 10, |pair| pair.runner(1) == Some(A));
        assert_eq!(pair.oracle.decisions, before + 1, "{}", pair.describe());
        assert_eq!(pair.runner(0), Some(A));
        assert_eq!(pair.nodes[0].kills, 0);
        pair.cut_all(false);
        pair.until("healed", 60, |pair| pair.is("D(W)"));
        pair.assert_invariants();
    }
}

#[test]
fn row_04_one_of_two_links_cut_only_alarms() {
    let mut pair = Pair::protected(4);
    let before = pair.oracle.decisions;
    pair.cut(1, true);
    pair.run(120 * SEC);
    pair.assert_invariants();
    assert_eq!(pair.oracle.decisions, before);
    assert_eq!(pair.nodes[0].freezes + pair.nodes[1].freezes, 0);
    let alarms: Vec<_> = pair.nodes[0].q().alarms().collect();
    assert_eq!(alarms, [dyad_quorum::Alarm::PathDown(1)]);
}

#[test]
fn row_05_witness_lost_for_ten_minutes() {
    let mut pair = Pair::protected(5);
    pair.witness_up = false;
    let lost = pair.now;
    pair.until("the tie is delegated", 60, |pair| pair.is("D(A)"));
    assert!(pair.now - lost >= 25 * SEC, "{}", pair.describe());
    pair.run(600 * SEC);
    assert!(pair.is("D(A)"));
    pair.witness_up = true;
    let back = pair.now;
    pair.until("the tie returns", 120, |pair| pair.is("D(W)"));
    assert!(pair.now - back >= 55 * SEC);
    pair.run(10 * SEC);
    pair.assert_invariants();
    assert_eq!(pair.nodes[0].freezes + pair.nodes[1].freezes, 0, "no effect on I/O");
}

#[test]
fn row_06_tie_holder_survives_without_the_witness() {
    let mut pair = delegated(6);
    pair.power_off(B);
    pair.until("solo", 2, |pair| pair.is("S(A)"));
    pair.until("all VMs", 10, |pair| pair.runner(0) == Some(A) && pair.runner(1) == Some(A));
    pair.assert_invariants();
}

#[test]
fn row_07_without_the_tie_holder_the_other_stays_paused() {
    let mut pair = delegated(7);
    pair.power_off(A);
    pair.run(60 * SEC);
    pair.assert_invariants();
    assert_eq!((pair.runner(0), pair.runner(1)), (None, None));
    assert_eq!(run_state(&pair, B), RunState::Paused { missing: MissingVote::Node(A) });
    assert_eq!(pair.nodes[1].kills, 0);
    pair.power_on(A);
    pair.until("resumed", 30, |pair| pair.runner(0) == Some(A) && pair.runner(1) == Some(B));
    pair.assert_invariants();
}

#[test]
fn row_08_witness_and_node_lost_together() {
    let mut pair = Pair::protected(8);
    pair.witness_up = false;
    pair.run(10 * SEC);
    pair.power_off(B);
    pair.run(30 * SEC);
    assert_eq!(pair.runner(0), None, "{}", pair.describe());
    assert_eq!(run_state(&pair, A), RunState::Paused { missing: MissingVote::PeerOrWitness });
    pair.witness_up = true;
    pair.until("resumed", 10, |pair| pair.is("S(A)") && pair.runner(0) == Some(A));
    pair.until("all VMs", 10, |pair| pair.runner(1) == Some(A));
    assert_eq!(kills(&pair), [0, 0], "resumed without reboot");
    pair.assert_invariants();
}

#[test]
fn row_09_solo_node_does_not_need_the_witness() {
    let mut pair = solo(9);
    pair.witness_up = false;
    assert_eq!(longest_pause(&mut pair, 0, 300 * SEC), 0);
    assert!(pair.is("S(A)"));
    pair.assert_invariants();
}

#[test]
fn row_10_out_of_date_node_refuses() {
    let mut pair = solo(10);
    pair.power_off(A);
    pair.run(SEC);
    pair.power_on(B);
    pair.run(60 * SEC);
    pair.assert_invariants();
    assert_eq!(run_state(&pair, B), RunState::OutOfSync { holder: A, holder_alive: false });
    assert_eq!((pair.runner(0), pair.runner(1)), (None, None));
}

#[test]
fn row_11_solo_node_power_cycles_alone() {
    let mut pair = solo(11);
    pair.witness_up = false;
    pair.power_off(A);
    pair.run(30 * SEC);
    pair.power_on(A);
    pair.until("starts alone", 1, |pair| pair.runner(0) == Some(A) && pair.runner(1) == Some(A));
    pair.assert_invariants();
}

#[test]
fn row_12_both_lose_power_and_form_without_the_witness() {
    for seed in 0..10 {
        let mut pair = Pair::protected(seed);
        pair.witness_up = false;
        let before = pair.oracle.decisions;
        pair.power_off(A);
        pair.power_off(B);
        pair.run(20 * SEC);
        pair.power_on_in(A, pair.prng.clone().below(4000) * MS);
        pair.power_on(B);
        pair.until("both run", 8, |pair| pair.runner(0) == Some(A) && pair.runner(1) == Some(B));
        assert_eq!(pair.oracle.decisions, before, "no decision is needed");
        pair.until("the tie is delegated", 60, |pair| pair.is("D(A)"));
        pair.assert_invariants();
    }
}

#[test]
fn row_13_only_b_returns_with_the_witness() {
    let mut pair = Pair::protected(13);
    pair.power_off(A);
    pair.power_off(B);
    pair.run(20 * SEC);
    pair.power_on(B);
    let start = pair.now;
    pair.until("solo", 10, |pair| pair.is("S(B)"));
    pair.until("all VMs", 10, |pair| pair.runner(0) == Some(B) && pair.runner(1) == Some(B));
    assert!(pair.now - start >= pair.timing.fence_grantor());
    assert!(pair.now - start <= pair.timing.fence_grantor() + 2 * SEC);
    pair.assert_invariants();
}

#[test]
fn row_14_only_b_returns_without_the_witness() {
    let mut pair = Pair::protected(14);
    pair.witness_up = false;
    pair.power_off(A);
    pair.power_off(B);
    pair.run(20 * SEC);
    pair.power_on(B);
    pair.run(120 * SEC);
    assert_eq!((pair.runner(0), pair.runner(1)), (None, None));
    assert_eq!(run_state(&pair, B), RunState::Paused { missing: MissingVote::PeerOrWitness });
    pair.assert_invariants();
}

#[test]
fn row_15_both_lose_power_while_solo_and_the_stale_one_is_first() {
    let mut pair = solo(15);
    pair.power_off(A);
    pair.run(5 * SEC);
    pair.power_on(B);
    pair.run(30 * SEC);
    assert!(matches!(run_state(&pair, B), RunState::OutOfSync { holder: A, .. }), "{}", pair.describe());
    pair.power_on(A);
    pair.until("A starts", 10, |pair| pair.runner(0) == Some(A));
    pair.until("protected again", 60, |pair| pair.is("D(W)"));
    pair.assert_invariants();
}

#[test]
fn row_16_stale_node_returns_and_sees_only_its_peer() {
    let mut pair = solo(16);
    pair.reach[1] = false;
    pair.power_on(B);
    pair.until("learned from A", 2, |pair| pair.nodes[1].config().members == Members::OnlyA);
    pair.until("protected again", 60, |pair| pair.is("D(W)"));
    pair.assert_invariants();
}

#[test]
fn row_17_source_dies_during_resync() {
    let mut pair = solo(17);
    pair.resync_time = 100 * SEC;
    pair.power_on(B);
    pair.run(50 * SEC);
    pair.power_off(A);
    pair.run(60 * SEC);
    assert!(matches!(run_state(&pair, B), RunState::OutOfSync { holder: A, holder_alive: false }));
    assert_eq!((pair.runner(0), pair.runner(1)), (None, None));
    pair.assert_invariants();
}

#[test]
fn row_18_a_dies_just_after_the_peer_was_taken_in_again() {
    for witness_learned in [false, true] {
        let mut pair = solo(18);
        pair.power_on(B);
        pair.until("chosen at A", 60, |pair| pair.nodes[0].config().members == Members::Both);
        // B did not learn it; the witness did if `witness_learned`.
        pair.cut_all(true);
        if witness_learned {
            pair.until("W learned", 5, |pair| pair.witness.base.members == Members::Both);
        }
        pair.power_off(A);
        pair.run(40 * SEC);
        pair.assert_invariants();
        if witness_learned {
            assert!(pair.is("S(B)"), "{}", pair.describe());
            assert_eq!(pair.runner(0), Some(B));
        } else if !pair.is("S(B)") {
            assert!(matches!(run_state(&pair, B), RunState::OutOfSync { holder: A, .. }));
        }
    }
}

#[test]
fn row_19_proposer_dies_at_every_moment() {
    for delay in 0..60 {
        let mut pair = Pair::protected(19 + delay);
        pair.cut_all(true);
        pair.run(590 * MS + delay * 2 * MS);
        pair.power_off(A);
        pair.run(30 * SEC);
        pair.cut_all(false);
        pair.power_on(A);
        pair.until("healed", 90, |pair| pair.is("D(W)") && pair.runner(0).is_some() && pair.runner(1).is_some());
        pair.assert_invariants();
    }
}

#[test]
fn row_20_replies_of_the_witness_get_lost() {
    let mut pair = Pair::protected(20);
    pair.witness_loss = 600;
    pair.power_off(B);
    pair.until("solo all the same", 20, |pair| pair.is("S(A)"));
    pair.assert_invariants();
}

#[test]
fn row_21_an_ask_that_arrives_ten_minutes_late_changes_nothing() {
    let mut pair = Pair::protected(21);
    let record = pair.nodes[0].disk.record.clone();
    let mut want = record.base.clone();
    (want.epoch, want.members, want.tie) = (record.base.epoch.next(), Members::OnlyA, Acceptor::A);
    let request = dyad_quorum::TryDecide {
        pair: 0xD1AD,
        sender: A,
        incarnation: 101,
        base: record.base.clone(),
        ballot: dyad_quorum::Ballot { round: 9, node: A },
        best: None,
        want,
        seen: 0,
    };
    pair.power_off(A);
    pair.until("B goes on", 20, |pair| pair.is("S(B)") && pair.witness.base.members == Members::OnlyB);
    let (before_w, before_b) = (pair.witness.clone(), pair.nodes[1].disk.record.clone());
    let reply = acceptor::try_decide(&mut pair.witness, Acceptor::W, &request);
    assert!(matches!(reply.body, dyad_quorum::ReplyBody::Newer(_)));
    assert_eq!(pair.witness, before_w);
    let mut late = pair.nodes[1].disk.record.clone();
    assert!(matches!(acceptor::try_decide(&mut late, Acceptor::B, &request).body, dyad_quorum::ReplyBody::Newer(_)));
    assert_eq!(late, before_b);
}

//! Rows 1 to 21 of the fault table (`docs/internals/faults.md`), on a simulated pair of machines with the shipped
//! `Quorum`.
//!
//! Method: each test starts from a state of the table, causes the fault, and asserts the outcome of its row; the oracle
//! checks I1 to I5 after every event. `docs/internals/faults.md` names the tests of the rows that are missing here:
//! they need what this crate does not know (wall clock, migration, disks, many pairs, other versions).

mod pair;

use dyad_quorum::{Acceptor, MS, Members, MissingVote, Note, RunState, SEC, acceptor};
use dyad_types::NodeId;
use pair::Pair;
use pair::fixtures::*;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;

#[test]
fn a_new_pair_becomes_protected_and_stays_so() {
    let mut pair = Pair::protected(1);
    pair.run(60 * SEC);
    pair.assert_invariants();
    assert!(pair.has_shape("D(W)"), "{}", pair.describe());
    assert_eq!((pair.node_of(0), pair.node_of(1)), (Some(A), Some(B)), "{}", pair.describe());
    assert_eq!(pair.nodes[0].freezes + pair.nodes[1].freezes, 0);
    assert_eq!(pair.nodes[0].quorum().alarms().count(), 0);
}

fn lose_power(node: NodeId) {
    let other = node.peer();
    let mut pair = Pair::protected(2);
    let start = pair.now;
    let fence = pair.nodes[0].quorum().granted_until().max(pair.nodes[1].quorum().granted_until());
    pair.power_off(node);
    let own = other.index();
    assert_eq!(longest_pause(&mut pair, own, 2 * SEC), 0, "the survivor's own VM goes on");
    let shape = format!("S({other})");
    assert!(pair.has_shape(&shape), "{}", pair.describe());
    let chosen = time_of_note(&pair, other, |note| matches!(note, Note::Chosen { .. })).expect("noted");
    assert!(chosen - start <= DECISION_TIMEOUT + 300 * MS, "{}", pair.describe());
    assert!(time_of_note(&pair, other, |note| matches!(note, Note::PeerSilent { .. })).is_some());
    pair.until("the dead node's VM starts", 10, |pair| pair.node_of(node.index()) == Some(other));
    let fence_prime = pair.timing.grantor_fence_period();
    assert!(pair.now >= start + fence_prime - 200 * MS && pair.now <= start + fence_prime + SEC, "{fence}");
    pair.assert_invariants();
    // The lost node returns and becomes a member without an operator.
    pair.power_on(node);
    pair.until("protected again", 60, |pair| pair.has_shape("D(W)"));
    pair.run(10 * SEC);
    pair.assert_invariants();
}

#[test]
fn row_01_a_goes_on_and_takes_over_when_b_loses_power() {
    lose_power(B);
}

#[test]
fn row_02_b_goes_on_and_takes_over_when_a_loses_power() {
    lose_power(A);
}

#[test]
fn row_03_cut_links_cost_one_decision_and_the_other_node_kills() {
    for seed in 0..20 {
        let mut pair = Pair::protected(seed);
        let before = pair.oracle.decisions;
        pair.cut_all(true);
        pair.until("one decision", 5, |pair| pair.has_shape("S(A)"));
        pair.until("the loser kills", 5, |pair| pair.nodes[1].kills == 1);
        pair.until("its VM moves", 10, |pair| pair.node_of(1) == Some(A));
        assert_eq!(pair.oracle.decisions, before + 1, "{}", pair.describe());
        assert_eq!(pair.node_of(0), Some(A));
        assert_eq!(pair.nodes[0].kills, 0);
        pair.cut_all(false);
        pair.until("healed", 60, |pair| pair.has_shape("D(W)"));
        pair.assert_invariants();
    }
}

#[test]
fn row_04_one_cut_link_of_two_only_raises_an_alarm() {
    let mut pair = Pair::protected(4);
    let before = pair.oracle.decisions;
    pair.cut(1, true);
    pair.run(120 * SEC);
    pair.assert_invariants();
    assert_eq!(pair.oracle.decisions, before);
    assert_eq!(pair.nodes[0].freezes + pair.nodes[1].freezes, 0);
    let alarms: Vec<_> = pair.nodes[0].quorum().alarms().collect();
    assert_eq!(alarms, [dyad_quorum::Alarm::PathDown(1)]);
}

#[test]
fn row_05_the_tie_leaves_a_lost_witness_and_returns_to_it() {
    let mut pair = Pair::protected(5);
    pair.witness_up = false;
    let lost = pair.now;
    pair.until("the tie is delegated", 60, |pair| pair.has_shape("D(A)"));
    assert!(pair.now - lost >= 25 * SEC, "{}", pair.describe());
    pair.run(600 * SEC);
    assert!(pair.has_shape("D(A)"));
    pair.witness_up = true;
    let back = pair.now;
    pair.until("the tie returns", 120, |pair| pair.has_shape("D(W)"));
    assert!(pair.now - back >= 55 * SEC);
    pair.run(10 * SEC);
    pair.assert_invariants();
    assert_eq!(pair.nodes[0].freezes + pair.nodes[1].freezes, 0, "no effect on I/O");
}

#[test]
fn row_06_the_tie_holder_goes_on_alone_without_the_witness() {
    let mut pair = with_tie_at_a(6);
    pair.power_off(B);
    pair.until("solo", 2, |pair| pair.has_shape("S(A)"));
    pair.until("all VMs", 10, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(A));
    pair.assert_invariants();
}

#[test]
fn row_07_without_the_tie_holder_the_other_node_stays_paused() {
    let mut pair = with_tie_at_a(7);
    pair.power_off(A);
    pair.run(60 * SEC);
    pair.assert_invariants();
    assert_eq!((pair.node_of(0), pair.node_of(1)), (None, None));
    assert_eq!(run_state(&pair, B), RunState::Paused { missing: MissingVote::Node(A) });
    assert_eq!(pair.nodes[1].kills, 0);
    pair.power_on(A);
    pair.until("resumed", 30, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(B));
    pair.assert_invariants();
}

#[test]
fn row_08_vms_pause_without_peer_and_witness_and_resume_without_a_reboot() {
    let mut pair = Pair::protected(8);
    pair.witness_up = false;
    pair.run(10 * SEC);
    pair.power_off(B);
    pair.run(30 * SEC);
    assert_eq!(pair.node_of(0), None, "{}", pair.describe());
    assert_eq!(run_state(&pair, A), RunState::Paused { missing: MissingVote::PeerOrWitness });
    pair.witness_up = true;
    pair.until("resumed", 10, |pair| pair.has_shape("S(A)") && pair.node_of(0) == Some(A));
    pair.until("all VMs", 10, |pair| pair.node_of(1) == Some(A));
    assert_eq!(kills(&pair), [0, 0], "resumed without reboot");
    pair.assert_invariants();
}

#[test]
fn row_09_a_solo_node_does_not_need_the_witness() {
    let mut pair = with_a_solo(9);
    pair.witness_up = false;
    assert_eq!(longest_pause(&mut pair, 0, 300 * SEC), 0);
    assert!(pair.has_shape("S(A)"));
    pair.assert_invariants();
}

#[test]
fn row_10_an_out_of_date_node_runs_no_vm() {
    let mut pair = with_a_solo(10);
    pair.power_off(A);
    pair.run(SEC);
    pair.power_on(B);
    pair.run(60 * SEC);
    pair.assert_invariants();
    assert_eq!(run_state(&pair, B), RunState::OutOfSync { holder: A, holder_alive: false });
    assert_eq!((pair.node_of(0), pair.node_of(1)), (None, None));
}

#[test]
fn row_11_a_solo_node_starts_its_vms_alone_after_a_power_cycle() {
    let mut pair = with_a_solo(11);
    pair.witness_up = false;
    pair.power_off(A);
    pair.run(30 * SEC);
    pair.power_on(A);
    pair.until("starts alone", 1, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(A));
    pair.assert_invariants();
}

#[test]
fn row_12_both_nodes_start_without_the_witness_after_a_power_loss() {
    for seed in 0..10 {
        let mut pair = Pair::protected(seed);
        pair.witness_up = false;
        let before = pair.oracle.decisions;
        pair.power_off(A);
        pair.power_off(B);
        pair.run(20 * SEC);
        pair.power_on_in(A, pair.prng.clone().below(4000) * MS);
        pair.power_on(B);
        pair.until("both run", 8, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(B));
        assert_eq!(pair.oracle.decisions, before, "no decision is needed");
        pair.until("the tie is delegated", 60, |pair| pair.has_shape("D(A)"));
        pair.assert_invariants();
    }
}

#[test]
fn row_13_one_node_with_the_witness_runs_all_vms_after_the_fence() {
    let mut pair = Pair::protected(13);
    pair.power_off(A);
    pair.power_off(B);
    pair.run(20 * SEC);
    pair.power_on(B);
    let start = pair.now;
    pair.until("solo", 10, |pair| pair.has_shape("S(B)"));
    pair.until("all VMs", 10, |pair| pair.node_of(0) == Some(B) && pair.node_of(1) == Some(B));
    assert!(pair.now - start >= pair.timing.grantor_fence_period());
    assert!(pair.now - start <= pair.timing.grantor_fence_period() + 2 * SEC);
    pair.assert_invariants();
}

#[test]
fn row_14_one_node_without_the_witness_runs_no_vm() {
    let mut pair = Pair::protected(14);
    pair.witness_up = false;
    pair.power_off(A);
    pair.power_off(B);
    pair.run(20 * SEC);
    pair.power_on(B);
    pair.run(120 * SEC);
    assert_eq!((pair.node_of(0), pair.node_of(1)), (None, None));
    assert_eq!(run_state(&pair, B), RunState::Paused { missing: MissingVote::PeerOrWitness });
    pair.assert_invariants();
}

#[test]
fn row_15_a_stale_node_that_boots_first_waits_for_the_solo_node() {
    let mut pair = with_a_solo(15);
    pair.power_off(A);
    pair.run(5 * SEC);
    pair.power_on(B);
    pair.run(30 * SEC);
    assert!(matches!(run_state(&pair, B), RunState::OutOfSync { holder: A, .. }), "{}", pair.describe());
    pair.power_on(A);
    pair.until("A starts", 10, |pair| pair.node_of(0) == Some(A));
    pair.until("protected again", 60, |pair| pair.has_shape("D(W)"));
    pair.assert_invariants();
}

#[test]
fn row_16_a_stale_node_that_reaches_only_its_peer_becomes_a_member() {
    let mut pair = with_a_solo(16);
    pair.reaches_witness[1] = false;
    pair.power_on(B);
    pair.until("learned from A", 2, |pair| pair.nodes[1].config().members == Members::OnlyA);
    pair.until("protected again", 60, |pair| pair.has_shape("D(W)"));
    pair.assert_invariants();
}

#[test]
fn row_17_a_target_whose_source_dies_is_not_promoted() {
    let mut pair = with_a_solo(17);
    pair.resync_time = 100 * SEC;
    pair.power_on(B);
    pair.run(50 * SEC);
    pair.power_off(A);
    pair.run(60 * SEC);
    assert!(matches!(run_state(&pair, B), RunState::OutOfSync { holder: A, holder_alive: false }));
    assert_eq!((pair.node_of(0), pair.node_of(1)), (None, None));
    pair.assert_invariants();
}

#[test]
fn row_18_b_goes_on_alone_if_the_witness_knows_that_b_is_a_member_again() {
    for witness_learned in [false, true] {
        let mut pair = with_a_solo(18);
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
            assert!(pair.has_shape("S(B)"), "{}", pair.describe());
            assert_eq!(pair.node_of(0), Some(B));
        } else if !pair.has_shape("S(B)") {
            assert!(matches!(run_state(&pair, B), RunState::OutOfSync { holder: A, .. }));
        }
    }
}

#[test]
fn row_19_the_pair_heals_whenever_the_proposer_dies() {
    for delay in 0..60 {
        let mut pair = Pair::protected(19 + delay);
        pair.cut_all(true);
        pair.run(590 * MS + delay * 2 * MS);
        pair.power_off(A);
        pair.run(30 * SEC);
        pair.cut_all(false);
        pair.power_on(A);
        pair.until("healed", 90, |pair| {
            pair.has_shape("D(W)") && pair.node_of(0).is_some() && pair.node_of(1).is_some()
        });
        pair.assert_invariants();
    }
}

#[test]
fn row_20_lost_replies_of_the_witness_only_delay_a_decision() {
    let mut pair = Pair::protected(20);
    pair.witness_loss = 600;
    pair.power_off(B);
    pair.until("solo all the same", 20, |pair| pair.has_shape("S(A)"));
    pair.assert_invariants();
}

#[test]
fn row_21_a_vote_request_for_a_decided_epoch_changes_nothing() {
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
        accepted: None,
        want,
        witness_changes: 0,
    };
    pair.power_off(A);
    pair.until("B goes on", 20, |pair| pair.has_shape("S(B)") && pair.witness.base.members == Members::OnlyB);
    let (before_w, before_b) = (pair.witness.clone(), pair.nodes[1].disk.record.clone());
    let reply = acceptor::try_decide(&mut pair.witness, Acceptor::W, &request);
    assert!(matches!(reply.body, dyad_quorum::ReplyBody::Newer(_)));
    assert_eq!(pair.witness, before_w);
    let mut late = pair.nodes[1].disk.record.clone();
    assert!(matches!(acceptor::try_decide(&mut late, Acceptor::B, &request).body, dyad_quorum::ReplyBody::Newer(_)));
    assert_eq!(late, before_b);
}

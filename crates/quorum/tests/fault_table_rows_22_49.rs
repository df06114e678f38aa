//! Rows 22 to 49 of the fault table (`docs/internals/faults.md`), on a simulated pair of machines with the shipped
//! `Quorum`.
//!
//! Method: each test starts from a state of the table, causes the fault, and asserts the outcome of its row; the oracle
//! checks I1 to I5 after every event. `docs/internals/faults.md` names the tests of the rows that are missing here:
//! they need what this crate does not know (wall clock, migration, disks, many pairs, other versions).

mod pair;

use dyad_quorum::{
    Acceptor, Action, BootTime, Datagram, DatagramBody, Event, Exception, MS, Members, Note, Proof, Reason, RunState,
    SEC, Timing, WitnessId, acceptor,
};
use dyad_types::{NodeId, VolumeId};
use pair::Pair;
use pair::fixtures::*;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;

#[test]
fn row_22_a_stopped_core_is_reset_by_its_watchdog_and_failed_over() {
    for seed in 0..10 {
        let mut pair = Pair::protected(22 + seed);
        let start = pair.now;
        pair.stop_core(A);
        pair.until("the watchdog resets A", 10, |pair| pair.node_of(0).is_none());
        let lease_and_watchdog = pair.timing.fence_period();
        assert!(pair.now - start <= lease_and_watchdog, "{}", pair.describe());
        pair.until("B runs all", 10, |pair| pair.node_of(0) == Some(B) && pair.node_of(1) == Some(B));
        pair.until("A is back", 120, |pair| pair.has_shape("D(W)"));
        pair.assert_invariants();
    }
}

#[test]
fn row_23_a_daemon_restarted_at_once_pauses_vms_for_at_most_a_second() {
    let mut pair = Pair::protected(23);
    let before = pair.oracle.decisions;
    pair.restart_core(A);
    let pause = longest_pause(&mut pair, 0, 10 * SEC);
    assert!(pause <= SEC, "{pause}");
    assert_eq!(pair.oracle.decisions, before);
    assert_eq!(kills(&pair), [0, 0]);
    pair.assert_invariants();
}

/// A restart of the daemon takes longer than D on emulated and busy machines.
#[test]
fn row_23_a_daemon_that_is_back_in_time_costs_no_fail_over() {
    for (seed, node, away) in [(233, A, 300), (234, A, 900), (235, A, 1250), (236, B, 900), (237, B, 1250)] {
        let mut pair = Pair::protected(seed);
        let before = pair.oracle.decisions;
        pair.kill_core(node, away * MS);
        pair.run(20 * SEC);
        assert_eq!(pair.oracle.decisions, before, "{node} was away for {away} ms\n{}", pair.describe());
        assert_eq!(kills(&pair), [0, 0]);
        assert!(pair.has_shape("D(W)") && pair.node_of(0) == Some(A) && pair.node_of(1) == Some(B));
        pair.assert_invariants();
    }
}

/// The removal is decided before the survivor's lease ends, which the ended daemon granted last: the survivor's VMs are
/// not frozen. The fence runs from the last grant, so the lost node's VMs start no later than after a power cut.
#[test]
fn row_23_a_daemon_that_does_not_return_is_failed_over() {
    let mut pair = Pair::protected(238);
    let start = pair.now;
    pair.kill_core(A, 3600 * SEC);
    pair.until("B goes on", 4, |pair| pair.has_shape("S(B)"));
    assert!(pair.now - start <= 2 * SEC, "{}", pair.now - start);
    assert_eq!(pair.nodes[1].freezes, 0);
    pair.until("A's VM runs on B", 8, |pair| pair.node_of(0) == Some(B));
    // From the last grant, which came with the last heartbeat.
    let fence = pair.timing.grantor_fence_period() - 2 * pair.timing.heartbeat_interval;
    assert!((fence..fence + SEC).contains(&(pair.now - start)), "{}", pair.now - start);
    pair.assert_invariants();
}

/// A session may end for other reasons. If power is lost more than one heartbeat after that, the peer is judged silent
/// after D as usual; and a peer that is silent already gets no more time when its session closes.
#[test]
fn row_23_a_closed_session_does_not_hide_a_power_cut() {
    let mut pair = Pair::protected(239);
    pair.send_event(B, Event::PeerClosed);
    pair.run(300 * MS);
    let start = pair.now;
    pair.power_off(A);
    pair.run(600 * MS);
    pair.send_event(B, Event::PeerClosed);
    pair.until("B goes on", 4, |pair| pair.has_shape("S(B)"));
    assert!(pair.now - start <= 1200 * MS, "{}", pair.now - start);
    pair.assert_invariants();
}

/// The daemon that froze the VMs has ended. The next daemon has the right to run from its start, so it must thaw them.
#[test]
fn row_23_vms_that_a_dead_daemon_froze_are_thawed() {
    let mut pair = with_a_solo(232);
    pair.nodes[0].frozen = true;
    pair.restart_core(A);
    pair.until("the VMs go on", 10, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(A));
    assert_eq!(kills(&pair)[0], 0);
    pair.assert_invariants();
}

/// The witness voted for A alone, and A's daemon ended before it received the vote. Once the nodes hear each other
/// again, that vote must have no effect: the next epoch makes it void.
#[test]
fn row_23_a_ballot_begun_before_the_restart_is_voided() {
    let mut pair = Pair::protected(231);
    let before = pair.nodes[0].config().clone();
    pair.witness_loss = 1000;
    pair.cut_all(true);
    pair.until("the witness votes, and its reply is lost", 5, |pair| pair.witness.accepted.is_some());
    pair.cut_all(false);
    pair.restart_core(A);
    pair.witness_loss = 0;
    pair.until("A voids the vote", 60, |pair| {
        time_of_note(pair, A, |note| matches!(note, Note::Deciding { why: Reason::Abandoned, .. })).is_some()
            && pair.has_shape("D(W)")
            && pair.witness.accepted.is_none()
    });
    assert!(pair.nodes[0].config().epoch > before.epoch);
    assert_eq!(kills(&pair), [0, 0]);
    pair.power_off(A);
    pair.until("B goes on; the old vote has no effect", 20, |pair| {
        pair.has_shape("S(B)") && pair.node_of(0) == Some(B)
    });
    pair.assert_invariants();
}

#[test]
fn row_24_dying_gasp_is_a_proof() {
    let mut pair = Pair::protected(24);
    pair.power_off(B);
    pair.run(5 * MS);
    let start = pair.now;
    pair.report_proof(A, Proof::DyingGasp);
    pair.until("B's VM runs on A", 2, |pair| pair.node_of(1) == Some(A));
    assert!(pair.now - start <= 400 * MS, "{}", pair.describe());
    pair.assert_invariants();
}

#[test]
fn row_26_a_thawed_host_freezes_first_and_kills_when_it_learns_of_its_removal() {
    let mut pair = Pair::protected(26);
    let mut core = pair.nodes[0].quorum().clone();
    let clock = pair.nodes[0].clock(pair.now);
    pair.power_off(A);
    pair.until("B goes on", 20, |pair| pair.has_shape("S(B)") && pair.witness.base.members == Members::OnlyB);
    // The copy of A's daemon goes on 30 s later, with the lease that it had before.
    let woken = clock + 30 * SEC;
    let mut actions = Vec::new();
    assert!(!core.may_run(woken));
    assert!(!core.may_feed_watchdog(woken));
    core.handle(woken, Event::Tick, &mut actions);
    assert!(actions.contains(&Action::Freeze), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Note(Note::Deciding { .. }))), "{actions:?}");
    actions.clear();
    core.handle(woken + MS, Event::VmsFrozen, &mut actions);
    assert!(core.may_feed_watchdog(woken + MS));
    let reply = acceptor::learn(
        &mut pair.witness,
        Acceptor::W,
        &dyad_quorum::Learn { pair: 0xD1AD, sender: A, base: core.config().clone(), witness_changes: 0 },
    );
    core.handle(
        woken + 2 * MS,
        Event::Witness { id: dyad_quorum::WitnessRequestId(1), reply: dyad_quorum::WitnessReply::Received(reply) },
        &mut actions,
    );
    assert!(actions.iter().any(|action| matches!(action, Action::Kill { .. })), "{actions:?}");
}

#[test]
fn row_27_clocks_that_differ_by_rho_break_no_invariant() {
    for (slow, fast) in [(A, B), (B, A)] {
        let mut pair = Pair::protected(27);
        pair.power_off(slow);
        pair.power_off(fast);
        pair.nodes[slow.index()].clock_ppm = -5_000;
        pair.nodes[fast.index()].clock_ppm = 5_000;
        pair.power_on(A);
        pair.power_on(B);
        pair.run(300 * SEC);
        assert_eq!(pair.nodes[0].quorum().alarms().count(), 0, "{}", pair.describe());
        pair.stop_core(slow);
        pair.until("the other goes on", 20, |pair| pair.node_of(slow.index()) == Some(fast));
        pair.assert_invariants();
    }
}

#[test]
fn row_27_clocks_that_differ_by_more_than_rho_end_the_grants() {
    let mut pair = Pair::protected(271);
    pair.power_off(A);
    pair.power_off(B);
    pair.nodes[0].clock_ppm = 40_000;
    pair.power_on(A);
    pair.power_on(B);
    pair.run(150 * SEC);
    for node in &pair.nodes {
        assert!(node.quorum().alarms().any(|alarm| alarm == dyad_quorum::Alarm::ClockDrift), "{}", pair.describe());
    }
    pair.assert_invariants();
    assert_eq!((pair.node_of(0), pair.node_of(1)), (None, None));
}

#[test]
fn row_29_a_link_that_works_in_one_direction_counts_as_down_on_both_nodes() {
    let mut pair = Pair::protected(29);
    for path in 0..2 {
        pair.links[path][1].cut = true;
    }
    let timing = pair.timing.clone();
    pair.run(timing.detection_delay() + 2 * timing.heartbeat_interval);
    for node in &pair.nodes {
        assert!(!node.quorum().peer_alive(node.clock(pair.now)), "{}", pair.describe());
    }
    pair.until("as row 3", 10, |pair| pair.has_shape("S(A)") && pair.node_of(1) == Some(A));
    pair.assert_invariants();
}

#[test]
fn row_30_the_peer_relays_to_a_witness_that_this_node_does_not_reach() {
    let mut pair = Pair::protected(30);
    pair.reaches_witness[0] = false;
    pair.run(120 * SEC);
    assert!(pair.has_shape("D(W)"), "it is not lost while B reaches it");
    assert!(!pair.nodes[0].quorum().alarms().any(|alarm| alarm == dyad_quorum::Alarm::WitnessLost));
    // B's register fails while its daemon still answers: A needs the witness, through B.
    pair.nodes[1].disk.register_fails = true;
    pair.send_event(A, Event::PeerStuck);
    pair.until("relayed", 20, |pair| pair.nodes[0].config().members == Members::OnlyA);
    pair.assert_invariants();
}

#[test]
fn row_31_b_goes_on_when_a_is_cut_off_from_peer_and_witness() {
    let mut pair = Pair::protected(31);
    pair.cut_all(true);
    pair.reaches_witness[0] = false;
    pair.until("B wins", 5, |pair| pair.has_shape("S(B)"));
    pair.until("A pauses", 5, |pair| pair.node_of(0).is_none());
    pair.until("B runs all", 10, |pair| pair.node_of(0) == Some(B) && pair.node_of(1) == Some(B));
    assert_eq!(pair.nodes[0].kills, 0);
    pair.reaches_witness[0] = true;
    pair.until("A kills once it learns", 10, |pair| pair.nodes[0].kills == 1);
    pair.assert_invariants();
}

#[test]
fn row_32_both_pause_without_peer_and_witness_and_resume_without_a_reboot() {
    let mut pair = Pair::protected(32);
    pair.cut_all(true);
    pair.witness_up = false;
    pair.run(60 * SEC);
    assert_eq!((pair.node_of(0), pair.node_of(1)), (None, None));
    pair.cut_all(false);
    pair.until("both resume", 5, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(B));
    assert_eq!(kills(&pair), [0, 0], "no reboot");
    pair.assert_invariants();
    let mut pair = Pair::protected(33);
    pair.cut_all(true);
    pair.witness_up = false;
    pair.run(60 * SEC);
    pair.reaches_witness[0] = false;
    pair.witness_up = true;
    pair.until("the first with two votes resumes its own", 10, |pair| {
        pair.node_of(1) == Some(B) && pair.has_shape("S(B)")
    });
    assert_eq!(pair.nodes[1].kills, 0);
    pair.assert_invariants();
}

/// Cuts and restores all links 30 times, each for `period`, and asserts the number of decisions. Then the peer must be
/// heard for `stable` before it is a member again.
fn flap(period: u64, decisions: u64, stable: u64) {
    let mut pair = Pair::protected_with(33, Timing::default(), dyad_quorum::mutants::Mutants::NONE);
    let before = pair.oracle.decisions;
    for round in 0..60 {
        pair.cut_all(round % 2 == 0);
        pair.run(period);
    }
    assert_eq!(pair.oracle.decisions, before + decisions, "{}", pair.describe());
    assert!(pair.has_shape("S(A)"));
    assert!(kills(&pair)[0] == 0 && kills(&pair)[1] <= 1, "VMs do not bounce");
    // In the last round the links were restored.
    let healed = pair.now - period;
    pair.until("in again", 90, |pair| pair.has_shape("D(W)"));
    assert!((stable..stable + SEC).contains(&(pair.now - healed)), "{}", pair.now - healed);
    pair.assert_invariants();
}

#[test]
fn row_33_a_link_that_flaps_every_2_s_costs_one_decision() {
    flap(2 * SEC, 1, 5 * SEC);
}

/// The links work for 15 s at a time, long enough for a readmission after 5 s. The 7 decisions are 4 removals and 3
/// readmissions; after the fourth removal the peer must be heard for 60 s.
#[test]
fn row_33_the_fourth_loss_within_an_hour_demands_60_s_before_readmission() {
    flap(15 * SEC, 7, 60 * SEC);
}

#[test]
fn row_34_a_flapping_witness_costs_at_most_4_decisions_an_hour() {
    for (up, down) in [(20, 20), (65, 35)] {
        let mut pair = Pair::protected(34);
        let before = pair.oracle.decisions;
        let start = pair.now;
        while pair.now - start < 3600 * SEC {
            pair.witness_up = false;
            pair.run(down * SEC);
            pair.witness_up = true;
            pair.run(up * SEC);
        }
        assert!(pair.oracle.decisions - before <= 4, "{} {}", pair.oracle.decisions - before, pair.describe());
        pair.assert_invariants();
    }
}

#[test]
fn row_35_a_slow_witness_pauses_vms_and_kills_none() {
    let mut pair = Pair::protected(35);
    pair.witness_rtt = 500 * MS;
    pair.run(10 * SEC);
    pair.power_off(B);
    assert_eq!(longest_pause(&mut pair, 0, 3 * SEC), 0);
    assert!(pair.has_shape("S(A)"));
    pair.assert_invariants();
    let mut pair = Pair::protected(36);
    pair.witness_rtt = 3 * SEC;
    pair.run(10 * SEC);
    pair.power_off(B);
    let pause = longest_pause(&mut pair, 0, 20 * SEC);
    assert!(pause > SEC && pause < 4 * SEC, "{pause} {}", pair.describe());
    assert!(pair.has_shape("S(A)") && kills(&pair) == [0, 0]);
    pair.assert_invariants();
}

#[test]
fn row_36_a_witness_restored_from_a_backup_gets_no_tie_until_it_is_enrolled_again() {
    let mut pair = Pair::protected(36);
    let backup = pair.witness.clone();
    pair.power_off(B);
    pair.until("solo", 5, |pair| pair.has_shape("S(A)"));
    pair.run(10 * SEC);
    pair.witness = backup;
    pair.run(10 * SEC);
    assert!(pair.nodes[0].quorum().alarms().any(|alarm| alarm == dyad_quorum::Alarm::WitnessRolledBack));
    // The witness gets no tie until it is enrolled again, with a new store.
    pair.power_on(B);
    pair.until("in again", 60, |pair| pair.nodes[0].config().members == Members::Both);
    pair.run(200 * SEC);
    assert!(pair.has_shape("D(A)"), "{}", pair.describe());
    pair.witness = dyad_quorum::AcceptorRecord::witness(WitnessId(77), 304);
    pair.send_event(A, Event::Enrol { witness: WitnessId(77), incarnation: 304 });
    pair.until("protected", 10, |pair| pair.has_shape("D(W)"));
    pair.assert_invariants();
}

#[test]
fn row_37_a_replaced_witness_is_ignored_when_it_returns() {
    let mut pair = Pair::protected(37);
    pair.witness = dyad_quorum::AcceptorRecord::witness(WitnessId(88), 404);
    pair.run(5 * SEC);
    pair.send_event(B, Event::Enrol { witness: WitnessId(88), incarnation: 404 });
    pair.until("the new one holds the tie", 30, |pair| {
        pair.has_shape("D(W)") && pair.witness.base.witness == WitnessId(88)
    });
    // The old witness answers again and is ignored.
    pair.witness = dyad_quorum::AcceptorRecord::witness(WitnessId(77), 303);
    pair.power_off(B);
    pair.run(20 * SEC);
    assert_eq!(pair.nodes[0].config().members, Members::Both);
    assert_eq!(pair.node_of(0), None);
    pair.assert_invariants();
}

#[test]
fn row_38_a_new_store_has_no_vote_until_it_is_admitted() {
    let mut pair = Pair::protected(38);
    pair.power_off(B);
    pair.run(100 * MS);
    pair.nodes[1].disk.record = dyad_quorum::AcceptorRecord::fresh(999);
    pair.power_on(B);
    pair.until("A goes on alone", 30, |pair| pair.has_shape("S(A)"));
    pair.run(60 * SEC);
    assert!(pair.has_shape("S(A)"), "no vote until admitted");
    pair.until("B's VM", 10, |pair| pair.node_of(1) == Some(A));
    pair.send_event(A, Event::Admit { incarnation: 999 });
    pair.until("admitted", 60, |pair| pair.has_shape("D(W)"));
    pair.assert_invariants();
}

#[test]
fn row_39_a_node_whose_register_fails_is_removed() {
    let mut pair = Pair::protected(39);
    pair.nodes[0].disk.register_fails = true;
    // The failure of the register is noticed at the next write.
    pair.send_event(A, Event::Exceptions(vec![Exception { volume: VolumeId(5), holder: B }]));
    pair.until("B takes over", 10, |pair| pair.nodes[1].config().members == Members::OnlyB);
    assert_eq!(run_state(&pair, A), RunState::RegisterFailed);
    pair.until("B runs all", 15, |pair| pair.node_of(0) == Some(B) && pair.node_of(1) == Some(B));
    pair.assert_invariants();
}

#[test]
fn row_39_a_node_whose_register_hangs_is_removed() {
    let mut pair = Pair::protected(391);
    pair.nodes[1].disk.register_hangs = true;
    // B cannot take over the new configuration, so it gets no more leases from A: A must remove it.
    pair.set_exceptions(A, vec![Exception { volume: VolumeId(5), holder: B }]);
    pair.until("B is removed", 10, |pair| pair.nodes[0].config().members == Members::OnlyA);
    assert_eq!(run_state(&pair, B), RunState::RegisterFailed);
    pair.until("A runs all", 15, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(A));
    pair.assert_invariants();
}

#[test]
fn a_report_that_the_peer_is_stuck_expires() {
    let mut pair = Pair::protected(392);
    // A is faulty and asks for the removal of its peer 20 s later.
    pair.timing.faulty_delay = 20 * SEC;
    pair.restart_core(A);
    pair.send_event(A, Event::Faulty);
    pair.run(SEC);
    let before = pair.oracle.decisions;
    pair.send_event(A, Event::PeerStuck);
    pair.run(60 * SEC);
    assert_eq!(pair.oracle.decisions, before, "{}", pair.describe());
    for _ in 0..8 {
        pair.send_event(A, Event::PeerStuck);
        pair.run(3 * SEC);
    }
    assert!(pair.has_shape("S(A)"), "{}", pair.describe());
    pair.assert_invariants();
}

#[test]
fn row_40_an_exception_stays_when_its_holder_is_lost() {
    let mut pair = Pair::protected(40);
    let lost_here = Exception { volume: VolumeId(7), holder: B };
    pair.set_exceptions(A, vec![lost_here]);
    pair.until("chosen", 5, |pair| pair.nodes.iter().all(|node| node.config().exceptions == [lost_here]));
    pair.power_off(B);
    pair.until("solo", 5, |pair| pair.has_shape("S(A)"));
    assert_eq!(pair.nodes[0].config().exceptions, [lost_here], "that volume stays down on A");
    pair.assert_invariants();
}

#[test]
fn row_41_a_stuck_peer_kills_its_vms_and_votes_for_its_removal() {
    let mut pair = Pair::protected(41);
    pair.send_event(A, Event::PeerStuck);
    pair.until("B stops its VMs and votes itself out", 5, |pair| pair.has_shape("S(A)") && pair.nodes[1].kills == 1);
    let start = pair.now;
    pair.until("no fence wait", 1, |pair| pair.node_of(1) == Some(A));
    assert!(pair.now - start <= SEC);
    pair.assert_invariants();
}

#[test]
fn row_43_a_planned_leave_hands_over_without_the_fence() {
    let mut pair = Pair::protected(43);
    let start = pair.now;
    pair.send_event(B, Event::Leave);
    pair.until("B may go", 5, |pair| pair.nodes[1].leave_done);
    pair.power_off(B);
    pair.until("its VM runs on A", 1, |pair| pair.node_of(1) == Some(A) && pair.has_shape("S(A)"));
    assert!(pair.now - start <= 2 * SEC, "no fence wait: {}", pair.describe());
    assert_eq!(pair.nodes[0].freezes, 0);
    pair.assert_invariants();
}

#[test]
fn row_44_the_node_that_left_last_starts_alone() {
    let mut pair = Pair::protected(44);
    pair.send_event(B, Event::Leave);
    pair.until("B may go", 5, |pair| pair.nodes[1].leave_done);
    pair.power_off(B);
    pair.until("solo", 5, |pair| pair.has_shape("S(A)"));
    pair.send_event(A, Event::Leave);
    // The daemon stops the VMs of the last node itself.
    pair.nodes[0].vms = [false; 2];
    pair.send_event(A, Event::VmsKilled);
    pair.until("A may go", 5, |pair| pair.nodes[0].leave_done);
    pair.power_off(A);
    pair.nodes[0].leaving = false;
    pair.witness_up = false;
    pair.run(60 * SEC);
    pair.power_on(A);
    pair.until("the last one starts alone", 10, |pair| pair.node_of(0) == Some(A) && pair.node_of(1) == Some(A));
    pair.assert_invariants();
}

#[test]
fn row_45_a_forced_node_begins_a_lineage_that_keeps_the_other_node_out() {
    let mut pair = with_a_solo(45);
    pair.power_off(A);
    pair.power_on(B);
    pair.run(30 * SEC);
    // The operator accepts the loss of what only A held, so the oracle forgets it.
    pair.oracle = Default::default();
    pair.oracle.acknowledged = pair.nodes[1].disk.data;
    pair.send_event(B, Event::Force);
    pair.until("B goes on", 10, |pair| pair.node_of(0) == Some(B) && pair.node_of(1) == Some(B));
    assert_eq!(pair.nodes[1].config().lineage, 1);
    // A learns the new lineage from B, stops, and stays out until it is wiped.
    pair.power_on(A);
    pair.run(120 * SEC);
    assert_eq!(pair.node_of(0), Some(B), "{}", pair.describe());
    assert!(pair.has_shape("S(B)"), "A is refused: {}", pair.describe());
    assert!(matches!(run_state(&pair, A), RunState::OutOfSync { holder: B, .. }));
}

#[test]
fn row_46_power_off_is_a_proof_only_while_the_peer_is_not_heard() {
    // The controller reports that the power is off: the VM starts at once.
    let mut pair = Pair::protected(46);
    pair.power_off(B);
    pair.run(100 * MS);
    let start = pair.now;
    pair.report_proof(A, Proof::PowerOff);
    pair.until("started", 3, |pair| pair.node_of(1) == Some(A));
    assert!(pair.now - start <= SEC, "{}", pair.describe());
    pair.assert_invariants();
    // The controller reports so wrongly while B is heard: nothing happens.
    let mut pair = Pair::protected(47);
    let before = pair.oracle.decisions;
    for _ in 0..20 {
        pair.report_proof(A, Proof::PowerOff);
        pair.run(SEC / 7);
    }
    assert_eq!(pair.oracle.decisions, before);
    pair.assert_invariants();
}

#[test]
fn row_47_new_boot_id_is_a_proof() {
    let mut pair = Pair::protected(47);
    pair.power_off(B);
    pair.until("removed", 5, |pair| pair.has_shape("S(A)"));
    pair.power_on(B);
    let start = pair.now;
    pair.until("its VM runs on A", 2, |pair| pair.node_of(1) == Some(A));
    assert!(pair.now - start <= SEC, "{}", pair.describe());
    pair.assert_invariants();
}

#[test]
fn row_48_without_a_proven_watchdog_only_a_proof_ends_the_fence() {
    let mut pair = Pair::protected(48);
    pair.send_event(B, Event::WatchdogProven(false));
    pair.run(SEC);
    assert!(pair.nodes[0].quorum().alarms().any(|alarm| alarm == dyad_quorum::Alarm::PeerUnfenced));
    pair.power_off(B);
    pair.run(60 * SEC);
    assert!(pair.has_shape("S(A)"));
    assert_eq!(pair.node_of(1), None, "{}", pair.describe());
    pair.report_proof(A, Proof::PowerOff);
    pair.until("with proof", 1, |pair| pair.node_of(1) == Some(A));
    pair.assert_invariants();
}

/// Stops the daemon of A for `without`, then lets it run for `with`; repeated `rounds` times.
fn delay_scheduling(pair: &mut Pair, rounds: u32, without: u64, with: u64) {
    for _ in 0..rounds {
        pair.stop_core(A);
        pair.run(without);
        pair.continue_core(A);
        pair.run(with);
    }
}

/// A daemon that is scheduled late, repeatedly, but never by as much as D, does not take the echoes that its own
/// silence delayed for silence of the peer.
#[test]
fn a_late_daemon_does_not_call_its_peer_silent() {
    for seed in 0..20 {
        let mut pair = Pair::protected(seed);
        let before = pair.oracle.decisions;
        delay_scheduling(&mut pair, 10, 430 * MS, 30 * MS);
        pair.run(2 * SEC);
        assert_eq!(pair.oracle.decisions, before, "{}", pair.describe());
        pair.assert_invariants();
    }
}

#[test]
fn row_49_a_node_that_was_not_scheduled_is_not_silent() {
    let mut pair = Pair::protected(49);
    let before = pair.oracle.decisions;
    delay_scheduling(&mut pair, 30, 300 * MS, 700 * MS);
    assert_eq!(pair.oracle.decisions, before, "{}", pair.describe());
    for path in 0..2 {
        pair.links[path][0].loss = 200;
        pair.links[path][1].loss = 200;
    }
    pair.run(120 * SEC);
    assert_eq!(pair.oracle.decisions, before, "{}", pair.describe());
    pair.assert_invariants();
}

#[test]
fn a_stopped_daemon_that_goes_on_does_not_accuse_its_peer() {
    // Stopped for longer than D but shorter than the lease: it does not ask for the removal of its peer.
    for seed in 0..10 {
        let mut pair = Pair::protected(60 + seed);
        pair.reaches_witness[1] = false;
        pair.stop_core(A);
        pair.run(1500 * MS);
        pair.continue_core(A);
        pair.run(5 * SEC);
        let accused = time_of_note(&pair, A, |note| matches!(note, Note::Deciding { why: Reason::PeerSilent, .. }));
        assert_eq!(accused, None, "{}", pair.describe());
        pair.assert_invariants();
    }
}

#[test]
fn foreign_datagrams_are_ignored() {
    let pair = Pair::protected(70);
    let mut core = pair.nodes[0].quorum().clone();
    let clock = pair.nodes[0].clock(pair.now);
    let mut actions = Vec::new();
    let grant = dyad_quorum::Echo { boot: pair.nodes[0].boot_id(), started: BootTime(0), sent: clock };
    for (pair_id, from) in [(1, B), (0xD1AD, A)] {
        let datagram = Datagram {
            pair: pair_id,
            from,
            boot: 1,
            started: BootTime(1),
            incarnation: 202,
            body: DatagramBody::Grant(grant),
        };
        let before = core.lease_until();
        core.handle(clock, Event::Peer { path: 0, datagram }, &mut actions);
        assert_eq!(core.lease_until(), before);
    }
}

/// A heartbeat of node B that node A gets next, with another base.
fn heartbeat_of_b(pair: &Pair, base: impl Fn(&dyad_quorum::Config) -> dyad_quorum::Config) -> Datagram {
    let mut sender = pair.nodes[1].quorum().clone();
    let mut sent = Vec::new();
    sender.handle(pair.nodes[1].clock(pair.now) + SEC, Event::Tick, &mut sent);
    let heartbeat = sent.into_iter().find_map(|action| match action {
        Action::Send { datagram: datagram @ Datagram { body: DatagramBody::Heartbeat(_), .. }, .. } => Some(datagram),
        _ => None,
    });
    let mut datagram = heartbeat.expect("a heartbeat is due each second");
    let DatagramBody::Heartbeat(heartbeat) = &mut datagram.body else { unreachable!("it was just matched") };
    heartbeat.base = base(&heartbeat.base);
    datagram
}

fn solo_b(base: &dyad_quorum::Config) -> dyad_quorum::Config {
    dyad_quorum::Config { members: Members::only(B), tie: Acceptor::B, lead: B, ..base.clone() }
}

/// Two configurations of one epoch are in force: the pair was split, for example by a witness that was set back. A node
/// that sees it stops its VMs; a person decides which copy is the right one.
#[test]
fn a_second_configuration_of_one_epoch_freezes_the_vms_and_is_an_alarm() {
    let pair = Pair::protected(71);
    let datagram = heartbeat_of_b(&pair, solo_b);
    let mut core = pair.nodes[0].quorum().clone();
    let clock = pair.nodes[0].clock(pair.now);
    assert!(core.may_run(clock));
    let mut actions = Vec::new();
    core.handle(clock, Event::Peer { path: 0, datagram }, &mut actions);
    assert!(!core.may_run(clock) && actions.contains(&Action::Freeze), "{actions:?}");
    assert!(actions.contains(&Action::Alarm(dyad_quorum::Alarm::Conflict)));
    assert!(!core.may_feed_watchdog(clock), "the kernel has not confirmed the freeze yet");
    core.handle(clock, Event::VmsFrozen, &mut actions);
    assert!(core.may_feed_watchdog(clock));
    // The next decision of the other copy ranks higher. It must not end this copy.
    let next = heartbeat_of_b(&pair, |base| dyad_quorum::Config { epoch: base.epoch.next(), ..solo_b(base) });
    actions.clear();
    core.handle(clock, Event::Peer { path: 0, datagram: next }, &mut actions);
    core.handle(clock + 3600 * SEC, Event::Tick, &mut actions);
    let decides = |action: &Action| matches!(action, Action::Kill { .. } | Action::Persist { .. } | Action::Thaw);
    assert!(!actions.iter().any(decides), "{actions:?}");
}

/// With the link cut only the witness can tell a node that the other one goes on as well.
#[test]
fn a_conflict_that_the_witness_reports_freezes_the_vms() {
    let mut pair = Pair::protected(72);
    pair.cut_all(true);
    pair.until("one node goes on", 20, |pair| pair.has_shape("S(A)") || pair.has_shape("S(B)"));
    let winner = if pair.has_shape("S(A)") { 0 } else { 1 };
    let mut core = pair.nodes[winner].quorum().clone();
    let mut clock = pair.nodes[winner].clock(pair.now);
    let mut actions = Vec::new();
    let id = loop {
        clock = clock + SEC;
        core.handle(clock, Event::Tick, &mut actions);
        let asked = actions.iter().find_map(|action| match action {
            Action::AskWitness { id, .. } => Some(*id),
            _ => None,
        });
        if let Some(id) = asked {
            break id;
        }
    };
    assert!(core.may_run(clock));
    let base = core.config().clone();
    let reply = dyad_quorum::AcceptorReply {
        from: Acceptor::W,
        witness: base.witness,
        incarnation: base.incarnations[2],
        witness_changes: 0,
        body: dyad_quorum::ReplyBody::Refused(dyad_quorum::VoteRefusal::Conflict),
    };
    core.handle(clock, Event::Witness { id, reply: dyad_quorum::WitnessReply::Received(reply) }, &mut actions);
    assert!(!core.may_run(clock) && actions.contains(&Action::Freeze), "{actions:?}");
}

/// A VM's launcher may enter the cgroup while its kill is being carried out.
#[test]
fn only_the_kernel_ends_a_kill_or_a_freeze() {
    let pair = Pair::protected(73);
    let mut core = pair.nodes[0].quorum().clone();
    let clock = pair.nodes[0].clock(pair.now);
    let mut actions = Vec::new();
    core.handle(clock, Event::Leave, &mut actions);
    assert!(actions.iter().any(|action| matches!(action, Action::Kill { .. })), "{actions:?}");
    core.handle(clock, Event::VmsRunning(false), &mut actions);
    actions.clear();
    // Had the machine taken "no VMs" for the end of the kill, it would order a second one now.
    core.handle(clock, Event::VmsRunning(true), &mut actions);
    assert!(!actions.iter().any(|action| matches!(action, Action::Kill { .. })), "one kill is under way: {actions:?}");
    core.handle(clock, Event::VmsKilled, &mut actions);
    core.handle(clock, Event::VmsRunning(true), &mut actions);
    assert!(actions.iter().any(|action| matches!(action, Action::Kill { .. })), "a VM exists after the kill");
}

/// The configuration that removes node A was heard before the conflict; it may be that of the wrong copy.
#[test]
fn after_a_conflict_a_configuration_heard_before_is_not_adopted() {
    for conflict in [false, true] {
        let pair = Pair::protected(74);
        let mut core = pair.nodes[0].quorum().clone();
        let clock = pair.nodes[0].clock(pair.now);
        let removal = heartbeat_of_b(&pair, |base| dyad_quorum::Config { epoch: base.epoch.next(), ..solo_b(base) });
        let mut actions = Vec::new();
        core.handle(clock, Event::Peer { path: 0, datagram: removal }, &mut actions);
        if conflict {
            let other = |base: &dyad_quorum::Config| dyad_quorum::Config {
                epoch: base.epoch.next(),
                lead: A,
                tie: Acceptor::A,
                members: Members::only(A),
                ..base.clone()
            };
            let datagram = heartbeat_of_b(&pair, other);
            core.handle(clock, Event::Peer { path: 0, datagram }, &mut actions);
        }
        actions.clear();
        core.handle(clock, Event::VmsKilled, &mut actions);
        let adopts = actions.iter().any(|action| matches!(action, Action::Persist { .. }));
        assert_eq!(adopts, !conflict, "{actions:?}");
    }
}

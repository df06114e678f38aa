//! The scenarios of the main job as tests on one pair, in their order; a killed `dyad-core` on each node among them; and hanging
//! pool disks and a data path that fails behind them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::fault_agent;
use dyad_rig::guest::Guest;
use dyad_rig::harness::run_tests;
use dyad_rig::node::NodeName;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{
    FIRST_GUEST, GUEST_DEADLINE, MAIN_JOB, PROTECTED_DEADLINE, SECOND_GUEST, wait_for_members, wait_for_one_member,
};

/// Number of scenarios at the start of the main job that form the pair and start its guests; the test of this file
/// comes after them.
const PAIR_SETUP_SCENARIOS: usize = 3;
/// Longest pause of a guest while a killed core restarts, opens its pool, finds its peer, and QEMU connects again, on an
/// emulated node.
const CORE_PAUSE_DEADLINE: Duration = Duration::from_secs(5);

/// Longest time from the hang of a node's pool disks until the other node has started the first of its VMs, on emulated nodes:
/// T_io, the decision, F' and the start of QEMU.
const HANG_FAIL_OVER_DEADLINE: Duration = Duration::from_secs(20);
/// Longest pause of a guest on the node that goes on when the data path fails: D + T_io + T_cas + 5 s.
const DATA_LOSS_PAUSE_DEADLINE: Duration = Duration::from_millis(8_600);

type TestFunction = Box<dyn Fn(&mut Pair) -> Result<()>>;

fn main() -> ExitCode {
    let mut tests: Vec<(&str, TestFunction)> = Vec::new();
    for scenario in &MAIN_JOB {
        tests.push((scenario.name, Box::new(|pair: &mut Pair| scenario.run_unrecorded(pair))));
    }
    tests.push(("hanging_pool_disks_fail_over", Box::new(hanging_pool_disks_fail_over)));
    tests.push(("lost_data_removes_one_node", Box::new(lost_data_removes_one_node)));
    tests.insert(PAIR_SETUP_SCENARIOS, ("core_kill9_is_no_fail_over", Box::new(core_kill9_is_no_fail_over)));
    run_tests(&tests, || {
        let artifacts = Artifacts::beside_this_program()?;
        Pair::for_faults(artifacts, "pair")
    })
}

/// `kill -9` of `dyad-core` on either node: all guests go on after a short pause, without a restart or a new epoch.
fn core_kill9_is_no_fail_over(pair: &mut Pair) -> Result<()> {
    let guests = guests(pair)?;
    let epoch = pair.status(NodeName::A)?.epoch;
    for name in [NodeName::A, NodeName::B] {
        let since = fault_agent::run_command(pair.node(name).serial(), "kill dyad-core")?;
        for guest in &guests {
            guest.wait_for_ack(since, GUEST_DEADLINE)?;
            guest.wait_for_progress(20, GUEST_DEADLINE)?;
            let pause = guest.record().longest_pause(since);
            println!("    the core of node {name} was killed: {} paused for {} ms", guest.name(), pause.as_millis());
            ensure!(guest.record().boots().len() == 1, "{} was restarted.", guest.name());
            // Each write needs both nodes, so a shorter pause means that no daemon was killed.
            ensure!(pause > Duration::from_millis(100), "{} noticed nothing: was it killed?", guest.name());
            ensure!(pause <= CORE_PAUSE_DEADLINE, "{} paused for {} ms.", guest.name(), pause.as_millis());
        }
        pair.wait_protected(PROTECTED_DEADLINE)?;
        let now = pair.status(NodeName::A)?.epoch;
        ensure!(now == epoch, "The epoch went from {epoch} to {now}.");
    }
    pair.check_guests()
}

/// The pool disks of a node hang without an error, and its heartbeats go on: the other node runs its guests. When the disks
/// answer again, the node returns.
fn hanging_pool_disks_fail_over(pair: &mut Pair) -> Result<()> {
    let guests = guests(pair)?;
    for guest in &guests {
        guest.wait_for_progress(5, GUEST_DEADLINE)?;
    }
    let hanging = guests[0].node()?;
    let places: Vec<NodeName> = guests.iter().map(Guest::node).collect::<Result<_>>()?;
    let epoch = pair.status(hanging.peer())?.epoch;
    let since = Instant::now();
    pair.node(hanging).set_pool_disks_hang(true)?;
    let started = pair.timeline_follower(hanging.peer()).wait("vm-running", since, GUEST_DEADLINE);
    // Before the kernel of the node gives up the requests, which it does after 30 s.
    pair.node(hanging).set_pool_disks_hang(false)?;
    let (_, started) = started?;
    let took = started.saturating_duration_since(since);
    pair.print_line(&format!(
        "the pool disks of node {hanging} hung: the VM was started after {:.2} s",
        took.as_secs_f64()
    ));
    for (guest, place) in guests.iter().zip(places) {
        if place == hanging {
            guest.wait_for_restart(since, GUEST_DEADLINE)?;
            ensure!(guest.node()? == hanging.peer(), "{} runs on the node whose disks hung.", guest.name());
        } else {
            guest.wait_for_ack(started, GUEST_DEADLINE)?;
        }
    }
    ensure!(took <= HANG_FAIL_OVER_DEADLINE, "The VM was started after {:.2} s.", took.as_secs_f64());
    ensure!(pair.status(hanging.peer())?.epoch > epoch, "The epoch did not grow.");
    return_to_protected(pair, &guests)
}

/// The cables lose the frames of the data sessions and pass heartbeats: one node goes on, also with the other one's guests. When
/// data passes again, the pair is whole.
fn lost_data_removes_one_node(pair: &mut Pair) -> Result<()> {
    let guests = guests(pair)?;
    let places: Vec<NodeName> = guests.iter().map(Guest::node).collect::<Result<_>>()?;
    let epoch = pair.status(NodeName::A)?.epoch;
    let since = Instant::now();
    pair.wiring.set_data_lost(true)?;
    let winner = wait_for_one_member(pair, epoch)?;
    pair.print_line(&format!("data is lost: node {winner} goes on after {:.2} s", since.elapsed().as_secs_f64()));
    for (guest, place) in guests.iter().zip(places) {
        if place == winner {
            guest.wait_for_ack(Instant::now(), GUEST_DEADLINE)?;
            let record = guest.record();
            let restarts = record.boots().iter().filter(|boot| boot.first_line_at > since).count();
            ensure!(restarts == 0, "{} ran on the node that goes on and was restarted.", guest.name());
            let pause = record.longest_pause(since);
            ensure!(pause <= DATA_LOSS_PAUSE_DEADLINE, "{} paused for {} ms.", guest.name(), pause.as_millis());
        } else {
            guest.wait_for_restart(since, GUEST_DEADLINE)?;
            ensure!(guest.node()? == winner, "{} runs on the node that was removed.", guest.name());
        }
    }
    let status = pair.status(winner.peer())?;
    ensure!(status.json["details"]["may_run"] == false, "The removed node may run VMs: {}", status.json);
    pair.wiring.set_data_lost(false)?;
    return_to_protected(pair, &guests)
}

fn guests(pair: &Pair) -> Result<Vec<Guest>> {
    [FIRST_GUEST, SECOND_GUEST].into_iter().map(|name| pair.guest(name)).collect()
}

/// Waits until the pair is whole after a fault has ended, and checks what the guests report.
fn return_to_protected(pair: &mut Pair, guests: &[Guest]) -> Result<()> {
    let ended = Instant::now();
    pair.wait_protected(PROTECTED_DEADLINE)?;
    wait_for_members(pair, "AB")?;
    pair.print_line(&format!("protected again {:.1} s after the end of the fault", ended.elapsed().as_secs_f64()));
    for guest in guests {
        guest.wait_for_progress(5, GUEST_DEADLINE)?;
    }
    pair.check_guests()
}

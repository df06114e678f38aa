//! The scenarios of the main job as tests on one pair, in their order; a killed `dyad-core` on each node among them, and pool
//! disks that hang after them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::fault_agent;
use dyad_rig::guest::Guest;
use dyad_rig::harness::run_tests;
use dyad_rig::node::NodeName;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{
    BOOT_DEADLINE, FENCE_PERIOD, FIRST_GUEST, GUEST_DEADLINE, MAIN_JOB, PROTECTED_DEADLINE, SECOND_GUEST,
};

/// Number of scenarios at the start of the main job that form the pair and start its guests; the test of this file
/// comes after them.
const PAIR_SETUP_SCENARIOS: usize = 3;
/// Longest pause of a guest while a killed core restarts, opens its pool, finds its peer, and QEMU connects again, on an
/// emulated node.
const CORE_PAUSE_DEADLINE: Duration = Duration::from_secs(5);

/// Longest time from the moment at which the disks hang until the other node goes on alone, on an emulated node: T_io of 3 s,
/// until the own or the other node notices, D, and the decision.
const HANG_DECISION_DEADLINE: Duration = Duration::from_secs(8);

type TestFunction = Box<dyn Fn(&mut Pair) -> Result<()>>;

fn main() -> ExitCode {
    let mut tests: Vec<(&str, TestFunction)> = Vec::new();
    for scenario in &MAIN_JOB {
        tests.push((scenario.name, Box::new(|pair: &mut Pair| scenario.run_unrecorded(pair))));
    }
    tests.insert(PAIR_SETUP_SCENARIOS, ("core_kill9_is_no_fail_over", Box::new(core_kill9_is_no_fail_over)));
    tests.push(("hanging_pool_disks_fail_over", Box::new(hanging_pool_disks_fail_over)));
    run_tests(&tests, || {
        let artifacts = Artifacts::beside_this_program()?;
        let image = artifacts.fault_agent_image();
        Pair::with_image(artifacts, "pair", &image)
    })
}

/// `kill -9` of `dyad-core` on either node: all guests go on after a short pause, without a restart or a new epoch.
fn core_kill9_is_no_fail_over(pair: &mut Pair) -> Result<()> {
    let guests: Vec<Guest> =
        [FIRST_GUEST, SECOND_GUEST].into_iter().map(|name| pair.guest(name)).collect::<Result<_>>()?;
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

/// The pool disks under a running guest hang without an error, while the node is heard. The other node goes on alone, waits
/// for the fence, because the register of the node is on a hanging disk and cannot accept the removal, and starts the guest.
/// When the disks answer again, the pair is protected again.
fn hanging_pool_disks_fail_over(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(FIRST_GUEST)?;
    pair.wait_protected(PROTECTED_DEADLINE)?;
    guest.wait_for_progress(5, GUEST_DEADLINE)?;
    let node = guest.record().boots().last().context("The guest never ran.")?.node;
    let survivor = node.peer();
    let mut timeline_follower = pair.timeline_follower(survivor);
    timeline_follower.poll()?;
    let hung = Instant::now();
    pair.node(node).hang_pool_disks(true)?;
    let acked = guest.record().acked_counter();
    pair.print_line(&format!("the pool disks of node {node} hang; newest acknowledged counter {acked}"));
    let after = |when: Instant| when.saturating_duration_since(hung);
    let (epoch, chosen) = timeline_follower.wait("epoch", hung, BOOT_DEADLINE)?;
    pair.print_line(&format!("{:.2} s: {}", after(chosen).as_secs_f64(), epoch.text));
    let (_, fenced) = timeline_follower.wait("fence-over", hung, BOOT_DEADLINE)?;
    pair.print_line(&format!("fence over after {:.2} s", after(fenced).as_secs_f64()));
    let alive = guest.wait_for_restart(hung, GUEST_DEADLINE)?;
    pair.print_line(&format!(
        "{FIRST_GUEST} is alive after {:.2} s: counter {}",
        after(alive.0).as_secs_f64(),
        alive.1
    ));
    ensure!(guest.record().boots().last().is_some_and(|boot| boot.node == survivor), "It runs on node {node} again.");
    ensure!(alive.1 > acked, "The guest went back from {acked} to {}.", alive.1);
    ensure!(after(chosen) <= HANG_DECISION_DEADLINE, "The decision took {:.2} s.", after(chosen).as_secs_f64());
    ensure!(
        fenced <= chosen + FENCE_PERIOD,
        "The fence was over {:.2} s after the decision.",
        (fenced - chosen).as_secs_f64()
    );
    pair.check_guests()?;

    pair.node(node).hang_pool_disks(false)?;
    pair.wait_protected(PROTECTED_DEADLINE)?;
    guest.wait_for_progress(5, GUEST_DEADLINE)?;
    pair.check_guests()
}

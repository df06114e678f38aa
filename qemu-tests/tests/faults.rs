//! Faults inside one node: its daemons are killed or stopped, and its watchdog test is disturbed. The node runs alone,
//! with one counting guest.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dyad_rig::artifacts::{Artifacts, CountingGuest};
use dyad_rig::guest::Guest;
use dyad_rig::harness::{Test, run_tests};
use dyad_rig::node::NodeName;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{BOOT_DEADLINE, FENCE_PERIOD, FIRST_GUEST, GUEST_DEADLINE, create_vm};
use dyad_rig::status::{VmState, wait_vm_state};
use dyad_rig::wait::{self, Poll};
use dyad_rig::{fault_agent, seed, setup};

/// Longest pause of a guest while the core restarts, opens its pool, and QEMU connects again, on an emulated node.
const CORE_PAUSE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time from the command that stops the core until the firmware starts again, on the rig's clock.
const RESET_DEADLINE: Duration = Duration::from_secs(10);
/// Delay between the beginning of a watchdog test, in which the watchdog expires after 3 s, and the reset that disturbs
/// it.
const EARLY_RESET_DELAY: Duration = Duration::from_millis(700);
/// Text that the firmware prints at each start of a machine.
const FIRMWARE_START_TEXT: &str = "BdsDxe: starting";

const TESTS: [Test<Pair>; 5] = [
    ("a_watchdog_test_cut_short_is_repeated", a_watchdog_test_cut_short_is_repeated),
    ("seeded_node_alone_runs_a_vm", seeded_node_alone_runs_a_vm),
    ("core_kill9_short_pause", core_kill9_short_pause),
    ("node_kill9_keeps_vms", node_kill9_keeps_vms),
    ("watchdog_resets_stopped_core", watchdog_resets_stopped_core),
];

fn main() -> ExitCode {
    run_tests(&TESTS, || {
        let artifacts = Artifacts::beside_this_program()?;
        let mut pair = Pair::for_faults(artifacts, "faults")?;
        pair.a.plug_seed(&seed::first_node_answers())?;
        pair.a.power_on()?;
        pair.a.serial().wait_for_text(fault_agent::READY, 0, BOOT_DEADLINE)?;
        Ok(pair)
    })
}

/// A reset that comes too soon proves nothing about the watchdog, so the node runs the test again after it has booted.
fn a_watchdog_test_cut_short_is_repeated(pair: &mut Pair) -> Result<()> {
    let client = pair.a.client();
    client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
    wait::until("the watchdog to be tested", BOOT_DEADLINE, || {
        // A node may be away for a moment during setup.
        let setup = client.get("setup").unwrap_or_default();
        let step = setup::running_step(&setup).unwrap_or("no step");
        Ok(if step.contains("watchdog") { Poll::Ready(()) } else { Poll::NotYet(step.into()) })
    })?;
    let position = pair.a.serial().position();
    // The fault must come at this time: the test has begun, and the watchdog has not expired yet.
    thread::sleep(EARLY_RESET_DELAY);
    pair.a.reset()?;
    setup::wait_until_finished(&client)?;
    let starts = pair.a.serial().text_since(position).matches(FIRMWARE_START_TEXT).count();
    ensure!(starts == 2, "The node was started {starts} times: by the button, and by the repeated test.");
    let proven = wait::until_ok("the node to work", BOOT_DEADLINE, || {
        Ok(pair.status(NodeName::A)?.json["details"]["watchdog"]["proven"].clone())
    })?;
    ensure!(proven == true, "The watchdog is not proven.");
    Ok(())
}

/// A node sets itself up from its seed volume. Without a witness and a peer it runs a VM and says that it is not
/// protected.
fn seeded_node_alone_runs_a_vm(pair: &mut Pair) -> Result<()> {
    let client = pair.a.client();
    client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
    setup::wait_until_finished(&client)?;
    let status = wait::until_ok("the node to work", BOOT_DEADLINE, || pair.status(NodeName::A))?;
    ensure!(!status.protected, "One node alone says: {}", status.sentence);
    let start = Instant::now();
    let guest = create_vm(pair, FIRST_GUEST, NodeName::A, CountingGuest::Linux)?;
    guest.wait_for_ack(start, GUEST_DEADLINE)?;
    Ok(())
}

/// `kill -9` of `dyad-core` under a running VM: the guest's writes pause shortly, and the guest is not restarted.
fn core_kill9_short_pause(pair: &mut Pair) -> Result<()> {
    let guest = counting_guest(pair)?;
    let boots = guest.record().boots().len();
    let since = fault_agent::run_command(pair.a.serial(), "kill dyad-core")?;
    guest.wait_for_progress(20, GUEST_DEADLINE)?;
    ensure!(guest.record().boots().len() == boots, "The guest was restarted.");
    let pause = guest.record().longest_pause(since);
    println!("    the guest paused for {} ms", pause.as_millis());
    // A shorter pause means that no daemon was killed: the guest writes often enough to meet every restart.
    ensure!(pause > Duration::from_millis(100), "The guest noticed nothing: was the daemon killed?");
    ensure!(pause <= CORE_PAUSE_DEADLINE, "The guest paused for {} ms.", pause.as_millis());
    pair.check_guests()
}

/// `kill -9` of `dyad-node`: its VMs go on, and the restarted daemon shows them as running.
fn node_kill9_keeps_vms(pair: &mut Pair) -> Result<()> {
    let guest = counting_guest(pair)?;
    let boots = guest.record().boots().len();
    let since = fault_agent::run_command(pair.a.serial(), "kill dyad-node")?;
    wait_vm_state(&pair.client(NodeName::A), FIRST_GUEST, VmState("running"), BOOT_DEADLINE)?;
    guest.wait_for_ack(since, GUEST_DEADLINE)?;
    guest.wait_for_progress(5, GUEST_DEADLINE)?;
    ensure!(guest.record().boots().len() == boots, "The guest was restarted.");
    pair.check_guests()
}

/// A stopped `dyad-core` does not feed the watchdog, which resets the node. The guest acknowledges no write later than
/// F′ after the stop.
fn watchdog_resets_stopped_core(pair: &mut Pair) -> Result<()> {
    let guest = counting_guest(pair)?;
    let acked = guest.record().acked_counter();
    let position = pair.a.serial().position();
    let since = fault_agent::run_command(pair.a.serial(), "stop dyad-core")?;
    pair.a
        .serial()
        .wait_for_text(FIRMWARE_START_TEXT, position, GUEST_DEADLINE)
        .context("The watchdog did not reset the node")?;
    let took = since.elapsed();
    println!("    the node was reset after {:.1} s; F' is {:.1} s", took.as_secs_f64(), FENCE_PERIOD.as_secs_f64());
    let last = guest.record().boots().last().map(|boot| boot.last_ack_at);
    ensure!(took <= RESET_DEADLINE, "The reset took {:.1} s.", took.as_secs_f64());
    ensure!(last.is_none_or(|last| last < since + FENCE_PERIOD), "The guest counted longer than F' allows.");
    let (_, counter) = guest.wait_for_restart(since, BOOT_DEADLINE + GUEST_DEADLINE)?;
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    pair.check_guests()
}

/// The first guest, after it has acknowledged ten more counters.
fn counting_guest(pair: &Pair) -> Result<Guest> {
    let guest = pair.guest(FIRST_GUEST)?;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;
    Ok(guest)
}

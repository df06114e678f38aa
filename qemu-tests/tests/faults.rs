//! What happens inside one node when its own programs die or hang. One node alone is enough, and its guest counts.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::guest::Guest;
use dyad_rig::harness::{Test, run_tests};
use dyad_rig::node::Name;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{BOOT_DEADLINE, FENCE_PERIOD, FIRST, GUEST_DEADLINE, create_vm};
use dyad_rig::status::{VmState, wait_vm_state};
use dyad_rig::wait::{self, Look};
use dyad_rig::{fault_agent, seed, setup};

/// The core is started again, opens its pool, and QEMU connects again; the promise is about idle machines.
const CORE_PAUSE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time from the order to stop until the watchdog resets the node, on the rig's clock.
const RESET_DEADLINE: Duration = Duration::from_secs(10);
/// Time of the reset after the beginning of a watchdog test, which takes 3 s.
const CUT_SHORT_DELAY: Duration = Duration::from_millis(700);
/// The first thing that firmware says when a machine starts again.
const FIRMWARE: &str = "BdsDxe: starting";

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
        let image = artifacts.fault_agent_image();
        let mut pair = Pair::with_image(artifacts, "faults", &image)?;
        pair.a.plug_seed(&seed::first_node())?;
        pair.a.power_on()?;
        pair.a.serial().wait_for_text(fault_agent::READY, 0, BOOT_DEADLINE)?;
        Ok(pair)
    })
}

/// A reset that comes too soon proves nothing, so the node runs the test again when it is back: it starts three times.
fn a_watchdog_test_cut_short_is_repeated(pair: &mut Pair) -> Result<()> {
    let client = pair.a.client();
    client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
    wait::until("the watchdog to be tested", BOOT_DEADLINE, || {
        // A node may be away for a moment during setup.
        let setup = client.get("setup").unwrap_or_default();
        let step = setup::running_step(&setup).unwrap_or("no step");
        Ok(if step.contains("watchdog") { Look::Ready(()) } else { Look::NotYet(step.into()) })
    })?;
    let position = pair.a.serial().position();
    // The fault must come now: the watchdog test has begun and the watchdog has not reset the node yet.
    thread::sleep(CUT_SHORT_DELAY);
    pair.a.reset()?;
    setup::finish(&client)?;
    let starts = pair.a.serial().text_since(position).matches(FIRMWARE).count();
    ensure!(starts == 2, "The node was started {starts} times: by the button, and by the repeated test.");
    let proven = wait::until_ok("the node to work", BOOT_DEADLINE, || {
        Ok(pair.status(Name::A)?.json["details"]["watchdog"]["proven"].clone())
    })?;
    ensure!(proven == true, "The watchdog is not proven.");
    Ok(())
}

/// A node sets itself up from its seed volume. Without a witness and without a peer it works, and says that it is not
/// protected.
fn seeded_node_alone_runs_a_vm(pair: &mut Pair) -> Result<()> {
    let client = pair.a.client();
    client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
    setup::finish(&client)?;
    let status = wait::until_ok("the node to work", BOOT_DEADLINE, || pair.status(Name::A))?;
    ensure!(!status.protected, "One node alone says: {}", status.sentence);
    let start = Instant::now();
    let guest = create_vm(pair, FIRST, Name::A)?;
    guest.wait_for_ack(start, GUEST_DEADLINE)?;
    Ok(())
}

/// `kill -9` of the storage daemon under a running VM is a short pause and nothing else.
fn core_kill9_short_pause(pair: &mut Pair) -> Result<()> {
    let guest = counting(pair)?;
    let boots = guest.record().boots().len();
    let since = fault_agent::run_command(pair.a.serial(), "kill dyad-core")?;
    guest.wait_for_progress(20, GUEST_DEADLINE)?;
    ensure!(guest.record().boots().len() == boots, "The guest was restarted.");
    let pause = guest.record().longest_pause(since);
    println!("    the guest paused for {} ms", pause.as_millis());
    // A pause far below this shows that no daemon was killed: a write is under way or begins within the guest's
    // interval.
    ensure!(pause > Duration::from_millis(100), "The guest noticed nothing: was the daemon killed?");
    ensure!(pause <= CORE_PAUSE_DEADLINE, "The guest paused for {} ms.", pause.as_millis());
    pair.judge_guests()
}

/// `kill -9` of the node daemon: VMs do not notice, and it finds them again.
fn node_kill9_keeps_vms(pair: &mut Pair) -> Result<()> {
    let guest = counting(pair)?;
    let boots = guest.record().boots().len();
    let since = fault_agent::run_command(pair.a.serial(), "kill dyad-node")?;
    wait_vm_state(&pair.client(Name::A), FIRST, VmState("running"), BOOT_DEADLINE)?;
    guest.wait_for_ack(since, GUEST_DEADLINE)?;
    guest.wait_for_progress(5, GUEST_DEADLINE)?;
    ensure!(guest.record().boots().len() == boots, "The guest was restarted.");
    pair.judge_guests()
}

/// A storage daemon that hangs stops feeding the watchdog, and the node is reset before the other node may run its VMs.
fn watchdog_resets_stopped_core(pair: &mut Pair) -> Result<()> {
    let guest = counting(pair)?;
    let acked = guest.record().acked();
    let position = pair.a.serial().position();
    let since = fault_agent::run_command(pair.a.serial(), "stop dyad-core")?;
    pair.a.serial().wait_for_text(FIRMWARE, position, GUEST_DEADLINE).context("The watchdog did not reset the node")?;
    let took = since.elapsed();
    println!("    the node was reset after {:.1} s; F' is {:.1} s", took.as_secs_f64(), FENCE_PERIOD.as_secs_f64());
    let last = guest.record().boots().last().map(|boot| boot.last);
    ensure!(took <= RESET_DEADLINE, "The reset took {:.1} s.", took.as_secs_f64());
    ensure!(last.is_none_or(|last| last < since + FENCE_PERIOD), "The guest counted longer than F' allows.");
    let (_, counter) = guest.wait_for_restart(since, BOOT_DEADLINE + GUEST_DEADLINE)?;
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    pair.judge_guests()
}

fn counting(pair: &Pair) -> Result<Guest> {
    let guest = pair.guest(FIRST)?;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;
    Ok(guest)
}

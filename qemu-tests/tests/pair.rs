//! The scenarios of the main job as tests on one pair, in their order, and a killed `dyad-core` on each node among them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::fault_agent;
use dyad_rig::guest::Guest;
use dyad_rig::harness::run_tests;
use dyad_rig::node::NodeName;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{FIRST_GUEST, GUEST_DEADLINE, MAIN_JOB, PROTECTED_DEADLINE, SECOND_GUEST};

/// Number of scenarios at the start of the main job that form the pair and start its guests; the test of this file
/// comes after them.
const PAIR_SETUP_SCENARIOS: usize = 3;
/// Longest pause of a guest while a killed core restarts, opens its pool, finds its peer, and QEMU connects again, on an
/// emulated node.
const CORE_PAUSE_DEADLINE: Duration = Duration::from_secs(5);

type TestFunction = Box<dyn Fn(&mut Pair) -> Result<()>>;

fn main() -> ExitCode {
    let mut tests: Vec<(&str, TestFunction)> = Vec::new();
    for scenario in &MAIN_JOB {
        tests.push((scenario.name, Box::new(|pair: &mut Pair| scenario.run_unrecorded(pair))));
    }
    tests.insert(PAIR_SETUP_SCENARIOS, ("core_kill9_is_no_fail_over", Box::new(core_kill9_is_no_fail_over)));
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

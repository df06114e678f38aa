//! The main job as separate tests on one pair, in the order of an operator's day, and faults that must not
//! disturb it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::fault_agent;
use dyad_rig::guest::Guest;
use dyad_rig::harness::run_tests;
use dyad_rig::node::Name;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{FIRST, GUEST_DEADLINE, MAIN_JOB, PROTECTED_DEADLINE, SECOND};

/// Number of scenarios at the start of the main job that set up the pair and start its guests.
const PAIR_SETUP_SCENARIOS: usize = 3;
/// A killed core is started again, opens its pool, finds its peer, and QEMU connects again; on an emulated node.
const CORE_PAUSE_DEADLINE: Duration = Duration::from_secs(5);

type Act = Box<dyn Fn(&mut Pair) -> Result<()>>;

fn main() -> ExitCode {
    let mut tests: Vec<(&str, Act)> = Vec::new();
    for scenario in &MAIN_JOB {
        tests.push((scenario.name, Box::new(|pair: &mut Pair| scenario.act(pair))));
    }
    tests.insert(PAIR_SETUP_SCENARIOS, ("core_kill9_is_no_fail_over", Box::new(core_kill9_is_no_fail_over)));
    run_tests(&tests, || {
        let artifacts = Artifacts::beside_this_program()?;
        let image = artifacts.fault_agent_image();
        Pair::with_image(artifacts, "pair", &image)
    })
}

/// `kill -9` of the storage daemon of either node: all guests go on after a short pause, where they are.
fn core_kill9_is_no_fail_over(pair: &mut Pair) -> Result<()> {
    let guests: Vec<Guest> = [FIRST, SECOND].into_iter().map(|name| pair.guest(name)).collect::<Result<_>>()?;
    let epoch = pair.status(Name::A)?.epoch;
    for name in [Name::A, Name::B] {
        let since = fault_agent::run_command(pair.node(name).serial(), "kill dyad-core")?;
        for guest in &guests {
            guest.wait_for_ack(since, GUEST_DEADLINE)?;
            guest.wait_for_progress(20, GUEST_DEADLINE)?;
            let pause = guest.record().longest_pause(since);
            println!("    the core of node {name} was killed: {} paused for {} ms", guest.name(), pause.as_millis());
            ensure!(guest.record().boots().len() == 1, "{} was restarted.", guest.name());
            // A write needs both nodes: a pause far below this shows that no daemon was killed.
            ensure!(pause > Duration::from_millis(100), "{} noticed nothing: was it killed?", guest.name());
            ensure!(pause <= CORE_PAUSE_DEADLINE, "{} paused for {} ms.", guest.name(), pause.as_millis());
        }
        pair.wait_protected(PROTECTED_DEADLINE)?;
        let now = pair.status(Name::A)?.epoch;
        ensure!(now == epoch, "The epoch went from {epoch} to {now}.");
    }
    pair.judge_guests()
}

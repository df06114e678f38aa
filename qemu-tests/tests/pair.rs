//! The main job as separate tests on one pair, in the order in which an owner would live through it.

use std::process::ExitCode;

use dyad_rig::artifacts::Artifacts;
use dyad_rig::harness::play;
use dyad_rig::pair::Pair;
use dyad_rig::stories::MAIN_JOB;

fn main() -> ExitCode {
    let tests: Vec<_> = MAIN_JOB.iter().map(|story| (story.name, |pair: &mut Pair| story.run(pair))).collect();
    play(&tests, || Pair::new(Artifacts::beside_this_program()?, "pair"))
}

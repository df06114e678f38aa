//! The main job: scenarios that run in order on one pair. Each acts, waits, asserts, and adds its figures to the report.

mod double_power_loss;
mod limits;
mod link_partition;
mod pair_setup;
mod power_cut;

use anyhow::Result;

use crate::harness::MachineFixture as _;
use crate::pair::Pair;

pub use limits::{
    BOOT_DEADLINE, DETECTION_DELAY, FENCE_PERIOD, FIRST_GUEST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND_GUEST,
};
pub use link_partition::wait_for_one_member;
pub use pair_setup::{create_vm, delete_vm, put_vm};
pub use power_cut::wait_for_members;

/// One step of the main job, as a test of its own.
pub struct Scenario {
    /// Name of the test.
    pub name: &'static str,
    /// Sentence that the demo prints before the step.
    pub title: &'static str,
    /// The function that carries the step out.
    function: fn(&mut Pair) -> Result<()>,
}

impl Scenario {
    /// Runs the step, then saves logs and state of the pair.
    ///
    /// # Errors
    /// The step failed.
    pub fn run(&self, pair: &mut Pair) -> Result<()> {
        let outcome = self.run_unrecorded(pair);
        pair.record_outcome(self.name, outcome.is_err());
        outcome
    }

    /// Runs the step without saving: the test harness saves the state itself (`MachineFixture::record_outcome`).
    ///
    /// # Errors
    /// The step failed.
    pub fn run_unrecorded(&self, pair: &mut Pair) -> Result<()> {
        (self.function)(pair)
    }
}

/// All steps of the main job, in the order in which they run; each builds on the state that the former one leaves.
pub const MAIN_JOB: [Scenario; 8] = [
    Scenario {
        name: "boot_answers_api",
        title: "A node boots from the image and answers; the other one follows",
        function: pair_setup::boot_answers_api,
    },
    Scenario {
        name: "pair_forms_protected",
        title: "The wizard forms the pair: first node, joining node, witness",
        function: pair_setup::pair_forms_protected,
    },
    Scenario {
        name: "vm_runs_and_acks",
        title: "A VM runs on a mirrored volume and counts",
        function: pair_setup::vm_runs_and_acks,
    },
    Scenario {
        name: "power_cut_fails_over",
        title: "The node that runs it loses power; the survivor takes over",
        function: power_cut::power_cut_fails_over,
    },
    Scenario {
        name: "survivor_pause",
        title: "The survivor's own VM only paused for a moment",
        function: power_cut::survivor_pause,
    },
    Scenario {
        name: "rejoin_copies_delta",
        title: "The dead node comes back and copies only what changed",
        function: power_cut::rejoin_copies_delta,
    },
    Scenario {
        name: "link_cut_one_side",
        title: "All cables between the nodes are cut; exactly one side goes on",
        function: link_partition::link_cut_one_side,
    },
    Scenario {
        name: "both_power_loss_without_witness",
        title: "Both nodes lose power at once and return without the witness",
        function: double_power_loss::both_power_loss_without_witness,
    },
];

//! The steps of the main job. Each acts, waits, asserts, and records its figures. They run in this order.

mod double_power_loss;
mod limits;
mod link_partition;
mod pair_setup;
mod power_cut;

use anyhow::Result;

use crate::harness::Fixture as _;
use crate::pair::Pair;

pub use limits::{BOOT_DEADLINE, DETECTION_DELAY, FENCE_PERIOD, FIRST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND};
pub use pair_setup::{create_vm, delete_vm, put_vm};

/// One step of the main job.
pub struct Scenario {
    /// Its name as a test.
    pub name: &'static str,
    /// The sentence that the demo prints for it.
    pub title: &'static str,
    /// The function that carries the step out.
    act: fn(&mut Pair) -> Result<()>,
}

impl Scenario {
    /// Runs the step, and records its outcome.
    ///
    /// # Errors
    /// The step failed.
    pub fn run(&self, pair: &mut Pair) -> Result<()> {
        let outcome = self.act(pair);
        pair.record(self.name, outcome.is_err());
        outcome
    }

    /// Runs the step for a harness that records the outcome itself.
    ///
    /// # Errors
    /// The step failed.
    pub fn act(&self, pair: &mut Pair) -> Result<()> {
        (self.act)(pair)
    }
}

/// The main job, in order.
pub const MAIN_JOB: [Scenario; 8] = [
    Scenario {
        name: "boot_answers_api",
        title: "A node boots from the image and answers; the other one follows",
        act: pair_setup::boot_answers_api,
    },
    Scenario {
        name: "pair_forms_protected",
        title: "The wizard forms the pair: first node, joining node, witness",
        act: pair_setup::pair_forms_protected,
    },
    Scenario {
        name: "vm_runs_and_acks",
        title: "A VM runs on a mirrored volume and counts",
        act: pair_setup::vm_runs_and_acks,
    },
    Scenario {
        name: "power_cut_fails_over",
        title: "The node that runs it loses power; the survivor takes over",
        act: power_cut::power_cut_fails_over,
    },
    Scenario {
        name: "survivor_pause",
        title: "The survivor's own VM only paused for a moment",
        act: power_cut::survivor_pause,
    },
    Scenario {
        name: "rejoin_copies_delta",
        title: "The dead node comes back and copies only what changed",
        act: power_cut::rejoin_copies_delta,
    },
    Scenario {
        name: "link_cut_one_side",
        title: "All cables between the nodes are cut; exactly one side goes on",
        act: link_partition::link_cut_one_side,
    },
    Scenario {
        name: "both_power_loss_without_witness",
        title: "Both nodes lose power at once and return without the witness",
        act: double_power_loss::both_power_loss_without_witness,
    },
];

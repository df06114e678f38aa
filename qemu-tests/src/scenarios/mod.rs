//! The steps of the main job. Each acts, waits, asserts, and records its figures; they are played in this order.

mod double_power_loss;
mod link_partition;
mod pair_setup;
mod power_cut;

use std::time::Duration;

use anyhow::Result;

use crate::pair::Pair;

pub use pair_setup::{create_vm, delete_vm, put_vm};

/// The guest whose node loses power.
pub const FIRST: &str = "alpha";
/// The guest on the survivor.
pub const SECOND: &str = "beta";

/// F′ of the default profile: the longest time after its last lease in which a silent node may still run VMs.
pub const FENCE_PERIOD: Duration = Duration::from_millis(5_641);
/// D of the default profile: silence this long is called silence.
pub const DETECTION_DELAY: Duration = Duration::from_millis(500);

/// From power-on to an answering API, emulated, on a busy machine; the promise is 25 s on an idle one.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(300);
/// From an answering API to a protected pair: a peer that was lost often must be heard for a minute before it becomes a
/// member again.
pub const PROTECTED_DEADLINE: Duration = Duration::from_secs(300);
/// From the start of a VM to its first word, two emulations deep, beside another VM on one emulated processor.
pub const GUEST_DEADLINE: Duration = Duration::from_secs(300);

/// One step of the main job.
pub struct Scenario {
    /// Its name as a test.
    pub name: &'static str,
    /// What the owner sees, for the demo.
    pub title: &'static str,
    /// Its acts.
    play: fn(&mut Pair) -> Result<()>,
}

impl Scenario {
    /// Plays it and keeps what the nodes tell of it; of a failure, all that helps to understand it.
    ///
    /// # Errors
    /// It failed.
    pub fn run(&self, pair: &mut Pair) -> Result<()> {
        let outcome = (self.play)(pair);
        pair.record_timelines(outcome.is_err());
        if outcome.is_err() {
            pair.tell_failure(self.name);
        }
        outcome
    }
}

/// The main job, in order.
pub const MAIN_JOB: [Scenario; 8] = [
    Scenario {
        name: "boot_answers_api",
        title: "A node boots from the image and answers; the other one follows",
        play: pair_setup::boot_answers_api,
    },
    Scenario {
        name: "pair_forms_protected",
        title: "The wizard forms the pair: first node, joining node, witness",
        play: pair_setup::pair_forms_protected,
    },
    Scenario {
        name: "vm_runs_and_acks",
        title: "A VM runs on a mirrored volume and counts",
        play: pair_setup::vm_runs_and_acks,
    },
    Scenario {
        name: "power_cut_fails_over",
        title: "The node that runs it loses power; the survivor takes over",
        play: power_cut::power_cut_fails_over,
    },
    Scenario {
        name: "survivor_pause",
        title: "The survivor's own VM only paused for a moment",
        play: power_cut::survivor_pause,
    },
    Scenario {
        name: "rejoin_copies_delta",
        title: "The dead node comes back and copies only what changed",
        play: power_cut::rejoin_copies_delta,
    },
    Scenario {
        name: "link_cut_one_side",
        title: "All cables between the nodes are cut; exactly one side goes on",
        play: link_partition::link_cut_one_side,
    },
    Scenario {
        name: "both_power_loss_without_witness",
        title: "Both nodes lose power at once and return without the witness",
        play: double_power_loss::both_power_loss_without_witness,
    },
];

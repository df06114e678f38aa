//! Scenario: both nodes lose power at once, and the witness is stopped while they boot again.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{BOOT_DEADLINE, FIRST_GUEST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND_GUEST};
use crate::node::NodeName;
use crate::pair::Pair;
use crate::status::Status;
use crate::wait;

/// The two nodes form the pair again without the witness, and no acknowledged write is lost. Then the witness starts
/// again.
pub fn both_power_loss_without_witness(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(FIRST_GUEST)?;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;
    pair.witness.stop()?;
    let cut = Instant::now();
    pair.a.power_cut()?;
    pair.b.power_cut()?;
    let acked = guest.record().acked_counter();
    pair.print_line(&format!("both nodes lose power, the witness is gone; newest acknowledged counter {acked}"));
    for name in [NodeName::A, NodeName::B] {
        pair.node(name).power_on()?;
    }
    for name in [NodeName::A, NodeName::B] {
        let client = pair.client(name).probing();
        wait::until_ok(&format!("node {name} to answer"), BOOT_DEADLINE, || Status::in_detail(&client))?;
    }
    pair.print_line(&format!("both nodes answer again after {:.1} s", cut.elapsed().as_secs_f64()));
    for guest in [pair.guest(FIRST_GUEST)?, pair.guest(SECOND_GUEST)?] {
        let (alive, counter) = guest.wait_for_restart(cut, PROTECTED_DEADLINE)?;
        let after = alive.duration_since(cut).as_secs_f64();
        pair.print_line(&format!("{} runs again {after:.1} s after the power loss: counter {counter}", guest.name()));
    }
    let (_, counter) = guest.wait_for_restart(cut, GUEST_DEADLINE)?;
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    pair.check_guests()?;
    super::power_cut::wait_for_members(pair, "AB")?;
    let back = Instant::now();
    let mut timeline_follower = pair.timeline_follower(NodeName::A);
    pair.witness.start()?;
    timeline_follower.wait("witness-back", back, PROTECTED_DEADLINE)?;
    pair.print_line("the witness answers again");
    pair.check_guests()
}

//! Both nodes lose power at once, and the witness is away when the power returns.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{BOOT_DEADLINE, FIRST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND};
use crate::node::Name;
use crate::pair::Pair;
use crate::status::Status;
use crate::wait;

/// Two nodes always form the pair again, with or without the witness, and no flushed write is lost.
pub fn both_power_loss_without_witness(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(FIRST)?;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;
    pair.witness.stop()?;
    let cut = Instant::now();
    pair.a.power_cut()?;
    pair.b.power_cut()?;
    let acked = guest.record().acked();
    pair.say(&format!("both nodes lose power, the witness is gone; newest acknowledged counter {acked}"));
    for name in [Name::A, Name::B] {
        pair.node(name).power_on()?;
    }
    for name in [Name::A, Name::B] {
        let client = pair.client(name).probing();
        wait::until_ok(&format!("node {name} to answer"), BOOT_DEADLINE, || Status::in_detail(&client))?;
    }
    pair.say(&format!("both nodes answer again after {:.1} s", cut.elapsed().as_secs_f64()));
    for guest in [pair.guest(FIRST)?, pair.guest(SECOND)?] {
        let (alive, counter) = guest.wait_for_restart(cut, PROTECTED_DEADLINE)?;
        let after = alive.duration_since(cut).as_secs_f64();
        pair.say(&format!("{} runs again {after:.1} s after the double_power_loss: counter {counter}", guest.name()));
    }
    let (_, counter) = guest.wait_for_restart(cut, GUEST_DEADLINE)?;
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    pair.judge_guests()?;
    super::power_cut::expect_members(pair, "AB")?;
    let back = Instant::now();
    let mut timeline_follower = pair.timeline_follower(Name::A);
    pair.witness.start()?;
    timeline_follower.wait("witness-back", back, PROTECTED_DEADLINE)?;
    pair.say("the witness answers again");
    pair.judge_guests()
}

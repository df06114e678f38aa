//! The cables between the nodes are cut while both are alive.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::power_cut::EARLY_DETECTION_DELAY;
use super::{BOOT_DEADLINE, FENCE_PERIOD, FIRST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND, delete_vm, put_vm};
use crate::guest::Guest;
use crate::node::{Cable, Name};
use crate::pair::Pair;
use crate::wait::{self, Look};

/// A volume without a VM.
const SPARE: &str = "spare";

/// Exactly one side goes on. The other side's VMs are stopped before they start on the side that goes on. Then the
/// pair heals.
pub fn link_cut_one_side(pair: &mut Pair) -> Result<()> {
    // The power cut left node A without a VM; a side without a VM would prove little.
    move_first_to_a(pair)?;
    let guests: Vec<Guest> = [FIRST, SECOND].into_iter().map(|name| pair.guest(name)).collect::<Result<_>>()?;
    for guest in &guests {
        guest.wait_for_progress(5, GUEST_DEADLINE)?;
    }
    let nodes: Vec<Name> = guests.iter().map(node_of).collect::<Result<_>>()?;
    let before = pair.status(Name::A)?.epoch;

    let cut = Instant::now();
    set_peer_cables(pair, false)?;
    pair.say("both peer cables are cut");
    let winner = wait::until("one side to be chosen", BOOT_DEADLINE, || {
        for name in [Name::A, Name::B] {
            if let Ok(status) = pair.status(name)
                && status.epoch > before
                && status.members() == name.to_string()
            {
                return Ok(Look::Ready(name));
            }
        }
        Ok(Look::NotYet("both wait".into()))
    })?;
    let loser = winner.peer();
    pair.say(&format!("node {winner} goes on, {:.2} s after the cut", cut.elapsed().as_secs_f64()));
    let (_, started) = pair.timeline_follower(winner).wait("vm-running", cut, GUEST_DEADLINE)?;
    let after = started.saturating_duration_since(cut);
    pair.say(&format!("node {winner} starts the other's VM after {:.2} s", after.as_secs_f64()));
    ensure!(
        after + EARLY_DETECTION_DELAY >= FENCE_PERIOD,
        "Node {winner} did not wait for the fence: {:.2} s.",
        after.as_secs_f64()
    );

    for (guest, node) in guests.iter().zip(&nodes) {
        wait::until(&format!("{} to run on node {winner}", guest.name()), GUEST_DEADLINE, || {
            let record = guest.record();
            let boot = record.boots().last().context("The guest never booted.")?;
            let runs = boot.node == winner && boot.last > cut + FENCE_PERIOD;
            Ok(if runs { Look::Ready(()) } else { Look::NotYet(format!("{boot:?}")) })
        })?;
        let record = guest.record();
        let since = record.boots().iter().filter(|boot| boot.begin > cut).count();
        let late = record.boots().iter().find(|boot| boot.node == loser && boot.seen > started);
        ensure!(late.is_none(), "{} executed on node {loser} when node {winner} had started it.", guest.name());
        if *node == winner {
            ensure!(since == 0, "{} ran on the winning side and was restarted.", guest.name());
        } else {
            ensure!(since == 1, "{} was started {since} times after the cut.", guest.name());
        }
    }
    let status = pair.status(loser)?;
    ensure!(status.json["details"]["may_run"] == false, "Node {loser} still may run VMs: {}", status.json);
    pair.say(&format!("node {loser} says: {}", status.sentence));
    pair.judge_guests()?;

    set_peer_cables(pair, true)?;
    pair.say("the cables are plugged again");
    pair.wait_protected(PROTECTED_DEADLINE)?;
    super::power_cut::expect_members(pair, "AB")?;
    for guest in &guests {
        guest.wait_for_progress(5, GUEST_DEADLINE)?;
    }
    pair.say("protected again");
    make_and_delete_volume(pair)?;
    pair.judge_guests()
}

/// After the partition the pair creates and deletes volumes as before.
fn make_and_delete_volume(pair: &Pair) -> Result<()> {
    let client = pair.client(Name::A);
    client.post("volumes", &json!({"name": SPARE, "size": 64 << 20})).context("The volume was refused")?;
    client.delete(&format!("volumes/{SPARE}")).context("The volume was not deleted")?;
    Ok(())
}

/// Deletes the first guest's VM at node B and creates it again at node A, on the same volume.
fn move_first_to_a(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(FIRST)?;
    let gone = Instant::now();
    let client = pair.client(Name::B);
    delete_vm(&client, FIRST)?;
    let acked = guest.record().acked();
    put_vm(&client, FIRST, Name::A)?;
    let (_, counter) = guest.wait_for_restart(gone, GUEST_DEADLINE)?;
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    let node = node_of(&guest)?;
    ensure!(node == Name::A, "{FIRST} was made for node A and runs on node {node}.");
    pair.say(&format!("{FIRST} is back on node A, {:.1} s after node B stopped it", gone.elapsed().as_secs_f64()));
    pair.judge_guests()
}

fn node_of(guest: &Guest) -> Result<Name> {
    let record = guest.record();
    Ok(record.boots().last().with_context(|| format!("{} never ran.", guest.name()))?.node)
}

/// Both ends of both cables, so that neither side sees the other's carrier.
fn set_peer_cables(pair: &mut Pair, plugged: bool) -> Result<()> {
    for cable in [Cable::Peer0, Cable::Peer1] {
        for name in [Name::A, Name::B] {
            pair.node(name).set_cable(cable, plugged)?;
        }
    }
    Ok(())
}

//! Scenario: all cables between the nodes are cut while both nodes run.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::power_cut::LAST_LEASE_AGE_PERIOD;
use super::{
    BOOT_DEADLINE, FENCE_PERIOD, FIRST_GUEST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND_GUEST, delete_vm, put_vm,
};
use crate::guest::Guest;
use crate::http::Refusal;
use crate::node::{Cable, NodeName};
use crate::pair::Pair;
use crate::wait::{self, Poll};

/// Name of a volume that no VM uses.
const SPARE_VOLUME: &str = "spare";

/// Exactly one node goes on. The other node's VMs are stopped before the winner starts them. When the cables are plugged
/// again, the pair is protected again.
pub fn link_cut_one_side(pair: &mut Pair) -> Result<()> {
    // The power cut left node A without a VM. Each node needs a VM here, because one node's VM must go on and the
    // other's stop.
    move_first_guest_to_a(pair)?;
    let guests: Vec<Guest> =
        [FIRST_GUEST, SECOND_GUEST].into_iter().map(|name| pair.guest(name)).collect::<Result<_>>()?;
    for guest in &guests {
        guest.wait_for_progress(5, GUEST_DEADLINE)?;
    }
    let nodes: Vec<NodeName> = guests.iter().map(Guest::node).collect::<Result<_>>()?;
    let before = pair.status(NodeName::A)?.epoch;

    let cut = Instant::now();
    set_peer_cables(pair, false)?;
    pair.print_line("both peer cables are cut");
    let winner = wait_for_one_member(pair, before)?;
    let loser = winner.peer();
    pair.print_line(&format!("node {winner} goes on, {:.2} s after the cut", cut.elapsed().as_secs_f64()));
    for (guest, _) in guests.iter().zip(&nodes).filter(|(_, node)| **node == loser) {
        vm_of_lost_node_is_not_deleted(pair, winner, guest.name())?;
    }
    let (_, started) = pair.timeline_follower(winner).wait("vm-running", cut, GUEST_DEADLINE)?;
    let after = started.saturating_duration_since(cut);
    pair.print_line(&format!("node {winner} starts the other's VM after {:.2} s", after.as_secs_f64()));
    ensure!(
        after + LAST_LEASE_AGE_PERIOD >= FENCE_PERIOD,
        "Node {winner} did not wait for the fence: {:.2} s.",
        after.as_secs_f64()
    );

    for (guest, node) in guests.iter().zip(&nodes) {
        wait::until(&format!("{} to run on node {winner}", guest.name()), GUEST_DEADLINE, || {
            let record = guest.record();
            let boot = record.boots().last().context("The guest never booted.")?;
            let runs = boot.node == winner && boot.last_ack_at > cut + FENCE_PERIOD;
            Ok(if runs { Poll::Ready(()) } else { Poll::NotYet(format!("{boot:?}")) })
        })?;
        let record = guest.record();
        let since = record.boots().iter().filter(|boot| boot.first_line_at > cut).count();
        let late = record.boots().iter().find(|boot| boot.node == loser && boot.last_executed_at > started);
        ensure!(late.is_none(), "{} executed on node {loser} when node {winner} had started it.", guest.name());
        if *node == winner {
            ensure!(since == 0, "{} ran on the winning side and was restarted.", guest.name());
        } else {
            ensure!(since == 1, "{} was started {since} times after the cut.", guest.name());
        }
    }
    let status = pair.status(loser)?;
    ensure!(status.json["details"]["may_run"] == false, "Node {loser} still may run VMs: {}", status.json);
    pair.print_line(&format!("node {loser} says: {}", status.sentence));
    pair.check_guests()?;

    set_peer_cables(pair, true)?;
    pair.print_line("the cables are plugged again");
    pair.wait_protected(PROTECTED_DEADLINE)?;
    super::power_cut::wait_for_members(pair, "AB")?;
    for guest in &guests {
        guest.wait_for_progress(5, GUEST_DEADLINE)?;
    }
    pair.print_line("protected again");
    make_and_delete_volume(pair)?;
    pair.check_guests()
}

/// Checks that the winner does not delete the VM of the other node, which may still run it.
fn vm_of_lost_node_is_not_deleted(pair: &Pair, winner: NodeName, vm: &str) -> Result<()> {
    let Err(error) = pair.client(winner).delete(&format!("vms/{vm}")) else {
        bail!("Node {winner} deleted {vm}, which the other node may still run.");
    };
    let refusal = error.downcast_ref::<Refusal>().with_context(|| format!("No refusal: {error:#}"))?;
    ensure!(refusal.status == 503 && refusal.body["code"] == "peer-fence", "The deletion was refused by {refusal}.");
    pair.print_line(&format!("{vm} is not deleted: {}", refusal.body["error"].as_str().unwrap_or_default()));
    Ok(())
}

/// Checks that the pair creates and deletes volumes after the partition.
fn make_and_delete_volume(pair: &Pair) -> Result<()> {
    let client = pair.client(NodeName::A);
    client.post("volumes", &json!({"name": SPARE_VOLUME, "size": 64 << 20})).context("The volume was refused")?;
    client.delete(&format!("volumes/{SPARE_VOLUME}")).context("The volume was not deleted")?;
    Ok(())
}

/// Deletes the first guest's VM on node B and creates it again on node A, on the same volume.
fn move_first_guest_to_a(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(FIRST_GUEST)?;
    let gone = Instant::now();
    let client = pair.client(NodeName::B);
    delete_vm(&client, FIRST_GUEST)?;
    let acked = guest.record().acked_counter();
    put_vm(&client, FIRST_GUEST, NodeName::A)?;
    let (_, counter) = guest.wait_for_restart(gone, GUEST_DEADLINE)?;
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    let node = guest.node()?;
    ensure!(node == NodeName::A, "{FIRST_GUEST} was made for node A and runs on node {node}.");
    pair.print_line(&format!(
        "{FIRST_GUEST} is back on node A, {:.1} s after node B stopped it",
        gone.elapsed().as_secs_f64()
    ));
    pair.check_guests()
}

/// Waits until a node is the only member, in a later epoch than `before`; returns it.
///
/// # Errors
/// No node is within [`BOOT_DEADLINE`].
pub fn wait_for_one_member(pair: &Pair, before: u64) -> Result<NodeName> {
    wait::until("one side to be chosen", BOOT_DEADLINE, || {
        for name in [NodeName::A, NodeName::B] {
            if let Ok(status) = pair.status(name)
                && status.epoch > before
                && status.members() == name.to_string()
            {
                return Ok(Poll::Ready(name));
            }
        }
        Ok(Poll::NotYet("both wait".into()))
    })
}

/// Plugs or pulls both cables at both ends, so that neither node sees a carrier.
fn set_peer_cables(pair: &mut Pair, plugged: bool) -> Result<()> {
    for cable in [Cable::Peer0, Cable::Peer1] {
        for name in [NodeName::A, NodeName::B] {
            pair.node(name).set_cable(cable, plugged)?;
        }
    }
    Ok(())
}

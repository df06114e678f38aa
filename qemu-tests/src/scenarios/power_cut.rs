//! A node loses power, the survivor takes over, and the lost node returns.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{BOOT_DEADLINE, DETECTION_DELAY, FENCE_PERIOD, FIRST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND};
use crate::node::Name;
use crate::pair::Pair;
use crate::status::Status;
use crate::wait;

/// Longest time from the end of the fence to the start of the VM: decision at the witness, change of the document,
/// start of QEMU.
const VM_START_DELAY: Duration = Duration::from_secs(3);
/// The same where the node's one processor is emulated: starting QEMU alone takes two to four seconds there.
const EMULATED_VM_START_DELAY: Duration = Duration::from_secs(6);
/// How much before the end of F' after the cut the VM may be started: F' runs from the last lease that was granted,
/// which
/// came with one of the last heartbeats of an emulated node.
pub(super) const EARLY_DETECTION_DELAY: Duration = Duration::from_millis(500);
/// The bytes that the counting guest writes: its ring. The two rings, with some extents for document and allocation,
/// are all that may
/// be dirty while the survivor is alone.
const RING_BYTES: u64 = 64 * (64 << 10);
/// Longest wait of the survivor's guests beyond detection: one witness round trip and one second.
const PAUSE_EXTRA_DELAY: Duration = Duration::from_millis(1_100);

/// SIGKILL of the QEMU that is node A: the guest goes on at node B, from a counter it had acknowledged or later.
pub fn power_cut_fails_over(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(FIRST)?;
    let mut timeline_follower = pair.timeline_follower(Name::B);
    timeline_follower.poll()?;
    let before = pair.status(Name::B)?.epoch;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;

    let cut = Instant::now();
    pair.a.power_cut()?;
    let acked = guest.record().acked();
    pair.say(&format!("node A loses power; newest acknowledged counter {acked}"));
    let after = |when: Instant| when.saturating_duration_since(cut);

    let (_, detected) = timeline_follower.wait("peer-silent", cut, BOOT_DEADLINE)?;
    pair.say(&format!("detection after {:.2} s", after(detected).as_secs_f64()));
    let (epoch, chosen) = timeline_follower.wait("epoch", cut, BOOT_DEADLINE)?;
    pair.say(&format!("{:.2} s: {}", after(chosen).as_secs_f64(), epoch.text));
    let (_, fenced) = timeline_follower.wait("fence-over", cut, BOOT_DEADLINE)?;
    pair.say(&format!("fence over after {:.2} s", after(fenced).as_secs_f64()));
    let (_, permitted) = timeline_follower.wait("vm-permitted", cut, BOOT_DEADLINE)?;
    pair.say(&format!("{FIRST} may run on node B after {:.2} s", after(permitted).as_secs_f64()));
    let (_, started) = timeline_follower.wait("vm-running", cut, GUEST_DEADLINE)?;
    pair.say(&format!("{FIRST} started on node B after {:.2} s", after(started).as_secs_f64()));
    let (alive, counter) = guest.wait_for_restart(cut, GUEST_DEADLINE)?;
    pair.say(&format!("{FIRST} is alive after {:.2} s: counter {counter}", after(alive).as_secs_f64()));

    pair.report.set_time("failover_detect_s", after(detected));
    pair.report.set_time("failover_vm_start_s", after(started));
    ensure!(pair.status(Name::B)?.epoch > before, "The epoch did not grow.");
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    pair.judge_guests()?;
    let emulated = pair.report.get("accelerator").as_str() == Some("tcg");
    let limit = FENCE_PERIOD + if emulated { EMULATED_VM_START_DELAY } else { VM_START_DELAY };
    ensure!(
        after(started) <= limit,
        "The VM started {:.2} s after the power cut; the promise is {:.2} s.",
        after(started).as_secs_f64(),
        limit.as_secs_f64()
    );
    ensure!(
        after(permitted) + EARLY_DETECTION_DELAY >= FENCE_PERIOD,
        "The VM might start {:.2} s after the power cut: that is before the fence.",
        after(permitted).as_secs_f64()
    );
    // `survivor_pause` checks the same cut.
    let second = pair.guest(SECOND)?;
    // A guest that never goes on would show no pause at all.
    second.wait_for_ack(started, GUEST_DEADLINE)?;
    let pause = second.record().longest_pause(cut);
    pair.report.set_time("survivor_io_pause_s", pause);
    let restarts = second.record().boots().iter().filter(|boot| boot.begin > cut).count();
    ensure!(restarts == 0, "{SECOND} ran on the survivor and was restarted.");
    Ok(())
}

/// The longest write of the guest that ran on node B throughout took at most D + T_cas + [`PAUSE_EXTRA_DELAY`].
pub fn survivor_pause(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(SECOND)?;
    guest.wait_for_progress(5, GUEST_DEADLINE)?;
    let pause = pair.report.get("survivor_io_pause_s").as_f64();
    let Some(pause) = pause else { anyhow::bail!("There was no power cut to look at.") };
    pair.say(&format!("longest I/O pause of {SECOND}: {pause:.3} s"));
    let limit = (DETECTION_DELAY + PAUSE_EXTRA_DELAY).as_secs_f64();
    ensure!(pause <= limit, "{SECOND} paused for {pause:.2} s; the promise is {limit:.2} s.");
    Ok(())
}

/// Node A boots again, rejoins by itself and receives only what changed meanwhile.
pub fn rejoin_copies_delta(pair: &mut Pair) -> Result<()> {
    let survivor = pair.client(Name::B);
    let guest = pair.guest(FIRST)?;
    guest.wait_for_progress(15, GUEST_DEADLINE)?;
    let on = Instant::now();
    pair.a.power_on()?;
    let mut timeline_follower = pair.timeline_follower(Name::B);
    let (_, connected) = timeline_follower.wait("session-up", on, BOOT_DEADLINE)?;
    pair.say(&format!("node A is back after {:.1} s", connected.duration_since(on).as_secs_f64()));
    let (_, clean) = timeline_follower.wait("peer-clean", connected, PROTECTED_DEADLINE)?;
    pair.wait_protected(PROTECTED_DEADLINE)?;
    pair.report.set_time("back_to_protected_s", on.elapsed());
    pair.report.set_time("resync_s", clean.saturating_duration_since(connected));
    let status = Status::in_detail(&survivor)?;
    let (dirty, copied) = (status.mirror("resync_dirty_bytes")?, status.mirror("resync_bytes")?);
    pair.report.set("dirty_bytes", dirty);
    pair.report.set("resync_bytes", copied);
    pair.say(&format!("protected again; {dirty} bytes were dirty, {copied} were copied"));
    ensure!(dirty > 0, "The guest wrote alone for a while, and nothing was dirty.");
    // Only the nodes know which extents are dirty; the rig knows how much was written.
    let most = 2 * RING_BYTES + (1 << 20);
    ensure!(dirty <= most, "{dirty} bytes were dirty, and the guests wrote to {most} at most.");
    ensure!(copied <= 2 * dirty, "{copied} bytes were copied for {dirty} that were dirty.");
    expect_members(pair, "AB")?;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;
    pair.judge_guests()
}

/// Both nodes name the same in-sync set.
pub(super) fn expect_members(pair: &Pair, members: &str) -> Result<()> {
    // A node that has just become a member reads the document, with its users, a moment later.
    wait::until_ok(&format!("both nodes to name {members} in sync"), GUEST_DEADLINE, || {
        let a = pair.status(Name::A)?.members();
        let b = pair.status(Name::B)?.members();
        ensure!(a == members && b == members, "A: {a}, B: {b}");
        Ok(())
    })
}

//! Scenarios: node A loses power, node B takes over, and node A returns.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{
    BOOT_DEADLINE, DETECTION_DELAY, FENCE_PERIOD, FIRST_GUEST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND_GUEST,
};
use crate::node::NodeName;
use crate::pair::Pair;
use crate::status::Status;
use crate::wait;

/// Longest time from the end of the fence to the start of the VM: change of the document, permit, start of QEMU.
const VM_START_DEADLINE: Duration = Duration::from_secs(3);
/// The same on an emulated node: the start of QEMU alone takes 2 s to 5 s there, beside a guest whose memory is translated
/// without nested paging.
const EMULATED_VM_START_DEADLINE: Duration = Duration::from_secs(9);
/// Greatest age of the last lease at the time of the cut, on emulated nodes. F′ runs from the last lease and not from
/// the cut, so a VM may be started this much earlier than F′ after the cut.
pub(super) const LAST_LEASE_AGE_PERIOD: Duration = Duration::from_millis(500);
/// Bytes of the extents that one counting guest writes: 64 slots, each in an extent of its own. Dirty while the
/// survivor is alone are at most the rings of both guests and some extents of the document.
const RING_BYTES: u64 = 64 * (64 << 10);
/// Longest pause of the survivor's guests beyond D: 100 ms for T_cas, the decision at the witness, and 1 s.
const PAUSE_EXTRA_DELAY: Duration = Duration::from_millis(1_100);

/// Node A loses power. Its guest starts on node B no earlier than F′ allows and in time, and finds every counter that
/// it had acknowledged.
pub fn power_cut_fails_over(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(FIRST_GUEST)?;
    let mut timeline_follower = pair.timeline_follower(NodeName::B);
    timeline_follower.poll()?;
    let before = pair.status(NodeName::B)?.epoch;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;

    let cut = Instant::now();
    pair.a.power_cut()?;
    let acked = guest.record().acked_counter();
    pair.print_line(&format!("node A loses power; newest acknowledged counter {acked}"));
    let after = |when: Instant| when.saturating_duration_since(cut);

    let (_, detected) = timeline_follower.wait("peer-silent", cut, BOOT_DEADLINE)?;
    pair.print_line(&format!("detection after {:.2} s", after(detected).as_secs_f64()));
    let (epoch, chosen) = timeline_follower.wait("epoch", cut, BOOT_DEADLINE)?;
    pair.print_line(&format!("{:.2} s: {}", after(chosen).as_secs_f64(), epoch.text));
    let (_, fenced) = timeline_follower.wait("fence-over", cut, BOOT_DEADLINE)?;
    pair.print_line(&format!("fence over after {:.2} s", after(fenced).as_secs_f64()));
    let (_, permitted) = timeline_follower.wait("vm-permitted", cut, BOOT_DEADLINE)?;
    pair.print_line(&format!("{FIRST_GUEST} may run on node B after {:.2} s", after(permitted).as_secs_f64()));
    let (_, started) = timeline_follower.wait("vm-running", cut, GUEST_DEADLINE)?;
    pair.print_line(&format!("{FIRST_GUEST} started on node B after {:.2} s", after(started).as_secs_f64()));
    let (alive, counter) = guest.wait_for_restart(cut, GUEST_DEADLINE)?;
    pair.print_line(&format!("{FIRST_GUEST} is alive after {:.2} s: counter {counter}", after(alive).as_secs_f64()));

    pair.report.set_time("failover_detect_s", after(detected));
    pair.report.set_time("failover_vm_start_s", after(started));
    ensure!(pair.status(NodeName::B)?.epoch > before, "The epoch did not grow.");
    ensure!(counter > acked, "The guest went back from {acked} to {counter}.");
    pair.check_guests()?;
    let emulated = pair.report.get("accelerator").as_str() == Some("tcg");
    let limit = FENCE_PERIOD + if emulated { EMULATED_VM_START_DEADLINE } else { VM_START_DEADLINE };
    ensure!(
        after(started) <= limit,
        "The VM started {:.2} s after the power cut; the promise is {:.2} s.",
        after(started).as_secs_f64(),
        limit.as_secs_f64()
    );
    ensure!(
        after(permitted) + LAST_LEASE_AGE_PERIOD >= FENCE_PERIOD,
        "The VM might start {:.2} s after the power cut: that is before the fence.",
        after(permitted).as_secs_f64()
    );
    // The next scenario, `survivor_pause`, asserts the limit for this figure.
    let second = pair.guest(SECOND_GUEST)?;
    // A guest that never goes on would show no pause at all.
    second.wait_for_ack(started, GUEST_DEADLINE)?;
    let pause = second.record().longest_pause(cut);
    pair.report.set_time("survivor_io_pause_s", pause);
    let restarts = second.record().boots().iter().filter(|boot| boot.first_line_at > cut).count();
    ensure!(restarts == 0, "{SECOND_GUEST} ran on the survivor and was restarted.");
    Ok(())
}

/// The guest on node B, which was not restarted, had no write that took longer than D + [`PAUSE_EXTRA_DELAY`] after the
/// cut.
pub fn survivor_pause(pair: &mut Pair) -> Result<()> {
    let guest = pair.guest(SECOND_GUEST)?;
    guest.wait_for_progress(5, GUEST_DEADLINE)?;
    let pause = pair.report.get("survivor_io_pause_s").as_f64();
    let Some(pause) = pause else { anyhow::bail!("There was no power cut to look at.") };
    pair.print_line(&format!("longest I/O pause of {SECOND_GUEST}: {pause:.3} s"));
    let limit = (DETECTION_DELAY + PAUSE_EXTRA_DELAY).as_secs_f64();
    ensure!(pause <= limit, "{SECOND_GUEST} paused for {pause:.2} s; the promise is {limit:.2} s.");
    Ok(())
}

/// Node A boots again, becomes a member again without an operator, and receives only the extents that changed meanwhile.
pub fn rejoin_copies_delta(pair: &mut Pair) -> Result<()> {
    let survivor = pair.client(NodeName::B);
    let guest = pair.guest(FIRST_GUEST)?;
    guest.wait_for_progress(15, GUEST_DEADLINE)?;
    let on = Instant::now();
    pair.a.power_on()?;
    let mut timeline_follower = pair.timeline_follower(NodeName::B);
    let (_, connected) = timeline_follower.wait("session-up", on, BOOT_DEADLINE)?;
    pair.print_line(&format!("node A is back after {:.1} s", connected.duration_since(on).as_secs_f64()));
    let (_, clean) = timeline_follower.wait("peer-clean", connected, PROTECTED_DEADLINE)?;
    pair.wait_protected(PROTECTED_DEADLINE)?;
    pair.report.set_time("back_to_protected_s", on.elapsed());
    pair.report.set_time("resync_s", clean.saturating_duration_since(connected));
    let status = Status::in_detail(&survivor)?;
    let (dirty, copied) = (status.mirror_figure("resync_dirty_bytes")?, status.mirror_figure("resync_bytes")?);
    pair.report.set("dirty_bytes", dirty);
    pair.report.set("resync_bytes", copied);
    pair.print_line(&format!("protected again; {dirty} bytes were dirty, {copied} were copied"));
    ensure!(dirty > 0, "The guest wrote alone for a while, and nothing was dirty.");
    // The node reports how much was dirty; the bound comes from what the guests wrote.
    let most = 2 * RING_BYTES + (1 << 20);
    ensure!(dirty <= most, "{dirty} bytes were dirty, and the guests wrote to {most} at most.");
    ensure!(copied <= 2 * dirty, "{copied} bytes were copied for {dirty} that were dirty.");
    wait_for_members(pair, "AB")?;
    guest.wait_for_progress(10, GUEST_DEADLINE)?;
    pair.check_guests()
}

/// Waits until both nodes report `members` as the in-sync set.
///
/// # Errors
/// They do not within [`GUEST_DEADLINE`].
pub fn wait_for_members(pair: &Pair, members: &str) -> Result<()> {
    // A node that has just become a member reads the document, with its users, a moment later; until then the login
    // fails.
    wait::until_ok(&format!("both nodes to name {members} in sync"), GUEST_DEADLINE, || {
        let a = pair.status(NodeName::A)?.members();
        let b = pair.status(NodeName::B)?.members();
        ensure!(a == members && b == members, "A: {a}, B: {b}");
        Ok(())
    })
}

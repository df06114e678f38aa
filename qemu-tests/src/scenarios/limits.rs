//! Names of guests, times of the protocol and deadlines that the scenarios share.

use std::time::Duration;

/// Name of the guest that runs on node A, which loses power.
pub const FIRST_GUEST: &str = "alpha";
/// Name of the guest that runs on node B, which survives.
pub const SECOND_GUEST: &str = "beta";

/// F′ of the default profile (`docs/internals/time.md`): a silent node may still run VMs until F′ after its last lease
/// was granted.
pub const FENCE_PERIOD: Duration = Duration::from_millis(5_641);
/// D of the default profile: a peer that was not heard for this long counts as silent.
pub const DETECTION_DELAY: Duration = Duration::from_millis(500);

/// Longest time from power-on to an answering API on a busy machine. The promise is 25 s, emulated, on an idle machine.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(300);
/// Longest time from an answering API to a protected pair: a peer that was lost more than three times in an hour must
/// be heard for 60 s before it becomes a member again.
pub const PROTECTED_DEADLINE: Duration = Duration::from_secs(300);
/// Longest time from the start of a VM to its first line: a VM inside an emulated node, beside another VM that
/// starts.
pub const GUEST_DEADLINE: Duration = Duration::from_secs(300);

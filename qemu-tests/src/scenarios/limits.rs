//! Names and limits that the scenarios share.

use std::time::Duration;

/// The guest whose node loses power.
pub const FIRST: &str = "alpha";
/// The guest on the survivor.
pub const SECOND: &str = "beta";

/// F′ of the default profile: the longest time after its last lease in which a silent node may still run VMs.
pub const FENCE_PERIOD: Duration = Duration::from_millis(5_641);
/// D of the default profile: a peer that was not heard for this long counts as silent.
pub const DETECTION_DELAY: Duration = Duration::from_millis(500);

/// From power-on to an answering API, emulated, on a busy machine; the promise is 25 s on an idle one.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(300);
/// From an answering API to a protected pair: a peer that was lost often must be heard for a minute before it becomes a
/// member again.
pub const PROTECTED_DEADLINE: Duration = Duration::from_secs(300);
/// From the start of a VM to its first line, two emulations deep, beside another VM on one emulated processor.
pub const GUEST_DEADLINE: Duration = Duration::from_secs(300);

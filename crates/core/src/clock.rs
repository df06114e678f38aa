//! The one clock that decides anything: CLOCK_BOOTTIME, which goes on during suspend and never jumps.

use dyad_types::BootTime;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, suspend included.
pub fn now() -> BootTime {
    let t = clock_gettime(ClockId::Boottime);
    BootTime(u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Milliseconds since 1970, for people only.
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// The kernel's id of this boot. A new one proves to the peer that everything which ran before is gone.
pub fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

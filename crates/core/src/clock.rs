//! The clock of all leases, fences and heartbeats: CLOCK_BOOTTIME, which counts during suspend and is never set.

use dyad_types::BootTime;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, suspend included.
pub fn now() -> BootTime {
    let t = clock_gettime(ClockId::Boottime);
    BootTime(u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Wall clock in milliseconds since 1970, for the timeline only: no decision depends on it.
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// The kernel's id of this boot; 0 if it cannot be read. A new one proves to the peer that all VMs of the boot before have
/// ended.
pub fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

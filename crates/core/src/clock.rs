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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::Command;

    /// Set in the process that the test starts in a namespace of its own.
    const IN_NAMESPACE: &str = "DYAD_TEST_IN_TIME_NAMESPACE";
    /// Time in suspend that the namespace pretends, in seconds. More than this machine has been up.
    const SUSPEND_PERIOD_S: u64 = 1 << 30;

    /// A node that slept through the end of a lease must not take it for valid. A namespace in which CLOCK_BOOTTIME is
    /// ahead of CLOCK_MONOTONIC stands for the suspend.
    #[test]
    fn the_time_in_suspend_counts() {
        if std::env::var_os(IN_NAMESPACE).is_some() {
            assert!(now() >= BootTime(SUSPEND_PERIOD_S * 1_000_000_000), "{}", now());
            return;
        }
        let probe = Command::new("unshare").args(["--time", "true"]).output().expect("util-linux has unshare");
        if !probe.status.success() {
            // Not by `eprintln!`: what a test prints that way is shown only if it fails.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no time namespace: it needs root and a kernel that has them");
            return;
        }
        let me = std::env::current_exe().expect("the path of this test program");
        let mut command = Command::new("unshare");
        command.args(["--time", "--boottime", &SUSPEND_PERIOD_S.to_string()]).arg(me);
        command.args(["--exact", "clock::tests::the_time_in_suspend_counts"]).env(IN_NAMESPACE, "1");
        let output = command.output().expect("util-linux has unshare");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

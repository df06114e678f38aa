//! Memory and processors of this node, as the kernel reports them.

use dyad_desired::limits::NODE_RESERVE_MIB;

/// Memory that VMs may use on this node, in MiB: all but [`NODE_RESERVE_MIB`]; at least 1, because 0 means "unknown".
#[must_use]
pub fn usable_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_kib(&text).map_or(0, |kib| (kib / 1024).saturating_sub(NODE_RESERVE_MIB).max(1))
}

/// Processors of this node; 0 means "unknown".
#[must_use]
pub fn usable_cpus() -> u32 {
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    u32::try_from(processors).unwrap_or(u32::MAX)
}

fn total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory of everything on this node that is not a VM, in bytes: PID 1 and the services' control group.
/// `None` off the appliance, where there is no such group.
#[must_use]
pub fn management_rss_bytes() -> Option<u64> {
    let services = std::fs::read_to_string("/sys/fs/cgroup/dyad/cgroup.procs").ok()?;
    let resident = |pid: &str| {
        // The process may have ended after the list was read.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        resident_kib(&status).unwrap_or(0)
    };
    let kib: u64 = std::iter::once("1").chain(services.lines()).map(resident).sum();
    Some(kib * 1024)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn resident_memory_is_read() {
        assert_eq!(super::resident_kib("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1234));
        assert_eq!(super::resident_kib("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn the_kernel_is_understood() {
        assert_eq!(super::total_kib("MemTotal:        2048000 kB\nMemFree: 1 kB\n"), Some(2_048_000));
        assert_eq!(super::total_kib("noise"), None);
        assert!(super::usable_memory_mib() >= 1);
    }
}

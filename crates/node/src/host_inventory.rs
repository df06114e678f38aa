//! Memory and processors of this node, read from the kernel.

use dyad_desired::limits::NODE_RESERVE_MIB;

/// Memory in MiB that VMs may use on this node: all but [`NODE_RESERVE_MIB`], and at least 1. 0 means that the kernel's figure
/// cannot be read.
#[must_use]
pub fn usable_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    mem_total_kib(&text).map_or(0, |kib| (kib / 1024).saturating_sub(NODE_RESERVE_MIB).max(1))
}

/// Number of processors that this program may use; 0 means that it is not known.
#[must_use]
pub fn usable_cpus() -> u32 {
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    u32::try_from(processors).unwrap_or(u32::MAX)
}

/// Total memory in KiB, from the text of `/proc/meminfo`.
fn mem_total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory in bytes of all processes of this node that belong to no VM: PID 1 and the control group of the services.
/// `None` if there is no such group, as on a developer's machine.
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

/// Resident memory of a process in KiB, from the text of `/proc/PID/status`; `None` for a kernel thread.
fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn resident_memory_is_parsed_and_absent_for_a_kernel_thread() {
        assert_eq!(super::resident_kib("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1234));
        assert_eq!(super::resident_kib("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn total_memory_is_parsed() {
        assert_eq!(super::mem_total_kib("MemTotal:        2048000 kB\nMemFree: 1 kB\n"), Some(2_048_000));
        assert_eq!(super::mem_total_kib("noise"), None);
        assert!(super::usable_memory_mib() >= 1);
    }
}

//! What this node reports of itself into the document.

use dyad_desired::limits::NODE_RESERVE_MIB;

/// Memory VMs may use here, in MiB: all of it but what the node keeps for itself; at least 1, as 0 means "unknown".
#[must_use]
pub fn usable_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_kib(&text).map_or(0, |kib| (kib / 1024).saturating_sub(NODE_RESERVE_MIB).max(1))
}

fn total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_is_understood() {
        assert_eq!(super::total_kib("MemTotal:        2048000 kB\nMemFree: 1 kB\n"), Some(2_048_000));
        assert_eq!(super::total_kib("noise"), None);
        assert!(super::usable_memory_mib() >= 1);
    }
}

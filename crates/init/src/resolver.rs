//! The name servers that a DHCP server names.
//!
//! The DHCP client calls this program with what happened in its environment (dhcpcd-run-hooks(8)).

use std::fs;
use std::net::IpAddr;
use std::path::Path;

const RESOLVER: &str = "/run/dyad/resolv.conf";
/// Events that bring a lease.
const LEASES: [&str; 4] = ["BOUND", "RENEW", "REBIND", "REBOOT"];

/// The DHCP client reports an event. Returns the exit code.
pub fn dhcp_hook() -> i32 {
    let reason = std::env::var("reason").unwrap_or_default();
    let servers = std::env::var("new_domain_name_servers").unwrap_or_default();
    match file(&reason, &servers) {
        Some(text) => i32::from(write(Path::new(RESOLVER), &text).is_err()),
        None => 0,
    }
}

/// What the file shall say; `None` leaves it as it is.
fn file(reason: &str, servers: &str) -> Option<String> {
    // The words come from the network: only addresses may pass.
    let lines: String = servers
        .split_whitespace()
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    (LEASES.contains(&reason) && !lines.is_empty()).then_some(lines)
}

/// Whole or not at all: programs read the file at any moment.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = path.with_extension("dhcp");
    fs::write(&fresh, text)?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leases_with_addresses_change_the_file() {
        let text = file("BOUND", "10.0.2.3 evil;rm fe80::1\n").expect("a change");
        assert_eq!(text, "nameserver 10.0.2.3\nnameserver fe80::1\n");
        assert_eq!(file("EXPIRE", "10.0.2.3"), None);
        assert_eq!(file("BOUND", ""), None);
        assert_eq!(file("BOUND", "not-an-address"), None);
    }
}

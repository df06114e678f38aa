//! Saves the addresses of the name servers that a DHCP server sends.
//!
//! The DHCP client calls this program at each event, with the event in environment variables (dhcpcd-run-hooks(8)).

use std::net::IpAddr;
use std::path::Path;

const RESOLV_CONF: &str = "/run/dyad/resolv.conf";
/// The DHCP client's events with a valid lease.
const LEASE_EVENTS: [&str; 4] = ["BOUND", "RENEW", "REBIND", "REBOOT"];

/// Handles one event as the program `dhcp-hook`. Returns the exit code.
pub fn dhcp_hook() -> i32 {
    let reason = std::env::var("reason").unwrap_or_default();
    let servers = std::env::var("new_domain_name_servers").unwrap_or_default();
    match resolv_conf(Reason(&reason), &servers) {
        // The file is replaced as a whole, because programs may read it and `dyad-node` may write it at any moment.
        Some(text) => {
            let written =
                dyad_atomic_file::replace_with_mode(Path::new(RESOLV_CONF), text.as_bytes(), dyad_atomic_file::PUBLIC);
            i32::from(written.is_err())
        }
        None => 0,
    }
}

/// Name of the DHCP client's event, such as `BOUND`.
struct Reason<'a>(&'a str);

/// The new content of `resolv.conf`; `None` leaves the file unchanged.
fn resolv_conf(Reason(reason): Reason<'_>, servers: &str) -> Option<String> {
    // The words come from the network: only IP addresses may get into the file.
    let lines: String = servers
        .split_whitespace()
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    (LEASE_EVENTS.contains(&reason) && !lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leases_with_addresses_change_the_file() {
        let text = resolv_conf(Reason("BOUND"), "10.0.2.3 evil;rm fe80::1\n").expect("a change");
        assert_eq!(text, "nameserver 10.0.2.3\nnameserver fe80::1\n");
        assert_eq!(resolv_conf(Reason("EXPIRE"), "10.0.2.3"), None);
        assert_eq!(resolv_conf(Reason("BOUND"), ""), None);
        assert_eq!(resolv_conf(Reason("BOUND"), "not-an-address"), None);
    }
}

//! The name servers that a DHCP server names.
//!
//! The DHCP client calls this program with what happened in its environment (dhcpcd-run-hooks(8)).

use std::net::IpAddr;
use std::path::Path;

const RESOLVER: &str = "/run/dyad/resolv.conf";
/// Events that bring a lease.
const LEASES: [&str; 4] = ["BOUND", "RENEW", "REBIND", "REBOOT"];

/// The DHCP client reports an event. Returns the exit code.
pub fn dhcp_hook() -> i32 {
    let reason = std::env::var("reason").unwrap_or_default();
    let servers = std::env::var("new_domain_name_servers").unwrap_or_default();
    match file(Reason(&reason), &servers) {
        // Programs read the file at any moment, and `dyad-node` may write it at the same time.
        Some(text) => {
            let written =
                dyad_atomic_file::replace_with_mode(Path::new(RESOLVER), text.as_bytes(), dyad_atomic_file::PUBLIC);
            i32::from(written.is_err())
        }
        None => 0,
    }
}

/// The event that the DHCP client reports.
struct Reason<'a>(&'a str);

/// What the file shall say; `None` leaves it as it is.
fn file(Reason(reason): Reason<'_>, servers: &str) -> Option<String> {
    // The words come from the network: only addresses may pass.
    let lines: String = servers
        .split_whitespace()
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    (LEASES.contains(&reason) && !lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leases_with_addresses_change_the_file() {
        let text = file(Reason("BOUND"), "10.0.2.3 evil;rm fe80::1\n").expect("a change");
        assert_eq!(text, "nameserver 10.0.2.3\nnameserver fe80::1\n");
        assert_eq!(file(Reason("EXPIRE"), "10.0.2.3"), None);
        assert_eq!(file(Reason("BOUND"), ""), None);
        assert_eq!(file(Reason("BOUND"), "not-an-address"), None);
    }
}

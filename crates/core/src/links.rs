//! The network interfaces of this node that can be peer links.

use dyad_link::discovery::Endpoint;
use dyad_link::net::Interface;
use std::path::Path;

/// Names of all Ethernet interfaces except bridges and bonds, sorted. VLANs and other virtual interfaces are included.
pub fn all() -> Vec<String> {
    let ethernet = |name: &String| {
        let dir = Path::new("/sys/class/net").join(name);
        let kind = std::fs::read_to_string(dir.join("type")).unwrap_or_default();
        // 1 = ARPHRD_ETHER (linux/if_arp.h).
        kind.trim() == "1" && !dir.join("bridge").exists() && !dir.join("bonding").exists()
    };
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(ethernet).collect();
    names.sort();
    names
}

/// The endpoints on which offers of pairs are sent or heard, one for each of these interfaces. A name without an
/// interface is left out.
pub fn discovery_endpoints(names: &[String]) -> Vec<Endpoint> {
    names.iter().filter_map(|name| Interface::named(name)).map(Endpoint::Interface).collect()
}

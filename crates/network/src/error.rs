//! The errors of this crate, as sentences with a remedy.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// The errors of reading and changing ports and addresses.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The netlink socket cannot be opened.
    #[error("the kernel's network interface does not open: this program needs to run as root")]
    Netlink(#[source] io::Error),
    /// The node has no such port.
    #[error("there is no network port {0}: check that the card is seated and choose one of the ports listed")]
    NoPort(String),
    /// The kernel refused to change a port.
    #[error("the network port {port} could not be changed: check its address, prefix and gateway")]
    Refused { port: String, source: rtnetlink::Error },
    /// The kernel did not list the ports or addresses.
    #[error("the network ports could not be listed: try again")]
    NotListed(#[source] rtnetlink::Error),
    /// The gateway has another address family than the address, or the prefix length is 0 or too long for the family.
    #[error(
        "{address}/{prefix} with gateway {gateway:?} is not possible: give both addresses as IPv4 or both as IPv6, with a prefix length that fits"
    )]
    InvalidAddress {
        address: IpAddr,
        /// Prefix length, in bits.
        prefix: u8,
        gateway: Option<IpAddr>,
    },
    /// The DHCP client program cannot be started.
    #[error("the DHCP client does not start on {port}: give this port a fixed address instead")]
    Dhcp { port: String, source: io::Error },
    /// The file with the name servers could not be written.
    #[error("the name servers could not be written to {path}: check that it can be written")]
    Resolver { path: PathBuf, source: io::Error },
}

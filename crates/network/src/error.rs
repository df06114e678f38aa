//! What can go wrong with ports and addresses.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why the network is not as it was wanted.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel's interface to the network does not open.
    #[error("the kernel's network interface does not open: this program needs to run as root")]
    Closed(#[source] io::Error),
    /// A port that is not there.
    #[error("there is no network port {0}: check that the card is seated and choose one of the ports listed")]
    NoPort(String),
    /// The kernel refused a change of a port.
    #[error("the network port {port} could not be changed: check its address, prefix and gateway")]
    Refused {
        /// The port.
        port: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// The kernel did not list ports or addresses.
    #[error("the network ports could not be listed: try again")]
    Unlisted(#[source] rtnetlink::Error),
    /// A gateway of another family than the address, or a prefix that is too long.
    #[error("{address}/{prefix} with gateway {gateway:?} cannot be: give all of them as IPv4 or all as IPv6")]
    Mixed {
        /// The address.
        address: IpAddr,
        /// Its prefix length.
        prefix: u8,
        /// The gateway.
        gateway: Option<IpAddr>,
    },
    /// The DHCP client does not start.
    #[error("the DHCP client does not start on {port}: give this port a fixed address instead")]
    Dhcp {
        /// The port.
        port: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The list of name servers could not be written.
    #[error("the name servers could not be written to {path}: check that it can be written")]
    Resolver {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

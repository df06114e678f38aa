//! The source of a request. Limits of wrong passwords and of connections count for each source separately.

use std::net::{IpAddr, Ipv4Addr};

/// Key of these limits: the client's address, or part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A program on the node itself, over the local socket.
    Local,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address. The last 64 bits are zero, because one host may use every address of such a network. A link-local
    /// address is kept whole, because all hosts on a cable share its first 64 bits.
    V6([u8; 16]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address),
            IpAddr::V6(address) => {
                let mut octets = address.octets();
                if !address.is_unicast_link_local() {
                    octets[8..].fill(0);
                }
                Source::V6(octets)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("fe80::1"), source("fe80::2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}

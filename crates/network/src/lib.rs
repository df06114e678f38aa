//! The network ports of a node: what is there, which one is for management, and the addresses on them.
//!
//! One port is for management: it has a fixed address or asks a DHCP server, and falls back to a link-local address
//! when none answers. All other ports are peer links, which need no more than to be up: they work with the IPv6
//! link-local addresses that the kernel gives them.
//!
//! This crate must never know what travels over the ports, nor who chose them. It runs no shell; the one program it
//! starts is the DHCP client.
//!
//! **Invariants.** Applying a plan twice changes nothing the second time. A port that a plan does not name as management
//! keeps no address of an earlier plan. The DHCP client of a port ends with the [`Network`] that started it.

mod dhcp;
mod error;
mod link;
mod plan;
mod port;

pub use error::NetworkError;
pub use link::{Address, Links};
pub use plan::{Fixed, Network, Plan};
pub use port::{Port, Ports};

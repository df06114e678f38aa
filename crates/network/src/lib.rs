//! The network ports of a node: their list, their addresses, and the plan that gives each port its use.
//!
//! One port is the management port: it has a fixed address, or requests one from a DHCP server and gets a link-local
//! one if no server answers. The ports that the plan names as peer links, by default all others, only need to be up:
//! the peer link uses the IPv6 link-local addresses that the kernel assigns.
//!
//! This crate must never know what is sent over the ports, nor how they were chosen. It runs no shell; the only program
//! it starts is the DHCP client.
//!
//! **Invariants.** Applying a plan a second time changes nothing. A peer link of the plan keeps no address of an
//! earlier plan. The DHCP client of a port ends with the [`HostNetwork`] that started it.

mod dhcp;
mod error;
mod link;
mod plan;
mod port;

pub use error::NetworkError;
pub use link::{Address, Links};
pub use plan::{FixedAddress, HostNetwork, NetworkPlan, Substitutes};
pub use port::{Port, Ports};

//! The network ports of a node: which ones exist, which one is for management, and their addresses.
//!
//! One port is the management port: it has a fixed address, or requests one from a DHCP server and gets a link-local
//! one if no server answers. All other ports are peer links, which only need to be up: the peer link uses the IPv6
//! link-local addresses that the kernel assigns.
//!
//! This crate must never know what is sent over the ports, nor how they were chosen. It runs no shell; the only program
//! it starts is the DHCP client.
//!
//! **Invariants.** Applying a plan a second time changes nothing. A port that is not the plan's management port keeps
//! no address of an earlier plan. The DHCP client of a port ends with the [`HostNetwork`] that started it.

mod dhcp;
mod error;
mod link;
mod plan;
mod port;

pub use error::NetworkError;
pub use link::{Address, Links};
pub use plan::{Fixed, HostNetwork, Plan, Substitutes};
pub use port::{Port, Ports};

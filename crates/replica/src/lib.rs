//! Connects `mirror` and `pool` on one node.
//!
//! The daemon and the simulator both use it, so that the simulator runs the shipped code. It carries out the mirror's
//! commands on a pool ([`execute`]).
//!
//! It must never know: quorum, threads, clocks, the network, virtual machines.
//!
//! **Invariants.** Commands take effect in the order of the calls. The caller answers a command that returned
//! [`CommandCompletion::AfterSync`] only after a sync that began after the call.

mod execute;

pub use execute::{CommandCompletion, execute, inventory};

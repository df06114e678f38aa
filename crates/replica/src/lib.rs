//! Connects `quorum`, `mirror` and `pool` on one node.
//!
//! The daemon and the simulator both use it, so that the simulator runs the shipped code. It carries out the mirror's
//! commands on a pool ([`execute`]), translates a configuration for the mirror ([`view`]), and decides when quorum may
//! make the peer a member again ([`Readmission`]).
//!
//! It must never know: threads, clocks, the network, virtual machines.
//!
//! **Invariants.** Commands take effect in the order of the calls. The caller answers a command that returned
//! [`CommandCompletion::AfterSync`] only after a sync that began after the call. Quorum gets `PeerInAckSet` only for
//! the newest completed resync, never for an earlier one.

mod execute;
mod readmission;

pub use execute::{CommandCompletion, execute, inventory};
pub use readmission::{Readmission, view};

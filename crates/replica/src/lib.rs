//! Connects `mirror` and `pool` on one node.
//!
//! The daemon and the simulator both use it, so that the simulator runs the shipped code. It keeps the mirror's commands until
//! the pool has answered them ([`CommandQueue`]), and carries out each of them ([`execute`]).
//!
//! It must never know: quorum, threads, clocks, the network, virtual machines.
//!
//! **Invariants.** Commands take effect in the order of the calls. The caller answers a command that returned
//! [`CommandCompletion::AfterSync`] only after a sync that began after the call.

mod command_queue;
mod execute;

pub use command_queue::{CommandQueue, StoreReport};
pub use execute::{CommandCompletion, execute, inventory};

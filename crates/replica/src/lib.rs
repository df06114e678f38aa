//! What lies between `quorum`, `mirror` and `pool` on one node.
//!
//! The daemon and the simulator both use it, so that what is simulated is what ships: carrying out the mirror's commands on a
//! pool ([`execute`]), telling the mirror what quorum decided ([`view`]), and the moment at which quorum may add the
//! peer again ([`Readmission`]).
//!
//! It must never know: threads, clocks, the network, virtual machines.
//!
//! **Invariants.** Commands take effect in the order of the calls. An outcome of [`Outcome::AfterSync`] is answered only
//! after a sync that began after the call. Quorum hears that the peer acknowledges only for the resync that is
//! complete now, never for an earlier one.

mod execute;
mod readmission;

pub use execute::{Outcome, execute, inventory};
pub use readmission::{Readmission, view};

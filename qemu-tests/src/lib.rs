//! The rig: a whole pair on a build machine, and the scenarios that run on it.
//!
//! Two nodes boot the real image through UEFI under QEMU; the witness runs beside them as an ordinary program.
//! [`scenarios`] holds the steps, each a function that acts, waits and asserts; `cargo xtask rig demo` and the
//! tests of this package run the same steps.
//!
//! The rig must never look inside a node: it sees what an operator sees (the network, the serial line, the power
//! switch and the cables) and so takes no code from the daemons.
//!
//! **Invariants**
//! * Nothing outlives the rig: each process it starts dies with it, even when the rig is killed.
//! * No wait is for time to pass: every wait is for a condition, has a deadline, and names the condition in its error.
//! * A write counts as acknowledged only if the guest printed it on its serial line *and* the rig recorded it outside
//!   the pair.

pub mod accelerator;
pub mod artifacts;
pub mod browser;
pub mod child;
pub mod fault_agent;
pub mod guest;
pub mod harness;
pub mod http;
pub mod node;
pub mod pair;
pub mod qmp;
pub mod report;
pub mod scenarios;
pub mod seed;
pub mod serial;
pub mod setup;
pub mod stall_detector;
pub mod status;
pub mod terminal;
pub mod timeline_follower;
pub mod wait;
pub mod witness;

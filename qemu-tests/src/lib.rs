//! The rig: a whole pair on a build machine, and the scenarios that run on it.
//!
//! Two nodes boot the real image through UEFI under QEMU; the witness runs beside them as an ordinary program.
//! [`scenarios`] holds the steps, each a function that acts, waits and asserts; `cargo xtask rig demo` and the
//! tests of this package run the same steps.
//!
//! The rig takes no code from the daemons and does not look inside a running node: it uses what an operator has, which is
//! network, serial line, screen, power switch, cables and disks. Faults inside a node are caused by a test program of the
//! image (`fault_agent`).
//!
//! **Invariants**
//! * Each process that the rig starts ends with it, also when the rig is killed: the kernel sends SIGKILL
//!   (`setpriv --pdeathsig`). Exception: Chromium is a child of chromedriver and may outlive a killed browser test.
//! * Every wait is for a condition, has a deadline, and names the condition in its error. Exception: a fault that must
//!   come at a set time.
//! * A write counts as acknowledged only if the guest printed it on its serial line *and* the rig recorded it outside
//!   the pair.

pub mod accelerator;
pub mod artifacts;
pub mod browser;
pub mod cable_relay;
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

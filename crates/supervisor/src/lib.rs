//! Runs the virtual machines of one node: decides what should happen to them and does it.
//!
//! The *policy* ([`plan`], [`lifecycle`]) is pure: it derives steps from the replicated document, the permits of
//! `dyad-core` and the observed processes. The *runner* ([`Runner`]) carries the steps out: it starts one QEMU for each
//! VM in a cgroup of its own, controls it by QMP, connects to its serial line, and finds it again after a restart of
//! `dyad-node`.
//!
//! This crate must never know HTTP, the quorum, epochs, leases or how a volume is stored. Whether a VM may run is
//! decided by `dyad-core` and passed in as a permit; a disk is the path of a socket.
//!
//! **Invariants**
//!
//! 1. The policy starts no VM without a permit, and none that the document places on the other node.
//! 2. A VM that its own operating system shut down stays off until a user starts it. This holds also if `dyad-node` was
//!    not running at that time: QEMU pauses (`shutdown=pause`) until it is told to quit.
//! 3. A VM has at most one process on this node. A process is known by pid *and* start time, or by its cgroup.
//! 4. The end of this process does not affect a running VM.
//! 5. A VM is killed by killing its cgroup, which needs no cooperation of QEMU and works while it is frozen.
//! 6. Every wait for an answer of QEMU has a time limit, because a frozen QEMU never answers.

pub mod accelerator;
pub mod cgroup;
pub mod command;
mod console;
pub mod lifecycle;
mod machine;
mod policy;
mod process;
pub mod qmp;
mod run_record;
mod runner;
mod spec;
mod version;

use dyad_types::BootTime;

pub use accelerator::Accelerator;
pub use cgroup::exec_in_cgroup;
pub use console::{Console, Subscription};
pub use lifecycle::{InvalidTransition, Phase, VmEvent};
pub use machine::{Event, EventKind};
pub use policy::{Observed, Step, back_off, next_wakeup, plan};
pub use runner::{AdoptError, Runner, RunnerError, Settings};
pub use spec::{Disk, MissingDisk, VmNetwork, VmSpec};

/// Time since boot by CLOCK_BOOTTIME, with the time in suspend.
#[must_use]
pub fn now() -> BootTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    BootTime(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

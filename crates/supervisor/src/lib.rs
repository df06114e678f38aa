//! Runs the virtual machines of one node: decides what should happen and makes it happen.
//!
//! Two halves. The *policy* ([`plan`], [`lifecycle`]) is pure: from the replicated document, the permits of
//! `dyad-core` and what is observed it derives steps. The *runner* ([`Runner`]) carries steps out: it starts
//! one QEMU per VM in a cgroup of its own, talks QMP to it, keeps its serial line, and finds it again after
//! `dyad-node` was restarted.
//!
//! This crate must never know HTTP, the quorum, epochs, leases or what a volume is made of. Whether a VM may
//! run is decided elsewhere and arrives as a permit; a disk is a path of a socket.
//!
//! **Invariants**
//!
//! 1. No VM is started without a permit, and none that is not owned by this node.
//! 2. A VM that its own operating system switched off stays off until a person says otherwise, also when
//!    nobody watched while it happened: QEMU waits for us (`shutdown=pause`) before it exits.
//! 3. A VM has at most one process on this node. A process is known by pid *and* start time, or by its cgroup.
//! 4. The death of this process changes nothing for a running VM.
//! 5. To kill a VM is to kill its cgroup; that needs no cooperation of QEMU and works while it is frozen.
//! 6. Nothing here waits for QEMU without a limit: a frozen QEMU answers nobody.

pub mod accelerator;
pub mod cgroup;
pub mod command;
mod console;
pub mod lifecycle;
mod machine;
mod policy;
mod process;
pub mod qmp;
mod record;
mod runner;
mod spec;
mod version;

pub use accelerator::Accelerator;
pub use cgroup::exec_in_cgroup;
pub use console::{Console, Subscription};
pub use lifecycle::Phase;
pub use machine::{Event, EventKind};
pub use policy::{Observed, Step, back_off, next_wakeup, plan};
pub use runner::{Runner, RunnerError, Settings};
pub use spec::{Disk, MissingDisk, Network, VmSpec};

/// A moment: nanoseconds of `CLOCK_BOOTTIME`.
pub type Time = u64;

/// The moment now.
#[must_use]
pub fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

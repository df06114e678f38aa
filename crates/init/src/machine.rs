//! What the phases of a boot learn about this machine and hand on.

use crate::cmdline::Options;
use crate::modules::Modules;
use crate::watchdog::Watchdog;
use std::path::PathBuf;

/// The machine as known so far: each phase fills in its part.
#[derive(Default)]
pub struct Machine {
    /// Words of ours on the kernel command line.
    pub options: Options,
    /// The kernel modules of the system.
    pub modules: Modules,
    /// The disk that holds the system and the state of this node, such as `/dev/vda`.
    pub disk: PathBuf,
    /// The armed watchdog; `None` only if the command line forbids one.
    pub watchdog: Option<Watchdog>,
}

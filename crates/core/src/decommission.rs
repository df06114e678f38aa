//! A member leaves its pair for good: its VMs end, then its identity goes. The next start erases the disks.

use crate::cgroup_fence;
use dyad_control::{Refusal, RefusalCode, chain};
use dyad_provision::erase::{self, ErasePrecondition};
use dyad_provision::identity::NodeIdentity;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Longest time until killed VMs are gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The step without return: kills the VMs of this node, then ends its membership.
///
/// # Errors
/// The VMs do not end within 5 s, or the identity cannot be renamed: nothing was erased.
pub fn begin(state: &Path, vms: Option<PathBuf>) -> Result<(), Refusal> {
    let (done, killed) = channel();
    let report = move |what| {
        let _ = done.send(what);
    };
    let _ = cgroup_fence::start(vms, report).send(cgroup_fence::CgroupCommand::Kill);
    if killed.recv_timeout(KILL_TIMEOUT).is_err() {
        return Err(Refusal::new(RefusalCode::VmRunning, "Nothing was erased: the VMs of this node do not end."));
    }
    erase::decommission(state)
}

/// Erases a node that cannot work. As what the other node holds is not known here, the confirmation is that of the last copy.
///
/// # Errors
/// The node belongs to no pair, its identity is not readable, the confirmation is wrong, or as [`begin`].
pub fn broken(state: &Path, vms: Option<PathBuf>, disk: Option<&str>, confirm: &str) -> Result<(), Refusal> {
    if disk.is_some() {
        return Err(erase::not_blank());
    }
    let identity = match NodeIdentity::load(state) {
        Ok(Some(identity)) => identity,
        Ok(None) => {
            return Err(Refusal::new(
                RefusalCode::NotSetUp,
                "This node belongs to no pair: there is nothing to erase.",
            ));
        }
        Err(e) => return Err(Refusal::new(RefusalCode::Broken, format!("This node cannot be erased: {}.", chain(&e)))),
    };
    let precondition = ErasePrecondition { pair: &identity.pair, node: &identity.node, peer_has_all: false };
    erase::decide(precondition, confirm).and_then(|_| begin(state, vms))
}

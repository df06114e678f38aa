//! Decommissioning: a member's VMs are killed, then its identity is renamed. The next start of the daemon erases the disks.

use crate::cgroup_fence;
use dyad_control::{Refusal, RefusalCode, chain};
use dyad_provision::erase::{self, ErasePrecondition};
use dyad_provision::identity::NodeIdentity;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time limit for the end of the killed VMs.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Has the VMs of this node killed by `kill`, which also keeps later ones from executing, and renames its identity, which cannot
/// be undone.
///
/// # Errors
/// The VMs do not end within 5 s, or the identity cannot be renamed. Nothing was erased then.
pub fn begin(state: &Path, vms: Option<&Path>, kill: impl FnOnce()) -> Result<(), Refusal> {
    kill();
    let deadline = Instant::now() + KILL_TIMEOUT;
    while !cgroup_fence::closed(vms) {
        if Instant::now() > deadline {
            return Err(Refusal::new(
                RefusalCode::VmRunning,
                "Nothing was erased: the VMs of this node do not end; restart the node and ask again.",
            ));
        }
        std::thread::sleep(cgroup_fence::POLL_INTERVAL);
    }
    erase::decommission(state)
}

/// Decommissions a node whose phase is `Broken`. It is not known whether the other node holds all data, so the confirmation
/// must be the one for the last copy: `pair/node`.
///
/// # Errors
/// The node belongs to no pair, its identity is not readable, the confirmation is wrong, or as [`begin`].
pub fn begin_on_broken_node(
    state: &Path,
    vms: Option<PathBuf>,
    disk: Option<&str>,
    confirm: &str,
) -> Result<(), Refusal> {
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
    erase::decide(precondition, confirm)?;
    begin(state, vms.as_deref(), || cgroup_fence::kill_once(vms.clone()))
}

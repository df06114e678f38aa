//! When the cgroup of all VMs is frozen and thawed: by the quorum thread's commands, and between a kill and the next permit.
//!
//! **Invariant.** After a kill, and after a start of the daemon without VMs, the empty cgroup stays frozen until a permit that
//! knows of every kill: a process that was about to enter it then does not execute.

/// An action on all VMs of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupCommand {
    /// No process executes any more; their memory stays.
    Freeze,
    /// Frozen processes execute again.
    Thaw,
    /// SIGKILL for every process below the cgroup. Afterwards no process that enters it executes.
    Kill,
    /// Processes that enter the cgroup may execute. Without effect if a kill came that the sender did not know.
    AllowStarts {
        /// Number of kills that the sender knows, of those since the start of this daemon.
        kills: u64,
    },
}

/// The state of all VMs after a command, as the kernel has confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupState {
    /// No VM executes.
    Frozen,
    /// VMs may execute.
    Thawed,
    /// No VM process exists.
    Killed,
}

/// A change of the cgroup, in the order in which the kernel must make them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupWrite {
    /// Freeze, and wait until the kernel confirms it.
    Freeze,
    /// Freeze without waiting: no process that matters is in the cgroup, or a kill follows.
    Close,
    /// Thaw, and wait until the kernel confirms it.
    Thaw,
    /// Kill every process, and wait until the kernel confirms that none is left.
    Kill,
}

/// The reasons for which the cgroup is frozen.
#[derive(Debug, Clone, Copy, Default)]
pub struct CgroupRule {
    /// The last command of the quorum thread was to freeze: VMs stay frozen when starts are allowed.
    frozen: bool,
    /// Since a kill, or since the start with an empty cgroup: no start was allowed yet.
    closed: bool,
    /// Number of kills since the start of this daemon.
    kills: u64,
}

impl CgroupRule {
    /// The rule at the start of the daemon. `populated`: VM processes exist. An earlier run of the daemon may have permitted
    /// a VM whose process has not entered the cgroup yet.
    pub fn at_start(populated: bool, writes: &mut Vec<CgroupWrite>) -> Self {
        if !populated {
            writes.push(CgroupWrite::Close);
        }
        Self { closed: !populated, ..Self::default() }
    }

    /// Handles a command and appends the writes. Returns what to report after them, if the command is answered.
    pub fn handle(&mut self, command: CgroupCommand, writes: &mut Vec<CgroupWrite>) -> Option<CgroupState> {
        match command {
            CgroupCommand::Freeze => {
                self.frozen = true;
                writes.push(CgroupWrite::Freeze);
                Some(CgroupState::Frozen)
            }
            CgroupCommand::Thaw => {
                self.frozen = false;
                self.thaw_if_free(writes);
                Some(CgroupState::Thawed)
            }
            CgroupCommand::Kill => {
                (self.frozen, self.closed) = (false, true);
                self.kills += 1;
                // First frozen, so that no process can enter and execute between the kill and the freeze.
                writes.extend([CgroupWrite::Close, CgroupWrite::Kill]);
                Some(CgroupState::Killed)
            }
            CgroupCommand::AllowStarts { kills } => {
                if kills == self.kills {
                    self.closed = false;
                    self.thaw_if_free(writes);
                }
                None
            }
        }
    }

    fn thaw_if_free(&self, writes: &mut Vec<CgroupWrite>) {
        if !self.frozen && !self.closed {
            writes.push(CgroupWrite::Thaw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes_of(rule: &mut CgroupRule, command: CgroupCommand) -> Vec<CgroupWrite> {
        let mut writes = Vec::new();
        rule.handle(command, &mut writes);
        writes
    }

    #[test]
    fn after_a_kill_only_a_permit_that_knows_of_it_opens_the_cgroup() {
        let mut rule = CgroupRule::at_start(true, &mut Vec::new());
        let (old, new) = (CgroupCommand::AllowStarts { kills: 0 }, CgroupCommand::AllowStarts { kills: 1 });
        assert_eq!(writes_of(&mut rule, CgroupCommand::Kill), [CgroupWrite::Close, CgroupWrite::Kill]);
        assert_eq!(writes_of(&mut rule, old), []);
        assert_eq!(writes_of(&mut rule, CgroupCommand::Thaw), []);
        assert_eq!(writes_of(&mut rule, new), [CgroupWrite::Thaw]);
    }

    /// A launcher of an earlier run of the daemon may enter the cgroup at any time.
    #[test]
    fn a_cgroup_that_was_empty_at_the_start_is_opened_by_a_permit_only() {
        let mut rule = CgroupRule::at_start(false, &mut Vec::new());
        assert_eq!(writes_of(&mut rule, CgroupCommand::Thaw), []);
        assert_eq!(writes_of(&mut rule, CgroupCommand::AllowStarts { kills: 0 }), [CgroupWrite::Thaw]);
    }

    #[test]
    fn a_permit_does_not_thaw_vms_that_the_quorum_thread_has_frozen() {
        let mut writes = Vec::new();
        let mut rule = CgroupRule::at_start(false, &mut writes);
        assert_eq!(writes, [CgroupWrite::Close]);
        assert_eq!(writes_of(&mut rule, CgroupCommand::Freeze), [CgroupWrite::Freeze]);
        assert_eq!(writes_of(&mut rule, CgroupCommand::AllowStarts { kills: 0 }), []);
        assert_eq!(writes_of(&mut rule, CgroupCommand::Thaw), [CgroupWrite::Thaw]);
    }
}

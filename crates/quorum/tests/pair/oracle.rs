//! The checker of the invariants I1 to I5, which must hold after every event.

use std::collections::BTreeMap;

use dyad_quorum::Config;
use dyad_types::{Epoch, NodeId};

use super::machine::{Machine, VMS, WriteId};

/// The acknowledged writes and the chosen configurations of a run.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// By VM: the newest acknowledged write.
    pub acknowledged: [WriteId; VMS],
    /// By rank: every configuration that was the base of an acceptor.
    chosen: BTreeMap<(u64, Epoch), Config>,
    /// Number of chosen configurations.
    pub decisions: u64,
}

impl Oracle {
    /// The newest chosen configuration.
    pub fn newest(&self) -> Option<&Config> {
        self.chosen.values().next_back()
    }

    /// Checks I1 to I5; the error names the broken invariant. `bases` are those of A, B and the witness.
    pub fn check(&mut self, machines: &[Machine; 2], bases: [&Config; 3]) -> Result<(), String> {
        for base in bases {
            if !base.exists() {
                continue;
            }
            match self.chosen.get(&base.rank()) {
                None => {
                    self.decisions += 1;
                    self.chosen.insert(base.rank(), base.clone());
                }
                Some(other) if other == base => {}
                Some(other) => return Err(format!("I3/I5: two configurations of one epoch: {other:?} {base:?}")),
            }
        }
        for vm in 0..VMS {
            let runners = machines.iter().filter(|machine| machine.executes(vm)).count();
            if runners > 1 {
                return Err(format!("I1: VM {vm} runs twice"));
            }
            for machine in machines {
                if machine.executes(vm) && machine.disk.data[vm] < self.acknowledged[vm] {
                    return Err(format!("I2: VM {vm} runs on {} without acknowledged writes", machine.id));
                }
            }
            let newest = self.newest();
            for node in [NodeId::A, NodeId::B] {
                if newest.is_some_and(|newest| newest.members.has(node))
                    && machines[node.index()].disk.data[vm] < self.acknowledged[vm]
                {
                    return Err(format!("I4: member {node} lacks an acknowledged write of VM {vm}"));
                }
            }
        }
        Ok(())
    }
}

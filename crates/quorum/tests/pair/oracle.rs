//! What must hold after every event.

use std::collections::BTreeMap;

use dyad_quorum::Config;
use dyad_types::{Epoch, NodeId};

use super::machine::{Machine, VMS, WriteId};

/// The oracle: acknowledged writes and chosen configurations, as an outside observer knows them.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    pub acked: [WriteId; VMS],
    chosen: BTreeMap<(u64, Epoch), Config>,
    pub decisions: u64,
}

impl Oracle {
    /// The newest configuration any acceptor calls chosen.
    pub fn newest(&self) -> Option<&Config> {
        self.chosen.values().next_back()
    }

    /// I1 to I5; the error names the invariant.
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
            let runners = machines.iter().filter(|machine| machine.executing(vm)).count();
            if runners > 1 {
                return Err(format!("I1: VM {vm} runs twice"));
            }
            for machine in machines {
                if machine.executing(vm) && machine.disk.data[vm] < self.acked[vm] {
                    return Err(format!("I2: VM {vm} runs on {} without acknowledged writes", machine.id));
                }
            }
            let newest = self.newest();
            for node in [NodeId::A, NodeId::B] {
                if newest.is_some_and(|newest| newest.members.has(node))
                    && machines[node.index()].disk.data[vm] < self.acked[vm]
                {
                    return Err(format!("I4: member {node} lacks an acknowledged write of VM {vm}"));
                }
            }
        }
        Ok(())
    }
}

//! The checks of a run, after every event and at rest.
//!
//! Of the invariants of `quorum`, three are asserted after every event: I1 (a VM executes on one node only), I3 and I5
//! (one configuration, so one lead, per epoch). I4 is asserted from the bytes of the replicas. When a configuration is
//! chosen, each member that did not lose its memory must hold in every block a value that the oracle allows. A member
//! that lost its memory must do so as soon as both mirrors are steady again. I2 is asserted in the same way for the
//! volume of a VM that starts.
//!
//! At other times I2 and I4 are checked only through the guests: each read must return the newest acknowledged value.
//! The same holds for a VM that starts on a member that lost its memory: its requests wait until the mirrors agree.

use crate::guests::volume;
use crate::machine::VmIndex;
use crate::world::World;
use dyad_mirror::Phase;
use dyad_mirror::oracle::value_of;
use dyad_quorum::{Config, Members};
use dyad_types::{BLOCK, BlockIndex, IndexRange, VolumeId};

/// A block that a pool cannot read.
const UNREADABLE: &str = "unreadable";

impl World {
    /// Checks I1, I3 and I5; called after every event.
    pub(crate) fn check_invariants(&mut self) {
        for vm in VmIndex::all() {
            if self.nodes[0].executes(vm) && self.nodes[1].executes(vm) {
                self.report_violation(format!("I1: VM {vm} executes on both nodes"));
            }
        }
        let bases: Vec<Config> = self
            .nodes
            .iter()
            .map(|node| &node.record)
            .chain([&self.witness])
            .map(|record| record.base.clone())
            .collect();
        for base in bases.into_iter().filter(Config::exists) {
            match self.chosen.get(&base.rank()) {
                Some(known) if *known != base => {
                    self.report_violation(format!(
                        "I3: epoch {} has two configurations: {known:?} and {base:?}",
                        base.epoch
                    ));
                }
                Some(_) => {}
                None => {
                    let before = self.chosen.last_key_value().map(|(rank, config)| (*rank, config.members));
                    self.chosen.insert(base.rank(), base.clone());
                    self.count_event("configurations");
                    if before.is_none_or(|(rank, _)| rank < base.rank()) {
                        self.on_chosen(&base, before.map(|(_, members)| members));
                    }
                }
            }
        }
    }

    /// Updates what the oracle expects after a configuration was chosen, and checks I4. `before`: the members until
    /// now.
    fn on_chosen(&mut self, config: &Config, before: Option<Members>) {
        let text =
            format!("CHOSEN epoch {} {:?} tie {:?} lead {}", config.epoch, config.members, config.tie, config.lead);
        self.log_line(2, text);
        if let Some(solo) = config.members.solo()
            && !self.nodes[solo.index()].kept_memory
        {
            // The solo node lost its memory, and its peer is away: after these two faults only flushed writes must
            // survive.
            self.oracle.memories_lost();
            let peer = &self.nodes[solo.peer().index()];
            let (whole, open) = (peer.up && peer.kept_memory, self.link.cut == [false; 2]);
            self.count_event("alone after a loss of power");
            if whole {
                self.count_event("alone although the peer's memory was whole");
            }
            if whole && open {
                self.count_event("alone although the peer was whole and in reach");
                self.log_line(2, "ALONE although the peer was whole and in reach".into());
            }
        }
        for node in 0..2 {
            let machine = &mut self.nodes[node];
            let was_member = before.is_some_and(|members| members.has(machine.id));
            // A new member was clean, and holds every acknowledged write unless it lost its memory since. The replica
            // of the only member defines which writes are acknowledged.
            let joined = before.is_none() || !was_member && machine.clean_in_boot == machine.boots;
            let alone = config.members == Members::only(machine.id);
            let member = config.members.has(machine.id);
            machine.kept_memory = member && (machine.kept_memory || alone || machine.up);
            machine.must_be_complete = member && (machine.must_be_complete || alone || machine.up && joined);
            if machine.must_be_complete {
                VmIndex::all().for_each(|vm| self.check_replica(node, vm, "I4"));
            }
        }
    }

    /// Checks I2: the replica of a VM that starts holds every acknowledged write.
    pub(crate) fn check_start(&mut self, node: usize, vm: VmIndex) {
        if self.nodes[node].must_be_complete {
            self.check_replica(node, vm, "I2");
        } else {
            self.count_event("VM starts on a member without memory");
        }
    }

    /// Asserts that each block of the node's replica of this VM's volume holds a value that the oracle allows.
    fn check_replica(&mut self, node: usize, vm: VmIndex, which: &str) {
        let Some(core) = &self.nodes[node].core else { return };
        let pool = core.store.queue.pool();
        // There is no volume before the pair is created.
        if !core.model.mirror.volumes().iter().any(|info| info.id == volume(vm)) {
            return;
        }
        let wrong = BlockIndex(0).run(crate::guests::BLOCKS).each().find_map(|block| {
            let value = pool.read(volume(vm), block.run(1)).map(|data| value_of(&data));
            let fine = match value {
                Ok(Ok(value)) => self.oracle.allows((volume(vm), block), value),
                Ok(Err(_)) => false,
                Err(_) => self.may_have_lost_blocks() || self.disk_refuses(node),
            };
            (!fine).then(|| format!("{which}: node {node} holds {value:?} in block {block} of volume {}", volume(vm)))
        });
        self.count_event("replicas looked at");
        if let Some(wrong) = wrong {
            self.report_violation(wrong);
        }
    }

    /// When both mirrors are steady, both replicas count as complete. Checks I4 for a node that had lost its memory.
    pub(crate) fn on_steady(&mut self) {
        if !self.is_steady() {
            return;
        }
        for node in 0..2 {
            self.nodes[node].kept_memory = true;
            if !std::mem::replace(&mut self.nodes[node].must_be_complete, true) {
                VmIndex::all().for_each(|vm| self.check_replica(node, vm, "I4"));
            }
        }
    }

    /// Called when a machine has lost its memory. If no member has kept its memory, only flushed writes must survive.
    pub(crate) fn on_memory_lost(&mut self) {
        let Some((_, newest)) = self.chosen.last_key_value() else { return };
        if !self.nodes.iter().any(|node| newest.members.has(node.id) && node.kept_memory) {
            self.oracle.memories_lost();
            self.count_event("all memories lost");
        }
    }

    /// The members of the newest configuration.
    pub(crate) fn newest_members(&self) -> Option<Members> {
        self.chosen.last_key_value().map(|(_, newest)| newest.members)
    }

    pub(crate) fn both_are_members(&self) -> bool {
        self.newest_members() == Some(Members::Both)
    }

    /// Whether both nodes are members and both mirrors are in [`Phase::Steady`] with the newest configuration.
    pub(crate) fn is_steady(&self) -> bool {
        let Some((_, newest)) = self.chosen.last_key_value() else { return false };
        newest.members == Members::Both
            && self.nodes.iter().all(|node| {
                node.record.base == *newest
                    && node.core.as_ref().is_some_and(|core| core.model.mirror.phase() == Phase::Steady)
            })
    }

    /// Whether the pair is whole: both mirrors are steady, each VM executes on one node, no request is unanswered.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_steady()
            && VmIndex::all().all(|vm| self.nodes.iter().filter(|node| node.executes(vm)).count() == 1)
            && self.nodes.iter().all(|node| node.vms.iter().all(|vm| vm.open.is_empty()))
            && self.nodes.iter().all(|node| node.core.as_ref().is_some_and(|core| core.model.idle()))
    }

    /// Checks at rest that the pool holds the volumes that the document names, and no others.
    fn check_volumes(&mut self, node: usize) {
        let Some(core) = &self.nodes[node].core else { return };
        let held: Vec<_> = core.model.mirror.volumes().iter().map(|info| info.id).collect();
        let Some(document) = core.model.placement.authoritative_document() else { return };
        let mut named: Vec<_> = document.volume_sizes().into_keys().collect();
        named.insert(0, VolumeId::DOCUMENT);
        if held != named {
            self.report_violation(format!(
                "at rest node {node} holds the volumes {held:?}, the document names {named:?}"
            ));
        }
    }

    /// Checks at rest: both replicas are equal, hold values that the oracle allows, and no extent is dirty.
    pub(crate) fn compare_replicas(&mut self) {
        for vm in VmIndex::all() {
            for block in BlockIndex(0).run(crate::guests::BLOCKS).each() {
                let read = |node: usize| {
                    let core = self.nodes[node].core.as_ref().ok_or("no daemon")?;
                    let data = core.store.queue.pool().read(volume(vm), block.run(1)).map_err(|_| UNREADABLE)?;
                    assert_eq!(data.len(), BLOCK);
                    value_of(&data).map_err(|_| "a mixture")
                };
                let (a, b) = (read(0), read(1));
                let allowed = |value| self.oracle.allows((volume(vm), block), value);
                // Damage that no read has met stays until the block is read.
                let fine = match (a, b) {
                    (Ok(a), Ok(b)) => a == b && allowed(a),
                    (Ok(value), Err(UNREADABLE)) | (Err(UNREADABLE), Ok(value)) => self.blocks_rotted && allowed(value),
                    (Err(UNREADABLE), Err(UNREADABLE)) => self.may_have_lost_blocks(),
                    _ => false,
                };
                if !fine {
                    return self.report_violation(format!(
                        "at rest volume {} block {block} is {a:?} on A, {b:?} on B",
                        volume(vm)
                    ));
                }
            }
        }
        for node in 0..2 {
            self.check_volumes(node);
            let dirty = self.nodes[node].core.as_ref().map_or(0, |core| core.model.mirror.dirty_extents());
            if dirty > 0 {
                self.report_violation(format!("node {node} has {dirty} dirty extents at rest"));
            }
        }
    }
}

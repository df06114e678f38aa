//! What must hold: after every event, and at rest.
//!
//! Of the invariants of `quorum`, three are asserted after every event: I1 (a VM executes once), I3 and I5 (one
//! configuration, so one lead, per epoch). I4 is asserted from the bytes: when a configuration is chosen, each member that
//! did not lose its memory holds in every block a value that the oracle allows; a member that lost it must do so as soon
//! as both mirrors are steady again. I2 is asserted in the same way for the volume of a VM that starts.
//!
//! Between these times I2 and I4 are checked by the oracle alone: each read of a guest must give the newest
//! acknowledged value. So it is for a VM that starts on a member without memory: its requests wait until the mirrors
//! agree.

use crate::guests::volume;
use crate::machine::VmIndex;
use crate::world::World;
use dyad_mirror::Phase;
use dyad_mirror::oracle::value_of;
use dyad_quorum::{Config, Members};
use dyad_types::{BLOCK, BlockIndex, IndexRange};

impl World {
    /// I1, I3, I5 after every event.
    pub(crate) fn check(&mut self) {
        for vm in VmIndex::all() {
            if self.nodes[0].executes(vm) && self.nodes[1].executes(vm) {
                self.violate(format!("I1: VM {vm} executes on both nodes"));
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
                    self.violate(format!("I3: epoch {} has two configurations: {known:?} and {base:?}", base.epoch));
                }
                Some(_) => {}
                None => {
                    let before = self.chosen.last_key_value().map(|(rank, config)| (*rank, config.members));
                    self.chosen.insert(base.rank(), base.clone());
                    self.count("configurations");
                    if before.is_none_or(|(rank, _)| rank < base.rank()) {
                        self.is_chosen(&base, before.map(|(_, members)| members));
                    }
                }
            }
        }
    }

    fn is_chosen(&mut self, config: &Config, before: Option<Members>) {
        let text =
            format!("CHOSEN epoch {} {:?} tie {:?} lead {}", config.epoch, config.members, config.tie, config.lead);
        self.note(2, text);
        if let Some(solo) = config.members.solo()
            && !self.nodes[solo.index()].complete
        {
            // It lost its memory and its peer is out of reach: two faults at once. Only flushed writes are promised then.
            self.oracle.memories_lost();
            let peer = &self.nodes[solo.peer().index()];
            let (whole, open) = (peer.up && peer.complete, self.net.cut == [false; 2]);
            self.count("alone after a loss of power");
            if whole {
                self.count("alone although the peer's memory was whole");
            }
            if whole && open {
                self.count("alone although the peer was whole and in reach");
                self.note(2, "ALONE although the peer was whole and in reach".into());
            }
        }
        for node in 0..2 {
            let machine = &mut self.nodes[node];
            let was_member = before.is_some_and(|members| members.has(machine.id));
            // A new member was found clean, and holds every acknowledged write unless its memory was lost since. The replica of
            // a lone member defines what is acknowledged.
            let joined = before.is_none() || !was_member && machine.clean_in == machine.boots;
            let alone = config.members == Members::only(machine.id);
            let member = config.members.has(machine.id);
            machine.complete = member && (machine.complete || alone || machine.up);
            machine.proven = member && (machine.proven || alone || machine.up && joined);
            if machine.proven {
                VmIndex::all().for_each(|vm| self.holds_everything(node, vm, "I4"));
            }
        }
    }

    /// I2: the replica of a VM that starts holds every acknowledged write.
    pub(crate) fn check_start(&mut self, node: usize, vm: VmIndex) {
        if self.nodes[node].proven {
            self.holds_everything(node, vm, "I2");
        } else {
            self.count("VM starts on a member without memory");
        }
    }

    /// Asserts that each block of the node's replica of this VM's volume holds a value that the oracle allows.
    fn holds_everything(&mut self, node: usize, vm: VmIndex, which: &str) {
        let Some(core) = &self.nodes[node].core else { return };
        let pool = &core.store.pool;
        // There is no volume before the pair is created.
        if !core.model.mirror.volumes().iter().any(|info| info.id == volume(vm)) {
            return;
        }
        let wrong = BlockIndex(0).run(crate::guests::BLOCKS).each().find_map(|block| {
            let value = pool.read(volume(vm), block.run(1)).map(|data| value_of(&data));
            let fine = matches!(value, Ok(Ok(value)) if self.oracle.allows((volume(vm), block), value));
            (!fine).then(|| format!("{which}: node {node} holds {value:?} in block {block} of volume {}", volume(vm)))
        });
        self.count("replicas looked at");
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
    }

    /// I4: once both mirrors are steady, both replicas hold every acknowledged write. Asserted for a node that had lost its
    /// memory.
    pub(crate) fn update_complete(&mut self) {
        if !self.steady() {
            return;
        }
        for node in 0..2 {
            self.nodes[node].complete = true;
            if !std::mem::replace(&mut self.nodes[node].proven, true) {
                VmIndex::all().for_each(|vm| self.holds_everything(node, vm, "I4"));
            }
        }
    }

    /// A machine lost its memory. If no member has its memory, only flushed writes are promised.
    pub(crate) fn check_memories(&mut self) {
        let Some((_, newest)) = self.chosen.last_key_value() else { return };
        if !self.nodes.iter().any(|node| newest.members.has(node.id) && node.complete) {
            self.oracle.memories_lost();
            self.count("all memories lost");
        }
    }

    /// Both mirrors are in the steady phase of the newest configuration.
    pub(crate) fn steady(&self) -> bool {
        let Some((_, newest)) = self.chosen.last_key_value() else { return false };
        newest.members == Members::Both
            && self.nodes.iter().all(|node| {
                node.record.base == *newest
                    && node.core.as_ref().is_some_and(|core| core.model.mirror.phase() == Phase::Steady)
            })
    }

    /// The pair is whole: both in sync, each VM runs once, nothing is open.
    pub(crate) fn whole(&self) -> bool {
        self.steady()
            && VmIndex::all().all(|vm| self.nodes.iter().filter(|node| node.executes(vm)).count() == 1)
            && self.nodes.iter().all(|node| node.vms.iter().all(|vm| vm.open.is_empty()))
            && self.nodes.iter().all(|node| node.core.as_ref().is_some_and(|core| core.model.idle()))
    }

    /// At rest both replicas are equal and hold what they must.
    pub(crate) fn compare(&mut self) {
        for vm in VmIndex::all() {
            for block in BlockIndex(0).run(crate::guests::BLOCKS).each() {
                let read = |node: usize| {
                    let core = self.nodes[node].core.as_ref().ok_or("no daemon")?;
                    let data = core.store.pool.read(volume(vm), block.run(1)).map_err(|_| "unreadable")?;
                    assert_eq!(data.len(), BLOCK);
                    value_of(&data).map_err(|_| "a mixture")
                };
                let (a, b) = (read(0), read(1));
                let fine = a == b && a.is_ok_and(|value| self.oracle.allows((volume(vm), block), value));
                if !fine {
                    return self
                        .violate(format!("at rest volume {} block {block} is {a:?} on A, {b:?} on B", volume(vm)));
                }
            }
        }
        for node in 0..2 {
            let dirty = self.nodes[node].core.as_ref().map_or(0, |core| core.model.mirror.dirty_extents());
            if dirty > 0 {
                self.violate(format!("node {node} has {dirty} dirty extents at rest"));
            }
        }
    }
}

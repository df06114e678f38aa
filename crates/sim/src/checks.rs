//! What must hold: after every event, and at rest.

use crate::guests::volume;
use crate::machine::VMS;
use crate::world::World;
use dyad_mirror::oracle::value_of;
use dyad_mirror::{BLOCK, Phase};
use dyad_quorum::{Config, Members};

impl World {
    /// I1, I3, I5 after every event.
    pub(crate) fn check(&mut self) {
        for vm in 0..VMS {
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
                    let newest = self.chosen.last_key_value().is_none_or(|(rank, _)| *rank < base.rank());
                    self.chosen.insert(base.rank(), base.clone());
                    self.count("configurations");
                    if newest {
                        self.is_chosen(&base);
                    }
                }
            }
        }
    }

    fn is_chosen(&mut self, config: &Config) {
        let text =
            format!("CHOSEN epoch {} {:?} tie {:?} lead {}", config.epoch, config.members, config.tie, config.lead);
        self.note(2, text);
        if let Some(solo) = config.members.solo()
            && !self.nodes[solo.index()].complete
        {
            // It lost its memory and its peer is out of reach: two faults at once, and only what was flushed is promised.
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
        for node in &mut self.nodes {
            // I4: from this moment each member holds every acknowledged write, unless its memory is lost again.
            if config.members.has(node.id) {
                node.complete = node.complete || config.members != Members::Both || node.up;
            } else {
                node.complete = false;
            }
        }
    }

    /// Both are equal and hold everything.
    pub(crate) fn update_complete(&mut self) {
        if self.steady() {
            self.nodes.iter_mut().for_each(|node| node.complete = true);
        }
    }

    /// A machine lost its memory: if no member has one left, only what was flushed is promised.
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
                    && node.core.as_ref().is_some_and(|core| core.owner.mirror.phase() == Phase::Steady)
            })
    }

    /// The pair is whole: both in sync, each VM runs once, nothing is open.
    pub(crate) fn whole(&self) -> bool {
        self.steady()
            && (0..VMS).all(|vm| self.nodes.iter().filter(|node| node.executes(vm)).count() == 1)
            && self.nodes.iter().all(|node| node.vms.iter().all(|vm| vm.open.is_empty()))
            && self.nodes.iter().all(|node| node.core.as_ref().is_some_and(|core| core.owner.idle()))
    }

    /// At rest both replicas are equal and hold what they must.
    pub(crate) fn compare(&mut self) {
        for vm in 0..VMS {
            for block in 0..crate::guests::BLOCKS {
                let read = |node: usize| {
                    let core = self.nodes[node].core.as_ref().ok_or("no daemon")?;
                    let data = core.store.pool.read(volume(vm), block, 1).map_err(|_| "unreadable")?;
                    assert_eq!(data.len(), BLOCK);
                    value_of(&data).map_err(|_| "a mixture")
                };
                let (a, b) = (read(0), read(1));
                let fine = a == b && a.is_ok_and(|value| self.oracle.allows(volume(vm), block, value));
                if !fine {
                    return self
                        .violate(format!("at rest volume {} block {block} is {a:?} on A, {b:?} on B", volume(vm)));
                }
            }
        }
        for node in 0..2 {
            let dirty = self.nodes[node].core.as_ref().map_or(0, |core| core.owner.mirror.dirty_extents());
            if dirty > 0 {
                self.violate(format!("node {node} has {dirty} dirty extents at rest"));
            }
        }
    }
}

//! Faults of a pool disk, and the replacement of a node with all its disks.

use crate::guests::Request;
use crate::machine::{Core, VmIndex};
use crate::partial_faults::PartialFault;
use crate::store;
use crate::world::{FutureEvent, PAIR, World};
use dyad_mirror::RequestId;
use dyad_mirror::oracle::value_of;
use dyad_placement::Lifecycle;
use dyad_pool::PoolDisk;
use dyad_pool::sim::{Faults, Seed, SimDisk};
use dyad_quorum::{AcceptorRecord, Event, Members, SEC};
use dyad_types::{BLOCK, BlockIndex, ExtentIndex, IndexRange, VolumeId};
use std::ops::Range;

/// A fault that occurs with each operation of its kind, in millionths.
const ALWAYS: u32 = 1_000_000;
/// Most blocks of which a bit changes at once.
const MAX_ROTTEN_BLOCKS: u64 = 12;

/// A fault of a pool disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// One sync fails, and the page cache keeps what it did not write.
    SyncFails,
    /// The disk refuses the next write, and no byte of it is on the medium.
    WriteFails,
    /// Each read fails for a time.
    ReadsFail,
}

impl DiskFault {
    pub fn name(self) -> &'static str {
        match self {
            DiskFault::SyncFails => "sync fails",
            DiskFault::WriteFails => "write fails",
            DiskFault::ReadsFail => "reads fail",
        }
    }

    fn rates(self) -> Faults {
        match self {
            DiskFault::SyncFails => Faults { sync_error: ALWAYS, ..Faults::default() },
            DiskFault::WriteFails => Faults { write_error: ALWAYS, ..Faults::default() },
            DiskFault::ReadsFail => Faults { read_error: ALWAYS, ..Faults::default() },
        }
    }
}

impl World {
    /// Draws a fault for which a disk refuses one write or sync.
    pub(crate) fn draw_refusal(&mut self) -> DiskFault {
        if self.prng.chance(500) { DiskFault::SyncFails } else { DiskFault::WriteFails }
    }

    pub(crate) fn set_disk_faults(&mut self, node: usize, fault: DiskFault) {
        // A checkpoint that cannot read a block from the journal damages it.
        self.reads_failed |= fault == DiskFault::ReadsFail;
        let disk = &self.nodes[node].disk;
        self.disk_faults_before = disk.counts().faults;
        disk.set_faults(fault.rates());
    }

    /// Changes one bit of some blocks of this node's disk that hold data of guests, in the journal or in the extents. The blocks of
    /// the document are spared: a lone node without them waits for a person.
    pub(crate) fn rot(&mut self, node: usize) {
        self.blocks_rotted = true;
        let disk = self.nodes[node].disk.handle();
        let medium = disk.peek(0, store::DISK_BYTES as usize);
        let holds_value = |block: &&[u8]| block[..8] != [0; 8] && value_of(block).is_ok();
        let blocks: Vec<u64> =
            (0..).zip(medium.chunks_exact(BLOCK)).filter(|(_, block)| holds_value(block)).map(|(at, _)| at).collect();
        if blocks.is_empty() {
            return;
        }
        for _ in 0..=self.prng.below(MAX_ROTTEN_BLOCKS) {
            let block = blocks[self.prng.below(blocks.len() as u64) as usize];
            disk.flip_bit(block * BLOCK as u64 + self.prng.below(BLOCK as u64), self.prng.below(8) as u8);
        }
    }

    pub(crate) fn clear_disk_faults(&mut self, node: usize) {
        self.nodes[node].disk.set_faults(Faults::default());
    }

    /// Ends the fault of a disk that was to refuse one request, and has.
    pub(crate) fn settle_disk_fault(&mut self, node: usize) {
        let refuses_once = match self.partial_fault {
            PartialFault::Disk(of, fault) | PartialFault::DiskFailsWhileAlone { node: of, fault, .. } => {
                of == node && matches!(fault, DiskFault::SyncFails | DiskFault::WriteFails)
            }
            _ => false,
        };
        if refuses_once && self.nodes[node].disk.counts().faults > self.disk_faults_before {
            self.clear_disk_faults(node);
        }
    }

    /// Ends the fault of the disk. An operator starts a daemon again whose pool has failed, or its whole machine; whether
    /// the daemon works again.
    pub(crate) fn repair_disk(&mut self, node: usize) -> bool {
        self.clear_disk_faults(node);
        let Some(core) = &self.nodes[node].core else { return false };
        if !core.model.placement.lifecycle().pool_has_failed() {
            // The state thread learns of a failed pool with the next command.
            return self.pool_works(node);
        }
        // Before the other node has taken over, the daemon waits for it.
        if self.newest_members().is_some_and(|members| members.has(self.nodes[node].id)) {
            return false;
        }
        self.count_event("failed pools started again");
        if self.prng.chance(500) {
            self.kill_core(node);
        } else {
            self.power_cycle(node);
        }
        false
    }

    /// Lets the disk of a lone node rot, and starts the other machine at the next call; whether it has done so.
    pub(crate) fn rot_lone_disk(&mut self, node: usize, begun: bool) -> bool {
        if begun {
            self.power_on(1 - node);
        } else if self.newest_members() == Some(Members::only(self.nodes[node].id)) {
            self.rot(node);
            self.partial_fault = PartialFault::RotWhileAlone { node, begun: true };
        }
        begun
    }

    /// Lets the disk of a lone node refuse a request; whether its daemon has opened the pool again by itself, after which the
    /// other machine starts.
    pub(crate) fn fail_lone_disk(&mut self, node: usize, fault: DiskFault, failing_run: Option<u64>) -> bool {
        let daemon_run = self.nodes[node].daemon_run;
        let alone = self.newest_members() == Some(Members::only(self.nodes[node].id));
        if failing_run.is_none() && alone {
            self.set_disk_faults(node, fault);
            self.partial_fault = PartialFault::DiskFailsWhileAlone { node, fault, failing_run: Some(daemon_run) };
        }
        let works = |core: &Core| core.model.placement.lifecycle() == Lifecycle::Running;
        let works = self.nodes[node].core.as_ref().is_some_and(works);
        let works_again = works && failing_run.is_some_and(|failing| failing != daemon_run);
        if works_again {
            self.power_on(1 - node);
        }
        works_again
    }

    /// Whether the disk of this node refuses reads now, or its pool everything.
    pub(crate) fn disk_refuses(&self, node: usize) -> bool {
        self.partial_fault == PartialFault::Disk(node, DiskFault::ReadsFail) || !self.pool_works(node)
    }

    /// Whether faults of disks so far may have made blocks unreadable.
    pub(crate) fn may_have_lost_blocks(&self) -> bool {
        self.blocks_rotted || self.reads_failed
    }

    /// Whether this node's pool cannot read some of these blocks.
    pub(crate) fn is_unreadable(&self, node: usize, volume: VolumeId, blocks: Range<BlockIndex>) -> bool {
        let Some(core) = &self.nodes[node].core else { return true };
        blocks.each().any(|block| core.store.queue.pool().read(volume, block.run(1)).is_err())
    }

    /// Replaces a node by one with new, empty disks, which starts some time later.
    pub(crate) fn replace_node(&mut self, node: usize) {
        self.power_off(node);
        let (incarnation, seed) = (self.new_incarnation(), Seed(self.prng.next_u64()));
        self.unadmitted = Some(node);
        let machine = &mut self.nodes[node];
        machine.disk = SimDisk::new(store::DISK_BYTES, seed);
        machine.index = machine.index.with_extension(incarnation.to_string());
        machine.record = AcceptorRecord::fresh(incarnation);
        machine.clean_in_boot = 0;
        let plug = PoolDisk {
            name: machine.id.to_string(),
            device: Box::new(machine.disk.handle()),
            index: machine.index.clone(),
        };
        let made = std::fs::create_dir_all(&machine.index).map_err(anyhow::Error::from);
        if let Err(error) = made.and_then(|()| store::format(plug, PAIR, machine.id)) {
            self.report_violation(format!("the pool of the new node is not made: {error:#}"));
        }
        let delay = self.prng.within(SEC..20 * SEC);
        self.schedule(delay, FutureEvent::PowerOn(node));
    }

    /// Whether a new node is not admitted yet: the other one makes no session with it.
    pub(crate) fn has_unadmitted(&self) -> bool {
        self.unadmitted.is_some()
    }

    /// Admits the new node when the other one goes on alone; whether both are members.
    pub(crate) fn admit_new_node(&mut self, node: usize) -> bool {
        let incarnation = self.nodes[node].record.incarnation;
        let admitted = |record: &AcceptorRecord| record.base.incarnations[node] == incarnation;
        let other = 1 - node;
        if !admitted(&self.nodes[other].record) {
            let alone = self.newest_members().is_some_and(|members| !members.has(self.nodes[node].id));
            if alone && self.nodes[node].core.is_some() {
                self.unadmitted = None;
                self.tell_quorum_thread(other, Event::Admit { incarnation });
            }
            return false;
        }
        self.both_are_members() && self.is_steady()
    }

    /// Checks a report that blocks of an extent are lost: right only if a block is unreadable here, and no replica in sync has a
    /// value of it that the oracle allows.
    pub(crate) fn check_lost(&mut self, node: usize, volume: VolumeId, extent: ExtentIndex) {
        if !self.may_have_lost_blocks() {
            self.report_violation(format!("node {node} calls extent {extent} of volume {volume} lost without a fault"));
        }
        if VmIndex::all().all(|vm| crate::guests::volume(vm) != volume) {
            return;
        }
        let good = |world: &World, block: BlockIndex| {
            let core = world.nodes[1 - node].core.as_ref()?;
            let data = core.store.queue.pool().read(volume, block.run(1)).ok()?;
            value_of(&data).ok().filter(|value| world.oracle.allows((volume, block), *value))
        };
        let unreadable: Vec<_> =
            extent.blocks().each().filter(|block| self.is_unreadable(node, volume, block.run(1))).collect();
        let in_sync = self.both_are_members();
        let wrong = in_sync && !unreadable.is_empty() && unreadable.iter().all(|block| good(self, *block).is_some());
        if unreadable.is_empty() || wrong {
            self.report_violation(format!("node {node} calls extent {extent} of volume {volume} lost: {unreadable:?}"));
        }
    }

    /// Checks the error that a mirror gives for a read of a guest: it is right only if no member can read the blocks.
    pub(crate) fn check_unreadable(&mut self, node: usize, vm: VmIndex, req: RequestId) {
        let Some(Request::Read { block, count, .. }) = self.nodes[node].vms[vm.0].open.get(&req) else { return };
        let (volume, blocks) = (crate::guests::volume(vm), block.run(*count));
        // A failed pool says nothing of its blocks: its guests wait.
        let here = self.pool_works(node) && self.is_unreadable(node, volume, blocks.clone());
        let other_has_it = self.is_steady() && !self.is_unreadable(1 - node, volume, blocks.clone());
        self.count_event("reads of lost blocks");
        if !self.may_have_lost_blocks() || !here || other_has_it {
            let text = format!("node {node} cannot read blocks {blocks:?} of volume {volume}, and a member can");
            self.report_violation(text);
        }
    }
}

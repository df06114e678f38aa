//! Guests: each VM writes, reads, discards and flushes its volume; the oracle checks each answer.

use crate::machine::VmIndex;
use crate::world::{Due, Job, World};
use bytes::Bytes;
use dyad_mirror::oracle::{FlushMark, Value};
use dyad_mirror::{GuestError, GuestOp, RequestId};
use dyad_quorum::MS;
use dyad_types::{BlockIndex, VolumeId};

/// Blocks of a guest's volume: 24 extents.
pub const BLOCKS: u64 = 24 * 16 - 5;
/// Requests a guest keeps open.
const DEPTH: usize = 6;

/// A request of a guest.
#[derive(Debug, Clone)]
pub enum Request {
    Write { block: BlockIndex, count: u64, value: Value, data: Bytes },
    Discard { block: BlockIndex, count: u64, value: Value },
    Read { block: BlockIndex, count: u64 },
    Flush(FlushMark),
}

/// The answer to a request.
pub type GuestResult = Result<dyad_mirror::GuestReply, GuestError>;

impl Request {
    pub fn op(&self) -> GuestOp {
        match self {
            Self::Write { block, data, .. } => GuestOp::Write { block: *block, data: data.clone() },
            Self::Discard { block, count, .. } => GuestOp::Discard { block: *block, count: *count },
            Self::Read { block, count } => GuestOp::Read { block: *block, count: *count },
            Self::Flush(_) => GuestOp::Flush,
        }
    }
}

/// Its only disk. Volume 0 is the document's.
pub fn volume(vm: VmIndex) -> VolumeId {
    VolumeId(vm.0 as u64 + 1)
}

impl World {
    /// The guest may send one request; called again after 1 to 25 ms.
    pub(crate) fn guest_step(&mut self, vm: VmIndex) {
        let pause = self.prng.within(MS..25 * MS);
        self.put(pause, Due::Guest(vm));
        if self.quiet {
            return;
        }
        let Some(node) = (0..2).find(|&node| self.nodes[node].executes(vm)) else { return };
        if self.nodes[node].vms[vm.0].open.len() >= DEPTH || self.serves_former_run(node, vm) {
            return;
        }
        let Some(request) = self.random_request(vm) else { return };
        let req = self.next_request.advance();
        self.nodes[node].vms[vm.0].open.insert(req, request);
        self.submit(node, vm, req);
    }

    /// Whether a request of an earlier run of this VM is under way. Until it is done the device starts none of the new run.
    fn serves_former_run(&self, node: usize, vm: VmIndex) -> bool {
        let machine = &self.nodes[node];
        machine.core.as_ref().is_some_and(|core| core.model.serves_other_than(vm, &machine.vms[vm.0].open))
    }

    fn random_request(&mut self, vm: VmIndex) -> Option<Request> {
        let volume = volume(vm);
        // Half of all requests go to the first 40 blocks, so that requests overlap.
        let reach = if self.prng.chance(500) { 40 } else { BLOCKS };
        let block = BlockIndex(self.prng.below(reach));
        let count = if self.prng.chance(700) { 1 } else { self.prng.within(1..40) };
        let count = count.min(BLOCKS - block.0);
        Some(match self.prng.below(100) {
            0..48 => {
                if self.oracle.is_open(volume, block.run(count)) {
                    return None;
                }
                let (value, data) = self.oracle.issue(volume, block.run(count));
                Request::Write { block, count, value, data }
            }
            48..52 => {
                if self.oracle.is_open(volume, block.run(count)) {
                    return None;
                }
                let value = self.oracle.issue_discard(volume, block.run(count));
                Request::Discard { block, count, value }
            }
            52..92 => Request::Read { block, count },
            _ => Request::Flush(self.oracle.flush_begins(volume)),
        })
    }

    /// Hands an open request to the volume's device, if the volume is served. It may reach the mirror after the VM has died.
    pub(crate) fn submit(&mut self, node: usize, vm: VmIndex, req: RequestId) {
        let machine = &self.nodes[node];
        let served = machine.core.as_ref().is_some_and(|core| core.model.permits[vm.0]);
        if let Some(request) = machine.vms[vm.0].open.get(&req).filter(|_| served) {
            let op = request.op();
            let delay = self.prng.within(2_000..60_000);
            self.job(node, delay, Job::Guest(vm, req, op));
        }
    }

    /// A device that begins to serve finds all open requests in the shared memory.
    pub(crate) fn resubmit(&mut self, node: usize, vm: VmIndex) {
        let open: Vec<RequestId> = self.nodes[node].vms[vm.0].open.keys().copied().collect();
        for req in open {
            self.submit(node, vm, req);
        }
    }

    /// The daemon answers a request. A frozen guest sees the answer when it is thawed.
    pub(crate) fn answer_guest(&mut self, node: usize, vm: VmIndex, req: RequestId, reply: GuestResult) {
        let machine = &mut self.nodes[node];
        if !machine.vms[vm.0].open.contains_key(&req) {
            return;
        }
        if machine.frozen {
            machine.vms[vm.0].answers.push((req, reply));
        } else {
            self.guest_sees(node, vm, req, reply);
        }
    }

    fn guest_sees(&mut self, node: usize, vm: VmIndex, req: RequestId, reply: GuestResult) {
        let Some(request) = self.nodes[node].vms[vm.0].open.remove(&req) else { return };
        self.count(match &request {
            Request::Write { .. } => "writes",
            Request::Discard { .. } => "discards",
            Request::Read { .. } => "reads",
            Request::Flush(_) => "flushes",
        });
        let volume = volume(vm);
        match (request, reply) {
            (Request::Write { block, count, value, .. } | Request::Discard { block, count, value }, Ok(_)) => {
                self.oracle.acknowledge(volume, block.run(count), value);
            }
            (Request::Flush(mark), Ok(_)) => self.oracle.flushed(volume, &mark),
            (Request::Read { block, .. }, Ok(dyad_mirror::GuestReply::Data(data))) => {
                if let Err(wrong) = self.oracle.read(volume, block, &data) {
                    self.violate(wrong);
                }
            }
            (request, reply) => {
                let text = format!("VM {vm} on node {node}: {:?} was answered {reply:?}", request.op().span());
                self.violate(text);
            }
        }
    }

    pub(crate) fn thaw(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        for vm in VmIndex::all() {
            for (req, reply) in std::mem::take(&mut self.nodes[node].vms[vm.0].answers) {
                self.guest_sees(node, vm, req, reply);
            }
        }
    }

    /// A VM's process ends.
    pub(crate) fn end_vm(&mut self, node: usize, vm: VmIndex) {
        if std::mem::take(&mut self.nodes[node].vms[vm.0]).runs {
            self.oracle.guest_ended(volume(vm));
        }
    }
}

//! The guests: each VM writes, reads, discards and flushes its volume, and the oracle checks each answer.

use crate::machine::VmIndex;
use crate::world::{DaemonJob, FutureEvent, World};
use bytes::Bytes;
use dyad_mirror::oracle::{FlushMark, Value, value_of};
use dyad_mirror::{GuestError, GuestOp, RequestId};
use dyad_quorum::{MS, Nanos};
use dyad_types::{BLOCK, BLOCK_BYTES, BlockIndex, IndexRange, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Size of a guest's volume in bytes: volumes are whole MiB.
pub const VOLUME_BYTES: u64 = 2 << 20;
/// Blocks of a guest's volume.
pub const BLOCKS: u64 = VOLUME_BYTES / BLOCK_BYTES;
/// Share of requests that follow the request before almost at once, of a thousand: several are under way at the same time.
const FOLLOW_UP_PERMILLE: u64 = 700;
/// The pause before the other requests.
const PAUSE_PERIOD: Range<Nanos> = 40 * MS..600 * MS;
/// Maximum number of unanswered requests of a guest.
const MAX_OPEN_REQUESTS: usize = 6;

/// A request of a guest.
#[derive(Debug, Clone)]
pub enum Request {
    Write {
        block: BlockIndex,
        count: u64,
        value: Value,
        data: Bytes,
    },
    Discard {
        block: BlockIndex,
        count: u64,
        value: Value,
    },
    Read {
        block: BlockIndex,
        count: u64,
        /// The values that blocks might have when a write, under way at the same time as this read, was answered: the read
        /// may return them.
        superseded: BTreeMap<BlockIndex, BTreeSet<Value>>,
    },
    Flush(FlushMark),
}

/// The answer to a request.
pub type GuestResult = Result<dyad_mirror::GuestReply, GuestError>;

impl Request {
    pub fn op(&self) -> GuestOp {
        match self {
            Self::Write { block, data, .. } => GuestOp::Write { block: *block, data: data.clone() },
            Self::Discard { block, count, .. } => GuestOp::Discard { block: *block, count: *count },
            Self::Read { block, count, .. } => GuestOp::Read { block: *block, count: *count },
            Self::Flush(_) => GuestOp::Flush,
        }
    }
}

/// The volume of a VM, whose id follows from the order in which the operators create the volumes. Volume 0 contains the
/// document.
pub fn volume(vm: VmIndex) -> VolumeId {
    VolumeId(vm.0 as u64 + 1)
}

impl World {
    /// Sends a random request of the guest, if it executes; repeated at once or after a pause.
    pub(crate) fn send_guest_request(&mut self, vm: VmIndex) {
        let follows = self.prng.chance(FOLLOW_UP_PERMILLE);
        let pause = if follows { self.prng.within(MS / 10..3 * MS) } else { self.prng.within(PAUSE_PERIOD) };
        self.schedule(pause, FutureEvent::GuestRequest(vm));
        if self.guests_idle {
            return;
        }
        let Some(node) = (0..2).find(|&node| self.nodes[node].executes(vm)) else { return };
        if self.nodes[node].vms[vm.0].open.len() >= MAX_OPEN_REQUESTS || self.serves_former_run(node, vm) {
            return;
        }
        let Some(request) = self.random_request(vm) else { return };
        let req = self.next_request.advance();
        self.request_times.insert(req, self.now);
        self.nodes[node].vms[vm.0].open.insert(req, request);
        self.submit(node, vm, req);
    }

    /// Whether a request of an earlier run of this VM is not answered yet. The device starts no request of the new run
    /// before.
    fn serves_former_run(&self, node: usize, vm: VmIndex) -> bool {
        let machine = &self.nodes[node];
        machine.core.as_ref().is_some_and(|core| core.model.serves_other_than(vm, &machine.vms[vm.0].open))
    }

    /// Draws a request; `None` if a write or discard was drawn that would overlap an unanswered one.
    fn random_request(&mut self, vm: VmIndex) -> Option<Request> {
        let volume = volume(vm);
        // Half of all requests go to the first 40 blocks, so that requests overlap.
        let range = if self.prng.chance(500) { 40 } else { BLOCKS };
        let block = BlockIndex(self.prng.below(range));
        let count = match self.prng.below(1000) {
            0..700 => 1,
            700..985 => self.prng.within(1..24),
            // Up to 1 MiB, as a guest sends at most.
            _ => self.prng.within(24..257),
        };
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
            52..92 => Request::Read { block, count, superseded: BTreeMap::new() },
            _ => Request::Flush(self.oracle.flush_begins(volume)),
        })
    }

    /// Passes an unanswered request to the device of the volume, if the VM is permitted. The request may reach the
    /// mirror after the end of the VM.
    pub(crate) fn submit(&mut self, node: usize, vm: VmIndex, req: RequestId) {
        let machine = &self.nodes[node];
        let served = machine.core.as_ref().is_some_and(|core| core.model.placement.serves(volume(vm)));
        if let Some(request) = machine.vms[vm.0].open.get(&req).filter(|_| served) {
            let op = request.op();
            let delay = self.prng.within(2_000..60_000);
            self.schedule_job(node, delay, DaemonJob::GuestRequest(vm, req, op));
        }
    }

    /// Passes all unanswered requests to a device that begins to serve: it finds them in the shared memory.
    pub(crate) fn resubmit(&mut self, node: usize, of: VolumeId) {
        let Some(vm) = VmIndex::all().find(|vm| volume(*vm) == of) else { return };
        let open: Vec<RequestId> = self.nodes[node].vms[vm.0].open.keys().copied().collect();
        for req in open {
            self.submit(node, vm, req);
        }
    }

    /// Delivers the daemon's answer to a request. A frozen guest gets it when it is thawed.
    pub(crate) fn answer_guest(&mut self, node: usize, vm: VmIndex, req: RequestId, reply: GuestResult) {
        let machine = &mut self.nodes[node];
        if !machine.vms[vm.0].open.contains_key(&req) {
            return;
        }
        if machine.frozen {
            machine.vms[vm.0].answers.push((req, reply));
        } else {
            self.complete_request(node, vm, req, reply);
        }
    }

    /// Checks an answer with the oracle, and ends its request.
    fn complete_request(&mut self, node: usize, vm: VmIndex, req: RequestId, reply: GuestResult) {
        let Some(request) = self.nodes[node].vms[vm.0].open.remove(&req) else { return };
        self.count_event(match &request {
            Request::Write { .. } => "writes",
            Request::Discard { .. } => "discards",
            Request::Read { .. } => "reads",
            Request::Flush(_) => "flushes",
        });
        let volume = volume(vm);
        match (request, reply) {
            (Request::Write { block, count, value, .. } | Request::Discard { block, count, value }, Ok(_)) => {
                self.note_superseded(node, vm, block.run(count));
                self.oracle.acknowledge(volume, block.run(count), value);
            }
            (Request::Flush(mark), Ok(_)) => self.oracle.flushed(volume, &mark),
            (Request::Read { block, count, superseded }, Ok(dyad_mirror::GuestReply::Data(data))) => {
                for (number, bytes) in block.run(count).each().zip(data.chunks(BLOCK)) {
                    let earlier = superseded.get(&number);
                    if earlier.is_some_and(|values| value_of(bytes).is_ok_and(|value| values.contains(&value))) {
                        continue;
                    }
                    if let Err(wrong) = self.oracle.read(volume, number, bytes) {
                        self.report_violation(wrong);
                    }
                }
            }
            // The blocks were lost: the mirror's answer was checked.
            (Request::Read { .. }, Err(GuestError::Corrupt)) if self.may_have_lost_blocks() => {}
            (request, reply) => {
                let text = format!("VM {vm} on node {node}: {:?} was answered {reply:?}", request.op().span());
                self.report_violation(text);
            }
        }
    }

    /// A write of these blocks is about to be answered: reads that are under way may still return what was allowed until now.
    fn note_superseded(&mut self, node: usize, vm: VmIndex, blocks: Range<BlockIndex>) {
        for request in self.nodes[node].vms[vm.0].open.values_mut() {
            let Request::Read { block, count, superseded } = request else { continue };
            for number in block.run(*count).each().filter(|number| blocks.contains(number)) {
                superseded.entry(number).or_default().extend(self.oracle.allowed((volume(vm), number)));
            }
        }
    }

    pub(crate) fn thaw(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        for vm in VmIndex::all() {
            for (req, reply) in std::mem::take(&mut self.nodes[node].vms[vm.0].answers) {
                self.complete_request(node, vm, req, reply);
            }
        }
    }
}

//! Full pools: a volume is made and written until no pool has room, and then it is deleted, which needs no room.

use crate::core_model::{Pending, ReplyReceiver};
use crate::guests::GuestResult;
use crate::world::{FutureEvent, World};
use dyad_desired::Change;
use dyad_mirror::GuestOp;
use dyad_quorum::{MS, Nanos, SEC};
use dyad_types::{BLOCK_BYTES, BlockIndex, VolumeId};

/// Name of the volume, larger than the pools.
const NAME: &str = "filler";
const SIZE: u64 = 64 << 20;
/// Size of each write to the volume, in bytes.
const WRITE_BYTES: u64 = 1 << 20;
/// Most writes that are not answered.
const MAX_OPEN_WRITES: usize = 4;
/// Time between two steps.
const STEP_INTERVAL: Nanos = 30 * MS;
/// The pools count as full when a write has waited for this long.
const FULL_DELAY: Nanos = 3 * SEC;
/// Time after which a change is asked for again. The lead answers within the bound of a request.
const ANSWER_TIMEOUT: Nanos = 4 * SEC;
/// Longest time until the deletion is decided: the answer to a request, and as long again if its session ended.
const DELETION_TIMEOUT: Nanos = 18 * SEC;
/// Share of full pools of which the data session ends, of a thousand.
const SESSION_ENDS_PERMILLE: u64 = 500;

/// What is being done with the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Creating,
    Writing,
    Deleting,
    Over,
}

/// The volume that fills the pools.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    node: usize,
    phase: Phase,
    /// Beginning of the phase, or the newest answer to a write.
    since: Nanos,
    /// Time of the newest request for a change.
    asked_at: Option<Nanos>,
    open_writes: usize,
    /// The first block of the next write.
    next: BlockIndex,
}

impl Filling {
    pub const OVER: Filling =
        Filling { node: 0, phase: Phase::Over, since: 0, asked_at: None, open_writes: 0, next: BlockIndex(0) };

    pub fn is_over(self) -> bool {
        self.phase == Phase::Over
    }
}

impl World {
    pub(crate) fn begin_filling(&mut self, node: usize) {
        self.filling = Filling { node, phase: Phase::Creating, since: self.now, ..Filling::OVER };
        self.schedule(0, FutureEvent::FillPools);
    }

    /// Does the next step with the volume; repeated until it is deleted.
    pub(crate) fn fill_pools(&mut self) {
        let filling = self.filling;
        match filling.phase {
            Phase::Creating => match self.filler(filling.node) {
                Some(_) => self.enter_phase(Phase::Writing),
                None => self.ask_for_filler(|primary| Change::CreateVolume { name: NAME.into(), size: SIZE, primary }),
            },
            Phase::Writing if filling.open_writes > 0 && self.now > filling.since + FULL_DELAY => {
                self.count_event("pools filled");
                self.enter_phase(Phase::Deleting);
                if self.prng.chance(SESSION_ENDS_PERMILLE) {
                    (0..2).for_each(|node| self.end_session(node));
                }
            }
            Phase::Writing => self.write_filler(),
            Phase::Deleting if self.filler(filling.node).is_none() => self.enter_phase(Phase::Over),
            Phase::Deleting if self.now > filling.since + DELETION_TIMEOUT => {
                self.report_violation("full pools: a deletion is not decided".into());
            }
            Phase::Deleting => self.ask_for_filler(|_| Change::DeleteVolume { name: NAME.into() }),
            Phase::Over => return,
        }
        self.schedule(STEP_INTERVAL, FutureEvent::FillPools);
    }

    fn enter_phase(&mut self, phase: Phase) {
        self.log_line(self.filling.node, format!("filler: {phase:?}"));
        (self.filling.phase, self.filling.since, self.filling.asked_at) = (phase, self.now, None);
    }

    /// The id of the volume, if the document of this node has it.
    fn filler(&self, node: usize) -> Option<VolumeId> {
        let document = self.nodes[node].core.as_ref()?.model.placement.document().newest()?;
        document.volumes.get(NAME).map(|volume| volume.id)
    }

    fn ask_for_filler(&mut self, change: impl FnOnce(dyad_types::NodeId) -> Change) {
        if self.filling.asked_at.is_some_and(|at| self.now < at + ANSWER_TIMEOUT) {
            return;
        }
        self.filling.asked_at = Some(self.now);
        let node = self.filling.node;
        let change = change(self.nodes[node].id);
        self.change(node, change, Pending::Nothing);
    }

    fn write_filler(&mut self) {
        let (node, block) = (self.filling.node, self.filling.next);
        let Some(volume) = self.filler(node) else { return };
        if self.filling.open_writes < MAX_OPEN_WRITES && block.0 * BLOCK_BYTES < SIZE {
            self.filling.open_writes += 1;
            self.filling.next = block + WRITE_BYTES / BLOCK_BYTES;
            let data = vec![0xf1; WRITE_BYTES as usize].into();
            self.send_volume_request(node, ReplyReceiver::Filler, volume, GuestOp::Write { block, data });
        }
    }

    /// Takes the answer to a write of the volume.
    pub(crate) fn filler_answered(&mut self, result: &GuestResult) {
        self.filling.open_writes = self.filling.open_writes.saturating_sub(1);
        if self.filling.phase == Phase::Writing {
            self.filling.since = self.now;
            if result.is_err() {
                // The mirror learns of the volume a moment after the document: the blocks are written again.
                self.filling.next = BlockIndex(0);
            }
        }
    }
}

//! The commands in flight at the local store, and those that wait for space.
//!
//! A command refused for lack of space is repeated, followed by all later commands that touch the same blocks, so
//! that the store receives the writes of a block in order.

use crate::changes::VolumeChangeId;
use crate::clocks::Awake;
use crate::event::{Action, StoreCommand, StoreError, StoreOutput, Tuning};
use crate::flush::{Replica, RoundId};
use crate::guest::TicketId;
use crate::heal::HealId;
use crate::machine::Mirror;
use crate::message::PeerOp;
use crate::types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What the result of a command is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Purpose {
    GuestWrite {
        ticket: TicketId,
    },
    GuestRead {
        ticket: TicketId,
    },
    Replica {
        generation: u64,
        op: PeerOp,
    },
    ReplicaFetch {
        generation: u64,
        op: PeerOp,
    },
    CopyRead {
        generation: u64,
        volume: VolumeId,
        extent: ExtentIndex,
    },
    RoundSync {
        round: RoundId,
    },
    BarrierSync {
        generation: u64,
    },
    ReconcileSync {
        generation: u64,
    },
    Mark {
        era: u64,
        marks: Vec<(VolumeId, Vec<Range<ExtentIndex>>)>,
    },
    ListUnconfirmed {
        generation: u64,
        volume: VolumeId,
    },
    HealRead {
        heal: HealId,
    },
    HealWrite {
        heal: HealId,
    },
    Change {
        id: VolumeChangeId,
        change: VolumeChange,
    },
    /// The result is not used.
    IgnoreResult,
}

#[derive(Debug, Clone)]
struct InFlight {
    command: StoreCommand,
    purpose: Purpose,
}

/// The clock of the oldest unanswered command.
#[derive(Debug, Clone, Copy)]
struct Oldest {
    op: StoreOp,
    /// The time since which it was the oldest at each tick.
    since: Awake,
    /// Time of the newest progress of the checkpoint that it waits for; `since` if there was none.
    progressed: Awake,
}

/// Commands in flight, and commands that wait for space.
#[derive(Debug, Default)]
pub(crate) struct StoreQueue {
    next: StoreOp,
    ops: BTreeMap<StoreOp, InFlight>,
    /// Number of data commands in `ops`.
    data: usize,
    /// The store has refused a command that it must carry out, so that this node is faulty until this mirror ends.
    pub failed: bool,
    /// Commands refused for lack of space, and data commands given after one.
    stalled: BTreeMap<StoreOp, InFlight>,
    retry_at: BootTime,
    retry: bool,
    full: bool,
    /// The newest command that was repeated after it was refused for lack of space: the pool counts as full until the commands up
    /// to it are answered.
    repeated_through: Option<StoreOp>,
    /// Writes that waited for space are guest requests in the queue again: the pool counts as full until a write succeeds.
    requeued: bool,
    /// The oldest unanswered command at the newest tick.
    oldest: Option<Oldest>,
    /// The store was reported as stuck while the commands up to this one were unanswered.
    pub stuck_through: Option<StoreOp>,
}

impl StoreQueue {
    /// Whether no command that changes data is in flight or waiting.
    pub fn drained(&self) -> bool {
        self.data == 0 && self.stalled.is_empty()
    }

    /// Drops the commands that wait for space, and returns their numbers. Changes of the volume table stay: the table in
    /// memory has them already.
    pub fn take_stalled_data(&mut self) -> BTreeSet<StoreOp> {
        let is_change = |entry: &InFlight| matches!(entry.command, StoreCommand::Volume(_));
        let dropped: BTreeSet<StoreOp> =
            self.stalled.iter().filter(|(_, entry)| !is_change(entry)).map(|(op, _)| *op).collect();
        self.stalled.retain(|_, entry| is_change(entry));
        self.retry |= !self.stalled.is_empty();
        self.requeued |= self.full && !dropped.is_empty();
        dropped
    }

    /// Whether commands wait for space.
    pub fn waits_for_space(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Notes which command is the oldest unanswered one at this tick.
    pub fn watch_oldest(&mut self, now: Awake) {
        let first = self.ops.keys().next().copied();
        let fresh = |op| Oldest { op, since: now, progressed: now };
        self.oldest = first.map(|op| self.oldest.filter(|oldest| oldest.op == op).unwrap_or_else(|| fresh(op)));
    }

    /// Restarts the clock of the oldest unanswered command, if it is this one and progress has excused it for less than
    /// `limit` nanoseconds. Returns whether this command is unanswered.
    pub fn progress(&mut self, op: StoreOp, now: Awake, limit: u64) -> bool {
        self.watch_oldest(now);
        if let Some(oldest) = self.oldest.as_mut().filter(|oldest| oldest.op == op && now.since(oldest.since) < limit) {
            oldest.progressed = now;
        }
        self.ops.contains_key(&op)
    }

    fn unanswered_oldest(&self) -> Option<&Oldest> {
        self.oldest.as_ref().filter(|oldest| self.ops.contains_key(&oldest.op))
    }

    /// How long the oldest unanswered command of the newest tick has been the oldest, in nanoseconds; 0 if it is answered.
    pub fn oldest_age(&self, now: Awake) -> u64 {
        self.unanswered_oldest().map_or(0, |oldest| now.since(oldest.since))
    }

    /// As [`StoreQueue::oldest_age`], from the newest progress on.
    pub fn time_without_progress(&self, now: Awake) -> u64 {
        self.unanswered_oldest().map_or(0, |oldest| now.since(oldest.progressed))
    }

    /// The newest unanswered command.
    pub fn newest(&self) -> Option<StoreOp> {
        self.ops.keys().next_back().copied()
    }

    /// Whether the store was reported as stuck and has answered every command of that time.
    pub fn answered_stuck(&self) -> bool {
        self.stuck_through.is_some_and(|through| self.ops.range(..=through).next().is_none())
    }

    /// Repeats the stalled commands as soon as no data command is in flight.
    pub fn retry_now(&mut self) {
        self.retry = true;
    }

    pub fn retry_due(&mut self, now: BootTime, tuning: &Tuning) -> bool {
        if self.stalled.is_empty() || now < self.retry_at {
            return false;
        }
        self.retry_at = now + tuning.retry;
        true
    }
}

/// The blocks of a command whose order among the others matters: commands that change data, and reads for the peer,
/// which must see the peer's writes that wait for space. Reads of this node wait for such writes before they are
/// given.
fn span(entry: &InFlight) -> Option<(VolumeId, Range<BlockIndex>)> {
    match (&entry.command, &entry.purpose) {
        (StoreCommand::ReadExtent { volume, extent }, Purpose::ReplicaFetch { .. }) => Some((*volume, extent.blocks())),
        (command, _) => changes(command),
    }
}

/// The blocks a data command changes.
fn changes(command: &StoreCommand) -> Option<(VolumeId, Range<BlockIndex>)> {
    match command {
        StoreCommand::Write { volume, block, data, .. } => Some((*volume, block.run((data.len() / BLOCK) as u64))),
        StoreCommand::Discard { volume, block, count, .. } => Some((*volume, block.run(*count))),
        StoreCommand::WriteExtent { volume, extent, .. } => Some((*volume, extent.blocks())),
        StoreCommand::Volume(change) => Some((change.id(), BlockIndex(0)..BlockIndex(u64::MAX))),
        _ => None,
    }
}

fn overlap(a: &InFlight, b: &InFlight) -> bool {
    match (span(a), span(b)) {
        (Some((v, a)), Some((w, b))) => v == w && a.start < b.end && b.start < a.end,
        _ => false,
    }
}

impl Mirror {
    /// Gives a command to the store, or queues it behind the commands that wait for space.
    pub(crate) fn command(&mut self, command: StoreCommand, purpose: Purpose) -> StoreOp {
        let op = self.store.next.advance();
        let entry = InFlight { command, purpose };
        if span(&entry).is_some() && !self.store.stalled.is_empty() {
            self.store.stalled.insert(op, entry);
        } else {
            self.emit(op, entry);
        }
        op
    }

    fn emit(&mut self, op: StoreOp, entry: InFlight) {
        if span(&entry).is_some() {
            self.store.data += 1;
        }
        self.out.push(Action::Store { op, command: entry.command.clone() });
        self.store.ops.insert(op, entry);
    }

    /// Drops commands that wait for space and are obsolete: the peer's requests of an earlier generation, whose reply
    /// the peer would ignore, and guest writes that were closed or queued again. Applied later, they would overwrite
    /// data that was read since.
    fn drop_stale(&mut self) {
        let (generation, tickets) = (self.generation, &self.tickets);
        self.store.stalled.retain(|op, entry| match entry.purpose {
            // The table in memory has the change already.
            _ if matches!(entry.command, StoreCommand::Volume(_)) => true,
            Purpose::Replica { generation: asked, .. } | Purpose::ReplicaFetch { generation: asked, .. } => {
                asked == generation
            }
            Purpose::GuestWrite { ticket } => tickets.writes_as(ticket, *op),
            _ => true,
        });
    }

    /// Repeats the commands that wait for space, once no data command is in flight that could overtake them.
    pub(crate) fn pump_store(&mut self) {
        self.drop_stale();
        if self.store.stalled.is_empty() {
            let repeated = self.store.repeated_through;
            let repeats = repeated.is_some_and(|through| self.store.ops.range(..=through).next().is_some());
            if !self.store.requeued && !repeats && std::mem::take(&mut self.store.full) {
                self.tell_full(false);
            }
            self.store.retry = false;
            return;
        }
        if self.store.retry && self.store.data == 0 {
            self.store.retry = false;
            for (op, entry) in std::mem::take(&mut self.store.stalled) {
                self.store.repeated_through = self.store.repeated_through.max(Some(op));
                self.emit(op, entry);
            }
        }
    }

    /// Tells the peer at the start of a session that this pool is full and replies may be late.
    pub(crate) fn repeat_full_to_new_session(&mut self) {
        if self.store.full {
            self.send(crate::message::Body::Full(true));
        }
    }

    fn tell_full(&mut self, full: bool) {
        self.out.push(Action::Full { peer: false, full });
        if self.link.session.is_some() {
            self.send(crate::message::Body::Full(full));
        }
    }

    pub(crate) fn on_stored(&mut self, op: StoreOp, result: Result<StoreOutput, StoreError>) {
        let Some(entry) = self.store.ops.remove(&op) else {
            return;
        };
        let is_data = span(&entry).is_some();
        if is_data {
            self.store.data -= 1;
        }
        match &result {
            Err(StoreError::NoSpace) if is_data => {
                if !std::mem::replace(&mut self.store.full, true) {
                    self.store.retry_at = self.now + self.tuning.retry;
                    self.tell_full(true);
                }
                self.store.requeued = false;
                self.store.stalled.insert(op, entry);
                return;
            }
            Ok(_) if is_data => {
                let older = self.store.stalled.range(..op);
                if older.into_iter().any(|(_, other)| overlap(other, &entry)) {
                    self.store.stalled.insert(op, entry);
                    return;
                }
                self.store.requeued &= !matches!(entry.command, StoreCommand::Write { .. });
                self.note_stored(&entry.command);
            }
            Err(error @ (StoreError::Io | StoreError::NoSpace)) => {
                self.store.failed = true;
                self.out.push(Action::Faulty { error: error.clone() });
            }
            _ => {}
        }
        self.on_finished(op, entry.purpose, result);
    }

    /// Remembers the newest stamp the store holds.
    fn note_stored(&mut self, command: &StoreCommand) {
        let (volume, stamp) = match command {
            StoreCommand::Write { volume, stamp, .. }
            | StoreCommand::Discard { volume, stamp, .. }
            | StoreCommand::WriteExtent { volume, stamp, .. } => (volume, stamp),
            _ => return,
        };
        if let Some(volume) = self.volumes.get_mut(volume) {
            volume.last = volume.last.max(*stamp);
            volume.assigned = volume.assigned.max(stamp.seq);
        }
    }

    fn on_finished(&mut self, op: StoreOp, purpose: Purpose, result: Result<StoreOutput, StoreError>) {
        match purpose {
            Purpose::GuestWrite { ticket } => self.on_write_stored(ticket, op, result),
            Purpose::GuestRead { ticket } => self.on_read_stored(ticket, result),
            Purpose::Replica { generation, op } => self.on_replica_stored(generation, op, result),
            Purpose::ReplicaFetch { generation, op } => self.on_fetch_stored(generation, op, result),
            Purpose::CopyRead { generation, volume, extent } => {
                if generation == self.generation {
                    self.on_copy_read(volume, extent, result);
                }
            }
            Purpose::RoundSync { round } => self.on_round_synced(round, Replica::Local, result.is_ok()),
            Purpose::BarrierSync { generation } => {
                if generation == self.generation && result.is_ok() {
                    self.on_barrier_synced(false);
                }
            }
            Purpose::ReconcileSync { generation } => {
                if generation == self.generation && result.is_ok() {
                    self.on_reconcile_synced();
                }
            }
            Purpose::Mark { era, marks } => self.on_marked(era, marks, result.is_ok()),
            Purpose::ListUnconfirmed { generation, volume } => {
                if generation == self.generation {
                    self.on_unconfirmed(volume, result);
                }
            }
            Purpose::HealRead { heal } => self.on_heal_read(heal, result),
            Purpose::HealWrite { heal } => self.on_heal_written(heal),
            Purpose::Change { id, change } => self.on_change_stored(id, change, result.is_ok()),
            Purpose::IgnoreResult => {}
        }
    }
}

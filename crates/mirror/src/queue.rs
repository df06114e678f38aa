//! The queued guest requests, and their start when the conditions are met.
//!
//! A guest chooses how many requests it queues, and each event looks for requests to start. So the work of an event must
//! not grow with the queue: requests that the same condition holds back share a queue, which is looked at once, and at
//! most [`MAX_REFUSALS`] requests of a queue are tried that a condition of their own holds back.

use crate::guest::{State, Ticket, TicketId};
use crate::machine::{Mirror, Phase};
use crate::types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Number of requests of one queue after which an event tries no further ones, if each is held back by a condition of
/// its own: a locked extent, a missing dirty mark, a write in flight to the same blocks, or the peer's copy.
const MAX_REFUSALS: usize = 128;

/// The kinds of request that start under the same conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Peek,
    Read,
    /// A write or a discard.
    Change,
    Flush,
}

impl Kind {
    fn of(op: &GuestOp) -> Self {
        match op {
            GuestOp::Peek { .. } => Self::Peek,
            GuestOp::Read { .. } => Self::Read,
            GuestOp::Write { .. } | GuestOp::Discard { .. } => Self::Change,
            GuestOp::Flush => Self::Flush,
        }
    }
}

type QueueId = (VolumeId, Kind);

/// The queued requests: a queue for each volume and kind, each in the order of arrival. No queue is empty.
#[derive(Debug, Default)]
pub(crate) struct RequestQueues {
    queues: BTreeMap<QueueId, BTreeSet<TicketId>>,
    /// Number of requests that were tried.
    #[cfg(test)]
    pub tried: u64,
}

impl RequestQueues {
    pub fn insert(&mut self, id: TicketId, ticket: &Ticket) {
        self.queues.entry((ticket.volume, Kind::of(&ticket.op))).or_default().insert(id);
    }

    /// Removes a request, if it is queued.
    pub fn remove(&mut self, id: TicketId, ticket: &Ticket) {
        self.remove_from((ticket.volume, Kind::of(&ticket.op)), id);
    }

    fn remove_from(&mut self, queue: QueueId, id: TicketId) {
        if let Some(ids) = self.queues.get_mut(&queue) {
            ids.remove(&id);
            if ids.is_empty() {
                self.queues.remove(&queue);
            }
        }
    }

    /// The first request of a queue behind this one.
    fn after(&self, queue: QueueId, id: TicketId) -> Option<TicketId> {
        self.queues.get(&queue)?.range((Bound::Excluded(id), Bound::Unbounded)).next().copied()
    }
}

impl Mirror {
    /// Whether requests of a queue may start. [`GuestOp::Peek`] needs neither the right to write nor the lease.
    fn may_start(&self, (volume, kind): QueueId) -> bool {
        let Some(view) = self.view else { return false };
        if !view.me || !self.trusted {
            return false;
        }
        if kind != Kind::Peek && (self.hold || self.writer(volume) != Writer::Me) {
            return false;
        }
        let reads = matches!(kind, Kind::Read | Kind::Peek);
        match self.phase {
            Phase::Steady | Phase::Source => true,
            Phase::Reconcile | Phase::Target => false,
            Phase::Down => reads || !self.writes_need_peer(),
            Phase::Handshake => !view.peer && (reads || !self.writes_need_peer()),
        }
    }

    /// Starts the queued requests whose conditions are met, over all queues in the order of arrival.
    pub(crate) fn pump_guests(&mut self) {
        self.refuse_peeks();
        let queues = self.tickets.queued.queues.iter().filter(|(queue, _)| self.may_start(**queue));
        let mut next: BTreeSet<(TicketId, QueueId)> =
            queues.filter_map(|(queue, ids)| Some((*ids.first()?, *queue))).collect();
        let mut room = if next.iter().any(|(_, (_, kind))| *kind == Kind::Change) { self.write_room() } else { 0 };
        let mut refusals: BTreeMap<QueueId, usize> = BTreeMap::new();
        while let Some((id, queue)) = next.pop_first() {
            if queue.1 == Kind::Change && room == 0 {
                continue;
            }
            #[cfg(test)]
            {
                self.tickets.queued.tried += 1;
            }
            if self.start(id, &mut room) {
                self.tickets.queued.remove_from(queue, id);
            } else {
                let refused = refusals.entry(queue).or_default();
                *refused += 1;
                if *refused == MAX_REFUSALS {
                    continue;
                }
            }
            next.extend(self.tickets.queued.after(queue, id).map(|following| (following, queue)));
        }
    }

    /// Starts or answers a request. `false`: a condition of its own holds it back.
    fn start(&mut self, id: TicketId, room: &mut usize) -> bool {
        let Some(ticket) = self.tickets.map.get(&id) else {
            return true;
        };
        let volume = ticket.volume;
        match &ticket.op {
            GuestOp::Read { block, count } | GuestOp::Peek { block, count } => {
                let blocks = block.run(*count);
                self.start_read(id, volume, blocks)
            }
            op @ (GuestOp::Write { .. } | GuestOp::Discard { .. }) => {
                let (op, weight) = (op.clone(), op.weight());
                let started = self.start_write(id, volume, op);
                *room = if started { room.saturating_sub(weight) } else { *room };
                started
            }
            GuestOp::Flush => {
                self.set_state(id, State::Flushing);
                self.flushes.waiting.push(id);
                true
            }
        }
    }

    /// Refuses each [`GuestOp::Peek`] on a node that is not in sync.
    fn refuse_peeks(&mut self) {
        if self.view.is_none_or(|view| view.me) {
            return;
        }
        let peeks = self.tickets.queued.queues.iter().filter(|((_, kind), _)| *kind == Kind::Peek);
        let ids: Vec<TicketId> = peeks.flat_map(|(_, ids)| ids.iter().copied()).collect();
        for id in ids {
            self.complete(id, Err(GuestError::NotInSync));
        }
    }
}

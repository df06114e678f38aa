//! Guest writes: sent to the local store and to the peer at the same time; complete when every store that must hold the
//! write has acknowledged it.

use crate::event::*;
use crate::guest::{PeerPart, State, Ticket, TicketId};
use crate::machine::{Mirror, Phase, Span};
use crate::message::{Body, Change};
use crate::store::Purpose;
use crate::types::*;

impl Mirror {
    /// Bytes of guest writes that may still start. Writes in flight are limited to [`Tuning::flight`] so that they
    /// fit into the queue of a session: a slow peer then slows the guests down and does not overflow the queue.
    pub(crate) fn write_room(&self) -> usize {
        let writing = self.volumes.values().flat_map(|volume| volume.writing.values());
        let flying: usize = writing.map(|span| span.weight).sum();
        self.tuning.flight.saturating_sub(flying)
    }

    pub(crate) fn start_write(&mut self, id: TicketId, volume: VolumeId, op: GuestOp) -> bool {
        let (block, count) = op.span();
        let extents = extents_of(block.run(count));
        if self.locked(volume, block.run(count)) {
            return false;
        }
        if !self.both() && !self.marked(volume, &extents) {
            return false;
        }
        let epoch = self.epoch();
        // During resync a write that lies wholly in extents still to be copied stays local: the copy will contain it.
        let send = match self.phase {
            Phase::Steady => true,
            Phase::Source => {
                self.writes_need_peer()
                    || !self.copier.as_ref().is_some_and(|copier| copier.holds_all(volume, &extents))
            }
            _ => false,
        };
        assert!(send || !self.writes_need_peer(), "a write that the peer must hold is sent to it");
        let weight = op.weight();
        let state = self.volumes.get_mut(&volume).expect("checked on arrival");
        let seq = state.assigned.advance();
        state.writing.insert(id, Span { block, count, seq, weight });
        let stamp = Stamp { epoch, seq };
        let (command, data) = match op {
            GuestOp::Write { data, .. } => {
                (StoreCommand::Write { volume, stamp, block, data: data.clone() }, Change::Data(data))
            }
            _ => (StoreCommand::Discard { volume, stamp, block, count }, Change::Discard(count)),
        };
        let op = self.command(command, Purpose::GuestWrite { ticket: id });
        let peer = if send {
            let ask = self.ask(crate::peer::Ask::Write { ticket: id, store_op: op });
            self.send(Body::Write { op: ask, volume, seq, block, data });
            PeerPart::Sent(self.generation)
        } else {
            PeerPart::NotSent
        };
        self.set_state(id, State::Writing { op, stored: false, peer });
        true
    }

    pub(crate) fn on_write_stored(&mut self, id: TicketId, done: StoreOp, result: Result<StoreOutput, StoreError>) {
        if let Some(Ticket { state: State::Writing { op, stored, .. }, .. }) = self.tickets.map.get_mut(&id)
            && *op == done
            && result.is_ok()
        {
            *stored = true;
            self.finish_write(id);
        }
        // A failed local write is never completed: the guest blocks until `quorum` removes or fences this node.
    }

    pub(crate) fn on_write_held(&mut self, id: TicketId, store_op: StoreOp) {
        if let Some(Ticket { state: State::Writing { op, peer, .. }, .. }) = self.tickets.map.get_mut(&id)
            && *op == store_op
        {
            *peer = PeerPart::Held;
            let volume = self.tickets.map.get(&id).and_then(|ticket| self.volumes.get_mut(&ticket.volume));
            if let Some(volume) = volume
                && let Some(span) = volume.writing.get(&id)
            {
                volume.held = volume.held.max(span.seq);
            }
            self.finish_write(id);
        }
    }

    /// Completes the write if the local store and, where required, the peer hold it, and its extents are marked dirty.
    fn finish_write(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.map.get(&id) else {
            return;
        };
        let State::Writing { stored, peer, .. } = ticket.state else {
            return;
        };
        let volume = ticket.volume;
        let (block, count) = ticket.op.span();
        let waits = match peer {
            PeerPart::Held => false,
            PeerPart::NotSent => self.writes_need_peer(),
            PeerPart::Sent(generation) => {
                self.writes_need_peer() || (generation == self.generation && self.phase == Phase::Source)
            }
        };
        if !stored || waits || !self.in_sync() {
            return;
        }
        if !self.both() && !self.marked(volume, &extents_of(block.run(count))) {
            return;
        }
        assert!(
            peer == PeerPart::Held || !self.writes_need_peer(),
            "no write completes without a peer that must hold it"
        );
        if let Some(state) = self.volumes.get_mut(&volume) {
            state.unconfirmed = true;
        }
        self.complete(id, Ok(GuestReply::Done));
    }

    /// Completes every write in flight whose conditions are met.
    pub(crate) fn finish_writes(&mut self) {
        let writing: Vec<TicketId> = self.volumes.values().flat_map(|v| v.writing.keys().copied()).collect();
        for id in writing {
            self.finish_write(id);
        }
    }

    /// Puts the matching writes in flight back into the queue, to start as new writes. Writes of closed requests are
    /// dropped.
    fn requeue_writes(&mut self, which: impl Fn(StoreOp, PeerPart) -> bool) {
        for volume in self.volumes.values_mut() {
            volume.writing.retain(|id, _| {
                let Some(ticket) = self.tickets.map.get_mut(id) else {
                    return false;
                };
                match ticket.state {
                    State::Writing { op, peer, .. } if which(op, peer) => {
                        if ticket.req.is_some() {
                            ticket.state = State::Queued;
                            self.tickets.queued.insert(*id, ticket);
                        } else {
                            self.tickets.map.remove(id);
                        }
                        false
                    }
                    _ => true,
                }
            });
        }
    }

    /// Writes all requests in flight again, in the order of arrival. Called when both replicas are equal.
    ///
    /// None of these writes was answered, so the guest cannot tell a second execution from a first one.
    pub(crate) fn requeue_all(&mut self) {
        self.requeue_writes(|_, _| true);
    }

    /// Puts the writes that wait for space in the local pool back into the queue: the reconciliation begins on a store at
    /// rest, and these would rest only when space is freed, which needs the reconciliation. None of them was answered.
    pub(crate) fn requeue_stalled(&mut self) {
        let stalled = self.store.take_stalled_data();
        if !stalled.is_empty() {
            self.requeue_writes(|op, _| stalled.contains(&op));
            // This store may have carried out some of them, behind a write that waits for space. A read must not show them
            // before the peer holds them: a loss of this node would undo them.
            self.trusted &= !self.both();
        }
    }

    /// Sends the writes that were kept local to the peer: from now on the peer must hold them.
    pub(crate) fn requeue_unsent(&mut self) {
        let generation = self.generation;
        self.requeue_writes(|_, peer| match peer {
            PeerPart::NotSent => true,
            PeerPart::Sent(sent) => sent != generation,
            PeerPart::Held => false,
        });
    }

    /// Whether the local store holds every guest write in flight to these extents.
    pub(crate) fn all_stored(&self, volume: VolumeId, extents: &std::ops::Range<ExtentIndex>) -> bool {
        let Some(state) = self.volumes.get(&volume) else {
            return true;
        };
        state.writing.iter().all(|(id, span)| {
            let reach = extents_of(span.blocks());
            let clear = reach.end <= extents.start || extents.end <= reach.start;
            clear || self.tickets.map.get(id).is_none_or(|t| matches!(t.state, State::Writing { stored: true, .. }))
        })
    }

    /// Whether a write that was not sent to the peer of this generation is in flight.
    pub(crate) fn unsent_in_flight(&self) -> bool {
        let generation = self.generation;
        self.volumes.values().flat_map(|v| v.writing.keys()).any(|id| {
            self.tickets.map.get(id).is_some_and(|ticket| match ticket.state {
                State::Writing { peer: PeerPart::Sent(sent), .. } => sent != generation,
                State::Writing { peer, .. } => peer == PeerPart::NotSent,
                _ => false,
            })
        })
    }
}

//! Guest requests: their arrival, their answers, and reads.

use crate::clocks::PeerWait;
use crate::event::*;
use crate::machine::Mirror;
use crate::queue::RequestQueues;
use crate::store::Purpose;
use crate::types::*;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// Number of repairs of one block for one read. If the block is damaged again after these, the repair does not last here (the
/// disk does not keep it, or the peer that writes the volume has not sent it yet): the read is answered from the peer's copy
/// alone, and fails if that copy is damaged in another block.
const REPAIRS: u32 = 2;

/// State of a write at the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerPart {
    NotSent,
    /// Sent in this generation.
    Sent(u64),
    /// The peer holds the write.
    Held,
}

impl PeerPart {
    pub fn is_held(self) -> bool {
        self == PeerPart::Held
    }

    /// Whether the peer was asked to hold the write in this generation and has not replied.
    pub fn is_sent(self, generation: u64) -> bool {
        self == PeerPart::Sent(generation)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not started, or to be started again.
    Queued,
    /// A write at the store (as this command) and perhaps at the peer.
    Writing { op: StoreOp, stored: bool, peer: PeerPart },
    /// A read at the store or under repair.
    Reading,
    /// A flush that waits for a round or runs in one.
    Flushing,
}

number! {
    /// Number of a guest request, in the order of arrival.
    pub(crate) struct TicketId;
}

#[derive(Debug)]
pub(crate) struct Ticket {
    /// `None`: already answered, by a close of the volume.
    pub req: Option<RequestId>,
    pub volume: VolumeId,
    pub op: GuestOp,
    pub state: State,
    pub peer_wait: PeerWait,
    /// The local copy could not be read: the request starts only when the peer can be asked.
    pub needs_peer: bool,
    /// Number of repairs of each damaged block that ended for this request.
    pub repairs: BTreeMap<BlockIndex, u32>,
}

/// Requests by order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    next: TicketId,
    pub map: BTreeMap<TicketId, Ticket>,
    /// The requests in [`State::Queued`].
    pub queued: RequestQueues,
}

impl Tickets {
    pub fn open(&self) -> usize {
        self.map.values().filter(|ticket| ticket.req.is_some()).count()
    }

    /// Mask of the blocks of an extent that were damaged when this read was tried.
    pub fn repaired_in(&self, id: TicketId, extent: ExtentIndex) -> u16 {
        let repairs = self.map.get(&id).into_iter().flat_map(|ticket| ticket.repairs.keys());
        repairs.filter(|block| block.extent() == extent).fold(0, |mask, block| mask | 1 << block.place_in_extent())
    }

    /// Whether the request is a write in flight as this store command.
    pub fn writes_as(&self, id: TicketId, command: StoreOp) -> bool {
        self.map.get(&id).is_some_and(|t| matches!(t.state, State::Writing { op, .. } if op == command))
    }

    /// Whether guest requests wait or run; resync then uses the smaller window.
    pub fn busy(&self) -> bool {
        !self.map.is_empty()
    }
}

impl Mirror {
    pub(crate) fn on_guest(&mut self, req: RequestId, volume: VolumeId, op: GuestOp) {
        let peek = matches!(op, GuestOp::Peek { .. });
        let check = match self.volumes.get(&volume) {
            None => Err(GuestError::NoVolume),
            // The request was in transit when the volume was closed. It must not run when the volume is opened here
            // again.
            Some(_) if !peek && self.writer(volume) != Writer::Me => Err(GuestError::Closed),
            Some(state) => in_range(&op, state.blocks()),
        };
        if let Err(error) = check {
            self.out.push(Action::Complete { req, result: Err(error) });
            return;
        }
        let id = self.tickets.next.advance();
        self.tickets.map.insert(
            id,
            Ticket {
                req: Some(req),
                volume,
                op,
                state: State::Queued,
                peer_wait: PeerWait::default(),
                needs_peer: false,
                repairs: BTreeMap::new(),
            },
        );
        if let Some(ticket) = self.tickets.map.get(&id) {
            self.tickets.queued.insert(id, ticket);
        }
    }

    pub(crate) fn set_state(&mut self, id: TicketId, state: State) {
        if let Some(ticket) = self.tickets.map.get_mut(&id) {
            ticket.state = state;
        }
    }

    /// Reads wait for overlapping writes in flight: a fail-over could still undo such a write after a read returned it.
    pub(crate) fn start_read(&mut self, id: TicketId, volume: VolumeId, blocks: Range<BlockIndex>) -> bool {
        let needs_peer = self.tickets.map.get(&id).is_some_and(|ticket| ticket.needs_peer);
        let state = &self.volumes[&volume];
        let clash = state.writing.values().any(|w| w.blocks().start < blocks.end && blocks.start < w.blocks().end);
        if clash || (needs_peer && self.locked(volume, blocks.clone())) {
            return false;
        }
        if needs_peer && !self.peer_has(volume, &extents_of(blocks.clone())) {
            // The block is damaged here. The read waits for the peer's copy if both nodes are members. It waits as well if this
            // store refuses every command: whether the block is damaged is known when the store is opened again, in another
            // process. Otherwise it fails.
            let waits = self.both() || self.store.failed;
            if !waits {
                self.out.push(Action::Unreadable { volume, extent: blocks.start.extent() });
                self.complete(id, Err(GuestError::Corrupt));
            }
            return !waits;
        }
        self.set_state(id, State::Reading);
        self.volumes.get_mut(&volume).expect("looked up above").reading += 1;
        let read = StoreCommand::Read { volume, block: blocks.start, count: blocks.length() };
        self.command(read, Purpose::GuestRead { ticket: id });
        true
    }

    pub(crate) fn on_read_stored(&mut self, id: TicketId, result: Result<StoreOutput, StoreError>) {
        let Some(ticket) = self.tickets.map.get_mut(&id) else {
            return; // the volume was closed meanwhile
        };
        let volume = ticket.volume;
        let (block, count) = ticket.op.span();
        let bad = match result {
            Ok(StoreOutput::Data(data)) => {
                assert_eq!(data.len() as u64, count * BLOCK as u64, "the store answered a read with another length");
                self.read_over(volume);
                return self.complete(id, Ok(GuestReply::Data(data)));
            }
            Ok(_) => panic!("the store answered a read without data"),
            Err(StoreError::NoVolume) => {
                self.read_over(volume);
                return self.complete(id, Err(GuestError::NoVolume));
            }
            Err(StoreError::Corrupt { blocks }) => Some(blocks),
            Err(StoreError::Io | StoreError::NoSpace) => None,
        };
        ticket.needs_peer = true;
        let repaired_enough = |block: &BlockIndex| ticket.repairs.get(block).is_some_and(|repairs| *repairs >= REPAIRS);
        let repairable = bad.filter(|blocks| !blocks.iter().any(repaired_enough));
        if !self.peer_has(volume, &extents_of(block.run(count))) || self.locked(volume, block.run(count)) {
            return self.requeue_read(id, volume);
        }
        match repairable {
            Some(blocks) => self.heal_blocks(id, volume, &blocks),
            None => self.heal_all(id, volume, block.run(count)),
        }
    }

    /// A repair for this read has ended.
    pub(crate) fn count_repairs(&mut self, id: TicketId, blocks: impl Iterator<Item = BlockIndex>) {
        if let Some(ticket) = self.tickets.map.get_mut(&id) {
            blocks.for_each(|block| *ticket.repairs.entry(block).or_default() += 1);
        }
    }

    pub(crate) fn read_over(&mut self, volume: VolumeId) {
        if let Some(volume) = self.volumes.get_mut(&volume) {
            volume.reading -= 1;
        }
    }

    /// A read starts again from the queue, when the peer can be asked.
    pub(crate) fn requeue_read(&mut self, id: TicketId, volume: VolumeId) {
        self.read_over(volume);
        if self.tickets.map.contains_key(&id) {
            self.set_state(id, State::Queued);
            self.tickets.queued.insert(id, &self.tickets.map[&id]);
        }
    }

    pub(crate) fn locked(&self, volume: VolumeId, blocks: Range<BlockIndex>) -> bool {
        let extents = extents_of(blocks);
        self.locks.range((volume, extents.start)..(volume, extents.end)).next().is_some()
    }

    /// Answers a request and removes it.
    pub(crate) fn complete(&mut self, id: TicketId, result: Result<GuestReply, GuestError>) {
        let Some(ticket) = self.tickets.map.remove(&id) else {
            return;
        };
        self.tickets.queued.remove(id, &ticket);
        if let Some(volume) = self.volumes.get_mut(&ticket.volume) {
            volume.writing.remove(&id);
        }
        if let Some(req) = ticket.req {
            self.out.push(Action::Complete { req, result });
        }
    }

    /// Answers every request of a volume with an error. Writes in flight run to their end; their result is not
    /// reported.
    pub(crate) fn close(&mut self, volume: VolumeId, error: GuestError) {
        let ids: Vec<TicketId> =
            self.tickets.map.iter().filter(|(_, t)| t.volume == volume).map(|(&id, _)| id).collect();
        for id in ids {
            let ticket = self.tickets.map.get_mut(&id).expect("listed above");
            if let Some(req) = ticket.req.take() {
                self.out.push(Action::Complete { req, result: Err(error) });
            }
            match ticket.state {
                State::Writing { .. } => {}
                State::Reading => {
                    self.tickets.map.remove(&id);
                    self.abandon_heals(id);
                    self.read_over(volume);
                }
                State::Queued | State::Flushing => {
                    if let Some(ticket) = self.tickets.map.remove(&id) {
                        self.tickets.queued.remove(id, &ticket);
                    }
                }
            }
        }
    }

    /// This node left the in-sync set: no request of its guests may reach a store any more.
    pub(crate) fn close_all(&mut self) {
        let volumes: Vec<VolumeId> = self.volumes.keys().copied().collect();
        for volume in volumes {
            self.close(volume, GuestError::Closed);
        }
        self.requeue_all();
    }
}

fn in_range(op: &GuestOp, blocks: u64) -> Result<(), GuestError> {
    if matches!(op, GuestOp::Flush) {
        return Ok(());
    }
    if let GuestOp::Write { data, .. } = op
        && (data.len() > MAX_WRITE || !data.len().is_multiple_of(BLOCK))
    {
        return Err(GuestError::Range);
    }
    let (block, count) = op.span();
    match block.0.checked_add(count) {
        Some(end) if count > 0 && end <= blocks => Ok(()),
        _ => Err(GuestError::Range),
    }
}

/// Assembles blocks from images; `None` if one is missing or bad.
pub(crate) fn assemble(images: &BTreeMap<ExtentIndex, ExtentImage>, blocks: Range<BlockIndex>) -> Option<Bytes> {
    let mut data = Vec::with_capacity(blocks.length() as usize * BLOCK);
    for block in blocks.each() {
        let image = images.get(&block.extent())?;
        data.extend_from_slice(&image.block(block.place_in_extent())?);
    }
    Some(Bytes::from(data))
}

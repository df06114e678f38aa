//! [`Mirror`]: its state, the entry point `handle` for events, and the order in which `settle` lets each part continue.

use crate::changes::Changes;
use crate::clocks::Clocks;
use crate::copier::Copier;
use crate::dirty::Marks;
use crate::event::*;
use crate::flush::Flushes;
use crate::guest::{TicketId, Tickets};
use crate::handshake::Handshake;
use crate::heal::Heals;
use crate::peer::Link;
use crate::reconcile::Reconcile;
use crate::resync::Clean;
use crate::store::StoreQueue;
use crate::types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Gap added to each volume's write number at a start of the node. It must exceed the number of writes that the
/// previous process had numbered and a loss of power then took from the store, so that no number is used twice.
const START_GAP: u64 = 1 << 20;

/// What this node does with its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is no session with the peer, or `quorum` has given no view yet.
    Down,
    /// A session or an epoch began: volume tables and touched extents are exchanged.
    Handshake,
    /// Both nodes are members: extents that may differ are made equal; guest requests wait.
    Reconcile,
    /// Both nodes are members and equal: writes go to both stores.
    Steady,
    /// Only this node is a member: it copies the extents that differ to the peer.
    Source,
    /// Only the peer is a member: this node stores the writes and copies of the peer.
    Target,
}

/// A volume as the mirror sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Volume {
    pub size: u64,
    /// Newest stamp the local store is known to hold.
    pub last: Stamp,
    /// Highest number given to a write here or received from the peer.
    pub assigned: Seq,
    /// Highest number the peer sent since the handshake.
    pub heard: Seq,
    /// Highest number of a write that the peer has acknowledged since both replicas were last equal.
    pub held: Seq,
    /// Extents with a durable dirty mark.
    pub dirty: ExtentSet,
    /// This node completed writes that no confirmation covers yet.
    pub unconfirmed: bool,
    /// Guest writes in flight, by ticket.
    pub writing: BTreeMap<TicketId, Span>,
    /// Guest reads in flight.
    pub reading: usize,
}

/// The blocks and the number of a write in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub block: BlockIndex,
    pub count: u64,
    pub seq: Seq,
    /// The share of [`Tuning::flight`] that it takes, in bytes.
    pub weight: usize,
}

impl Span {
    pub fn blocks(&self) -> Range<BlockIndex> {
        self.block.run(self.count)
    }
}

impl Volume {
    /// Every write up to this number is complete.
    pub fn completed_through(&self) -> Seq {
        self.writing.values().map(|span| Seq(span.seq.0 - 1)).min().unwrap_or(self.assigned)
    }

    pub fn blocks(&self) -> u64 {
        self.size / BLOCK as u64
    }

    /// From 0 to the last one, which may be partly beyond the end.
    pub fn extents(&self) -> Range<ExtentIndex> {
        ExtentIndex(0).run(self.blocks().div_ceil(EXTENT_BLOCKS))
    }
}

/// Replication of all volumes on one node. The guarantees are listed at the head of the crate.
#[derive(Debug)]
pub struct Mirror {
    pub(crate) now: BootTime,
    pub(crate) tuning: Tuning,
    pub(crate) view: Option<View>,
    pub(crate) hold: bool,
    /// The local replica holds no write that a fail-over could undo, besides those in flight.
    pub(crate) trusted: bool,
    pub(crate) writers: BTreeMap<VolumeId, Writer>,
    pub(crate) volumes: BTreeMap<VolumeId, Volume>,
    pub(crate) phase: Phase,
    /// Incremented at each handshake and each loss of the session; replies to requests of an older generation are
    /// ignored.
    pub(crate) generation: u64,
    pub(crate) tickets: Tickets,
    pub(crate) clocks: Clocks,
    pub(crate) link: Link,
    pub(crate) store: StoreQueue,
    pub(crate) handshake: Option<Handshake>,
    pub(crate) reconcile: Option<Reconcile>,
    pub(crate) copier: Option<Copier>,
    pub(crate) clean: Clean,
    pub(crate) flushes: Flushes,
    pub(crate) marks: Marks,
    pub(crate) heals: Heals,
    pub(crate) changes: Changes,
    /// Extents being copied or repaired; guest writes to them wait.
    pub(crate) locks: BTreeSet<(VolumeId, ExtentIndex)>,
    /// Locked extents to be copied whose writes in flight are not in the store yet.
    pub(crate) copy_waits: BTreeSet<(VolumeId, ExtentIndex)>,
    /// Volumes that this node may no longer write and that still have requests in flight.
    pub(crate) draining: BTreeSet<VolumeId>,
    /// Something changed that may let writes in flight complete.
    pub(crate) recheck: bool,
    pub(crate) out: Vec<Action>,
}

impl Mirror {
    /// Starts from the inventory of the store. The mirror does nothing before the first [`Event::View`].
    pub fn new(now: BootTime, tuning: Tuning, inventory: Inventory) -> Self {
        let mut volumes = BTreeMap::new();
        for info in inventory.volumes {
            let volume = Volume {
                size: info.size,
                last: info.last,
                assigned: Seq(info.last.seq.0 + START_GAP),
                ..Volume::default()
            };
            volumes.insert(info.id, volume);
        }
        for (id, dirty) in inventory.dirty {
            if let Some(volume) = volumes.get_mut(&id) {
                volume.dirty.union(&dirty);
            }
        }
        Self {
            now,
            tuning,
            view: None,
            hold: false,
            trusted: false,
            writers: BTreeMap::new(),
            volumes,
            phase: Phase::Down,
            generation: 0,
            tickets: Tickets::default(),
            clocks: Clocks::new(now),
            link: Link::default(),
            store: StoreQueue::default(),
            handshake: None,
            reconcile: None,
            copier: None,
            clean: Clean::No,
            flushes: Flushes::default(),
            marks: Marks::default(),
            heals: Heals::default(),
            changes: Changes::default(),
            locks: BTreeSet::new(),
            copy_waits: BTreeSet::new(),
            draining: BTreeSet::new(),
            recheck: false,
            out: Vec::new(),
        }
    }

    /// Handles one event and appends the actions, in the order in which they must be carried out, to `out`. `now`
    /// must not decrease.
    pub fn handle(&mut self, now: BootTime, event: Event, out: &mut Vec<Action>) {
        assert!(now >= self.now, "the clock went back");
        self.now = now;
        match event {
            Event::Tick => self.on_tick(),
            Event::Guest { req, volume, op } => self.on_guest(req, volume, op),
            Event::Volume { req, change } => self.on_change(req, change),
            Event::Stored { op, result } => self.on_stored(op, result),
            Event::StoreProgress { op, steps } => self.on_store_progress(op, steps),
            Event::PeerUp { session } => self.on_peer_up(session),
            Event::PeerDown { session } => {
                if self.link.session == Some(session) {
                    self.on_peer_down();
                }
            }
            Event::Peer { session, message } => {
                if self.link.session == Some(session) {
                    self.on_message(message);
                }
            }
            Event::View(view) => self.on_view(view),
            Event::Writer { volume, writer } => self.on_writer(volume, writer),
            Event::Close { volume } => self.close(volume, GuestError::Closed),
            Event::Hold => self.hold = true,
            Event::Resume => self.hold = false,
            Event::Damaged { volume, extent } => self.on_damaged(volume, extent),
            Event::SpaceFreed => self.store.retry_now(),
        }
        self.settle();
        out.append(&mut self.out);
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The volume table, ascending by id.
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        self.volumes.iter().map(|(&id, volume)| VolumeInfo { id, size: volume.size, last: volume.last }).collect()
    }

    /// Number of extents marked dirty, over all volumes.
    pub fn dirty_extents(&self) -> u64 {
        self.volumes.values().map(|volume| volume.dirty.len()).sum()
    }

    /// Number of guest requests that are not answered yet.
    pub fn open_requests(&self) -> usize {
        self.tickets.open()
    }

    /// Whether resync is complete and the peer may be made a member (the state after [`Action::PeerClean`]).
    pub fn peer_clean(&self) -> bool {
        self.clean == Clean::Yes
    }

    /// Whether the local replica holds every acknowledged write.
    pub fn in_sync(&self) -> bool {
        self.view.is_some_and(|view| view.me)
    }

    /// Both nodes are in the in-sync set.
    pub(crate) fn both(&self) -> bool {
        self.view.is_some_and(|view| view.me && view.peer)
    }

    /// Whether a write completes only when the peer holds it: the peer is a member, or is about to be one.
    pub(crate) fn writes_need_peer(&self) -> bool {
        self.view.is_some_and(|view| view.peer || view.ack_peer) || self.clean != Clean::No
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.view.map_or(Epoch(0), |view| view.epoch)
    }

    pub(crate) fn writer(&self, volume: VolumeId) -> Writer {
        self.writers.get(&volume).copied().unwrap_or(Writer::None)
    }

    fn on_view(&mut self, view: View) {
        let old = self.view.replace(view);
        if let Some(old) = old {
            assert!(view.epoch >= old.epoch, "the view went back from epoch {} to {}", old.epoch, view.epoch);
        }
        self.recheck = true;
        let same = old.is_some_and(|old| (old.epoch, old.me, old.peer) == (view.epoch, view.me, view.peer));
        if same {
            // Only the acknowledgement set changed: writes in flight that were kept local are sent to the peer as well.
            if view.ack_peer {
                self.requeue_unsent();
            }
            return;
        }
        if !view.me {
            self.trusted = false;
            self.close_all();
        } else if !view.peer {
            self.trusted = true;
        }
        self.restart_handshake();
    }

    fn on_writer(&mut self, volume: VolumeId, writer: Writer) {
        let old = self.writers.insert(volume, writer).unwrap_or(Writer::None);
        if writer == Writer::Peer
            && let Some(state) = self.volumes.get_mut(&volume)
        {
            state.unconfirmed = false; // the peer confirms from now on, older writes included
        }
        match (old, writer) {
            (_, Writer::Me) => {
                self.draining.remove(&volume);
            }
            (Writer::Me, _) => {
                self.draining.insert(volume);
                self.close(volume, GuestError::Closed);
            }
            _ => {}
        }
    }

    fn on_tick(&mut self) {
        if self.store.retry_due(self.now, &self.tuning) {
            self.store.retry_now();
        }
        self.recheck |= std::mem::take(&mut self.marks.paused);
        self.tick_clocks();
        self.tick_copier();
        self.tick_flush();
    }

    /// Invariant pass after each event: starts every request, command and message whose conditions are met now.
    fn settle(&mut self) {
        self.pump_store();
        self.advance_handshake();
        self.advance_copier();
        self.pump_copy_reads();
        self.advance_reconcile();
        self.advance_resync();
        if std::mem::take(&mut self.recheck) {
            self.finish_writes();
        }
        self.pump_changes();
        self.pump_heals();
        self.pump_guests();
        self.pump_flush();
        self.pump_marks();
        self.report_drained();
        self.check();
    }

    fn report_drained(&mut self) {
        let done: Vec<VolumeId> = self
            .draining
            .iter()
            .copied()
            .filter(|id| {
                let locked = self.locks.range((*id, ExtentIndex(0))..=(*id, ExtentIndex(u64::MAX))).next().is_some();
                !locked && self.volumes.get(id).is_none_or(|v| v.writing.is_empty() && v.reading == 0)
            })
            .collect();
        for volume in done {
            self.draining.remove(&volume);
            self.out.push(Action::Drained { volume });
        }
    }

    /// Asserts which parts of the state exist in each phase. Also in release builds.
    fn check(&self) {
        let view = self.view;
        match self.phase {
            Phase::Down => assert!(self.copier.is_none() && self.handshake.is_none()),
            Phase::Handshake => assert!(self.handshake.is_some() && self.copier.is_none()),
            Phase::Reconcile => assert!(self.reconcile.is_some() && self.both()),
            Phase::Steady => assert!(self.both() && self.trusted && self.reconcile.is_none()),
            Phase::Source => assert!(self.copier.is_some() && view.is_some_and(|v| v.me && !v.peer)),
            Phase::Target => assert!(view.is_some_and(|v| !v.me) && self.copier.is_none()),
        }
        assert!(self.clean == Clean::No || self.phase == Phase::Source);
    }
}

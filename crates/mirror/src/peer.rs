//! The session with the peer: message numbers, epochs, requests and their replies.

use crate::changes::VolumeChangeId;
use crate::clocks::Awake;
use crate::event::{Action, Reason};
use crate::flush::{Replica, RoundId};
use crate::guest::TicketId;
use crate::heal::HealId;
use crate::machine::{Mirror, Phase};
use crate::message::{Answer, Body, PeerMessage, PeerOp, PeerOpError};
use crate::progress::PeerProgress;
use crate::types::*;
use std::collections::BTreeMap;

/// Limit of the messages of a newer epoch that are kept until `quorum` gives the view of that epoch. A handshake
/// sends a volume table and a few frames of ranges, far below this; beyond it the session is closed.
const MAX_EARLY: usize = 65_536;

/// An open request to the peer: what its reply is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    Write {
        ticket: TicketId,
        store_op: StoreOp,
    },
    Copy {
        volume: VolumeId,
        extent: ExtentIndex,
    },
    RoundSync {
        round: RoundId,
    },
    BarrierSync,
    Change {
        id: VolumeChangeId,
    },
    HealFetch {
        heal: HealId,
        extent: ExtentIndex,
    },
    ReconcileFetch {
        volume: VolumeId,
        extent: ExtentIndex,
        mine: ExtentImage,
    },
    /// The result is not used.
    IgnoreResult,
}

/// An open request to the peer and its clock.
#[derive(Debug)]
pub(crate) struct OpenAsk {
    pub sent: Awake,
    /// The time since which the peer owes the reply: `sent`, or later if the peer had a reason to be late.
    pub since: Awake,
    pub ask: Ask,
}

/// State of the current session.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub session: Option<Session>,
    sent: u64,
    received: u64,
    /// Messages of an epoch newer than this node's view, kept until that view arrives; at most [`MAX_EARLY`].
    early: Vec<PeerMessage>,
    next_ask: PeerOp,
    /// Open requests, by the order in which they were sent.
    pub asks: BTreeMap<PeerOp, OpenAsk>,
    /// The peer's pool is full: its replies may be late.
    pub peer_full: bool,
    /// Time of the last message of this epoch.
    pub heard: Awake,
    pub peer_progress: PeerProgress,
}

impl Link {
    /// Number of the next request.
    pub fn next_ask(&self) -> PeerOp {
        self.next_ask.next()
    }

    /// Whether every request before this one was answered.
    pub fn answered_before(&self, op: PeerOp) -> bool {
        self.asks.keys().next().is_none_or(|&first| first >= op)
    }
}

impl Mirror {
    pub(crate) fn on_peer_up(&mut self, session: Session) {
        if self.link.session.is_some() {
            self.on_peer_down();
        }
        self.link.session = Some(session);
        self.link.sent = 0;
        self.link.received = 0;
        self.link.peer_progress = PeerProgress::default();
        self.restart_handshake();
    }

    pub(crate) fn on_peer_down(&mut self) {
        self.link.session = None;
        self.link.early.clear();
        self.charge_reconciliation();
        self.reset_peer();
    }

    /// Drops all state of the current generation and starts the next one.
    pub(crate) fn reset_peer(&mut self) {
        self.generation += 1;
        self.link.asks.clear();
        self.link.heard = self.awake();
        if std::mem::take(&mut self.link.peer_full) {
            self.out.push(Action::Full { peer: true, full: false });
        }
        if self.peer_clean() {
            self.out.push(Action::PeerDirty);
        }
        self.clean = crate::resync::Clean::No;
        self.phase = Phase::Down;
        self.handshake = None;
        self.reconcile = None;
        self.copier = None;
        self.locks.clear();
        self.copy_waits.clear();
        self.abort_heals();
        self.requeue_changes();
        self.restart_round();
        self.recheck = true;
    }

    pub(crate) fn send(&mut self, body: Body) {
        if self.link.session.is_none() {
            return;
        }
        self.link.sent += 1;
        self.out.push(Action::Send(PeerMessage { number: self.link.sent, epoch: self.epoch(), body }));
    }

    pub(crate) fn disconnect(&mut self, reason: Reason) {
        if self.link.session.is_some() {
            self.on_peer_down();
            self.out.push(Action::Disconnect(reason));
        }
    }

    /// Registers a request; the caller sends it with the number returned.
    pub(crate) fn ask(&mut self, ask: Ask) -> PeerOp {
        let op = self.link.next_ask.advance();
        let now = self.awake();
        self.link.asks.insert(op, OpenAsk { sent: now, since: now, ask });
        op
    }

    pub(crate) fn answer(&mut self, op: PeerOp, result: Result<Answer, PeerOpError>) {
        self.send(Body::Done { op, result });
    }

    pub(crate) fn on_message(&mut self, message: PeerMessage) {
        if message.number <= self.link.received {
            return; // a repeated message
        }
        if message.number != self.link.received + 1 {
            return self.disconnect(Reason::MissingMessage);
        }
        self.link.received = message.number;
        let known = self.view.map_or(Epoch(0), |view| view.epoch);
        if message.epoch < known {
            if message.body != Body::Newer {
                self.send(Body::Newer);
            }
            return;
        }
        if message.epoch > known || self.view.is_none() {
            if self.link.early.len() >= MAX_EARLY {
                return self.disconnect(Reason::Protocol);
            }
            if self.link.early.last().is_none_or(|last| last.epoch != message.epoch) {
                self.out.push(Action::NewerEpoch(message.epoch));
            }
            self.link.early.push(message);
            return;
        }
        self.on_body(message.body);
    }

    /// A new view is known: handles the messages of its epoch that arrived before it.
    pub(crate) fn replay_early(&mut self) {
        let epoch = self.epoch();
        let early = std::mem::take(&mut self.link.early);
        for message in early {
            if message.epoch > epoch {
                self.link.early.push(message);
            } else if message.epoch == epoch {
                self.on_body(message.body);
            }
        }
    }

    fn on_body(&mut self, body: Body) {
        use Phase::*;
        if let Body::StoreProgress { steps } = body {
            return self.on_peer_progress(steps);
        }
        self.link.heard = self.awake();
        self.link.peer_progress.other_message();
        match (self.phase, body) {
            (_, Body::Newer | Body::StoreProgress { .. }) => {}
            (_, Body::Full(full)) => {
                if self.link.peer_full != full {
                    self.link.peer_full = full;
                    // The peer begins only now with the requests that waited for space.
                    let now = self.awake();
                    self.link.asks.values_mut().for_each(|open| open.since = now);
                    self.out.push(Action::Full { peer: true, full });
                }
            }
            (Handshake, Body::Hello { volumes }) => self.on_hello(volumes),
            (Handshake, Body::Touched { volume, ranges }) => self.on_touched(volume, ranges),
            (Handshake, Body::Ready) => self.on_ready(),
            (Steady | Target, Body::Write { op, volume, seq, block, data }) => {
                let stamp = Stamp { epoch: self.epoch(), seq };
                self.on_peer_write(op, volume, stamp, block, data);
            }
            (Steady | Target | Reconcile, Body::Extent { op, volume, stamp, extent, image }) => {
                self.on_peer_extent(op, volume, stamp, extent, image, 0);
            }
            (Target | Reconcile, Body::ExtentWithLost { op, volume, stamp, extent, image, lost }) => {
                self.on_peer_extent(op, volume, stamp, extent, image, lost);
            }
            (Steady | Target, Body::Volume { op, change }) => self.on_peer_volume(op, change),
            (Steady | Target, Body::Sync { op }) => self.on_peer_sync(op),
            (Steady | Target | Reconcile, Body::Fetch { op, volume, extent }) => {
                self.on_peer_fetch(op, volume, extent);
            }
            (Steady, Body::Want { volume, extent }) => self.on_peer_want(volume, extent),
            (Steady | Target | Reconcile, Body::Confirm { through }) => self.on_peer_confirm(through),
            (Steady | Source | Target | Reconcile, Body::Done { op, result }) => self.on_done(op, result),
            (Reconcile, Body::Copied) => self.on_copied(),
            (Reconcile, Body::Synced) => self.on_synced(),
            _ => self.disconnect(Reason::Protocol),
        }
    }

    fn on_done(&mut self, op: PeerOp, result: Result<Answer, PeerOpError>) {
        let Some(OpenAsk { ask, .. }) = self.link.asks.remove(&op) else {
            return;
        };
        match (ask, result) {
            (Ask::Write { ticket, store_op }, Ok(_)) => self.on_write_held(ticket, store_op),
            (Ask::RoundSync { round }, Ok(_)) => self.on_round_synced(round, Replica::Peer, true),
            (Ask::BarrierSync, Ok(_)) => self.on_barrier_synced(true),
            // The volume was deleted at the peer. The deletion will arrive here and answers the guest.
            (Ask::Write { .. }, Err(PeerOpError::Unreadable)) => {}
            (Ask::Write { .. } | Ask::RoundSync { .. } | Ask::BarrierSync, Err(_)) => self.peer_failed(),
            (Ask::Copy { volume, extent }, result) => self.on_copy_held(volume, extent, result.is_ok()),
            (Ask::Change { id }, result) => self.on_change_held(id, result.is_ok()),
            (Ask::HealFetch { heal, extent }, result) => self.on_heal_fetched(heal, extent, image_of(result)),
            (Ask::ReconcileFetch { volume, extent, mine }, result) => {
                self.on_reconcile_fetched(volume, extent, mine, image_of(result));
            }
            (Ask::IgnoreResult, _) => {}
        }
    }

    /// The peer refused a write or sync that it must hold: its disks fail.
    fn peer_failed(&mut self) {
        if self.writes_need_peer() && self.view.is_some_and(|view| view.peer || view.ack_peer) {
            self.out.push(Action::PeerStuck);
        }
        if !self.both() {
            self.disconnect(Reason::Stalled);
        }
    }
}

fn image_of(result: Result<Answer, PeerOpError>) -> Option<ExtentImage> {
    match result {
        Ok(Answer::Extent(image)) if image.is_valid() => Some(image),
        _ => None,
    }
}

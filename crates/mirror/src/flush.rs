//! Flushes: collected into rounds. A round is one sync here and, when the peer must hold writes, one sync at the peer.
//!
//! A round covers the writes completed before it began. A round that both nodes finished also confirms these writes:
//! the lists of unconfirmed extents of both stores may drop them.

use crate::event::StoreCommand;
use crate::guest::TicketId;
use crate::machine::{Mirror, Phase};
use crate::message::Body;
use crate::peer::Ask;
use crate::store::Purpose;
use crate::types::*;

/// One of the two replicas that a round syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replica {
    Local,
    Peer,
}

number! {
    /// Identifies a round.
    pub(crate) struct RoundId;
}

#[derive(Debug)]
struct Round {
    id: RoundId,
    tickets: Vec<TicketId>,
    local: bool,
    /// `None`: the peer takes no part; otherwise whether it has synced.
    peer: Option<bool>,
    confirm: Vec<(VolumeId, Seq)>,
}

/// The round under way and the flushes that wait for the next one.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    next: RoundId,
    round: Option<Round>,
    /// Tickets that join the next round.
    pub waiting: Vec<TicketId>,
    /// A round without a flush shall start, to confirm completed writes.
    due: bool,
    last: BootTime,
}

impl Flushes {
    /// Whether the round under way waits for the peer's sync.
    pub fn waits_for_peer(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.peer == Some(false))
    }
}

impl Mirror {
    pub(crate) fn tick_flush(&mut self) {
        if self.phase == Phase::Steady && self.now >= self.flushes.last + self.tuning.confirm {
            self.flushes.due = self.volumes.iter().any(|(&id, v)| v.unconfirmed && self.writer(id) != Writer::Peer);
        }
    }

    /// Cancels the round under way; its flushes join the next one.
    pub(crate) fn restart_round(&mut self) {
        if let Some(round) = self.flushes.round.take() {
            self.flushes.waiting.extend(round.tickets);
        }
    }

    pub(crate) fn pump_flush(&mut self) {
        if self.flushes.round.is_some() || (self.flushes.waiting.is_empty() && !self.flushes.due) {
            return;
        }
        let ready = match self.phase {
            Phase::Steady | Phase::Source => true,
            Phase::Reconcile | Phase::Target => false,
            Phase::Down | Phase::Handshake => self.trusted && self.in_sync() && !self.writes_need_peer(),
        };
        if !ready {
            return;
        }
        self.flushes.waiting.retain(|id| self.tickets.map.contains_key(id));
        if self.flushes.waiting.is_empty() && !self.flushes.due {
            return;
        }
        self.flushes.due = false;
        self.flushes.last = self.now;
        let id = self.flushes.next.advance();
        let peer = self.writes_need_peer().then_some(false);
        let confirm = if self.phase == Phase::Steady { self.completed() } else { Vec::new() };
        if self.phase == Phase::Steady {
            for (volume, _) in &confirm {
                // Set again by the next write; a write in flight now is completed later and sets it as well.
                self.volumes.get_mut(volume).expect("listed from it").unconfirmed = false;
            }
        }
        let tickets = std::mem::take(&mut self.flushes.waiting);
        self.flushes.round = Some(Round { id, tickets, local: false, peer, confirm });
        self.command(StoreCommand::Sync, Purpose::RoundSync { round: id });
        if peer.is_some() {
            let op = self.ask(Ask::RoundSync { round: id });
            self.send(Body::Sync { op });
        }
    }

    /// For each volume that this node may confirm, the number up to which every write is complete.
    pub(crate) fn completed(&self) -> Vec<(VolumeId, Seq)> {
        self.volumes
            .iter()
            .filter(|(id, volume)| volume.unconfirmed && self.writer(**id) != Writer::Peer)
            .map(|(&id, volume)| (id, volume.completed_through()))
            .collect()
    }

    pub(crate) fn on_round_synced(&mut self, id: RoundId, replica: Replica, ok: bool) {
        let Some(round) = self.flushes.round.as_mut().filter(|round| round.id == id) else {
            return;
        };
        if !ok {
            return; // a disk failed: the flush waits until `quorum` removes or fences its node
        }
        match replica {
            Replica::Local => round.local = true,
            Replica::Peer => round.peer = Some(true),
        }
        self.finish_round();
    }

    fn finish_round(&mut self) {
        let Some(round) = &self.flushes.round else {
            return;
        };
        if !round.local || round.peer == Some(false) {
            return;
        }
        assert!(round.peer.is_some() || !self.writes_need_peer() || self.phase == Phase::Source);
        let round = self.flushes.round.take().expect("looked at above");
        for id in round.tickets {
            self.complete(id, Ok(GuestReply::Done));
        }
        if !round.confirm.is_empty() {
            self.confirm(round.confirm);
        }
    }

    /// Tells both stores that both hold these writes durably.
    pub(crate) fn confirm(&mut self, through: Vec<(VolumeId, Seq)>) {
        for &(volume, seq) in &through {
            self.command(StoreCommand::Confirm { volume, seq }, Purpose::IgnoreResult);
        }
        self.send(Body::Confirm { through });
    }
}

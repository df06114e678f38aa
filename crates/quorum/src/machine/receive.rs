//! Handling of the peer's datagrams and the witness's answers; sending of heartbeats and of reads of the witness.

use super::*;
use crate::event::{Action, Note};
use crate::lease::SentAt;
use crate::message::{Echo, Health, Heartbeat, Learn, ReplyBody, VoteRefusal, WitnessRequest, WitnessRequestId};
use crate::witness_state::Relay;

/// Maximum number of the peer's requests to the witness that this node passes on and that are not answered yet.
const MAX_RELAYS: usize = 8;

impl Quorum {
    pub(super) fn on_datagram(&mut self, path: u8, datagram: Datagram, out: &mut Vec<Action>) {
        if datagram.pair != self.setup.pair || datagram.from != self.peer_id() {
            return;
        }
        match &datagram.body {
            DatagramBody::Heartbeat(beat) => self.on_heartbeat(path, &datagram, beat, out),
            DatagramBody::Grant(echo) => {
                if self.is_peer_store(datagram.incarnation) && self.is_own(echo) {
                    self.leases.renew(self.now, SentAt(echo.sent), &self.setup.timing);
                }
            }
            DatagramBody::TryDecide(request) => self.on_vote_request(path, request, out),
            DatagramBody::Reply(reply) => {
                if reply.from == Acceptor::from(self.peer_id()) && self.is_peer_store(datagram.incarnation) {
                    self.on_reply(reply);
                }
            }
            DatagramBody::Relay(number, request) => self.on_relay(path, *number, request, out),
            DatagramBody::RelayReply(number, reply) => {
                if reply.from == Acceptor::W
                    && self.proposals.active.as_ref().is_some_and(|active| active.request_id == *number)
                {
                    self.on_reply(reply);
                }
            }
        }
    }

    fn is_own(&self, echo: &Echo) -> bool {
        echo.boot == self.setup.boot && echo.started == self.started
    }

    fn on_heartbeat(&mut self, path: u8, datagram: &Datagram, beat: &Heartbeat, out: &mut Vec<Action>) {
        let mine = (self.setup.boot, self.started);
        let heard = self.peer.hear(self.now, usize::from(path), datagram, beat, mine, &self.setup.timing);
        self.register.learn(&beat.base);
        if !heard.confirmed {
            return;
        }
        self.peer.judge(self.now, &self.setup.timing);
        if heard.new_boot {
            self.leases.record_proof(Proof::NewBoot);
        }
        let same_store = self.is_peer_store(datagram.incarnation);
        if same_store {
            self.peer.watchdog_proven = beat.health.watchdog_proven;
        }
        let base = self.register.base();
        if beat.base.witness == base.witness && beat.base.incarnations[2] == base.incarnations[2] {
            self.witness.witness_changes = self.witness.witness_changes.max(beat.witness_changes);
        }
        if same_store && beat.base == *base && !base.members.has(self.peer_id()) {
            // D1: the peer stopped its VMs before it adopted the configuration that removes it.
            self.leases.record_proof(Proof::Removed);
        }
        let now = self.now;
        if same_store && !self.peer.drifts() && self.with_rights(now, |rights| rights.may_grant(&beat.base)) {
            self.leases.grant(now, &self.setup.timing);
            let echo = Echo { boot: datagram.boot, started: datagram.started, sent: beat.sent };
            out.push(Action::Send { path: Some(path), datagram: self.datagram(DatagramBody::Grant(echo)) });
        }
    }

    /// Time from which on a peer that is not heard counts as silent. It lies in the future while it is too early to
    /// judge.
    pub(super) fn silent_from(&self) -> BootTime {
        let timing = &self.setup.timing;
        // Without VMs this node may have just booted, so the peer gets time to boot as well. With VMs only the daemon
        // restarted.
        let no_vms = self.vms.state == VmState::None;
        let wait = if no_vms { timing.cold_start_delay } else { timing.detection_delay() };
        let from = self.peer.lost_at.unwrap_or(self.started + wait);
        // A heartbeat that was sent before the end of the session may arrive after it, by at most one heartbeat
        // interval; a later arrival means that the peer's daemon runs, and the end of the session postpones nothing.
        match self.peer.session_closed_at {
            Some(closed) if self.peer.heard_at() <= closed + timing.heartbeat_interval && !self.peer.is_dead() => {
                from.max(closed + timing.restart_timeout())
            }
            _ => from,
        }
    }

    fn on_relay(&mut self, path: u8, number: WitnessRequestId, request: &WitnessRequest, out: &mut Vec<Action>) {
        let from_peer = request.sender() == self.peer_id() && request.pair() == self.setup.pair;
        if from_peer {
            if self.witness.relayed_for_peer.len() == MAX_RELAYS {
                // The oldest is forgotten: if it is still answered, the peer does not get the answer.
                self.witness.relayed_for_peer.remove(0);
            }
            let id = WitnessRequestId(self.next_id());
            self.witness.relayed_for_peer.push(Relay { id, path, peer_id: number });
            out.push(Action::AskWitness { id, request: request.clone() });
        }
    }

    pub(super) fn on_witness(&mut self, id: WitnessRequestId, reply: WitnessReply, out: &mut Vec<Action>) {
        if let Some(index) = self.witness.relayed_for_peer.iter().position(|relay| relay.id == id) {
            let Relay { path, peer_id, .. } = self.witness.relayed_for_peer.remove(index);
            if let WitnessReply::Received(reply) = reply {
                out.push(Action::Send {
                    path: Some(path),
                    datagram: self.datagram(DatagramBody::RelayReply(peer_id, reply)),
                });
            }
            return;
        }
        let timing = &self.setup.timing;
        let was_read = self.witness.read.take_if(|(read, _)| *read == id).is_some();
        match reply {
            WitnessReply::Received(reply) => {
                let usable = self.on_reply(&reply);
                if usable {
                    self.witness.answered(self.now);
                } else if was_read {
                    self.witness.missed(self.now);
                }
                if was_read {
                    self.witness.next_read = self.now + self.setup.timing.witness_poll_interval;
                }
            }
            WitnessReply::NoAnswer => {
                if was_read {
                    self.witness.missed(self.now);
                    self.witness.next_read = self.now + timing.witness_retry_interval;
                }
                if let Some(active) = self.proposals.active.as_mut().filter(|active| active.request_id == id) {
                    active.waiting = false;
                    self.witness.missed(self.now);
                    self.relay(out);
                }
            }
        }
    }

    /// Handles an acceptor's reply. Returns whether it is usable: its store is admitted by the base or by the newer
    /// configuration in it, and it is no refusal of the witness.
    pub(super) fn on_reply(&mut self, reply: &AcceptorReply) -> bool {
        let base = self.register.base();
        if let ReplyBody::Newer(newer) | ReplyBody::Base(newer) = &reply.body {
            // A witness that was enrolled later than this node's base is admitted by the configuration in its reply.
            let admitted = reply.from != Acceptor::W
                || (newer.witness == reply.witness && newer.incarnations[2] == reply.incarnation);
            if admitted && newer.rank() > base.rank() {
                self.register.learn(newer);
                return true;
            }
        }
        if reply.from == Acceptor::W {
            if reply.witness != base.witness || reply.incarnation != base.incarnations[2] {
                return false;
            }
            if reply.body == ReplyBody::Refused(VoteRefusal::RolledBack) {
                self.witness.rolled_back = true;
            }
            if reply.body == ReplyBody::Refused(VoteRefusal::Conflict) {
                self.register.conflict_reported();
            }
            if self.witness.rolled_back || matches!(reply.body, ReplyBody::Refused(_)) {
                return false;
            }
            self.witness.witness_changes = self.witness.witness_changes.max(reply.witness_changes);
        } else if reply.incarnation != base.incarnations[reply.from.index()] {
            return false;
        }
        match &reply.body {
            ReplyBody::Base(theirs) => {
                self.register.detect_conflict(theirs);
                self.witness.learned(theirs);
            }
            ReplyBody::Accepted(ballot, value) => self.proposals.on_accepted(reply.from, *ballot, value),
            ReplyBody::Nack(ballot, promised) => self.on_nack(*ballot, *promised),
            ReplyBody::Promise(..) | ReplyBody::Newer(_) | ReplyBody::Refused(_) => {}
        }
        true
    }

    /// Sends heartbeats and reads of the witness that are due.
    pub(super) fn send_due(&mut self, out: &mut Vec<Action>) {
        if self.now >= self.peer.next_heartbeat() {
            let number = self.peer.begin_heartbeat(self.now, &self.setup.timing);
            for path in 0..self.peer.path_count() {
                let beat = Heartbeat {
                    number,
                    sent: self.now,
                    base: self.register.base().clone(),
                    heard: self.peer.echo(path),
                    health: self.health(),
                    witness_changes: self.witness.witness_changes,
                    storage_answers: self.own.storage_answers,
                };
                let datagram = self.datagram(DatagramBody::Heartbeat(beat));
                out.push(Action::Send { path: Some(path as u8), datagram });
            }
        }
        self.witness.expire(self.now, &self.setup.timing);
        if self.witness_is_enrolled() && self.witness.read.is_none() && self.now >= self.witness.next_read {
            let id = WitnessRequestId(self.next_id());
            self.witness.read = Some((id, self.now));
            let request = WitnessRequest::Learn(Learn {
                pair: self.setup.pair,
                sender: self.setup.me,
                base: self.register.base().clone(),
                witness_changes: self.witness.witness_changes,
            });
            out.push(Action::AskWitness { id, request });
        }
        let lost = self.witness_lost();
        if lost != self.announced.witness_lost {
            self.announced.witness_lost = lost;
            out.push(Action::Note(if lost { Note::WitnessLost } else { Note::WitnessBack }));
        }
    }

    /// Whether no node is known to reach the witness: it does not answer this node, and the peer reports the same or is
    /// not heard.
    pub(super) fn witness_lost(&self) -> bool {
        let lost_here = self.witness.lost_for(self.now).is_some();
        let lost_there = self.peer.health().is_none_or(|health| health.witness_lost_ms > 0);
        self.witness_is_enrolled() && lost_here && (lost_there || self.peer.alive_since.is_none())
    }

    fn health(&self) -> Health {
        let lost = self.witness.lost_for(self.now).map_or(0, |lost| (lost / crate::timing::MS).max(1));
        Health {
            healthy: self.own.healthy,
            register_writable: !self.register_failed(),
            leaving: self.own.leaving,
            watchdog_proven: self.own.watchdog_proven,
            witness_lost_ms: u32::try_from(lost).unwrap_or(u32::MAX),
        }
    }
}

//! Driving decisions: begin, repeat, conclude, give up.

use super::goal::Goal;
use super::*;
use crate::event::Action;
use crate::message::WitnessAsk;
use crate::proposer::{self, Plan, Wish};

impl Quorum {
    /// Brings the register forward as far as it goes without another event.
    pub(super) fn drive(&mut self, out: &mut Vec<Action>) {
        self.beat(out);
        if self.failed.is_some() || self.write.is_some() {
            return;
        }
        self.take_over(out);
        self.retry_asked(out);
        self.conclude(out);
        if self.write.is_none() && self.heard.is_none() && self.asked.is_none() {
            self.pursue(out);
        }
        if self.write.is_none() && self.witness.seen > self.record.mark && self.witness.lost_for(self.now).is_none() {
            // Noted durably, so that a witness rolled back while this node was off is found out.
            self.persist(self.record.clone(), AfterPersist::Nothing, out);
        }
    }

    /// Makes a newer chosen configuration, or a forced one, the durable base once the VMs are as it demands.
    fn take_over(&mut self, out: &mut Vec<Action>) {
        if self.heard.as_ref().is_some_and(|heard| heard.rank() <= self.record.base.rank()) {
            self.heard = None;
        }
        if let Some(heard) = &self.heard {
            if self.stopped_for(heard) {
                let mut next = self.record.clone();
                next.adopt(heard.clone());
                self.persist(next, AfterPersist::Chosen { learned: true }, out);
            }
            return;
        }
        if std::mem::take(&mut self.force) {
            let me = self.setup.me;
            let base = &self.record.base;
            let mut forced = Config::first(me, self.record.incarnation);
            forced.epoch = base.epoch + 1;
            forced.lineage = base.lineage + 1;
            forced.witness = base.witness;
            forced.incarnations[2] = base.incarnations[2];
            let mut next = self.record.clone();
            next.adopt(forced);
            self.persist(next, AfterPersist::Chosen { learned: false }, out);
        }
    }

    /// A vote that waited for VMs to stop.
    fn retry_asked(&mut self, out: &mut Vec<Action>) {
        let Some(asked) = &self.asked else { return };
        if self.now >= asked.at + 4 * self.setup.timing.patience {
            self.asked = None;
        } else if self.write.is_none() && self.stopped_for(&asked.value) {
            let Asked { path, ask, .. } = asked.clone();
            self.asked = None;
            self.on_ask(path, &ask, out);
        }
    }

    /// The target voted: D1, D2, then the own acceptance, which completes the quorum.
    fn conclude(&mut self, out: &mut Vec<Action>) {
        let Some(active) = &self.active else { return };
        let Some((ballot, value)) = &active.voted else { return };
        if self.write.is_some() {
            return;
        }
        match proposer::conclude(&self.record, &active.proposal, *ballot, value) {
            None => self.drop_active(),
            Some(next) => {
                if self.stopped_for(value) {
                    self.persist(next, AfterPersist::Chosen { learned: false }, out);
                }
            }
        }
    }

    fn pursue(&mut self, out: &mut Vec<Action>) {
        let goal = self.goal();
        if let Some(active) = &self.active {
            if active.voted.is_some() {
                return;
            }
            let wanted =
                goal.as_ref().is_some_and(|goal| goal.why == active.why && goal.want == active.proposal.ask.want);
            let patient =
                !goal.as_ref().is_some_and(|goal| goal.swap) || self.now < active.begun + self.setup.timing.patience;
            if wanted && patient {
                self.repeat(out);
                return;
            }
            // Wanted no more, or the target does not answer: the next ballot may go elsewhere.
            self.swap_target = wanted && !self.swap_target;
            self.drop_active();
        }
        match goal {
            Some(goal) if self.now >= self.not_before => self.begin(goal, out),
            _ => {}
        }
    }

    fn begin(&mut self, goal: Goal, out: &mut Vec<Action>) {
        let Goal { want, why, target, swap } = goal;
        let me = Acceptor::from(self.setup.me);
        // Only where the goal says so: a silent peer must not find a vote on its own removal when it returns.
        let other = if target == Acceptor::W { Acceptor::from(self.peer_id()) } else { Acceptor::W };
        let useful = |target: Acceptor| self.record.base.quorum(&[me, target]);
        let swap = swap && useful(other) && (self.swap_target || !useful(target));
        let target = if swap { other } else { target };
        let wish = Wish {
            me: self.setup.me,
            pair: self.setup.pair,
            want,
            target,
            above: self.above,
            seen: self.witness.seen,
            record: &self.record,
        };
        let epoch = self.record.base.epoch + 1;
        match proposer::plan(wish) {
            // D1, D2: the goals wait for the VMs, or an accepted value already forbids them to run.
            Some(Plan::Local(next)) if self.stopped_for(&next.base) => {
                out.push(Action::Note(Note::Deciding { epoch, why, target: me }));
                self.persist(next, AfterPersist::Chosen { learned: false }, out);
            }
            None | Some(Plan::Local(_)) => {}
            Some(Plan::Ask(proposal, next)) => {
                out.push(Action::Note(Note::Deciding { epoch, why, target }));
                let ask_id = self.number();
                self.active = Some(Active {
                    proposal: *proposal,
                    why,
                    begun: self.now,
                    sent_at: None,
                    ask_id,
                    waiting: false,
                    relayed: false,
                    voted: None,
                });
                self.persist(next, AfterPersist::Propose, out);
            }
        }
    }

    /// Sends the proposal under way; its promise is durable.
    pub(super) fn send_ask(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let Some(active) = &mut self.active else { return };
        active.sent_at = Some(now);
        active.waiting = active.proposal.target == Acceptor::W;
        let ask = active.proposal.ask.clone();
        if active.proposal.target == Acceptor::W {
            out.push(Action::AskWitness { id: active.ask_id, ask: WitnessAsk::TryDecide(ask) });
        } else {
            out.push(Action::Send { path: None, datagram: self.datagram(Body::Ask(ask)) });
        }
    }

    fn repeat(&mut self, out: &mut Vec<Action>) {
        let timing = &self.setup.timing;
        // The witness is asked over a stream that tells when it gave up; datagrams just vanish.
        let due = |active: &Active| {
            let pause = if active.waiting { 3 * timing.patience } else { timing.retry };
            active.sent_at.is_some_and(|sent| self.now >= sent + pause)
        };
        if self.active.as_ref().is_some_and(due) {
            self.send_ask(out);
            if self.active.as_ref().is_some_and(|active| active.relayed) {
                self.relay(out);
            }
        }
    }

    /// The witness is out of reach here but not for the peer: the peer passes the ask on.
    pub(super) fn relay(&mut self, out: &mut Vec<Action>) {
        let reaches = self.peer.health().is_some_and(|health| health.witness_lost_ms == 0);
        if !reaches || self.peer.alive_since.is_none() {
            return;
        }
        let Some(active) = &mut self.active else { return };
        active.relayed = true;
        let ask = WitnessAsk::TryDecide(active.proposal.ask.clone());
        let body = Body::Relay(active.ask_id, ask);
        out.push(Action::Send { path: None, datagram: self.datagram(body) });
    }
}

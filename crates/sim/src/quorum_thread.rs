//! The quorum_thread's thread of one node: quorum, heartbeats, lease, watchdog, cgroup_fence.

use crate::options::Sabotage;
use crate::world::{Due, Job, World};
use dyad_quorum::{Action, Config, Event, MS, Members, Note, SEC, Time};

/// The hardware watchdog's period.
pub const WATCHDOG_PERIOD: Time = 3 * SEC;
/// The watchdog is fed at least this often while it may be.
const MAX_WAKE_DELAY: Time = 250 * MS;

/// What the quorum_thread tells the owner.
#[derive(Debug, Clone)]
pub enum News {
    Config(Config),
    /// Who must acknowledge, after this many clean and dirty were handled.
    Acks(Members, u64),
    Hold,
    Killing,
    PeerVmsAllowed,
    MayRun(bool),
}

/// What the kernel is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupCommand {
    Freeze,
    Thaw,
    Kill,
}

impl World {
    /// Something happened to the quorum machine.
    pub(crate) fn conduct(&mut self, node: usize, event: Event) {
        let now = self.now;
        let machine = &mut self.nodes[node];
        let clock = machine.clock(now);
        let Some(core) = &mut machine.core else { return };
        let readmission = matches!(event, Event::PeerClean | Event::PeerDirty);
        let mut actions = Vec::new();
        core.quorum.handle(clock, event, &mut actions);
        core.handled += u64::from(readmission);
        for action in actions {
            self.carry_out(node, action);
        }
        let Some(core) = &mut self.nodes[node].core else { return };
        if readmission {
            let news = News::Acks(core.quorum.ack_set(), core.handled);
            self.tell_owner(node, news);
        }
        self.after_conduct(node, clock);
    }

    fn after_conduct(&mut self, node: usize, clock: Time) {
        let now = self.now;
        let blind = self.options.sabotage == Some(Sabotage::BlindWatchdog);
        let machine = &mut self.nodes[node];
        let Some(core) = &mut machine.core else { return };
        if core.quorum.watchdog_ok(clock) || blind {
            machine.watchdog_at = now + WATCHDOG_PERIOD;
        }
        let may_run = core.quorum.may_run(clock);
        let changed = std::mem::replace(&mut core.may_run, may_run) != may_run;
        let wake = core.quorum.next_wakeup().clamp(clock + 1, clock + MAX_WAKE_DELAY);
        let machine = &mut self.nodes[node];
        let at = machine.real(wake).max(now + 1);
        let Some(core) = &mut machine.core else { return };
        if core.wake_at <= now || at < core.wake_at {
            core.wake_at = at;
            self.job(node, at - now, Job::Wake);
        }
        if changed {
            self.tell_owner(node, News::MayRun(may_run));
        }
    }

    fn tell_owner(&mut self, node: usize, news: News) {
        let delay = self.thread_delay();
        let now = self.now;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.to_owner = core.to_owner.max(now + delay) + 1;
        let delay = core.to_owner - now;
        self.job(node, delay, Job::News(news));
    }

    /// The owner tells the quorum machine something.
    pub(crate) fn tell_quorum_thread(&mut self, node: usize, event: Event) {
        let delay = self.thread_delay();
        let now = self.now;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.to_quorum_thread = core.to_quorum_thread.max(now + delay) + 1;
        let delay = core.to_quorum_thread - now;
        self.job(node, delay, Job::Quorum(event));
    }

    /// How long a message between two threads lies: mostly microseconds, now and then a while.
    fn thread_delay(&mut self) -> Time {
        if self.prng.chance(20) { self.prng.below(40 * MS) } else { self.prng.within(1_000, 200_000) }
    }

    pub(crate) fn order(&mut self, node: usize, order: CgroupCommand) {
        let now = self.now;
        let delay = self.prng.within(MS, 30 * MS);
        let slow = self.nodes[node].kernel_slow_until;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.to_cgroup_fence = core.to_cgroup_fence.max(now).max(slow) + delay;
        let delay = core.to_cgroup_fence - now;
        self.job(node, delay, Job::Enforce(order));
    }

    /// The kernel does what it was told and confirms it.
    pub(crate) fn enforce(&mut self, node: usize, order: CgroupCommand) {
        let event = match order {
            CgroupCommand::Freeze => {
                if self.options.sabotage != Some(Sabotage::NoFreeze) {
                    self.nodes[node].frozen = true;
                }
                self.count("freezes");
                Event::VmsFrozen
            }
            CgroupCommand::Thaw => {
                self.thaw(node);
                Event::VmsThawed
            }
            CgroupCommand::Kill => {
                for vm in 0..crate::machine::VMS {
                    self.end_vm(node, vm);
                }
                self.nodes[node].frozen = false;
                self.count("kills");
                Event::VmsKilled
            }
        };
        self.tell_quorum_thread(node, event);
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::Send { datagram, .. } => self.send_datagram(node, datagram),
            Action::AskWitness { id, request } => {
                let life = self.nodes[node].life;
                let half = self.witness_rtt / 2;
                self.put(half, Due::AskWitness { node, life, id, request });
            }
            Action::Persist { token, record } => {
                let delay = self.prng.within(MS, 5 * MS);
                self.job(node, delay, Job::Persisted(token, record));
            }
            Action::Freeze => {
                self.tell_owner(node, News::Hold);
                self.order(node, CgroupCommand::Freeze);
            }
            Action::Thaw => self.order(node, CgroupCommand::Thaw),
            Action::Kill { .. } => {
                self.tell_owner(node, News::Killing);
                self.order(node, CgroupCommand::Kill);
            }
            Action::Config(config) => self.tell_owner(node, News::Config(config)),
            Action::AckSet(set) => {
                let handled = self.nodes[node].core.as_ref().map_or(0, |core| core.handled);
                self.tell_owner(node, News::Acks(set, handled));
            }
            Action::PeerVmsAllowed => self.tell_owner(node, News::PeerVmsAllowed),
            Action::Note(note) => {
                if !matches!(note, Note::PeerHeard) {
                    self.note(node, format!("{note:?}"));
                }
            }
            Action::Alarm(_) | Action::Clear(_) | Action::LeaveDone => {}
        }
    }
}

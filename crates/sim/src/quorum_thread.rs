//! A model of `dyad-core`'s quorum thread on one node, around the shipped `Quorum`: heartbeats, lease, watchdog, cgroup
//! fence. It is to be replaced by the shipped code.

use crate::options::PlantedBug;
use crate::world::{DaemonJob, FutureEvent, World};
use dyad_placement::{CgroupCommand, CgroupState, CgroupWrite, RightToRun};
use dyad_quorum::{Action, BootTime, Config, Event, MS, Members, Nanos, Note, SEC};

/// The hardware watchdog's period.
pub const WATCHDOG_PERIOD: Nanos = 3 * SEC;
/// Longest time between two wake-ups of the quorum thread, each of which feeds the watchdog if it may be fed.
const MAX_WAKE_DELAY: Nanos = 250 * MS;

/// A message of the quorum thread to the core model.
#[derive(Debug, Clone)]
pub enum QuorumUpdate {
    /// This configuration is in force.
    Config(Config),
    /// The acknowledgement set, and the number of `PeerClean` and `PeerDirty` handled before it was determined.
    AckSet(Members, u64),
    /// The VMs are being frozen: no guest's request may be carried out.
    Hold,
    /// The VMs are being killed.
    Killing,
    /// The fence of the peer is over.
    PeerVmsAllowed,
    /// The leave is complete.
    LeaveDone,
    /// The right to run VMs.
    Right(RightToRun),
}

impl World {
    /// Gives `Quorum` an event and carries out its actions.
    pub(crate) fn run_quorum(&mut self, node: usize, event: Event) {
        let now = self.now;
        let machine = &mut self.nodes[node];
        let clock = machine.clock(now);
        let Some(core) = &mut machine.core else { return };
        let readmission = matches!(event, Event::PeerClean | Event::PeerDirty);
        let mut actions = Vec::new();
        core.quorum.handle(clock, event, &mut actions);
        core.handled_reports += u64::from(readmission);
        for action in actions {
            self.carry_out_quorum_action(node, action);
        }
        self.after_quorum(node, clock);
    }

    /// Feeds the watchdog if it may be fed, schedules the next wake-up, and tells the core model a change of the right
    /// to run.
    fn after_quorum(&mut self, node: usize, clock: BootTime) {
        let now = self.now;
        let blind = self.options.planted_bug == Some(PlantedBug::BlindWatchdog);
        let machine = &mut self.nodes[node];
        let Some(core) = &mut machine.core else { return };
        if core.quorum.may_feed_watchdog(clock) || blind {
            machine.watchdog_at = now + WATCHDOG_PERIOD;
        }
        let right =
            RightToRun { may_run: core.quorum.may_run(clock), peer_fence_until: core.quorum.peer_fence_until() };
        let changed = core.right.replace(right) != Some(right);
        let wake = core.quorum.next_wakeup().clamp(clock + 1, clock + MAX_WAKE_DELAY);
        let machine = &mut self.nodes[node];
        let at = machine.real(wake).max(now + 1);
        let Some(core) = &mut machine.core else { return };
        if core.wake_at <= now || at < core.wake_at {
            core.wake_at = at;
            self.schedule_job(node, at - now, DaemonJob::Wake);
        }
        if changed {
            self.tell_core_model(node, QuorumUpdate::Right(right));
        }
    }

    fn tell_core_model(&mut self, node: usize, update: QuorumUpdate) {
        let delay = self.thread_delay();
        let now = self.now;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.core_model_arrival = core.core_model_arrival.max(now + delay) + 1;
        let delay = core.core_model_arrival - now;
        self.schedule_job(node, delay, DaemonJob::QuorumUpdate(update));
    }

    /// Puts an event of the core model into the queue of the quorum thread.
    pub(crate) fn tell_quorum_thread(&mut self, node: usize, event: Event) {
        let delay = self.thread_delay();
        let now = self.now;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.quorum_thread_arrival = core.quorum_thread_arrival.max(now + delay) + 1;
        let delay = core.quorum_thread_arrival - now;
        self.schedule_job(node, delay, DaemonJob::Quorum(event));
    }

    /// Delay of a message between two threads: 1 to 200 µs, in 2 % of cases up to 40 ms.
    pub(crate) fn thread_delay(&mut self) -> Nanos {
        if self.prng.chance(20) { self.prng.below(40 * MS) } else { self.prng.within(1_000..200_000) }
    }

    pub(crate) fn send_cgroup_command(&mut self, node: usize, command: CgroupCommand) {
        let now = self.now;
        let delay = self.prng.within(MS..30 * MS);
        let slow = self.nodes[node].kernel_slow_until;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.cgroup_fence_arrival = core.cgroup_fence_arrival.max(now).max(slow) + delay;
        let delay = core.cgroup_fence_arrival - now;
        self.schedule_job(node, delay, DaemonJob::Cgroup(command));
    }

    /// Carries out the command as the kernel does, and confirms it.
    pub(crate) fn apply_cgroup_command(&mut self, node: usize, command: CgroupCommand) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let mut writes = Vec::new();
        let state = core.cgroup_rule.handle(command, &mut writes);
        self.write_cgroup(node, &writes);
        match state {
            Some(CgroupState::Frozen) => self.tell_quorum_thread(node, Event::VmsFrozen),
            Some(CgroupState::Thawed) => self.tell_quorum_thread(node, Event::VmsThawed),
            Some(CgroupState::Killed) => self.tell_quorum_thread(node, Event::VmsKilled),
            None => {}
        }
    }

    pub(crate) fn write_cgroup(&mut self, node: usize, writes: &[CgroupWrite]) {
        for write in writes {
            match write {
                CgroupWrite::Freeze if self.options.planted_bug == Some(PlantedBug::NoFreeze) => {}
                CgroupWrite::Freeze | CgroupWrite::Close => {
                    self.nodes[node].frozen = true;
                    self.count_event("freezes");
                }
                CgroupWrite::Thaw => {
                    self.thaw(node);
                    self.note_executing(node);
                }
                CgroupWrite::Kill => {
                    self.kill_cgroup(node);
                    self.count_event("kills");
                }
            }
        }
    }

    fn carry_out_quorum_action(&mut self, node: usize, action: Action) {
        match action {
            Action::Send { datagram, .. } => self.send_datagram(node, datagram),
            Action::AskWitness { id, request } => {
                let daemon_run = self.nodes[node].daemon_run;
                let half = self.witness_rtt / 2;
                self.schedule(half, FutureEvent::AskWitness { node, daemon_run, id, request });
            }
            Action::Persist { token, record } => {
                let delay = self.prng.within(MS..5 * MS);
                self.schedule_job(node, delay, DaemonJob::Persisted(token, record));
            }
            Action::Freeze => {
                self.tell_core_model(node, QuorumUpdate::Hold);
                self.send_cgroup_command(node, CgroupCommand::Freeze);
            }
            Action::Thaw => self.send_cgroup_command(node, CgroupCommand::Thaw),
            Action::Kill { .. } => {
                self.tell_core_model(node, QuorumUpdate::Killing);
                // Volumes are served again only by a right that is newer than the kill.
                if let Some(core) = &mut self.nodes[node].core {
                    core.right = None;
                }
                self.send_cgroup_command(node, CgroupCommand::Kill);
            }
            Action::Config(config) => self.tell_core_model(node, QuorumUpdate::Config(config)),
            Action::AckSet(set) => {
                let handled = self.nodes[node].core.as_ref().map_or(0, |core| core.handled_reports);
                self.tell_core_model(node, QuorumUpdate::AckSet(set, handled));
            }
            Action::PeerVmsAllowed => self.tell_core_model(node, QuorumUpdate::PeerVmsAllowed),
            Action::Note(note) => {
                if !matches!(note, Note::PeerHeard) {
                    self.log_line(node, format!("{note:?}"));
                }
            }
            Action::LeaveDone => self.tell_core_model(node, QuorumUpdate::LeaveDone),
            Action::Alarm(_) | Action::Clear(_) => {}
        }
    }
}

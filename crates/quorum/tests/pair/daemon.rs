//! A model of the daemon around the shipped `Quorum`, of its VMs, and of the mirror, as far as the invariants need
//! them.

use dyad_quorum::{
    Action, DatagramBody, Event, Exception, MS, Members, Nanos, Proof, ReplyBody, SEC, TryDecide, WitnessRequest,
};
use dyad_types::NodeId;

use super::machine::VMS;
use super::world::{DaemonInput, FutureEvent, Pair};

/// Time that the kernel takes to freeze or kill the VMs.
const STOP_DELAY: Nanos = 20 * MS;

impl Pair {
    // ---- one machine --------------------------------------------------------------------------------------------

    /// Gives the node's `Quorum` an event of an operator or of another thread of the daemon.
    pub fn send_event(&mut self, node: NodeId, event: Event) {
        match event {
            Event::Leave => self.nodes[node.index()].leaving = true,
            Event::CancelLeave => self.nodes[node.index()].leaving = false,
            _ => {}
        }
        self.schedule_input(node, 0, DaemonInput::Event(event));
    }

    pub fn report_proof(&mut self, node: NodeId, proof: Proof) {
        self.send_event(node, Event::Proof(proof));
    }

    pub fn set_exceptions(&mut self, node: NodeId, list: Vec<Exception>) {
        self.send_event(node, Event::Exceptions(list));
    }

    /// Handles an input of the node's daemon.
    pub fn handle_input(&mut self, node: NodeId, input: DaemonInput) {
        match input {
            DaemonInput::Datagram(path, datagram) => self.give_event(node, Event::Peer { path, datagram }),
            DaemonInput::Witness(id, reply) => self.give_event(node, Event::Witness { id, reply }),
            DaemonInput::Persisted(token, record) => {
                self.nodes[node.index()].disk.record = record;
                self.give_event(node, Event::Persisted { token });
            }
            DaemonInput::PersistFailed(token) => self.give_event(node, Event::PersistFailed { token }),
            DaemonInput::Frozen => {
                self.nodes[node.index()].frozen = true;
                self.give_event(node, Event::VmsFrozen);
            }
            DaemonInput::Killed => {
                self.nodes[node.index()].vms = [false; VMS];
                self.nodes[node.index()].frozen = false;
                self.give_event(node, Event::VmsKilled);
            }
            DaemonInput::Wake => {
                self.nodes[node.index()].wake_at = 0;
                self.give_event(node, Event::Tick);
            }
            DaemonInput::Event(event) => self.give_event(node, event),
            DaemonInput::Mirror => self.mirror(node),
            DaemonInput::Replicate(vm, write, epoch) => {
                let machine = &mut self.nodes[node.index()];
                // A replica refuses an epoch that is not that of its base.
                if machine.core.is_some() && machine.config().epoch == epoch {
                    machine.disk.data[vm] = machine.disk.data[vm].max(write);
                    self.replicate(node, DaemonInput::Replicated(vm, write));
                }
            }
            DaemonInput::Replicated(vm, write) => {
                let machine = &mut self.nodes[node.index()];
                machine.peer_holds[vm] = machine.peer_holds[vm].max(write);
                self.acknowledge(node);
            }
        }
    }

    /// Gives the node's `Quorum` an event now, and carries out its actions.
    pub fn give_event(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        let machine = &mut self.nodes[node.index()];
        let clock = machine.clock(now);
        let Some(core) = machine.core.as_mut() else { return };
        let mut actions = Vec::new();
        core.handle(clock, event, &mut actions);
        for action in actions {
            self.carry_out(node, action);
        }
        self.start_vms(node);
        self.acknowledge(node);
        let machine = &mut self.nodes[node.index()];
        let core = machine.core.as_ref().expect("still there");
        if core.may_feed_watchdog(clock) {
            machine.watchdog_at = now + 3 * SEC;
        }
        let wake = machine.real(core.next_wakeup().max(clock + 1));
        if machine.wake_at == 0 || wake < machine.wake_at {
            machine.wake_at = wake;
            self.schedule_input(node, wake - now, DaemonInput::Wake);
        }
    }

    /// Whether the record on the disk contains everything that the action says of it: it must be persisted before it is
    /// sent.
    fn is_durable(&self, node: NodeId, action: &Action) -> bool {
        let record = &self.nodes[node.index()].disk.record;
        let promised = |request: &TryDecide| {
            request.sender != node
                || record.base.rank() > request.base.rank()
                || (record.base == request.base && record.promised >= request.ballot)
        };
        match action {
            Action::AskWitness { request: WitnessRequest::TryDecide(request), .. } => promised(request),
            Action::Send { datagram, .. } => match &datagram.body {
                DatagramBody::Heartbeat(beat) => beat.base == record.base,
                DatagramBody::TryDecide(request) | DatagramBody::Relay(_, WitnessRequest::TryDecide(request)) => {
                    promised(request)
                }
                DatagramBody::Reply(reply) => match &reply.body {
                    ReplyBody::Accepted(ballot, value) => record.accepted == Some((*ballot, value.clone())),
                    ReplyBody::Promise(ballot, _) => record.promised == *ballot,
                    _ => true,
                },
                _ => true,
            },
            Action::Config(config) => *config == record.base,
            _ => true,
        }
    }

    fn carry_out(&mut self, node: NodeId, action: Action) {
        if !self.is_durable(node, &action) {
            self.violation.get_or_insert(format!("{node} sent what is not durable: {action:?}"));
        }
        match action {
            Action::Send { path, datagram } => {
                let paths = path.map_or(0..2, |path| path..path + 1);
                for path in paths {
                    let link = self.links[usize::from(path)][node.index()];
                    if !link.cut && !self.prng.chance(link.loss) {
                        let delay = 100_000 + self.prng.below(MS);
                        self.schedule(
                            delay,
                            FutureEvent::NetworkInput(node.peer(), DaemonInput::Datagram(path, datagram.clone())),
                        );
                    }
                }
            }
            Action::AskWitness { id, request } => {
                let daemon_run = self.nodes[node.index()].daemon_run;
                self.schedule(self.witness_rtt / 2, FutureEvent::WitnessRequest(node, daemon_run, id, request));
            }
            Action::Persist { token, record } => {
                let delay = MS + self.prng.below(4 * MS);
                if self.nodes[node.index()].disk.register_hangs {
                    return;
                }
                let broken = self.nodes[node.index()].disk.register_fails;
                let outcome =
                    if broken { DaemonInput::PersistFailed(token) } else { DaemonInput::Persisted(token, record) };
                self.schedule_input(node, delay, outcome);
            }
            Action::Freeze => {
                self.nodes[node.index()].freezes += 1;
                self.schedule_input(node, STOP_DELAY, DaemonInput::Frozen);
            }
            Action::Thaw => self.nodes[node.index()].frozen = false,
            Action::Kill { .. } => {
                self.nodes[node.index()].kills += 1;
                self.schedule_input(node, STOP_DELAY, DaemonInput::Killed);
            }
            Action::PeerVmsAllowed => self.nodes[node.index()].disk.vm_node = [node; VMS],
            Action::AckSet(set) => self.nodes[node.index()].ack_set = Some(set),
            Action::Config(_) => self.nodes[node.index()].configs += 1,
            Action::Note(note) => {
                let now = self.now;
                self.nodes[node.index()].notes.push((now, note));
            }
            Action::LeaveDone => self.nodes[node.index()].leave_done = true,
            Action::Alarm(_) | Action::Clear(_) => {}
        }
    }

    fn start_vms(&mut self, node: NodeId) {
        for vm in 0..VMS {
            let machine = &mut self.nodes[node.index()];
            let clock = machine.clock(self.now);
            let core = machine.core.as_mut().expect("the daemon runs");
            let wanted = machine.disk.vm_node[vm] == node && !machine.vms[vm] && !machine.leaving;
            if wanted && !machine.frozen && core.may_run(clock) {
                let mut actions = Vec::new();
                core.handle(clock, Event::VmsRunning(true), &mut actions);
                if core.may_run(clock) {
                    machine.vms[vm] = true;
                }
                for action in actions {
                    self.carry_out(node, action);
                }
            }
        }
    }

    // ---- model of the mirror --------------------------------------------------------------------------------------

    pub fn linked(&self) -> bool {
        (0..2).any(|path| !self.links[path][0].cut && !self.links[path][1].cut)
    }

    fn replicate(&mut self, node: NodeId, input: DaemonInput) {
        if self.linked() {
            let delay = 100_000 + self.prng.below(MS);
            self.schedule(delay, FutureEvent::NetworkInput(node.peer(), input));
        }
    }

    /// Issues a write in each VM that has none unacknowledged, and continues the resync; repeated every 20 ms.
    fn mirror(&mut self, node: NodeId) {
        self.schedule_input(node, 20 * MS, DaemonInput::Mirror);
        for vm in 0..VMS {
            let machine = &mut self.nodes[node.index()];
            let epoch = machine.config().epoch;
            if !machine.executes(vm) {
                machine.pending[vm] = None;
                continue;
            }
            let write = *machine.pending[vm].get_or_insert((epoch, machine.disk.data[vm].1 + 1));
            machine.disk.data[vm] = machine.disk.data[vm].max(write);
            self.replicate(node, DaemonInput::Replicate(vm, write, epoch));
        }
        self.acknowledge(node);
        self.resync(node);
    }

    fn acknowledge(&mut self, node: NodeId) {
        let machine = &mut self.nodes[node.index()];
        let Some(core) = &machine.core else { return };
        let set = core.ack_set();
        for vm in 0..VMS {
            let Some(write) = machine.pending[vm] else { continue };
            let held = !set.has(node.peer()) || machine.peer_holds[vm] >= write;
            // Guest I/O is held while the VMs are frozen, and only a member may acknowledge.
            if held && machine.executes(vm) && set.has(node) {
                machine.pending[vm] = None;
                self.oracle.acknowledged[vm] = self.oracle.acknowledged[vm].max(write);
            }
        }
    }

    /// Starts, interrupts or completes the resync of the peer by a solo node.
    fn resync(&mut self, node: NodeId) {
        let peer = node.peer();
        let base = self.nodes[node.index()].config().clone();
        let solo = base.members == Members::only(node);
        let ready = solo
            && self.linked()
            && self.nodes[peer.index()].up
            && !self.nodes[peer.index()].stopped
            && self.nodes[peer.index()].config() == &base;
        let resyncing = self.nodes[node.index()].resyncing;
        if solo && !ready && resyncing {
            self.nodes[node.index()].resyncing = false;
            self.give_event(node, Event::PeerDirty);
        } else if ready && !resyncing {
            self.nodes[node.index()].resyncing = true;
            self.schedule_input(node, self.resync_time, DaemonInput::Event(Event::PeerClean));
        } else if ready && self.nodes[node.index()].ack_set == Some(Members::Both) {
            // New writes wait for both nodes now: the earlier ones are copied, then `PeerInAckSet` is reported.
            let disk = self.nodes[node.index()].disk.clone();
            self.nodes[peer.index()].disk.data = disk.data;
            self.nodes[peer.index()].disk.vm_node = disk.vm_node;
            self.give_event(node, Event::PeerInAckSet);
        } else if !solo {
            self.nodes[node.index()].resyncing = false;
        }
    }
}

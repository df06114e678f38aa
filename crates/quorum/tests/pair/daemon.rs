//! The daemon around the `Quorum`, its VMs, and a minimal mirror: as much as the invariants need.

use dyad_quorum::{
    Action, DatagramBody, Event, Exception, MS, Members, Nanos, Proof, ReplyBody, SEC, TryDecide, WitnessRequest,
};
use dyad_types::NodeId;

use super::machine::VMS;
use super::world::{Due, Incoming, Pair};

/// How long the kernel takes to freeze or kill.
const STOP_DELAY: Nanos = 20 * MS;

impl Pair {
    // ---- one machine --------------------------------------------------------------------------------------------

    /// Gives the node's `Quorum` an event from an operator or from the rest of the daemon.
    pub fn tell(&mut self, node: NodeId, event: Event) {
        match event {
            Event::Leave => self.nodes[node.index()].leaving = true,
            Event::CancelLeave => self.nodes[node.index()].leaving = false,
            _ => {}
        }
        self.put_in(node, 0, Incoming::Event(event));
    }

    pub fn report_proof(&mut self, node: NodeId, proof: Proof) {
        self.tell(node, Event::Proof(proof));
    }

    pub fn except(&mut self, node: NodeId, list: Vec<Exception>) {
        self.tell(node, Event::Exceptions(list));
    }

    pub fn incoming(&mut self, node: NodeId, incoming: Incoming) {
        match incoming {
            Incoming::Datagram(path, datagram) => self.feed(node, Event::Peer { path, datagram }),
            Incoming::Witness(id, reply) => self.feed(node, Event::Witness { id, reply }),
            Incoming::Persisted(token, record) => {
                self.nodes[node.index()].disk.record = record;
                self.feed(node, Event::Persisted { token });
            }
            Incoming::PersistFailed(token) => self.feed(node, Event::PersistFailed { token }),
            Incoming::Frozen => {
                self.nodes[node.index()].frozen = true;
                self.feed(node, Event::VmsFrozen);
            }
            Incoming::Killed => {
                self.nodes[node.index()].vms = [false; VMS];
                self.nodes[node.index()].frozen = false;
                self.feed(node, Event::VmsKilled);
            }
            Incoming::Wake => {
                self.nodes[node.index()].wake_at = 0;
                self.feed(node, Event::Tick);
            }
            Incoming::Event(event) => self.feed(node, event),
            Incoming::Mirror => self.mirror(node),
            Incoming::Replicate(vm, write, epoch) => {
                let machine = &mut self.nodes[node.index()];
                // A replica refuses an epoch that is not that of its base.
                if machine.core.is_some() && machine.config().epoch == epoch {
                    machine.disk.data[vm] = machine.disk.data[vm].max(write);
                    self.replicate(node, Incoming::Replicated(vm, write));
                }
            }
            Incoming::Replicated(vm, write) => {
                let machine = &mut self.nodes[node.index()];
                machine.peer_holds[vm] = machine.peer_holds[vm].max(write);
                self.acknowledge(node);
            }
        }
    }

    pub fn feed(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        let machine = &mut self.nodes[node.index()];
        let clock = machine.clock(now);
        let Some(core) = machine.core.as_mut() else { return };
        let mut actions = Vec::new();
        core.handle(clock, event, &mut actions);
        for action in actions {
            self.act(node, action);
        }
        self.start_vms(node);
        self.acknowledge(node);
        let machine = &mut self.nodes[node.index()];
        let core = machine.core.as_ref().expect("still there");
        if core.watchdog_ok(clock) {
            machine.watchdog_at = now + 3 * SEC;
        }
        let wake = machine.real(core.next_wakeup().max(clock + 1));
        if machine.wake_at == 0 || wake < machine.wake_at {
            machine.wake_at = wake;
            self.put_in(node, wake - now, Incoming::Wake);
        }
    }

    /// Persist, then send: whether what a message says of the record is on the disk.
    fn durable(&self, node: NodeId, action: &Action) -> bool {
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

    fn act(&mut self, node: NodeId, action: Action) {
        if !self.durable(node, &action) {
            self.violation.get_or_insert(format!("{node} sent what is not durable: {action:?}"));
        }
        match action {
            Action::Send { path, datagram } => {
                let paths = path.map_or(0..2, |path| path..path + 1);
                for path in paths {
                    let link = self.links[usize::from(path)][node.index()];
                    if !link.cut && !self.prng.chance(link.loss) {
                        let delay = 100_000 + self.prng.below(MS);
                        self.put(delay, Due::Net(node.peer(), Incoming::Datagram(path, datagram.clone())));
                    }
                }
            }
            Action::AskWitness { id, request } => {
                let daemon_run = self.nodes[node.index()].daemon_run;
                self.put(self.witness_rtt / 2, Due::Witness(node, daemon_run, id, request));
            }
            Action::Persist { token, record } => {
                let delay = MS + self.prng.below(4 * MS);
                if self.nodes[node.index()].disk.hangs {
                    return;
                }
                let broken = self.nodes[node.index()].disk.broken;
                let outcome = if broken { Incoming::PersistFailed(token) } else { Incoming::Persisted(token, record) };
                self.put_in(node, delay, outcome);
            }
            Action::Freeze => {
                self.nodes[node.index()].freezes += 1;
                self.put_in(node, STOP_DELAY, Incoming::Frozen);
            }
            Action::Thaw => self.nodes[node.index()].frozen = false,
            Action::Kill { .. } => {
                self.nodes[node.index()].kills += 1;
                self.put_in(node, STOP_DELAY, Incoming::Killed);
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
                    self.act(node, action);
                }
            }
        }
    }

    // ---- the mirror, as little of it as the invariants need -------------------------------------------------------

    pub fn linked(&self) -> bool {
        (0..2).any(|path| !self.links[path][0].cut && !self.links[path][1].cut)
    }

    fn replicate(&mut self, node: NodeId, incoming: Incoming) {
        if self.linked() {
            let delay = 100_000 + self.prng.below(MS);
            self.put(delay, Due::Net(node.peer(), incoming));
        }
    }

    /// The writers and the resync, every 20 ms.
    fn mirror(&mut self, node: NodeId) {
        self.put_in(node, 20 * MS, Incoming::Mirror);
        for vm in 0..VMS {
            let machine = &mut self.nodes[node.index()];
            let epoch = machine.config().epoch;
            if !machine.executing(vm) {
                machine.pending[vm] = None;
                continue;
            }
            let write = *machine.pending[vm].get_or_insert((epoch, machine.disk.data[vm].1 + 1));
            machine.disk.data[vm] = machine.disk.data[vm].max(write);
            self.replicate(node, Incoming::Replicate(vm, write, epoch));
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
            // Guest I/O is held while the VMs are frozen, and only a writer in sync may acknowledge.
            if held && machine.executing(vm) && set.has(node) {
                machine.pending[vm] = None;
                self.oracle.acked[vm] = self.oracle.acked[vm].max(write);
            }
        }
    }

    /// A solo node brings its peer up to date.
    fn resync(&mut self, node: NodeId) {
        let peer = node.peer();
        let base = self.nodes[node.index()].config().clone();
        let solo = base.members == Members::only(node);
        let ready = solo
            && self.linked()
            && self.nodes[peer.index()].up
            && !self.nodes[peer.index()].stopped
            && self.nodes[peer.index()].config() == &base;
        let syncing = self.nodes[node.index()].syncing;
        if solo && !ready && syncing {
            self.nodes[node.index()].syncing = false;
            self.feed(node, Event::PeerDirty);
        } else if ready && !syncing {
            self.nodes[node.index()].syncing = true;
            self.put_in(node, self.resync_time, Incoming::Event(Event::PeerClean));
        } else if ready && self.nodes[node.index()].ack_set == Some(Members::Both) {
            // Both acknowledge now: what was acknowledged before is copied, then it is said.
            let disk = self.nodes[node.index()].disk.clone();
            self.nodes[peer.index()].disk.data = disk.data;
            self.nodes[peer.index()].disk.vm_node = disk.vm_node;
            self.feed(node, Event::AckPeer);
        } else if !solo {
            self.nodes[node.index()].syncing = false;
        }
    }
}

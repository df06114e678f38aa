//! The simulated environment of the two machines: time, network, witness, power.

use std::collections::BTreeMap;

use dyad_quorum::mutants::Mutants;
use dyad_quorum::{
    Acceptor, AcceptorRecord, AcceptorReply, Datagram, Event, MS, Members, Nanos, Quorum, SEC, Setup, Timing,
    WitnessId, WitnessReply, WitnessRequest, WitnessRequestId, WriteToken, acceptor,
};
use dyad_testkit::Prng;
use dyad_types::{Epoch, NodeId};

use super::machine::{Machine, VMS, WriteId};
use super::oracle::Oracle;

const PAIR: u128 = 0xD1AD;
pub const WITNESS: WitnessId = WitnessId(77);

/// One direction of one path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    pub cut: bool,
    /// Lost datagrams, of a thousand.
    pub loss: u64,
}

/// An input of a node's daemon.
#[derive(Clone, Debug)]
pub enum DaemonInput {
    Datagram(u8, Datagram),
    Witness(WitnessRequestId, WitnessReply),
    Persisted(WriteToken, AcceptorRecord),
    PersistFailed(WriteToken),
    Frozen,
    Killed,
    /// The mirror of the peer asks this node to hold a write of this VM, issued in this epoch.
    Replicate(usize, WriteId, Epoch),
    /// The peer holds this write of this VM.
    Replicated(usize, WriteId),
    /// The time of `Quorum::next_wakeup` has come.
    Wake,
    /// The next step of the mirror is due.
    Mirror,
    Event(Event),
}

/// A future event in the queue.
#[derive(Clone, Debug)]
pub enum FutureEvent {
    /// An input for this run of the node's daemon; dropped if that run has ended.
    Input(NodeId, u64, DaemonInput),
    /// An input for the daemon that runs at that time, if any.
    NetworkInput(NodeId, DaemonInput),
    /// A request of this run of the node's daemon reaches the witness.
    WitnessRequest(NodeId, u64, WitnessRequestId, WitnessRequest),
    /// The watchdog of the node in this boot is examined.
    Watchdog(NodeId, u64),
    PowerOn(NodeId),
    /// Init starts the daemon of this boot again.
    StartCore(NodeId, u64),
}

/// A simulated pair and its environment.
#[derive(Clone, Debug)]
pub struct Pair {
    pub now: Nanos,
    pub prng: Prng,
    pub nodes: [Machine; 2],
    /// Indexed as `links[path][from]`.
    pub links: [[Link; 2]; 2],
    pub witness: AcceptorRecord,
    pub witness_up: bool,
    /// By node: whether it reaches the witness.
    pub reaches_witness: [bool; 2],
    pub witness_rtt: Nanos,
    /// Lost replies of the witness, of a thousand.
    pub witness_loss: u64,
    pub timing: Timing,
    pub mutants: Mutants,
    pub oracle: Oracle,
    /// The first broken invariant.
    pub violation: Option<String>,
    /// Duration of a resync.
    pub resync_time: Nanos,
    /// The watchdogs of both nodes are proven.
    pub watchdogs_proven: bool,
    /// Future events by time; the number keeps the order of events of one time.
    queue: BTreeMap<(Nanos, u64), FutureEvent>,
    newest_number: u64,
}

impl Pair {
    /// Both nodes in sync, tie at the witness, VM 0 on A and VM 1 on B.
    pub fn protected(seed: u64) -> Pair {
        Pair::protected_with(seed, Timing { flapping_readmission_delay: 5 * SEC, ..Timing::default() }, Mutants::NONE)
    }

    pub fn protected_with(seed: u64, timing: Timing, mutants: Mutants) -> Pair {
        let mut pair = Pair::new_pair(seed, timing, mutants);
        pair.send_event(NodeId::A, Event::Admit { incarnation: 202 });
        pair.until("B joins", 60, |pair| pair.nodes[0].config().members == Members::Both);
        pair.send_event(NodeId::A, Event::Enrol { witness: WITNESS, incarnation: 303 });
        pair.until("the tie goes to the witness", 60, |pair| pair.has_shape("D(W)"));
        pair.move_vm(1, NodeId::B);
        pair.until("both VMs run", 10, |pair| pair.node_of(0).is_some() && pair.node_of(1) == Some(NodeId::B));
        pair.run(SEC);
        pair
    }

    /// Stops a VM and moves it to a node. Precondition: both nodes are members, because both replicas of the document
    /// change.
    pub fn move_vm(&mut self, vm: usize, to: NodeId) {
        assert_eq!(self.nodes[0].config().members, Members::Both);
        for machine in &mut self.nodes {
            machine.disk.vm_node[vm] = to;
            machine.vms[vm] = false;
            machine.pending[vm] = None;
        }
    }

    /// A new pair: A is solo, B has an empty store, the witness is not enrolled.
    pub fn new_pair(seed: u64, timing: Timing, mutants: Mutants) -> Pair {
        let nodes = [
            Machine::new(NodeId::A, AcceptorRecord::first_node(NodeId::A, 101)),
            Machine::new(NodeId::B, AcceptorRecord::fresh(202)),
        ];
        let mut pair = Pair {
            now: SEC,
            prng: Prng::new(seed),
            nodes,
            links: Default::default(),
            witness: AcceptorRecord::witness(WITNESS, 303),
            witness_up: true,
            reaches_witness: [true; 2],
            witness_rtt: 50 * MS,
            witness_loss: 0,
            timing,
            mutants,
            oracle: Oracle::default(),
            violation: None,
            resync_time: SEC,
            watchdogs_proven: true,
            queue: BTreeMap::new(),
            newest_number: 0,
        };
        pair.power_on(NodeId::A);
        pair.power_on(NodeId::B);
        pair
    }

    // ---- faults -------------------------------------------------------------------------------------------------

    pub fn power_on(&mut self, node: NodeId) {
        let machine = &mut self.nodes[node.index()];
        if machine.up {
            return;
        }
        machine.up = true;
        machine.boots += 1;
        machine.boot_at = self.now;
        self.start_core(node);
    }

    pub fn power_on_in(&mut self, node: NodeId, delay: Nanos) {
        self.schedule(delay, FutureEvent::PowerOn(node));
    }

    pub fn power_off(&mut self, node: NodeId) {
        self.finish_or_lose_writes(node);
        let machine = &mut self.nodes[node.index()];
        machine.up = false;
        machine.core = None;
        machine.daemon_run += 1;
        machine.vms = [false; VMS];
        machine.frozen = false;
        machine.stopped = false;
        machine.backlog.clear();
        machine.watchdog_at = Nanos::MAX;
    }

    /// `kill -9` of the daemon; init restarts it at once. VMs stay as they are.
    pub fn restart_core(&mut self, node: NodeId) {
        if self.nodes[node.index()].up {
            self.finish_or_lose_writes(node);
            self.start_core(node);
        }
    }

    /// `kill -9` of the daemon; init restarts it after `away`. Its kernel closes the data session if a path works.
    pub fn kill_core(&mut self, node: NodeId, away: Nanos) {
        self.finish_or_lose_writes(node);
        let machine = &mut self.nodes[node.index()];
        machine.core = None;
        machine.daemon_run += 1;
        machine.stopped = false;
        machine.backlog.clear();
        let boot = machine.boots;
        if self.links.iter().any(|path| path.iter().all(|link| !link.cut)) {
            self.schedule(MS, FutureEvent::NetworkInput(node.peer(), DaemonInput::Event(Event::PeerClosed)));
        }
        self.schedule(away, FutureEvent::StartCore(node, boot));
    }

    /// SIGSTOP to the daemon.
    pub fn stop_core(&mut self, node: NodeId) {
        self.nodes[node.index()].stopped = true;
    }

    /// SIGCONT to the daemon.
    pub fn continue_core(&mut self, node: NodeId) {
        self.nodes[node.index()].stopped = false;
        let backlog = std::mem::take(&mut self.nodes[node.index()].backlog);
        for input in backlog {
            self.handle_input(node, input);
        }
        self.give_event(node, Event::Tick);
    }

    pub fn cut_all(&mut self, cut: bool) {
        for path in 0..2 {
            self.cut(path, cut);
        }
    }

    pub fn cut(&mut self, path: usize, cut: bool) {
        for link in &mut self.links[path] {
            link.cut = cut;
        }
    }

    /// Puts a write of the register that is under way on the disk, or loses it, at random: the power is lost or the
    /// daemon ends.
    fn finish_or_lose_writes(&mut self, node: NodeId) {
        let daemon_run = self.nodes[node.index()].daemon_run;
        let under_way: Vec<AcceptorRecord> = self
            .queue
            .values()
            .filter_map(|due| match due {
                FutureEvent::Input(to, of, DaemonInput::Persisted(_, record)) if *to == node && *of == daemon_run => {
                    Some(record.clone())
                }
                _ => None,
            })
            .collect();
        for record in under_way {
            if self.prng.chance(500) {
                self.nodes[node.index()].disk.record = record;
            }
        }
    }

    fn start_core(&mut self, node: NodeId) {
        let (watchdogs_proven, timing, mutants) = (self.watchdogs_proven, self.timing.clone(), self.mutants);
        let now = self.now;
        let machine = &mut self.nodes[node.index()];
        machine.daemon_run += 1;
        let setup = Setup {
            me: node,
            pair: PAIR,
            boot: machine.boot_id(),
            paths: 2,
            timing,
            watchdog_proven: watchdogs_proven,
            peer_watchdog_proven: watchdogs_proven,
        };
        machine.core = Some(Quorum::with_mutants(setup, machine.disk.record.clone(), machine.clock(now), mutants));
        machine.peer_holds = [WriteId::default(); VMS];
        machine.pending = [None; VMS];
        machine.resyncing = false;
        machine.stopped = false;
        machine.leave_done = false;
        machine.backlog.clear();
        machine.wake_at = 0;
        if machine.watchdog_at == Nanos::MAX {
            machine.watchdog_at = now + 3 * SEC;
            let boot = machine.boots;
            self.schedule(3 * SEC, FutureEvent::Watchdog(node, boot));
        }
        let found = self.nodes[node.index()].vms.contains(&true);
        self.give_event(node, if found { Event::VmsRunning(true) } else { Event::Tick });
        self.schedule_input(node, 10 * MS, DaemonInput::Mirror);
    }

    // ---- time ---------------------------------------------------------------------------------------------------

    /// Lets this much time pass.
    pub fn run(&mut self, length: Nanos) {
        let end = self.now + length;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `condition` holds; panics with the state of the pair after `seconds`.
    pub fn until(&mut self, what: &str, seconds: u64, condition: impl Fn(&Pair) -> bool) {
        let end = self.now + seconds * SEC;
        while !condition(self) {
            let more = self.step(end);
            self.assert_invariants();
            assert!(more, "waited {seconds} s in vain: {what}\n{}", self.describe());
        }
    }

    /// Fails the test if an invariant was broken.
    pub fn assert_invariants(&self) {
        if let Some(violation) = &self.violation {
            panic!("{violation}\n{}", self.describe());
        }
    }

    fn step(&mut self, end: Nanos) -> bool {
        let Some(entry) = self.queue.first_entry() else { return false };
        if entry.key().0 > end {
            return false;
        }
        let ((at, _), due) = entry.remove_entry();
        self.now = self.now.max(at);
        self.handle_future_event(due);
        let bases = [self.nodes[0].config(), self.nodes[1].config(), &self.witness.base];
        let body = self.oracle.check(&self.nodes, bases);
        if let Err(violation) = body {
            self.violation.get_or_insert(violation);
        }
        true
    }

    pub fn schedule(&mut self, delay: Nanos, due: FutureEvent) {
        self.newest_number += 1;
        self.queue.insert((self.now + delay, self.newest_number), due);
    }

    pub fn schedule_input(&mut self, node: NodeId, delay: Nanos, input: DaemonInput) {
        let daemon_run = self.nodes[node.index()].daemon_run;
        self.schedule(delay, FutureEvent::Input(node, daemon_run, input));
    }

    fn handle_future_event(&mut self, due: FutureEvent) {
        match due {
            FutureEvent::Input(node, daemon_run, input) => {
                let machine = &mut self.nodes[node.index()];
                if machine.daemon_run != daemon_run {
                    return;
                }
                if machine.stopped {
                    machine.backlog.push(input);
                } else {
                    self.handle_input(node, input);
                }
            }
            FutureEvent::NetworkInput(node, input) => {
                let daemon_run = self.nodes[node.index()].daemon_run;
                if self.nodes[node.index()].up {
                    self.handle_future_event(FutureEvent::Input(node, daemon_run, input));
                }
            }
            FutureEvent::WitnessRequest(from, daemon_run, id, request) => {
                self.answer_as_witness(from, daemon_run, id, request)
            }
            FutureEvent::Watchdog(node, boot) => {
                let machine = &self.nodes[node.index()];
                if machine.boots != boot || !machine.up {
                    return;
                }
                if self.now >= machine.watchdog_at {
                    self.power_off(node);
                    self.power_on_in(node, 10 * SEC);
                } else {
                    let delay = machine.watchdog_at - self.now;
                    self.schedule(delay, FutureEvent::Watchdog(node, boot));
                }
            }
            FutureEvent::PowerOn(node) => self.power_on(node),
            FutureEvent::StartCore(node, boot) => {
                let machine = &self.nodes[node.index()];
                if machine.up && machine.boots == boot && machine.core.is_none() {
                    self.start_core(node);
                }
            }
        }
    }

    fn answer_as_witness(&mut self, from: NodeId, daemon_run: u64, id: WitnessRequestId, request: WitnessRequest) {
        let half = self.witness_rtt / 2;
        let reachable = self.witness_up && self.reaches_witness[from.index()];
        let reply = if !reachable {
            WitnessReply::NoAnswer
        } else {
            // The record is durable here at once; the network may lose the reply.
            let reply: AcceptorReply = acceptor::handle(&mut self.witness, &request);
            if self.prng.chance(self.witness_loss) { WitnessReply::NoAnswer } else { WitnessReply::Received(reply) }
        };
        self.schedule(half, FutureEvent::Input(from, daemon_run, DaemonInput::Witness(id, reply)));
    }

    // ---- observations -------------------------------------------------------------------------------------------

    /// Whether the newest chosen configuration has this shape and each running member of it holds it durably. "D(W)" =
    /// both nodes are members and the tie is at W; "S(A)" = A is the only member.
    pub fn has_shape(&self, shape: &str) -> bool {
        let Some(newest) = self.oracle.newest() else { return false };
        let name = match (newest.members.solo(), newest.tie) {
            (Some(node), _) => format!("S({node})"),
            (None, Acceptor::W) => "D(W)".to_string(),
            (None, tie) => format!("D({tie:?})"),
        };
        name == shape
            && self.nodes.iter().all(|node| !node.up || !newest.members.has(node.id) || node.config() == newest)
    }

    /// The node on which the VM executes.
    pub fn node_of(&self, vm: usize) -> Option<NodeId> {
        self.nodes.iter().find(|machine| machine.executes(vm)).map(|machine| machine.id)
    }

    pub fn describe(&self) -> String {
        let mut text = format!("at {} ms\n", self.now / MS);
        for machine in &self.nodes {
            text += &format!(
                "{}: up {} vms {:?} frozen {} vm_node {:?} data {:?} run_state {:?}\n  record {:?}\n",
                machine.id,
                machine.up,
                machine.vms,
                machine.frozen,
                machine.disk.vm_node,
                machine.disk.data,
                machine.core.as_ref().map(|core| core.run_state()),
                machine.disk.record,
            );
            for (at, note) in machine.notes.iter().rev().take(12).rev() {
                text += &format!("  {} ms {note:?}\n", at / MS);
            }
        }
        text += &format!("W: {:?}\nacked {:?}\n", self.witness, self.oracle.acknowledged);
        text
    }
}

//! The world around two machines: time, network, witness, power.

use std::collections::BTreeMap;

use dyad_quorum::mutants::Mutants;
use dyad_quorum::{
    Acceptor, AcceptorReply, Datagram, Event, MS, Members, Nanos, Quorum, Record, SEC, Setup, Timing, WitnessId,
    WitnessReply, WitnessRequest, WitnessRequestId, WriteToken, acceptor,
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

/// Something on its way to a daemon.
#[derive(Clone, Debug)]
pub enum Incoming {
    Datagram(u8, Datagram),
    Witness(WitnessRequestId, WitnessReply),
    Persisted(WriteToken, Record),
    PersistFailed(WriteToken),
    Frozen,
    Killed,
    Replicate(usize, WriteId, Epoch),
    Replicated(usize, WriteId),
    Wake,
    Mirror,
    Event(Event),
}

#[derive(Clone, Debug)]
pub enum Due {
    /// For this run of the node's daemon.
    In(NodeId, u64, Incoming),
    /// For the daemon that runs at that time, if any.
    Net(NodeId, Incoming),
    Witness(NodeId, u64, WitnessRequestId, WitnessRequest),
    Watchdog(NodeId, u64),
    PowerOn(NodeId),
    /// Init starts the daemon of this boot again.
    StartCore(NodeId, u64),
}

/// The pair and its surroundings.
#[derive(Clone, Debug)]
pub struct Pair {
    pub now: Nanos,
    pub prng: Prng,
    pub nodes: [Machine; 2],
    /// Indexed as `links[path][from]`.
    pub links: [[Link; 2]; 2],
    pub witness: Record,
    pub witness_up: bool,
    /// Who reaches the witness.
    pub reach: [bool; 2],
    pub witness_rtt: Nanos,
    /// Replies of the witness lost, of a thousand.
    pub witness_loss: u64,
    pub timing: Timing,
    pub mutants: Mutants,
    pub oracle: Oracle,
    pub violation: Option<String>,
    pub resync_time: Nanos,
    pub peer_watchdog: bool,
    queue: BTreeMap<(Nanos, u64), Due>,
    number: u64,
}

impl Pair {
    /// Both nodes in sync, tie at the witness, VM 0 on A and VM 1 on B.
    pub fn protected(seed: u64) -> Pair {
        Pair::protected_with(seed, Timing { readmit_flapping: 5 * SEC, ..Timing::default() }, Mutants::NONE)
    }

    pub fn protected_with(seed: u64, timing: Timing, mutants: Mutants) -> Pair {
        let mut pair = Pair::pair_created(seed, timing, mutants);
        pair.tell(NodeId::A, Event::Admit { incarnation: 202 });
        pair.until("B joins", 60, |pair| pair.nodes[0].config().members == Members::Both);
        pair.tell(NodeId::A, Event::Enrol { witness: WITNESS, incarnation: 303 });
        pair.until("the tie goes to the witness", 60, |pair| pair.is("D(W)"));
        pair.place(1, NodeId::B);
        pair.until("both VMs run", 10, |pair| pair.runner(0).is_some() && pair.runner(1) == Some(NodeId::B));
        pair.run(SEC);
        pair
    }

    /// Moves a VM, stopped in between. The document is replicated, so both nodes are in sync.
    pub fn place(&mut self, vm: usize, to: NodeId) {
        assert_eq!(self.nodes[0].config().members, Members::Both);
        for machine in &mut self.nodes {
            machine.disk.vm_node[vm] = to;
            machine.vms[vm] = false;
            machine.pending[vm] = None;
        }
    }

    /// A alone, B with an empty store, the witness not enrolled.
    pub fn pair_created(seed: u64, timing: Timing, mutants: Mutants) -> Pair {
        let nodes =
            [Machine::new(NodeId::A, Record::first_node(NodeId::A, 101)), Machine::new(NodeId::B, Record::fresh(202))];
        let mut pair = Pair {
            now: SEC,
            prng: Prng::new(seed),
            nodes,
            links: Default::default(),
            witness: Record::witness(WITNESS, 303),
            witness_up: true,
            reach: [true; 2],
            witness_rtt: 50 * MS,
            witness_loss: 0,
            timing,
            mutants,
            oracle: Oracle::default(),
            violation: None,
            resync_time: SEC,
            peer_watchdog: true,
            queue: BTreeMap::new(),
            number: 0,
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
        self.put(delay, Due::PowerOn(node));
    }

    pub fn power_off(&mut self, node: NodeId) {
        self.tear_writes(node);
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
            self.tear_writes(node);
            self.start_core(node);
        }
    }

    /// `kill -9` of the daemon; init restarts it after `away`. Its kernel closes the session if a cable is whole.
    pub fn kill_core(&mut self, node: NodeId, away: Nanos) {
        self.tear_writes(node);
        let machine = &mut self.nodes[node.index()];
        machine.core = None;
        machine.daemon_run += 1;
        machine.stopped = false;
        machine.backlog.clear();
        let boot = machine.boots;
        if self.links.iter().any(|path| path.iter().all(|link| !link.cut)) {
            self.put(MS, Due::Net(node.peer(), Incoming::Event(Event::PeerClosed)));
        }
        self.put(away, Due::StartCore(node, boot));
    }

    pub fn stop_core(&mut self, node: NodeId) {
        self.nodes[node.index()].stopped = true;
    }

    pub fn continue_core(&mut self, node: NodeId) {
        self.nodes[node.index()].stopped = false;
        let backlog = std::mem::take(&mut self.nodes[node.index()].backlog);
        for incoming in backlog {
            self.incoming(node, incoming);
        }
        self.feed(node, Event::Tick);
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

    /// A write under way when the power goes may or may not be on the disk.
    fn tear_writes(&mut self, node: NodeId) {
        let daemon_run = self.nodes[node.index()].daemon_run;
        let under_way: Vec<Record> = self
            .queue
            .values()
            .filter_map(|due| match due {
                Due::In(to, of, Incoming::Persisted(_, record)) if *to == node && *of == daemon_run => {
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
        let (peer_watchdog, timing, mutants) = (self.peer_watchdog, self.timing.clone(), self.mutants);
        let now = self.now;
        let machine = &mut self.nodes[node.index()];
        machine.daemon_run += 1;
        let setup = Setup {
            me: node,
            pair: PAIR,
            boot: machine.boot_id(),
            paths: 2,
            timing,
            watchdog: peer_watchdog,
            peer_watchdog,
        };
        machine.core = Some(Quorum::with_mutants(setup, machine.disk.record.clone(), machine.clock(now), mutants));
        machine.peer_holds = [WriteId::default(); VMS];
        machine.pending = [None; VMS];
        machine.syncing = false;
        machine.stopped = false;
        machine.leave_done = false;
        machine.backlog.clear();
        machine.wake_at = 0;
        if machine.watchdog_at == Nanos::MAX {
            machine.watchdog_at = now + 3 * SEC;
            let boot = machine.boots;
            self.put(3 * SEC, Due::Watchdog(node, boot));
        }
        let found = self.nodes[node.index()].vms.contains(&true);
        self.feed(node, if found { Event::VmsRunning(true) } else { Event::Tick });
        self.put_in(node, 10 * MS, Incoming::Mirror);
    }

    // ---- time ---------------------------------------------------------------------------------------------------

    pub fn run(&mut self, length: Nanos) {
        let end = self.now + length;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `condition` holds; panics with the state after `seconds`.
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
        self.fire(due);
        let bases = [self.nodes[0].config(), self.nodes[1].config(), &self.witness.base];
        let body = self.oracle.check(&self.nodes, bases);
        if let Err(violation) = body {
            self.violation.get_or_insert(violation);
        }
        true
    }

    pub fn put(&mut self, delay: Nanos, due: Due) {
        self.number += 1;
        self.queue.insert((self.now + delay, self.number), due);
    }

    pub fn put_in(&mut self, node: NodeId, delay: Nanos, incoming: Incoming) {
        let daemon_run = self.nodes[node.index()].daemon_run;
        self.put(delay, Due::In(node, daemon_run, incoming));
    }

    fn fire(&mut self, due: Due) {
        match due {
            Due::In(node, daemon_run, incoming) => {
                let machine = &mut self.nodes[node.index()];
                if machine.daemon_run != daemon_run {
                    return;
                }
                if machine.stopped {
                    machine.backlog.push(incoming);
                } else {
                    self.incoming(node, incoming);
                }
            }
            Due::Net(node, incoming) => {
                let daemon_run = self.nodes[node.index()].daemon_run;
                if self.nodes[node.index()].up {
                    self.fire(Due::In(node, daemon_run, incoming));
                }
            }
            Due::Witness(from, daemon_run, id, request) => self.at_witness(from, daemon_run, id, request),
            Due::Watchdog(node, boot) => {
                let machine = &self.nodes[node.index()];
                if machine.boots != boot || !machine.up {
                    return;
                }
                if self.now >= machine.watchdog_at {
                    self.power_off(node);
                    self.power_on_in(node, 10 * SEC);
                } else {
                    let delay = machine.watchdog_at - self.now;
                    self.put(delay, Due::Watchdog(node, boot));
                }
            }
            Due::PowerOn(node) => self.power_on(node),
            Due::StartCore(node, boot) => {
                let machine = &self.nodes[node.index()];
                if machine.up && machine.boots == boot && machine.core.is_none() {
                    self.start_core(node);
                }
            }
        }
    }

    fn at_witness(&mut self, from: NodeId, daemon_run: u64, id: WitnessRequestId, request: WitnessRequest) {
        let half = self.witness_rtt / 2;
        let reachable = self.witness_up && self.reach[from.index()];
        let reply = if !reachable {
            WitnessReply::Unreachable
        } else {
            // The record is durable here at once; the network may lose the reply.
            let reply: AcceptorReply = acceptor::handle(&mut self.witness, &request);
            if self.prng.chance(self.witness_loss) { WitnessReply::Unreachable } else { WitnessReply::Received(reply) }
        };
        self.put(half, Due::In(from, daemon_run, Incoming::Witness(id, reply)));
    }

    // ---- looking ------------------------------------------------------------------------------------------------

    /// Whether every running node's durable configuration that is newest looks like this, for example "D(W)", "S(A)".
    pub fn is(&self, shape: &str) -> bool {
        let Some(newest) = self.oracle.newest() else { return false };
        let name = match (newest.members.solo(), newest.tie) {
            (Some(node), _) => format!("S({node})"),
            (None, Acceptor::W) => "D(W)".to_string(),
            (None, tie) => format!("D({tie:?})"),
        };
        name == shape
            && self.nodes.iter().all(|node| !node.up || !newest.members.has(node.id) || node.config() == newest)
    }

    /// Where a VM executes.
    pub fn runner(&self, vm: usize) -> Option<NodeId> {
        self.nodes.iter().find(|machine| machine.executing(vm)).map(|machine| machine.id)
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
        text += &format!("W: {:?}\nacked {:?}\n", self.witness, self.oracle.acked);
        text
    }
}

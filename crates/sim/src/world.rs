//! The simulated world: time, the queue of future events, both machines, the witness, the network.

use crate::core_model::CoreModel;
use crate::guests::GuestResult;
use crate::machine::{Core, Machine, Vm, VmIndex};
use crate::net::PeerLink;
use crate::options::{Options, PlantedBug, RunResult};
use crate::quorum_thread::{CgroupCommand, QuorumUpdate, WATCHDOG_PERIOD};
use crate::store;
use dyad_mirror::oracle::Oracle;
use dyad_mirror::{Event, GuestOp, Mirror, PeerMessage, RequestId, StoreError, StoreOp, StoreOutput, Tuning};
use dyad_pool::PoolDisk;
use dyad_pool::sim::{Seed, SimDisk};
use dyad_quorum::mutants::Mutants;
use dyad_quorum::{
    Acceptor, Config, Datagram, MS, Nanos, Quorum, Record, SEC, Setup, Timing, WitnessId, WitnessRequest,
    WitnessRequestId, WriteToken,
};
use dyad_testkit::Prng;
use dyad_types::{Epoch, NodeId, Session};
use std::collections::BTreeMap;
use std::path::Path;

pub const PAIR: u128 = 0xD1AD;
const WITNESS: WitnessId = WitnessId(77);

/// A job of a node's daemon.
#[derive(Debug, Clone)]
pub enum Job {
    Wake,
    Quorum(dyad_quorum::Event),
    Persisted(WriteToken, Record),
    QuorumUpdate(QuorumUpdate),
    Cgroup(CgroupCommand),
    CoreTick,
    Guest(VmIndex, RequestId, GuestOp),
    Answer(VmIndex, RequestId, GuestResult),
    Peer(Session, PeerMessage),
    SessionUp(Session),
    SessionDown(Session),
    DocumentChanged,
    StoreWork,
    Stored(StoreOp, Result<StoreOutput, StoreError>),
    Synced,
    Moved,
}

/// A future event in the queue.
#[derive(Debug, Clone)]
pub enum Due {
    /// For this run of the node's daemon.
    Node {
        node: usize,
        daemon_run: u64,
        job: Job,
    },
    Datagram {
        to: usize,
        datagram: Datagram,
    },
    Message {
        session: Session,
        to: usize,
    },
    Session,
    AskWitness {
        node: usize,
        daemon_run: u64,
        id: WitnessRequestId,
        request: WitnessRequest,
    },
    WitnessBack,
    RestoreNetwork,
    PowerOn(usize),
    StartCore {
        node: usize,
        boot: u64,
    },
    Continue(usize),
    Watchdog {
        node: usize,
        boot: u64,
    },
    Guest(VmIndex),
    StartVm {
        node: usize,
        boot: u64,
        vm: VmIndex,
    },
    Fault,
}

/// The whole state of a run.
pub struct World {
    pub now: Nanos,
    pub prng: Prng,
    pub options: Options,
    pub nodes: [Machine; 2],
    pub net: PeerLink,
    pub witness: Record,
    pub witness_up: bool,
    pub reach: [bool; 2],
    pub witness_rtt: Nanos,
    pub oracle: Oracle,
    pub chosen: BTreeMap<(u64, Epoch), Config>,
    pub result: RunResult,
    pub chaos: bool,
    /// Guests ask for nothing new.
    pub quiet: bool,
    pub next_request: RequestId,
    queue: BTreeMap<(Nanos, u64), Due>,
    number: u64,
}

impl World {
    /// Node A founded, node B blank, the witness not enrolled.
    pub fn new(seed: u64, options: Options, directory: &Path) -> anyhow::Result<Self> {
        let mut prng = Prng::new(seed ^ 0xD1AD_0000_0000_0001);
        let mut node = |id: NodeId, record: Record| -> anyhow::Result<Machine> {
            let disk = SimDisk::new(store::DISK, Seed(prng.next_u64()));
            let index = directory.join(id.to_string());
            std::fs::create_dir_all(&index)?;
            let plug = PoolDisk { name: id.to_string(), device: Box::new(disk.handle()), index: index.clone() };
            store::format(plug, PAIR, id)?;
            Ok(Machine {
                id,
                disk,
                index,
                record,
                up: false,
                boots: 0,
                boot_at: 0,
                clock_ppm: prng.below(19_000) as i64 - 9_500,
                daemon_run: 0,
                core: None,
                stopped: false,
                backlog: Vec::new(),
                vms: [Vm::default(), Vm::default()],
                frozen: false,
                kernel_slow_until: 0,
                watchdog_at: u64::MAX,
                complete: false,
                proven: false,
                clean_in: 0,
            })
        };
        let a = node(NodeId::A, Record::first_node(NodeId::A, 101))?;
        let b = node(NodeId::B, Record::fresh(202))?;
        Ok(Self {
            now: SEC,
            prng,
            options,
            nodes: [a, b],
            net: PeerLink::default(),
            witness: Record::witness(WITNESS, 303),
            witness_up: true,
            reach: [true; 2],
            witness_rtt: 20 * MS,
            oracle: Oracle::default(),
            chosen: BTreeMap::new(),
            result: RunResult { seed, ..RunResult::default() },
            chaos: false,
            quiet: true,
            next_request: RequestId::default(),
            queue: BTreeMap::new(),
            number: 0,
        })
    }

    /// From two blank machines to a protected pair with one VM on each.
    pub fn set_up(&mut self) {
        self.put(0, Due::Session);
        VmIndex::all().for_each(|vm| self.put(0, Due::Guest(vm)));
        self.power_on(0);
        self.power_on(1);
        self.run(SEC);
        self.create_pair(0);
        self.run(2 * SEC);
        self.tell_quorum_thread(0, dyad_quorum::Event::Admit { incarnation: 202 });
        self.until("B joins", 60, |world| world.steady());
        self.tell_quorum_thread(0, dyad_quorum::Event::Enrol { witness: WITNESS, incarnation: 303 });
        self.until("the tie goes to the witness", 60, |world| {
            world.steady() && world.nodes.iter().all(|node| node.record.base.tie == Acceptor::W)
        });
        self.until("both VMs run", 30, World::whole);
        self.move_vm(VmIndex(1), NodeId::B);
        self.until("one VM runs on each", 30, |world| world.whole() && world.nodes[1].executes(VmIndex(1)));
    }

    pub(crate) fn put(&mut self, delay: Nanos, due: Due) {
        self.number += 1;
        self.queue.insert((self.now + delay, self.number), due);
    }

    pub(crate) fn job(&mut self, node: usize, delay: Nanos, job: Job) {
        let daemon_run = self.nodes[node].daemon_run;
        self.put(delay, Due::Node { node, daemon_run, job });
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &Due> {
        self.queue.values()
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.result.events.entry(what).or_default() += 1;
    }

    /// A line of the event log; node 2 is the register.
    pub(crate) fn note(&mut self, node: usize, text: String) {
        if self.options.log {
            let who = ["A", "B", "-"][node];
            self.result.log.push(format!("{:>9.3} {who} {text}", self.now as f64 / 1e9));
        }
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.note(2, format!("VIOLATION {what}"));
        if self.result.violation.is_none() {
            self.result.violation = Some(format!("at {:.3} s: {what}", self.now as f64 / 1e9));
        }
    }

    /// Lets this much time pass, or less if an invariant is broken.
    pub fn run(&mut self, length: Nanos) {
        let end = self.now + length;
        while self.step(end) {}
        self.now = self.now.max(end);
    }

    /// Lets time pass until `condition` holds; not within `seconds` is a violation.
    pub fn until(&mut self, what: &str, seconds: u64, condition: impl Fn(&World) -> bool) {
        let end = self.now + seconds * SEC;
        while self.result.violation.is_none() && !condition(self) {
            if !self.step(end) {
                let state = self.describe();
                self.violate(format!("waited {seconds} s in vain: {what}; {state}"));
            }
        }
    }

    fn describe(&self) -> String {
        self.nodes
            .iter()
            .map(|node| {
                let core = node.core.as_ref().map(|core| {
                    (core.quorum.run_state(), core.model.mirror.phase(), core.model.document, core.model.idle())
                });
                let vms: Vec<_> = node.vms.iter().map(|vm| (vm.runs, vm.open.len())).collect();
                format!("{}: up {} frozen {} vms {vms:?} {core:?}; ", node.id, node.up, node.frozen)
            })
            .collect()
    }

    fn step(&mut self, end: Nanos) -> bool {
        if self.result.violation.is_some() {
            return false;
        }
        let Some(entry) = self.queue.first_entry() else { return false };
        if entry.key().0 > end {
            return false;
        }
        let ((at, _), due) = entry.remove_entry();
        self.now = self.now.max(at);
        self.fire(due);
        self.check();
        true
    }

    fn fire(&mut self, due: Due) {
        match due {
            Due::Node { node, daemon_run, job } => {
                let machine = &mut self.nodes[node];
                if machine.daemon_run != daemon_run || machine.core.is_none() {
                    return;
                }
                if machine.stopped && !matches!(job, Job::Cgroup(_)) {
                    machine.backlog.push(job);
                } else {
                    self.work(node, job);
                }
            }
            Due::Datagram { to, datagram } => {
                let event = dyad_quorum::Event::Peer { path: 0, datagram };
                self.job(to, 0, Job::Quorum(event));
            }
            Due::Message { session, to } => self.message_arrives(session, to),
            Due::Session => self.session_tick(),
            Due::AskWitness { node, daemon_run, id, request } => self.ask_witness(node, daemon_run, id, &request),
            Due::WitnessBack => self.witness_back(),
            Due::RestoreNetwork => self.restore_network(),
            Due::PowerOn(node) => self.power_on(node),
            Due::StartCore { node, boot } => {
                if self.nodes[node].up && self.nodes[node].boots == boot && self.nodes[node].core.is_none() {
                    self.start_core(node);
                }
            }
            Due::Continue(node) => self.continue_core(node),
            Due::Watchdog { node, boot } => self.watchdog(node, boot),
            Due::Guest(vm) => self.guest_step(vm),
            Due::StartVm { node, boot, vm } => self.start_vm(node, boot, vm),
            Due::Fault => self.fault(),
        }
    }

    pub(crate) fn work(&mut self, node: usize, job: Job) {
        match job {
            Job::Wake => self.run_quorum(node, dyad_quorum::Event::Tick),
            Job::Quorum(event) => self.run_quorum(node, event),
            Job::Persisted(token, record) => {
                self.nodes[node].record = record;
                self.run_quorum(node, dyad_quorum::Event::Persisted { token });
            }
            Job::QuorumUpdate(update) => self.apply_quorum_update(node, update),
            Job::Cgroup(command) => self.apply_cgroup_command(node, command),
            Job::CoreTick => self.core_tick(node),
            Job::Guest(vm, req, op) => self.take_request(node, vm, req, op),
            Job::Answer(vm, req, reply) => self.answer_guest(node, vm, req, reply),
            Job::Peer(session, message) => self.mirror(node, Event::Peer { session, message }),
            Job::SessionUp(session) => self.session_up(node, session),
            Job::SessionDown(session) => self.session_down(node, session),
            Job::DocumentChanged => self.reload(node),
            Job::StoreWork => self.store_work(node),
            Job::Stored(op, result) => self.mirror(node, Event::Stored { op, result }),
            Job::Synced => self.store_synced(node),
            Job::Moved => self.store_moved(node),
        }
    }

    /// The daemon starts: it opens its pool and reads its record; VMs may be running.
    pub(crate) fn start_core(&mut self, node: usize) {
        let mutants = match self.options.planted_bug {
            Some(PlantedBug::Quorum(mutant)) => Mutants::plant(mutant),
            _ => Mutants::NONE,
        };
        let now = self.now;
        let machine = &mut self.nodes[node];
        machine.daemon_run += 1;
        let clock = machine.clock(now);
        let plug = PoolDisk {
            name: machine.id.to_string(),
            device: Box::new(machine.disk.handle()),
            index: machine.index.clone(),
        };
        let store = match store::open(plug, PAIR, machine.id) {
            Ok(store) => store,
            Err(error) => return self.violate(format!("the pool of node {node} does not open: {error:#}")),
        };
        let setup = Setup {
            me: machine.id,
            pair: PAIR,
            boot: machine.boot_id(),
            paths: 1,
            timing: Timing { readmit_flapping: 5 * SEC, ..Timing::standard() },
            watchdog: true,
            peer_watchdog: true,
        };
        let inventory = dyad_replica::inventory(&store.pool);
        let mirror = Mirror::new(clock, Tuning::default(), inventory);
        let found = machine.has_vms();
        machine.core = Some(Core {
            quorum: Quorum::with_mutants(setup, machine.record.clone(), clock, mutants),
            model: CoreModel::new(mirror, machine.record.base.clone(), found),
            store,
            handled: 0,
            may_run: false,
            session: None,
            wake_at: 0,
            to_core_model: now,
            to_quorum_thread: now,
            to_cgroup_fence: now,
        });
        let boot = machine.boots;
        if machine.watchdog_at == u64::MAX {
            machine.watchdog_at = now + WATCHDOG_PERIOD;
            self.put(WATCHDOG_PERIOD, Due::Watchdog { node, boot });
        }
        let thaw = self.nodes[node].frozen;
        self.run_quorum(node, if found { dyad_quorum::Event::VmsRunning(true) } else { dyad_quorum::Event::Tick });
        if thaw && self.nodes[node].core.as_ref().is_some_and(|core| core.may_run) {
            // An earlier daemon froze them, and this `Quorum` did not, so nothing else thaws them.
            self.send_cgroup_command(node, CgroupCommand::Thaw);
        }
        self.start_core_model(node);
    }
}

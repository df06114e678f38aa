//! The state of a run: time, the queue of future events, both machines, the witness, the network.

use crate::core_model::CoreModel;
use crate::documents::{DocumentInput, DocumentReport};
use crate::full_pools::Filling;
use crate::guests::GuestResult;
use crate::machine::{Core, Machine, VMS, Vm, VmIndex};
use crate::net::PeerLink;
use crate::operator::Operator;
use crate::options::{Options, PlantedBug, RunResult};
use crate::partial_faults::PartialFault;
use crate::quorum_thread::{QuorumUpdate, WATCHDOG_PERIOD};
use crate::store;
use dyad_desired::Change;
use dyad_mirror::oracle::Oracle;
use dyad_mirror::{Event, GuestOp, Mirror, PeerMessage, RequestId, StoreError, StoreOp, StoreOutput, Tuning};
use dyad_placement::{CgroupCommand, CgroupRule, ChangeTicket};
use dyad_pool::PoolDisk;
use dyad_pool::sim::{Seed, SimDisk};
use dyad_quorum::mutants::Mutants;
use dyad_quorum::{
    Acceptor, AcceptorRecord, Config, Datagram, MS, Nanos, Quorum, SEC, Setup, Timing, WitnessId, WitnessRequest,
    WitnessRequestId, WriteToken,
};
use dyad_testkit::Prng;
use dyad_types::{Epoch, NodeId, Session};
use std::collections::BTreeMap;
use std::path::Path;

pub const PAIR: u128 = 0xD1AD;
pub const WITNESS: WitnessId = WitnessId(77);
/// Incarnation of the newest store at the set-up.
const FIRST_INCARNATION: u64 = 303;

/// A job of a node's daemon.
#[derive(Debug, Clone)]
pub enum DaemonJob {
    /// The quorum thread wakes up.
    Wake,
    /// An event reaches the quorum thread.
    Quorum(dyad_quorum::Event),
    /// A record has become durable.
    Persisted(WriteToken, AcceptorRecord),
    /// A message of the quorum thread reaches the core model.
    QuorumUpdate(QuorumUpdate),
    /// The kernel carries out a command. It does so also while the daemon is stopped.
    Cgroup(CgroupCommand),
    /// The core model does its periodic work.
    CoreTick,
    /// The core model derives what follows from its state.
    Settle,
    /// A request of a guest reaches the core model.
    GuestRequest(VmIndex, RequestId, GuestOp),
    /// The answer to a request reaches the guest.
    GuestReply(VmIndex, RequestId, GuestResult),
    /// A message of the peer's mirror arrives.
    PeerMessage(Session, PeerMessage),
    /// A data session with the peer begins.
    SessionUp(Session),
    /// A data session with the peer has ended.
    SessionDown(Session),
    /// The peer knows this generation of the document.
    PeerKnows { session: Session, generation: u64 },
    /// The peer passes a change of the document on.
    PeerChange { session: Session, ticket: ChangeTicket, change: Change },
    /// The peer has decided a change that was passed on to it.
    PeerDecided { session: Session, ticket: ChangeTicket, made: bool },
    /// An input of the document's task.
    Documents(DocumentInput),
    /// A report of the document's task to the core model.
    DocumentReport(DocumentReport),
    /// An event of another thread, or of a timer, for placement.
    Placement(dyad_placement::Event),
    /// A change of the document is decided.
    ChangeDone(ChangeTicket, bool),
    /// The store carries out its next command.
    StoreWork,
    /// The result of a command reaches the mirror.
    Stored(StoreOp, Result<StoreOutput, StoreError>),
    /// A sync of the store is complete.
    SyncDone,
    /// A checkpoint step of the store is complete.
    CheckpointStepDone,
}

/// A future event in the queue.
#[derive(Debug, Clone)]
pub enum FutureEvent {
    /// A job for this run of the node's daemon; dropped if that run has ended.
    Job {
        node: usize,
        daemon_run: u64,
        job: DaemonJob,
    },
    /// A datagram arrives.
    Datagram {
        to: usize,
        datagram: Datagram,
    },
    /// The oldest message of the session arrives.
    Message {
        session: Session,
        to: usize,
    },
    /// The data session is examined, every 100 ms.
    SessionCheck,
    /// A request of this run of the node's daemon reaches the witness.
    AskWitness {
        node: usize,
        daemon_run: u64,
        id: WitnessRequestId,
        request: WitnessRequest,
    },
    /// The faults of the witness end.
    RestoreWitness,
    /// The faults of the network end.
    RestoreNetwork,
    PowerOn(usize),
    /// Init starts the daemon again, if the machine is still in this boot.
    StartCore {
        node: usize,
        boot: u64,
    },
    /// The daemon gets SIGCONT.
    ContinueCore(usize),
    /// The watchdog is examined, if the machine is still in this boot.
    Watchdog {
        node: usize,
        boot: u64,
    },
    /// A guest may send its next request.
    GuestRequest(VmIndex),
    /// The supervisor of the node works, if the machine is still in this boot.
    Supervise {
        node: usize,
        boot: u64,
    },
    /// The launcher of a VM enters the cgroup, if the machine is still in this boot.
    EnterCgroup {
        node: usize,
        boot: u64,
        vm: VmIndex,
        /// Number of the launcher.
        launch: u64,
    },
    /// A guest that was asked to shut down has done so.
    GuestStops {
        node: usize,
        boot: u64,
        vm: VmIndex,
    },
    /// The machine restarts, if it is still in this boot.
    Restart {
        node: usize,
        boot: u64,
    },
    /// The operator of a VM looks after it.
    Operate(VmIndex),
    /// The next random fault begins.
    Fault,
    /// The cause of the partial fault ends, or its repair goes on.
    EndPartialFault,
    /// The next step with the volume that fills the pools.
    FillPools,
}

/// The whole state of a run.
pub struct World {
    pub now: Nanos,
    pub prng: Prng,
    pub options: Options,
    pub nodes: [Machine; 2],
    pub link: PeerLink,
    /// The durable state of the witness.
    pub witness: AcceptorRecord,
    pub witness_up: bool,
    /// By node: whether it reaches the witness.
    pub reaches_witness: [bool; 2],
    /// Round-trip time to the witness.
    pub witness_rtt: Nanos,
    pub oracle: Oracle,
    /// By rank: every configuration that was the base of an acceptor.
    pub chosen: BTreeMap<(u64, Epoch), Config>,
    pub result: RunResult,
    /// Random faults begin.
    pub faults_enabled: bool,
    /// Guests send no new requests.
    pub guests_idle: bool,
    /// The newest generation of the document of which a change was reported as made.
    pub decided_generation: u64,
    /// By VM: its operator.
    pub operators: [Operator; VMS],
    pub next_request: RequestId,
    /// Times at which the guests sent their requests; those of answered requests are dropped from time to time.
    pub request_times: BTreeMap<RequestId, Nanos>,
    pub partial_fault: PartialFault,
    pub partial_fault_since: Nanos,
    /// Number of faults of the disk before the present one.
    pub disk_faults_before: u64,
    /// Bits on a medium have changed: some blocks may be unreadable on one node, or on both, until they are read or written.
    pub blocks_rotted: bool,
    /// A disk could not read, so that a checkpoint may have damaged blocks. They are repaired unless another fault follows.
    pub reads_failed: bool,
    pub filling: Filling,
    /// The witness's record is older than it was, and it was not enrolled again.
    pub witness_is_restored: bool,
    /// The new node that an operator has not admitted.
    pub unadmitted: Option<usize>,
    /// The record of the witness at the end of the partial fault before.
    pub witness_backup: Option<AcceptorRecord>,
    /// The newest incarnation of a store.
    newest_incarnation: u64,
    /// By VM: time since which nothing excuses that it executes nowhere.
    pub unserved_since: [Option<Nanos>; VMS],
    /// Future events by time; the number keeps the order of events of one time.
    queue: BTreeMap<(Nanos, u64), FutureEvent>,
    newest_number: u64,
}

impl World {
    /// Two machines without power: A has the record of the first node, B an empty store; the witness is not enrolled.
    pub fn new(seed: u64, options: Options, directory: &Path) -> anyhow::Result<Self> {
        let mut prng = Prng::new(seed ^ 0xD1AD_0000_0000_0001);
        let mut node = |id: NodeId, record: AcceptorRecord| -> anyhow::Result<Machine> {
            let disk = SimDisk::new(store::DISK_BYTES, Seed(prng.next_u64()));
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
                clock_ppm: prng.below(9_800) as i64 - 4_900,
                daemon_run: 0,
                core: None,
                stopped: false,
                backlog: Vec::new(),
                vms: [Vm::default(), Vm::default()],
                frozen: false,
                kernel_slow_until: 0,
                watchdog_at: u64::MAX,
                supervisor_input: None,
                newest_launch: 0,
                unknown_since: None,
                kept_memory: false,
                must_be_complete: false,
                clean_in_boot: 0,
            })
        };
        let a = node(NodeId::A, AcceptorRecord::first_node(NodeId::A, 101))?;
        let b = node(NodeId::B, AcceptorRecord::fresh(202))?;
        Ok(Self {
            now: SEC,
            prng,
            options,
            nodes: [a, b],
            link: PeerLink::default(),
            witness: AcceptorRecord::witness(WITNESS, FIRST_INCARNATION),
            witness_up: true,
            reaches_witness: [true; 2],
            witness_rtt: 20 * MS,
            oracle: Oracle::default(),
            chosen: BTreeMap::new(),
            result: RunResult { seed, ..RunResult::default() },
            faults_enabled: false,
            guests_idle: true,
            operators: [Operator::IDLE; VMS],
            decided_generation: 0,
            next_request: RequestId::default(),
            request_times: BTreeMap::new(),
            partial_fault: PartialFault::None,
            partial_fault_since: 0,
            disk_faults_before: 0,
            blocks_rotted: false,
            reads_failed: false,
            filling: Filling::OVER,
            witness_is_restored: false,
            unadmitted: None,
            witness_backup: None,
            newest_incarnation: FIRST_INCARNATION,
            unserved_since: [None; VMS],
            queue: BTreeMap::new(),
            newest_number: 0,
        })
    }

    /// Makes a protected pair of the two machines, with one VM on each.
    pub fn set_up(&mut self) {
        self.schedule(0, FutureEvent::SessionCheck);
        VmIndex::all().for_each(|vm| self.schedule(0, FutureEvent::GuestRequest(vm)));
        self.power_on(0);
        self.power_on(1);
        self.run(SEC);
        self.create_pair(0);
        self.run(2 * SEC);
        self.tell_quorum_thread(0, dyad_quorum::Event::Admit { incarnation: 202 });
        self.until("B joins", 60, |world| world.is_steady());
        self.tell_quorum_thread(0, dyad_quorum::Event::Enrol { witness: WITNESS, incarnation: FIRST_INCARNATION });
        self.until("the tie goes to the witness", 60, |world| {
            world.is_steady() && world.nodes.iter().all(|node| node.record.base.tie == Acceptor::W)
        });
        self.move_vm(VmIndex(0), NodeId::A);
        self.move_vm(VmIndex(1), NodeId::B);
        VmIndex::all().for_each(|vm| self.schedule(0, FutureEvent::Operate(vm)));
        self.until("one VM runs on each", 30, |world| world.is_whole() && world.nodes[1].executes(VmIndex(1)));
    }

    pub(crate) fn schedule(&mut self, delay: Nanos, due: FutureEvent) {
        self.newest_number += 1;
        self.queue.insert((self.now + delay, self.newest_number), due);
    }

    /// A new incarnation for a new store.
    pub(crate) fn new_incarnation(&mut self) -> u64 {
        self.newest_incarnation += 1;
        self.newest_incarnation
    }

    /// Schedules a job for the present run of the node's daemon.
    pub(crate) fn schedule_job(&mut self, node: usize, delay: Nanos, job: DaemonJob) {
        let daemon_run = self.nodes[node].daemon_run;
        self.schedule(delay, FutureEvent::Job { node, daemon_run, job });
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &FutureEvent> {
        self.queue.values()
    }

    pub(crate) fn count_event(&mut self, what: &'static str) {
        *self.result.events.entry(what).or_default() += 1;
    }

    /// Writes a line of the event log; node 2 stands for none.
    pub(crate) fn log_line(&mut self, node: usize, text: String) {
        if self.options.log {
            let who = ["A", "B", "-"][node];
            self.result.log.push(format!("{:>9.3} {who} {text}", self.now as f64 / 1e9));
        }
    }

    pub(crate) fn report_violation(&mut self, what: String) {
        self.log_line(2, format!("VIOLATION {what}"));
        if self.result.violation.is_none() {
            self.result.violation = Some(format!("at {:.3} s: {what}", self.now as f64 / 1e9));
        }
    }

    /// Lets this much time pass; no event is handled after an invariant was broken.
    pub fn run(&mut self, length: Nanos) {
        let end = self.now + length;
        while self.step(end) {}
        self.now = self.now.max(end);
    }

    /// Lets time pass until `condition` holds. It is a violation if it does not within `seconds`.
    pub fn until(&mut self, what: &str, seconds: u64, condition: impl Fn(&World) -> bool) {
        let end = self.now + seconds * SEC;
        while self.result.violation.is_none() && !condition(self) {
            if !self.step(end) {
                let state = self.describe();
                self.report_violation(format!("waited {seconds} s in vain: {what}; {state}"));
            }
        }
    }

    pub(crate) fn describe(&self) -> String {
        self.nodes
            .iter()
            .map(|node| {
                let core = node.core.as_ref().map(|core| {
                    let document = core.model.placement.authoritative_document();
                    let vms = document.map(|document| {
                        let vm = |vm: &dyad_desired::Vm| (vm.config.node, vm.config.intent);
                        (document.generation, document.vms.values().map(vm).collect::<Vec<_>>())
                    });
                    let permits = core.model.placement.permits().clone();
                    let alarms: Vec<_> = core.quorum.alarms().collect();
                    (core.quorum.run_state(), alarms, core.model.mirror.phase(), vms, permits, core.model.idle())
                });
                let vms: Vec<_> = node.vms.iter().map(|vm| (vm.phase, vm.in_cgroup, vm.open.len())).collect();
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
        self.handle_future_event(due);
        self.check_invariants();
        true
    }

    fn handle_future_event(&mut self, due: FutureEvent) {
        match due {
            FutureEvent::Job { node, daemon_run, job } => {
                let machine = &mut self.nodes[node];
                if machine.daemon_run != daemon_run || machine.core.is_none() {
                    return;
                }
                if machine.stopped && !matches!(job, DaemonJob::Cgroup(_)) {
                    machine.backlog.push(job);
                } else {
                    self.run_job(node, job);
                }
            }
            FutureEvent::Datagram { to, datagram } => {
                let event = dyad_quorum::Event::Peer { path: 0, datagram };
                self.schedule_job(to, 0, DaemonJob::Quorum(event));
            }
            FutureEvent::Message { session, to } => self.deliver_message(session, to),
            FutureEvent::SessionCheck => {
                self.check_pauses();
                self.check_unknown_vms();
                self.check_service();
                self.check_session();
            }
            FutureEvent::AskWitness { node, daemon_run, id, request } => {
                self.ask_witness(node, daemon_run, id, &request)
            }
            FutureEvent::RestoreWitness => self.restore_witness(),
            FutureEvent::RestoreNetwork => self.restore_network(),
            FutureEvent::PowerOn(node) => self.power_on(node),
            FutureEvent::StartCore { node, boot } => {
                if self.nodes[node].up && self.nodes[node].boots == boot && self.nodes[node].core.is_none() {
                    self.start_core(node);
                }
            }
            FutureEvent::ContinueCore(node) => self.continue_core(node),
            FutureEvent::Watchdog { node, boot } => self.check_watchdog(node, boot),
            FutureEvent::GuestRequest(vm) => self.send_guest_request(vm),
            FutureEvent::Supervise { node, boot } => self.supervise(node, boot),
            FutureEvent::EnterCgroup { node, boot, vm, launch } => self.enter_cgroup(node, boot, vm, launch),
            FutureEvent::GuestStops { node, boot, vm } => self.guest_stops(node, boot, vm),
            FutureEvent::Restart { node, boot } => {
                if self.nodes[node].up && self.nodes[node].boots == boot {
                    self.power_cycle(node);
                }
            }
            FutureEvent::Operate(vm) => self.operate(vm),
            FutureEvent::Fault if self.options.partial_faults => self.random_partial_fault(),
            FutureEvent::Fault => self.random_fault(),
            FutureEvent::EndPartialFault => self.end_partial_fault(),
            FutureEvent::FillPools => self.fill_pools(),
        }
    }

    pub(crate) fn run_job(&mut self, node: usize, job: DaemonJob) {
        match job {
            DaemonJob::Wake => self.run_quorum(node, dyad_quorum::Event::Tick),
            DaemonJob::Quorum(event) => self.run_quorum(node, event),
            DaemonJob::Persisted(token, record) => {
                self.nodes[node].record = record;
                self.run_quorum(node, dyad_quorum::Event::Persisted { token });
            }
            DaemonJob::QuorumUpdate(update) => self.apply_quorum_update(node, update),
            DaemonJob::Cgroup(command) => self.apply_cgroup_command(node, command),
            DaemonJob::CoreTick => self.core_tick(node),
            DaemonJob::Settle => self.settle_core_model(node),
            DaemonJob::GuestRequest(vm, req, op) => self.take_request(node, vm, req, op),
            DaemonJob::GuestReply(vm, req, reply) => self.answer_guest(node, vm, req, reply),
            DaemonJob::PeerMessage(session, message) => self.mirror(node, Event::Peer { session, message }),
            DaemonJob::SessionUp(session) => self.session_up(node, session),
            DaemonJob::SessionDown(session) => self.session_down(node, session),
            DaemonJob::PeerKnows { session, .. }
            | DaemonJob::PeerChange { session, .. }
            | DaemonJob::PeerDecided { session, .. }
                if !self.is_session(node, session) => {}
            // While the link is cut, TCP sends again.
            DaemonJob::PeerKnows { .. } | DaemonJob::PeerChange { .. } | DaemonJob::PeerDecided { .. }
                if self.link.cut != [false; 2] =>
            {
                self.schedule_job(node, 50 * MS, job);
            }
            DaemonJob::PeerKnows { generation, .. } => {
                self.place(node, dyad_placement::Event::PeerKnows { generation });
                self.settle_core_model(node);
            }
            DaemonJob::PeerChange { ticket, change, .. } => self.peer_asks_change(node, ticket, change),
            DaemonJob::PeerDecided { ticket, made, .. } => self.peer_has_decided(node, ticket, made),
            DaemonJob::Documents(input) => self.run_documents(node, input),
            DaemonJob::DocumentReport(report) => self.take_document_report(node, report),
            DaemonJob::Placement(event) => {
                self.place(node, event);
                self.settle_core_model(node);
            }
            DaemonJob::ChangeDone(ticket, made) => self.change_done(node, ticket, made),
            DaemonJob::StoreWork | DaemonJob::SyncDone | DaemonJob::CheckpointStepDone if self.store_hangs(node) => {
                self.schedule_job(node, 10 * MS, job);
            }
            DaemonJob::StoreWork => self.store_work(node),
            DaemonJob::Stored(op, result) => self.mirror(node, Event::Stored { op, result }),
            DaemonJob::SyncDone => self.store_sync_done(node),
            DaemonJob::CheckpointStepDone => self.store_checkpoint_step_done(node),
        }
        self.settle_disk_fault(node);
    }

    /// Starts the daemon: it opens its pool and reads its record; VMs of an earlier run may exist.
    pub(crate) fn start_core(&mut self, node: usize) {
        let placement_mutants = match self.options.planted_bug {
            Some(PlantedBug::Placement(mutant)) => dyad_placement::Mutants::plant(mutant),
            _ => dyad_placement::Mutants::NONE,
        };
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
            Err(error) => return self.report_violation(format!("the pool of node {node} does not open: {error:#}")),
        };
        let setup = Setup {
            me: machine.id,
            pair: PAIR,
            boot: machine.boot_id(),
            paths: 1,
            timing: Timing::standard(),
            watchdog_proven: true,
            peer_watchdog_proven: true,
        };
        let inventory = dyad_replica::inventory(store.queue.pool());
        let mirror = Mirror::new(clock, Tuning::default(), inventory);
        let found = machine.has_vms();
        let mut writes = Vec::new();
        let cgroup_rule = CgroupRule::at_start(found, &mut writes);
        machine.core = Some(Core {
            quorum: Quorum::with_mutants(setup, machine.record.clone(), clock, mutants),
            model: CoreModel::new(machine.id, mirror, machine.record.base.clone(), clock, placement_mutants),
            store,
            handled_reports: 0,
            right: None,
            cgroup_rule,
            session: None,
            wake_at: 0,
            core_model_arrival: now,
            documents_arrival: now,
            quorum_thread_arrival: now,
            cgroup_fence_arrival: now,
        });
        let boot = machine.boots;
        if machine.watchdog_at == u64::MAX {
            machine.watchdog_at = now + WATCHDOG_PERIOD;
            self.schedule(WATCHDOG_PERIOD, FutureEvent::Watchdog { node, boot });
        }
        self.write_cgroup(node, &writes);
        self.run_quorum(node, dyad_quorum::Event::VmsRunning(found));
        self.start_core_model(node);
    }
}

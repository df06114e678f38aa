//! [`Quorum`]: one node's part of the quorum.
//!
//! Each event is handled in three steps: apply it (`receive`, `votes`), continue or begin a decision (`wanted`,
//! `drive`), then derive the outputs from the new state (`settle`): freeze or kill of VMs, fence, acknowledgement set,
//! alarms.
//!
//! At most one write of the record is under way. `Register` holds the durable record and the record being written; a
//! message that depends on the latter is held inside the write. Requests for a vote that arrive meanwhile are dropped:
//! the peer repeats them every [`crate::Timing::retry_interval`].

mod announced;
mod drive;
mod inputs;
mod proposals;
mod query;
mod receive;
mod register;
mod run_state;
mod settle;
mod votes;
mod wanted;

use std::collections::BTreeSet;

use crate::event::{Action, Alarm, Event, KillReason, Note, Proof, Reason, Setup, WitnessReply};
use crate::lease::Leases;
use crate::message::{AcceptorReply, Datagram, DatagramBody};
use crate::mutants::Mutants;
use crate::peer::PeerState;
use crate::removal_history::RemovalHistory;
use crate::rules::NodeRights;
use crate::types::{Acceptor, AcceptorRecord, Ballot, BootTime, Config, Exception, Members, WitnessId};
use crate::witness_state::WitnessState;
use announced::{Announced, FenceAnnounced};
use dyad_types::NodeId;
use inputs::{OwnState, PeerReplica, ReplicaProgress, Requests, VmState, Vms};
use proposals::{ActiveProposal, Proposals};
use register::{AfterPersist, DeferredVote, Register};

/// One node's part of the quorum. It has no side effects: it is given events and the time, and returns actions.
#[derive(Clone, Debug)]
pub struct Quorum {
    setup: Setup,
    /// Start time of the daemon.
    started: BootTime,
    /// Time of the event being handled. It never goes back.
    now: BootTime,
    mutants: Mutants,
    register: Register,
    proposals: Proposals,
    leases: Leases,
    peer: PeerState,
    replica: PeerReplica,
    witness: WitnessState,
    vms: Vms,
    own: OwnState,
    requests: Requests,
    announced: Announced,
    /// The newest id given to a write or to a request to the witness.
    last_id: u64,
}

impl Quorum {
    /// The state at the start of the daemon, with the durable record of this node.
    ///
    /// The first event must follow at once: [`Event::VmsRunning`] if the daemon finds VMs, else [`Event::Tick`].
    pub fn new(setup: Setup, record: AcceptorRecord, now: BootTime) -> Quorum {
        Quorum::with(setup, record, now, Mutants::NONE)
    }

    /// [`Quorum::new`] with a planted bug.
    #[cfg(feature = "mutants")]
    pub fn with_mutants(setup: Setup, record: AcceptorRecord, now: BootTime, mutants: Mutants) -> Quorum {
        Quorum::with(setup, record, now, mutants)
    }

    fn with(setup: Setup, record: AcceptorRecord, now: BootTime, mutants: Mutants) -> Quorum {
        // In a ballot of this node that is still promised, an acceptor may have accepted a value before the restart.
        let abandoned = record.promised != Ballot::ZERO && record.promised.node == setup.me;
        Quorum {
            started: now,
            now,
            mutants,
            proposals: Proposals::at_start(now, abandoned),
            leases: Leases::at_start(now, &setup.timing, mutants),
            peer: PeerState::at_start(now, setup.paths, setup.peer_watchdog_proven),
            replica: PeerReplica {
                progress: ReplicaProgress::Incomplete,
                stuck: None,
                removals: RemovalHistory::default(),
            },
            witness: WitnessState::at_start(now, &record),
            vms: Vms { state: VmState::None, maybe_frozen: false },
            own: OwnState {
                healthy: true,
                storage_answers: true,
                storage_answers_since: now,
                watchdog_proven: setup.watchdog_proven,
                leaving: false,
            },
            requests: Requests::default(),
            announced: Announced::nothing(),
            // Counted from the start time, so that no id of an earlier daemon of this boot is used again.
            last_id: now.0,
            register: Register::new(record, now),
            setup,
        }
    }

    /// Handles one event at time `now` and appends the actions to `out`, in the order in which they must be carried
    /// out.
    pub fn handle(&mut self, now: BootTime, event: Event, out: &mut Vec<Action>) {
        self.advance(now);
        // If the lease ended before this event, the VMs are frozen, even if the event renews the lease.
        self.settle_vms(out);
        self.apply(event, out);
        self.drive(out);
        self.settle(out);
    }

    fn advance(&mut self, now: BootTime) {
        // CLOCK_BOOTTIME does not go back; an older time from the caller is replaced by the newest one.
        let now = now.max(self.now);
        let overslept = now - self.now > 3 * self.setup.timing.heartbeat_interval;
        self.now = now;
        if overslept && now > self.started {
            // This node was not scheduled for more than 3 heartbeats, so heartbeats may be queued: judging the peer is
            // postponed by D.
            let resumed = now + self.setup.timing.detection_delay();
            self.peer.lost_at = Some(self.silent_from().max(resumed));
        }
        let memory = self.setup.timing.stuck_report_period;
        self.replica.stuck = self.replica.stuck.filter(|(_, last)| now <= *last + memory);
        self.peer.judge(now, &self.setup.timing);
    }

    fn apply(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Tick | Event::VmsThawed => {}
            Event::Peer { path, datagram } => self.on_datagram(path, datagram, out),
            Event::Witness { id, reply } => self.on_witness(id, reply, out),
            Event::Persisted { token } => self.on_persisted(token, out),
            Event::PersistFailed { token } => {
                if self.register.fail_write(token) {
                    self.proposals.active = None;
                }
            }
            Event::VmsRunning(true) => {
                if self.vms.state == VmState::None {
                    self.vms = Vms { state: VmState::Running, maybe_frozen: true };
                }
            }
            Event::VmsKilled => self.vms.state = VmState::None,
            Event::VmsRunning(false) => {
                // A kill or freeze that was ordered ends only with the kernel's confirmation: a VM may be entering the cgroup.
                if matches!(self.vms.state, VmState::Running | VmState::Frozen) {
                    self.vms.state = VmState::None;
                }
            }
            Event::VmsFrozen => {
                if self.vms.state == VmState::Freezing {
                    self.vms.state = VmState::Frozen;
                }
            }
            Event::PeerClosed => {
                // The end of a session does not postpone the removal of a peer that is silent already.
                if self.peer.alive_since.is_some() {
                    self.peer.session_closed_at = Some(self.now);
                }
            }
            Event::PeerStuck => self.on_stuck(),
            Event::PeerClean => {
                self.replica.stuck = None;
                if self.replica.progress == ReplicaProgress::Incomplete {
                    self.replica.progress = ReplicaProgress::Resynced;
                }
            }
            Event::PeerInAckSet => {
                if self.replica.progress == ReplicaProgress::Resynced {
                    self.replica.progress = ReplicaProgress::InAckSet;
                }
            }
            Event::PeerDirty => self.replica.progress = ReplicaProgress::Incomplete,
            Event::Proof(proof) => self.peer.proof = Some((proof, self.now)),
            Event::Healthy => self.own.healthy = true,
            Event::Faulty => self.own.healthy = false,
            Event::StorageStuck => self.own.storage_answers = false,
            Event::StorageAnswers => {
                self.own.storage_answers = true;
                self.own.storage_answers_since = self.now;
                // Told while this node's own pool did not answer, so it may be this node's fault.
                self.replica.stuck = None;
            }
            Event::WatchdogProven(proven) => self.own.watchdog_proven = proven,
            Event::Admit { incarnation } => self.requests.admit = Some(incarnation),
            Event::Enrol { witness, incarnation } => self.requests.enrol = Some((witness, incarnation)),
            Event::Exceptions(list) => self.on_exceptions(list),
            Event::Leave => self.own.leaving = true,
            Event::CancelLeave => {
                self.own.leaving = false;
                self.announced.leave_done = false;
            }
            Event::Force => self.requests.force = self.register.base().exists() && !self.register.has_failed(),
        }
    }

    /// Handles the report that the peer's disk does not answer: a member is to be removed, a resync target must start
    /// again.
    fn on_stuck(&mut self) {
        if self.register.base().members == Members::Both {
            let first = self.replica.stuck.map_or(self.now, |(first, _)| first);
            self.replica.stuck = Some((first, self.now));
        } else {
            self.replica.progress = ReplicaProgress::Incomplete;
            self.peer.alive_since = self.peer.alive_since.map(|_| self.now);
        }
    }

    fn on_exceptions(&mut self, list: Vec<Exception>) {
        if list.len() <= crate::types::MAX_EXCEPTIONS {
            self.requests.exceptions = Some(list);
            return;
        }
        // More volumes are incomplete than a configuration can name, so the node that lacks most of them is removed.
        let held_here = list.iter().filter(|exception| exception.holder == self.setup.me).count();
        if held_here * 2 >= list.len() {
            self.on_stuck();
        } else {
            self.own.leaving = true;
        }
    }

    /// Whether the register takes no writes, because one has failed or hangs.
    fn register_failed(&self) -> bool {
        self.register.failed_or_hangs(self.now, &self.setup.timing)
    }

    /// Calls `use_rights` with the rights of this node at `now`. All configurations under way are in it as
    /// restrictions.
    fn with_rights<T>(&self, now: BootTime, use_rights: impl FnOnce(&NodeRights<'_>) -> T) -> T {
        let [newer, written, to_accept, failed, failed_to_accept, deferred] = self.register.pending();
        let [proposed, voted] = self.proposals.pending();
        let pending = [newer, written, to_accept, failed, failed_to_accept, deferred, proposed, voted];
        use_rights(&NodeRights {
            me: self.setup.me,
            record: self.register.record(),
            pending: &pending,
            leased: self.leases.leased(now),
            conflict: self.register.conflict(),
            mutants: self.mutants,
        })
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn peer_id(&self) -> NodeId {
        self.setup.me.peer()
    }

    fn datagram(&self, body: DatagramBody) -> Datagram {
        Datagram {
            pair: self.setup.pair,
            from: self.setup.me,
            boot: self.setup.boot,
            started: self.started,
            incarnation: self.register.record().incarnation,
            body,
        }
    }

    /// Incarnation of the peer's store that the base admits; 0 = none.
    fn peer_store(&self) -> u64 {
        self.register.base().incarnations[self.peer_id().index()]
    }

    /// Whether the base admits the peer's store with this incarnation.
    fn is_peer_store(&self, incarnation: u64) -> bool {
        incarnation != 0 && self.peer_store() == incarnation
    }

    fn witness_is_enrolled(&self) -> bool {
        self.register.base().witness != WitnessId::NONE
    }
}

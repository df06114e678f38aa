//! [`Quorum`]: one node's part of the quorum.
//!
//! Each event is handled in three steps: apply it (`receive`, `votes`), bring the register forward (`wanted`, `drive`),
//! then re-establish what must hold (`settle`): VMs frozen or killed, fence, acknowledgement set, alarms.
//!
//! At most one write of the record is under way. `Register` holds the durable record and the candidate; a message
//! that depends on the candidate is held inside the write. Requests for a vote that arrive meanwhile are dropped: the
//! peer repeats them every [`crate::Timing::retry_interval`].

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
use crate::losses::Losses;
use crate::message::{AcceptorReply, Datagram, DatagramBody};
use crate::mutants::Mutants;
use crate::peer::PeerView;
use crate::rules::View;
use crate::types::{Acceptor, Ballot, BootTime, Config, Exception, Members, Record, WitnessId};
use crate::witness_view::WitnessView;
use announced::{Announced, FenceAnnounced};
use dyad_types::NodeId;
use inputs::{Clean, OwnState, PeerReplica, Requests, VmState, Vms};
use proposals::{Active, Proposals};
use register::{AfterPersist, DeferredVote, Register};

/// One node's part of the quorum. Pure: it is given events and the time, and returns actions.
#[derive(Clone, Debug)]
pub struct Quorum {
    setup: Setup,
    /// When the daemon started.
    started: BootTime,
    /// Time of the event being handled. It never goes back.
    now: BootTime,
    mutants: Mutants,
    register: Register,
    proposals: Proposals,
    leases: Leases,
    peer: PeerView,
    replica: PeerReplica,
    witness: WitnessView,
    vms: Vms,
    own: OwnState,
    requests: Requests,
    announced: Announced,
    /// The newest id given to a write or to a request to the witness.
    last_id: u64,
}

impl Quorum {
    /// A node that starts (or whose daemon restarts) at `now` with its durable record.
    ///
    /// Give it [`Event::Tick`] at once; [`Event::VmsRunning`] before that if VMs were found.
    pub fn new(setup: Setup, record: Record, now: BootTime) -> Quorum {
        Quorum::with(setup, record, now, Mutants::NONE)
    }

    /// The same with a planted bug.
    #[cfg(feature = "mutants")]
    pub fn with_mutants(setup: Setup, record: Record, now: BootTime, mutants: Mutants) -> Quorum {
        Quorum::with(setup, record, now, mutants)
    }

    fn with(setup: Setup, record: Record, now: BootTime, mutants: Mutants) -> Quorum {
        // An own ballot that is still promised may have put a value into an acceptor before the restart.
        let abandoned = record.promised != Ballot::ZERO && record.promised.node == setup.me;
        Quorum {
            started: now,
            now,
            mutants,
            proposals: Proposals::at_start(now, abandoned),
            leases: Leases::at_start(now, &setup.timing, mutants),
            peer: PeerView::at_start(now, setup.paths, setup.peer_watchdog),
            replica: PeerReplica { clean: Clean::No, stuck: None, losses: Losses::default() },
            witness: WitnessView::at_start(now, &record),
            vms: Vms { state: VmState::None, found: false },
            own: OwnState { healthy: true, watchdog: setup.watchdog, leaving: false },
            requests: Requests::default(),
            announced: Announced::nothing(),
            // Counting from the time keeps the ids apart from those of an earlier daemon of this boot.
            last_id: now.0,
            register: Register::new(record, now),
            setup,
        }
    }

    /// Handles one event at time `now` and appends the actions to `out`, in the order in which they must be carried out.
    pub fn handle(&mut self, now: BootTime, event: Event, out: &mut Vec<Action>) {
        self.advance(now);
        // A lease that lapsed before this event is acted upon before the event can renew it.
        self.settle_vms(out);
        self.apply(event, out);
        self.drive(out);
        self.settle(out);
    }

    fn advance(&mut self, now: BootTime) {
        // CLOCK_BOOTTIME does not go back; a caller that gives an older time gets the newest one.
        let now = now.max(self.now);
        let overslept = now - self.now > 3 * self.setup.timing.heartbeat;
        self.now = now;
        if overslept && now > self.started {
            // This node was not scheduled for more than 3 heartbeats, so heartbeats may be queued: judging the peer is
            // postponed by D.
            let resumed = now + self.setup.timing.detection();
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
                    self.vms = Vms { state: VmState::Running, found: true };
                }
            }
            Event::VmsRunning(false) | Event::VmsKilled => self.vms.state = VmState::None,
            Event::VmsFrozen => {
                if self.vms.state == VmState::Freezing {
                    self.vms.state = VmState::Frozen;
                }
            }
            Event::PeerClosed => {
                // A peer that is silent already gets no more time.
                if self.peer.alive_since.is_some() {
                    self.peer.session_closed_at = Some(self.now);
                }
            }
            Event::PeerStuck => self.on_stuck(),
            Event::PeerClean => {
                self.replica.stuck = None;
                if self.replica.clean == Clean::No {
                    self.replica.clean = Clean::Resynced;
                }
            }
            Event::AckPeer => {
                if self.replica.clean == Clean::Resynced {
                    self.replica.clean = Clean::Acked;
                }
            }
            Event::PeerDirty => self.replica.clean = Clean::No,
            Event::Proof(proof) => self.peer.proof = Some((proof, self.now)),
            Event::Healthy => self.own.healthy = true,
            Event::Faulty => self.own.healthy = false,
            Event::Watchdog(proven) => self.own.watchdog = proven,
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

    fn on_stuck(&mut self) {
        if self.register.base().members == Members::Both {
            let first = self.replica.stuck.map_or(self.now, |(first, _)| first);
            self.replica.stuck = Some((first, self.now));
        } else {
            self.replica.clean = Clean::No;
            self.peer.alive_since = self.peer.alive_since.map(|_| self.now);
        }
    }

    fn on_exceptions(&mut self, list: Vec<Exception>) {
        if list.len() <= crate::types::MAX_EXCEPTIONS {
            self.requests.exceptions = Some(list);
            return;
        }
        // More volumes than a configuration can except are broken on one node: it is dropped as a whole.
        let held_here = list.iter().filter(|exception| exception.holder == self.setup.me).count();
        if held_here * 2 >= list.len() {
            self.on_stuck();
        } else {
            self.own.leaving = true;
        }
    }

    /// Whether the register takes no more writes, for good or because one hangs.
    fn register_failed(&self) -> bool {
        self.register.failed_or_hangs(self.now, &self.setup.timing)
    }

    /// The view on which all rules work, with everything under way as restrictions.
    fn with_view<T>(&self, now: BootTime, use_view: impl FnOnce(&View<'_>) -> T) -> T {
        let [newer, written, to_accept, failed, failed_to_accept, deferred] = self.register.pending();
        let [proposed, voted] = self.proposals.pending();
        let pending = [newer, written, to_accept, failed, failed_to_accept, deferred, proposed, voted];
        use_view(&View {
            me: self.setup.me,
            record: self.register.record(),
            pending: &pending,
            leased: self.leases.leased(now),
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

    /// The store that the base admits for the peer; 0 = none.
    fn peer_store(&self) -> u64 {
        self.register.base().incarnations[self.peer_id().index()]
    }

    /// Whether this is the peer's admitted store.
    fn is_peer_store(&self, incarnation: u64) -> bool {
        incarnation != 0 && self.peer_store() == incarnation
    }

    fn witness_is_enrolled(&self) -> bool {
        self.register.base().witness != WitnessId::NONE
    }
}

//! The machine: one node's part of the quorum.
//!
//! Each event is handled in three steps: take it in (`hear`, `votes`), decide what is wanted (`goal`, `drive`), then
//! re-establish what must hold (`settle`): VMs frozen or killed, fence, acknowledgement set, alarms.
//!
//! At most one write of the record is under way. `record` is always the durable one and `write` the candidate; a
//! message that needs a write is held inside it. Asks that arrive meanwhile are dropped: whoever asks repeats.

mod drive;
mod goal;
mod hear;
mod query;
mod settle;
mod stand;
mod votes;

use std::collections::BTreeSet;

use crate::event::{Action, Alarm, Event, KillReason, Note, Proof, Reason, Setup, WitnessReply};
use crate::lease::Leases;
use crate::losses::Losses;
use crate::message::{Answer, Body, Datagram, TryDecide};
use crate::mutants::Mutants;
use crate::peer::PeerView;
use crate::proposer::Proposal;
use crate::reach::Reach;
use crate::rules::View;
use crate::types::{Acceptor, Ballot, Config, Exception, Members, Record, Time, WitnessId};
use dyad_types::NodeId;

/// What the VMs of this node do, as far as the kernel confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vms {
    /// None exists.
    None,
    /// They may execute.
    Running,
    /// Asked to freeze; they may execute.
    Freezing,
    /// Confirmed not to execute.
    Frozen,
    /// Being killed; they may execute.
    Killing,
}

/// How far the peer's replica is, while this node is solo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clean {
    /// Behind.
    No,
    /// Resync is done; acknowledgements are being moved to both.
    Resynced,
    /// Nothing acknowledged is missing there and nothing will be.
    Acked,
}

/// What happens once a write of the record is durable.
#[derive(Clone, Debug)]
enum AfterPersist {
    /// Nothing: only the witness's count was noted.
    Nothing,
    /// The peer gets this answer.
    Answer(u8, Answer),
    /// The proposal is sent.
    Propose,
    /// The new base is in force.
    Chosen {
        /// It was learned, not decided here.
        learned: bool,
    },
}

/// A write of the record under way.
#[derive(Clone, Debug)]
struct Write {
    token: u64,
    begun: Time,
    next: Record,
    then: AfterPersist,
}

/// A proposal under way.
#[derive(Clone, Debug)]
struct Active {
    proposal: Proposal,
    why: Reason,
    begun: Time,
    sent_at: Option<Time>,
    ask_id: u64,
    /// The witness was asked and neither answered nor proved unreachable.
    waiting: bool,
    relayed: bool,
    /// The target voted for this; it waits for VMs to stop or for another write.
    voted: Option<(Ballot, Config)>,
}

/// A vote the peer asked for that must wait until VMs stopped here.
#[derive(Clone, Debug)]
struct Asked {
    path: u8,
    ask: TryDecide,
    value: Config,
    at: Time,
}

/// One node's part of the quorum. Pure: fed with events and the time, it answers with actions.
#[derive(Clone, Debug)]
pub struct Quorum {
    setup: Setup,
    started: Time,
    now: Time,
    mutants: Mutants,
    record: Record,
    write: Option<Write>,
    /// What could not be written. It may lie on the disk all the same, so what it forbids stays forbidden.
    failed: Option<Record>,
    next_number: u64,
    /// A chosen configuration newer than the base, not yet durable here.
    heard: Option<Config>,
    active: Option<Active>,
    asked: Option<Asked>,
    /// A proposal was given up after it may have reached an acceptor.
    abandoned: bool,
    /// New ballots are above this one.
    above: Ballot,
    /// No new ballot before this time.
    not_before: Time,
    /// Try the other acceptor in the next ballot.
    swap_target: bool,
    accepted_at: Time,
    leases: Leases,
    peer: PeerView,
    peer_watchdog: bool,
    peer_proof: Option<(Proof, Time)>,
    /// When the peer's daemon ended, as far as its kernel told.
    peer_closed: Option<Time>,
    witness: Reach,
    relays: Vec<(u64, u8, u64)>,
    vms: Vms,
    /// VMs run that an earlier daemon may have frozen.
    found: bool,
    /// The right to run was lost since VMs ran last; for the timeline.
    paused: bool,
    healthy: bool,
    watchdog: bool,
    leaving: bool,
    leave_told: bool,
    force: bool,
    clean: Clean,
    losses: Losses,
    /// The peer is stuck: first and last time this was said.
    stuck: Option<(Time, Time)>,
    admitted: Option<u64>,
    enrol: Option<(WitnessId, u64)>,
    exceptions: Option<Vec<Exception>>,
    fresh_witness: bool,
    last_return: Option<Time>,
    seq: u64,
    next_heartbeat: Time,
    fence_told: bool,
    fence_noted: bool,
    told_config: bool,
    told_acks: Option<Members>,
    conflict: bool,
    witness_note: bool,
    alarms: BTreeSet<Alarm>,
}

impl Quorum {
    /// A node that starts (or whose daemon restarts) at `now` with its durable record.
    ///
    /// Feed [`Event::Tick`] at once, and [`Event::VmsRunning`] first if VMs were found.
    pub fn new(setup: Setup, record: Record, now: Time) -> Quorum {
        Quorum::with(setup, record, now, Mutants::NONE)
    }

    /// The same with a planted bug.
    #[cfg(feature = "mutants")]
    pub fn sabotaged(setup: Setup, record: Record, now: Time, mutants: Mutants) -> Quorum {
        Quorum::with(setup, record, now, mutants)
    }

    fn with(setup: Setup, record: Record, now: Time, mutants: Mutants) -> Quorum {
        let leases = Leases::at_start(now, &setup.timing, mutants);
        let peer = PeerView::new(setup.paths);
        let witness = Reach::at_start(now, record.mark);
        Quorum {
            started: now,
            now,
            mutants,
            write: None,
            failed: None,
            // Ids of asks must not meet those of an earlier daemon.
            next_number: now,
            heard: None,
            active: None,
            asked: None,
            // An own ballot that is still promised may have put a value into an acceptor before the restart.
            abandoned: record.promised != Ballot::ZERO && record.promised.node == setup.me,
            above: Ballot::ZERO,
            not_before: now,
            swap_target: false,
            accepted_at: now,
            leases,
            peer,
            peer_watchdog: setup.peer_watchdog,
            peer_proof: None,
            peer_closed: None,
            witness,
            relays: Vec::new(),
            vms: Vms::None,
            found: false,
            paused: false,
            healthy: true,
            watchdog: setup.watchdog,
            leaving: false,
            leave_told: false,
            force: false,
            clean: Clean::No,
            losses: Losses::default(),
            stuck: None,
            admitted: None,
            enrol: None,
            exceptions: None,
            fresh_witness: false,
            last_return: None,
            seq: 0,
            next_heartbeat: now,
            fence_told: false,
            fence_noted: false,
            told_config: false,
            told_acks: None,
            conflict: false,
            witness_note: false,
            alarms: BTreeSet::new(),
            record,
            setup,
        }
    }

    /// Takes in one event at time `now` and appends what must be done, in order.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        self.advance(now);
        // A lease that lapsed while nobody looked is acted upon before anything can renew it.
        self.settle_vms(out);
        self.take(event, out);
        self.drive(out);
        self.settle(out);
    }

    fn advance(&mut self, now: Time) {
        // CLOCK_BOOTTIME does not go back; an owner that gives an older time gets the newest one.
        let now = now.max(self.now);
        let overslept = now - self.now > 3 * self.setup.timing.heartbeat;
        self.now = now;
        if overslept && now > self.started {
            // Who did not listen cannot say that the other is silent.
            let resumed = now + self.setup.timing.detection();
            self.peer.lost_at = Some(self.silent_from().max(resumed));
        }
        let memory = self.setup.timing.stuck_memory;
        self.stuck = self.stuck.filter(|(_, last)| now <= last + memory);
        self.watch_peer();
    }

    fn take(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Peer { path, datagram } => self.on_datagram(path, datagram, out),
            Event::Witness { id, reply } => self.on_witness(id, reply, out),
            Event::Persisted { token } => self.on_persisted(token, out),
            Event::PersistFailed { token } => {
                if self.write.as_ref().is_some_and(|write| write.token == token) {
                    self.failed = self.write.take().map(|write| write.next);
                    self.active = None;
                    self.asked = None;
                }
            }
            Event::VmsRunning(true) => {
                if self.vms == Vms::None {
                    self.vms = Vms::Running;
                    self.found = true;
                }
            }
            Event::VmsRunning(false) | Event::VmsKilled => self.vms = Vms::None,
            Event::VmsFrozen => {
                if self.vms == Vms::Freezing {
                    self.vms = Vms::Frozen;
                }
            }
            Event::VmsThawed => {}
            // One that is silent already is not waited for anew.
            Event::PeerClosed => self.peer_closed = self.peer.alive_since.map(|_| self.now).or(self.peer_closed),
            Event::PeerStuck => self.on_stuck(),
            Event::PeerClean => {
                self.stuck = None;
                if self.clean == Clean::No {
                    self.clean = Clean::Resynced;
                }
            }
            Event::AckPeer => {
                if self.clean == Clean::Resynced {
                    self.clean = Clean::Acked;
                }
            }
            Event::PeerDirty => self.clean = Clean::No,
            Event::Proof(proof) => self.peer_proof = Some((proof, self.now)),
            Event::Healthy => self.healthy = true,
            Event::Faulty => self.healthy = false,
            Event::Watchdog(proven) => self.watchdog = proven,
            Event::Admit { incarnation } => self.admitted = Some(incarnation),
            Event::Enrol { witness, incarnation } => self.enrol = Some((witness, incarnation)),
            Event::Exceptions(list) => self.on_exceptions(list),
            Event::Leave => self.leaving = true,
            Event::CancelLeave => {
                self.leaving = false;
                self.leave_told = false;
            }
            Event::Force => self.force = self.record.base.exists() && self.failed.is_none(),
        }
    }

    fn on_stuck(&mut self) {
        if self.record.base.members == Members::Both {
            let first = self.stuck.map_or(self.now, |(first, _)| first);
            self.stuck = Some((first, self.now));
        } else {
            self.clean = Clean::No;
            self.peer.alive_since = self.peer.alive_since.map(|_| self.now);
        }
    }

    fn on_exceptions(&mut self, list: Vec<Exception>) {
        if list.len() <= crate::types::MAX_EXCEPTIONS {
            self.exceptions = Some(list);
            return;
        }
        // Too many volumes are broken on one node: it is dropped as a whole.
        let held_here = list.iter().filter(|exception| exception.holder == self.setup.me).count();
        if held_here * 2 >= list.len() {
            self.on_stuck();
        } else {
            self.leaving = true;
        }
    }

    /// Whether the register takes no more writes, for good or because one hangs.
    fn register_failed(&self) -> bool {
        let hangs = |write: &Write| self.now > write.begun + self.setup.timing.slow_write;
        self.failed.is_some() || self.write.as_ref().is_some_and(hangs)
    }

    /// The view all rules work on, with everything under way as restrictions.
    fn with_view<T>(&self, now: Time, use_view: impl FnOnce(&View<'_>) -> T) -> T {
        let write = self.write.as_ref().map(|write| &write.next);
        let base_of = |record: Option<&'_ Record>| {
            record.map(|record| record.base.clone()).filter(|base| *base != self.record.base)
        };
        let written = base_of(write);
        let failed = base_of(self.failed.as_ref());
        let pending = [
            self.heard.as_ref(),
            written.as_ref(),
            write.and_then(|record| record.accepted.as_ref()).map(|(_, value)| value),
            failed.as_ref(),
            self.failed.as_ref().and_then(|record| record.accepted.as_ref()).map(|(_, value)| value),
            self.active.as_ref().map(|active| active.proposal.value()),
            self.active.as_ref().and_then(|active| active.voted.as_ref()).map(|(_, value)| value),
            self.asked.as_ref().map(|asked| &asked.value),
        ];
        use_view(&View {
            me: self.setup.me,
            record: &self.record,
            pending: &pending,
            leased: self.leases.leased(now),
            mutants: self.mutants,
        })
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn peer_id(&self) -> NodeId {
        self.setup.me.peer()
    }

    fn datagram(&self, body: Body) -> Datagram {
        Datagram {
            pair: self.setup.pair,
            from: self.setup.me,
            boot: self.setup.boot,
            started: self.started,
            incarnation: self.record.incarnation,
            body,
        }
    }

    fn is_peer_store(&self, incarnation: u64) -> bool {
        incarnation != 0 && self.record.base.incarnations[self.peer_id().index()] == incarnation
    }

    /// Whether a chosen configuration newer than the base is known.
    fn newest(&self) -> &Config {
        self.heard.as_ref().unwrap_or(&self.record.base)
    }

    fn witness_is_enrolled(&self) -> bool {
        self.record.base.witness != WitnessId::NONE
    }
}

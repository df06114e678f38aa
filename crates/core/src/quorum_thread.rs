//! The quorum thread. It owns the quorum machine, the heartbeats and the watchdog, and is the only thread that watches the
//! ends of leases and fences.
//!
//! It runs with real-time priority and uses neither disk nor TLS: it sends records to the register's thread, requests for
//! the witness to a task, and commands for the VMs to the thread `cgroup_fence`. It reports to `CoreState` as
//! [`QuorumUpdate`].
//!
//! **Invariant.** On a running member this thread alone feeds the watchdog, and only if [`Quorum::may_feed_watchdog`] allows it at that
//! moment.

use crate::clock;
use crate::event::{Event, EventSender};
use crate::quorum_handle::QuorumInput;
use crate::quorum_update::{QuorumSnapshot, QuorumUpdate, WitnessHealth};
use crate::register::Register;
use crate::selftest::WATCHDOG_FEED_INTERVAL;
use crate::turn::{TurnStep, TurnTimer};
use crate::watchdog::Watchdog;
use dyad_link::beacon::{Beacon, Received, Wake};
use dyad_placement::CgroupCommand;
use dyad_quorum::{Action, Alarm, Datagram, Quorum, WitnessRequest, WitnessRequestId};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Delay of one turn of the thread, by scheduling and its own work together, from which the timeline gets a `late` entry.
/// The peer declares this node silent after D = 500 ms without heartbeats.
const LATE_REPORT_DELAY: Duration = Duration::from_millis(200);

/// Most datagrams read before one tick: with one heartbeat per 100 ms on each of 4 paths they are the heartbeats of 3.2 s.
const MAX_CATCH_UP_DATAGRAMS: usize = 128;

/// Interval between two checks for interfaces that appeared or vanished.
const INTERFACE_SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Everything the quorum thread owns or sends to.
pub struct QuorumThread {
    /// The machine that decides; this thread feeds it events and carries out its actions.
    pub quorum: Quorum,
    /// Sends the heartbeats.
    pub beacon: Beacon,
    /// Number of peer links of this node; paths are numbered from 0.
    pub paths: u8,
    /// The watchdog, if there is one.
    pub watchdog: Option<Watchdog>,
    /// Writes the records of this node as an acceptor.
    pub register: Register,
    /// Takes the requests for the witness.
    pub witness: UnboundedSender<(WitnessRequestId, WitnessRequest)>,
    /// Takes the commands to freeze, thaw and kill the VMs.
    pub cgroup_fence: Sender<CgroupCommand>,
    /// Takes the updates for `CoreState`.
    pub event_sender: EventSender,
}

impl QuorumThread {
    /// Starts the thread, with real-time priority if the process may set it.
    pub fn start(self, inputs: Receiver<QuorumInput>) {
        let run = move || {
            // Without the privilege (on a development host) it runs at normal priority; heartbeats may then be late under
            // load.
            let realtime = thread_priority::ThreadPriority::Crossplatform(50u8.try_into().expect("50 is in range"));
            let policy =
                thread_priority::ThreadSchedulePolicy::Realtime(thread_priority::RealtimeThreadSchedulePolicy::Fifo);
            let id = thread_priority::thread_native_id();
            if let Err(e) = thread_priority::set_thread_priority_and_policy(id, realtime, policy) {
                tracing::warn!(error = ?e, "heartbeats run without real-time priority");
            }
            QuorumLoop {
                resources: self,
                last_snapshot: None,
                witness_health: WitnessHealth::Silent { since: None },
                stop_feeding: false,
                clean_reports: 0,
                actions: Vec::new(),
            }
            .run(&inputs);
        };
        std::thread::Builder::new()
            .name("quorum_thread".into())
            .spawn(run)
            .expect("the system can start a thread at start-up");
    }
}

/// Decodes a datagram and names its path. `None` = an authenticated body that this version cannot decode; such a peer
/// counts as silent.
fn decode(received: &Received<'_>) -> Option<(u8, Datagram)> {
    postcard::from_bytes::<Datagram>(received.body).ok().map(|datagram| (received.path, datagram))
}

struct QuorumLoop {
    resources: QuorumThread,
    /// The snapshot that `CoreState` was sent last.
    last_snapshot: Option<QuorumSnapshot>,
    witness_health: WitnessHealth,
    /// A watchdog test runs.
    stop_feeding: bool,
    /// Number of the mirror's `PeerClean` and `PeerDirty` that the quorum machine has handled.
    clean_reports: u64,
    /// Empty between two events; kept so that its memory is used again.
    actions: Vec<Action>,
}

impl QuorumLoop {
    fn run(mut self, inputs: &Receiver<QuorumInput>) {
        let mut refreshed = Instant::now();
        let (mut turn, mut overslept) = (TurnTimer::begin(), Duration::ZERO);
        loop {
            loop {
                match inputs.try_recv() {
                    Ok(QuorumInput::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(QuorumInput::Quorum(event)) => self.handle(event),
                    Ok(QuorumInput::Witness(health)) => self.witness_health = health,
                    Ok(QuorumInput::StopFeeding(stop_feeding)) => self.stop_feeding = stop_feeding,
                    Err(TryRecvError::Empty) => break,
                }
            }
            turn.end_step(TurnStep::Inputs);
            let mut woken = false;
            if clock::now() >= self.resources.quorum.next_wakeup() {
                // Datagrams that arrived while this thread was not scheduled are read before the peer is judged silent.
                woken = self.catch_up();
                self.handle(dyad_quorum::Event::Tick);
            }
            turn.end_step(TurnStep::Deadlines);
            if let Some(watchdog) = &mut self.resources.watchdog
                && !self.stop_feeding
                && self.resources.quorum.may_feed_watchdog(clock::now())
            {
                watchdog.feed();
            }
            turn.end_step(TurnStep::Watchdog);
            if refreshed.elapsed() >= INTERFACE_SCAN_INTERVAL {
                refreshed = Instant::now();
                self.resources.beacon.refresh();
            }
            turn.end_step(TurnStep::Interfaces);
            self.show();
            turn.end_step(TurnStep::Report);
            if let Some(late) = turn.late(overslept, LATE_REPORT_DELAY) {
                self.resources.event_sender.send(Event::Quorum(QuorumUpdate::Late(late)));
            }
            (turn, overslept) = if woken { (TurnTimer::begin(), Duration::ZERO) } else { self.listen() };
        }
    }

    /// Reads, without waiting, at most [`MAX_CATCH_UP_DATAGRAMS`] datagrams that have already arrived. Returns whether
    /// another thread sent an input meanwhile.
    fn catch_up(&mut self) -> bool {
        for _ in 0..MAX_CATCH_UP_DATAGRAMS {
            match self.resources.beacon.receive(Duration::ZERO) {
                Ok(Wake::Datagram(received)) => {
                    if let Some((path, datagram)) = decode(&received) {
                        self.handle(dyad_quorum::Event::Peer { path, datagram });
                    }
                }
                Ok(Wake::Woken) => return true,
                Ok(Wake::TimedOut) | Err(_) => break,
            }
        }
        false
    }

    /// Waits for a datagram, an input or the next deadline, and handles a datagram, the first step of the next turn. Returns that
    /// turn, and by how much the wait was longer than asked for.
    fn listen(&mut self) -> (TurnTimer, Duration) {
        let begin = Instant::now();
        let sleep = self.resources.quorum.next_wakeup().since(clock::now());
        let sleep = Duration::from_nanos(sleep).min(WATCHDOG_FEED_INTERVAL);
        let wake = self.resources.beacon.receive(sleep);
        let mut turn = TurnTimer::begin();
        let overslept = begin.elapsed().saturating_sub(sleep);
        let heard = match wake {
            Ok(Wake::Datagram(received)) => decode(&received),
            Ok(Wake::Woken | Wake::TimedOut) => None,
            Err(e) => {
                tracing::error!(error = %e, "the heartbeat sockets cannot be polled");
                std::thread::sleep(Duration::from_millis(10));
                None
            }
        };
        if let Some((path, datagram)) = heard {
            self.handle(dyad_quorum::Event::Peer { path, datagram });
        }
        turn.end_step(TurnStep::Datagram);
        (turn, overslept)
    }

    fn handle(&mut self, event: dyad_quorum::Event) {
        if matches!(event, dyad_quorum::Event::PeerClean | dyad_quorum::Event::PeerDirty) {
            self.clean_reports += 1;
        }
        let mut actions = std::mem::take(&mut self.actions);
        self.resources.quorum.handle(clock::now(), event, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action);
        }
        self.actions = actions;
    }

    fn carry_out(&mut self, action: Action) {
        let resources = &mut self.resources;
        let tell = |update| resources.event_sender.send(Event::Quorum(update));
        match action {
            Action::Send { path, datagram } => {
                let mut buffer = [0; 1400];
                let body = postcard::to_slice(&datagram, &mut buffer).expect("a datagram is below 1200 bytes");
                resources.beacon.send(path, body);
            }
            Action::AskWitness { id, request } => drop(resources.witness.send((id, request))),
            Action::Persist { token, record } => resources.register.save(token, record),
            Action::Freeze => {
                tell(QuorumUpdate::Hold);
                let _ = resources.cgroup_fence.send(CgroupCommand::Freeze);
            }
            Action::Thaw => drop(resources.cgroup_fence.send(CgroupCommand::Thaw)),
            Action::Kill { reason } => {
                tell(QuorumUpdate::Kill(reason));
                // `CoreState` serves again only by a snapshot that is newer than the kill.
                self.last_snapshot = None;
                let _ = resources.cgroup_fence.send(CgroupCommand::Kill);
            }
            Action::Config(config) => tell(QuorumUpdate::Config(config)),
            Action::AckSet(set) => tell(QuorumUpdate::AckSet(set, self.clean_reports)),
            Action::PeerVmsAllowed => tell(QuorumUpdate::PeerVmsAllowed),
            Action::Alarm(alarm) => tell(QuorumUpdate::Alarm(alarm)),
            Action::Clear(alarm) => tell(QuorumUpdate::Clear(alarm)),
            Action::Note(note) => tell(QuorumUpdate::Note(clock::now(), note)),
            Action::LeaveDone => tell(QuorumUpdate::LeaveDone),
        }
    }

    /// Sends the state of the quorum machine to `CoreState` if it has changed.
    fn show(&mut self) {
        let now = clock::now();
        let quorum = &self.resources.quorum;
        let peer_alive = quorum.peer_alive(now);
        let down: Vec<Alarm> = quorum.alarms().collect();
        let snapshot = QuorumSnapshot {
            run_state: Some(quorum.run_state()),
            may_run: quorum.may_run(now),
            peer_alive,
            paths_up: (0..self.resources.paths)
                .map(|path| peer_alive && !down.contains(&Alarm::PathDown(path)))
                .collect(),
            peer_addresses: (0..self.resources.paths).map(|path| self.resources.beacon.peer_address(path)).collect(),
            peer_watchdog_proven: quorum.peer_watchdog_proven(),
            peer_fence_until: quorum.peer_fence_until(),
            witness: self.witness_health,
        };
        if self.last_snapshot.as_ref() != Some(&snapshot) {
            self.last_snapshot = Some(snapshot.clone());
            self.resources.event_sender.send(Event::Quorum(QuorumUpdate::Snapshot(snapshot)));
        }
    }
}

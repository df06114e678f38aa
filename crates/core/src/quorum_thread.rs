//! The quorum thread, which alone keeps time. It owns the quorum machine, the heartbeats and the watchdog.
//!
//! It runs with real-time priority and touches neither disk nor TLS: records go to the register's thread, questions
//! to the witness to a task, cgroups to the thread `cgroup_fence`. It reports to `CoreState` as [`QuorumUpdate`].
//!
//! **Invariant.** The watchdog is fed by this thread only, and only when the quorum machine says so in that moment.

use crate::cgroup_fence;
use crate::clock;
use crate::event::{Event, Inbox};
use crate::quorum_handle::QuorumInput;
use crate::quorum_update::{QuorumSnapshot, QuorumUpdate, WitnessHealth};
use crate::register::Register;
use crate::watchdog::Watchdog;
use dyad_link::beacon::{Beacon, Received, Wake};
use dyad_quorum::{Action, Alarm, Datagram, Quorum, WitnessRequest, WitnessRequestId};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Longest interval between two feedings of the watchdog while it may be fed.
const WATCHDOG_FEED_INTERVAL: Duration = Duration::from_millis(250);

/// Scheduling delay that raises a `late` entry in the timeline. The peer declares this node silent after D = 500 ms.
const LATE_REPORT_DELAY: Duration = Duration::from_millis(200);

/// Most datagrams read before one tick: at one heartbeat per 100 ms and path these are 3 s of heartbeats on 4 paths.
const BACKLOG: usize = 128;

/// Interval at which interfaces that came or went are looked for.
const INTERFACE_SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Everything the quorum thread owns or sends to.
pub struct QuorumThread {
    /// The machine that decides; this thread feeds it events and carries out its actions.
    pub quorum: Quorum,
    /// Sends the heartbeats.
    pub beacon: Beacon,
    /// How many peer links this node has; paths are numbered from 0.
    pub paths: u8,
    /// The watchdog, if there is one.
    pub watchdog: Option<Watchdog>,
    /// Writes the records of this node as an acceptor.
    pub register: Register,
    /// Questions to the witness out.
    pub witness: UnboundedSender<(WitnessRequestId, WitnessRequest)>,
    /// Freeze, thaw, kill.
    pub cgroup_fence: Sender<cgroup_fence::CgroupCommand>,
    /// Takes the updates for `CoreState`.
    pub inbox: Inbox,
}

impl QuorumThread {
    /// Runs the thread.
    pub fn start(self, inputs: Receiver<QuorumInput>) {
        let run = move || {
            // Without the privilege (a laptop) it runs at normal priority; heartbeats may then be late under load.
            let realtime = thread_priority::ThreadPriority::Crossplatform(50u8.try_into().expect("50 is in range"));
            let policy =
                thread_priority::ThreadSchedulePolicy::Realtime(thread_priority::RealtimeThreadSchedulePolicy::Fifo);
            let id = thread_priority::thread_native_id();
            if let Err(e) = thread_priority::set_thread_priority_and_policy(id, realtime, policy) {
                tracing::warn!(error = ?e, "heartbeats run without real-time priority");
            }
            State {
                parts: self,
                shown: None,
                health: WitnessHealth::Silent { since: None },
                stop_feeding: false,
                clean_told: 0,
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

/// Decodes a datagram and names its path. `None` = an authenticated body that this version cannot decode; such a peer counts as
/// silent.
fn read(received: &Received<'_>) -> Option<(u8, Datagram)> {
    postcard::from_bytes::<Datagram>(received.body).ok().map(|datagram| (received.path, datagram))
}

struct State {
    parts: QuorumThread,
    shown: Option<QuorumSnapshot>,
    health: WitnessHealth,
    stop_feeding: bool,
    clean_told: u64,
    actions: Vec<Action>,
}

impl State {
    fn run(mut self, inputs: &Receiver<QuorumInput>) {
        let mut refreshed = Instant::now();
        let mut overslept = Duration::ZERO;
        loop {
            let woke = Instant::now();
            loop {
                match inputs.try_recv() {
                    Ok(QuorumInput::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(QuorumInput::Quorum(event)) => self.handle(event),
                    Ok(QuorumInput::Witness(health)) => self.health = health,
                    Ok(QuorumInput::StopFeeding(stop_feeding)) => self.stop_feeding = stop_feeding,
                    Err(TryRecvError::Empty) => break,
                }
            }
            let mut woken = false;
            if clock::now() >= self.parts.quorum.next_wakeup() {
                // Datagrams that arrived while this thread was not scheduled are read before the peer is judged silent.
                woken = self.catch_up();
                self.handle(dyad_quorum::Event::Tick);
            }
            if let Some(watchdog) = &mut self.parts.watchdog
                && !self.stop_feeding
                && self.parts.quorum.watchdog_ok(clock::now())
            {
                watchdog.feed();
            }
            if refreshed.elapsed() >= INTERFACE_SCAN_INTERVAL {
                refreshed = Instant::now();
                self.parts.beacon.refresh();
            }
            self.show();
            let worked = woke.elapsed();
            if overslept + worked > LATE_REPORT_DELAY {
                let (waited_ms, worked_ms) = (overslept.as_millis() as u64, worked.as_millis() as u64);
                self.parts.inbox.send(Event::Quorum(QuorumUpdate::Late { waited_ms, worked_ms }));
            }
            overslept = if woken { Duration::ZERO } else { self.listen() };
        }
    }

    /// Reads, without waiting, at most [`BACKLOG`] datagrams that have already arrived. Returns whether an input of another
    /// thread came meanwhile.
    fn catch_up(&mut self) -> bool {
        for _ in 0..BACKLOG {
            match self.parts.beacon.receive(Duration::ZERO) {
                Ok(Wake::Datagram(received)) => {
                    if let Some((path, datagram)) = read(&received) {
                        self.handle(dyad_quorum::Event::Peer { path, datagram });
                    }
                }
                Ok(Wake::Woken) => return true,
                Ok(Wake::TimedOut) | Err(_) => break,
            }
        }
        false
    }

    /// Waits for a datagram, an input or the next deadline; returns by how much longer than asked for.
    fn listen(&mut self) -> Duration {
        let begin = Instant::now();
        let sleep = self.parts.quorum.next_wakeup().since(clock::now());
        let sleep = Duration::from_nanos(sleep).min(WATCHDOG_FEED_INTERVAL);
        let wake = self.parts.beacon.receive(sleep);
        let overslept = begin.elapsed().saturating_sub(sleep);
        let heard = match wake {
            Ok(Wake::Datagram(received)) => read(&received),
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
        overslept
    }

    fn handle(&mut self, event: dyad_quorum::Event) {
        if matches!(event, dyad_quorum::Event::PeerClean | dyad_quorum::Event::PeerDirty) {
            self.clean_told += 1;
        }
        let mut actions = std::mem::take(&mut self.actions);
        self.parts.quorum.handle(clock::now(), event, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action);
        }
        self.actions = actions;
    }

    fn carry_out(&mut self, action: Action) {
        let parts = &mut self.parts;
        let tell = |update| parts.inbox.send(Event::Quorum(update));
        match action {
            Action::Send { path, datagram } => {
                let mut buffer = [0; 1400];
                let body = postcard::to_slice(&datagram, &mut buffer).expect("a datagram is below 1200 bytes");
                parts.beacon.send(path, body);
            }
            Action::AskWitness { id, request } => drop(parts.witness.send((id, request))),
            Action::Persist { token, record } => parts.register.save(token, record),
            Action::Freeze => {
                tell(QuorumUpdate::Hold);
                let _ = parts.cgroup_fence.send(cgroup_fence::CgroupCommand::Freeze);
            }
            Action::Thaw => drop(parts.cgroup_fence.send(cgroup_fence::CgroupCommand::Thaw)),
            Action::Kill { reason } => {
                tell(QuorumUpdate::Kill(reason));
                let _ = parts.cgroup_fence.send(cgroup_fence::CgroupCommand::Kill);
            }
            Action::Config(config) => tell(QuorumUpdate::Config(config)),
            Action::AckSet(set) => tell(QuorumUpdate::AckSet(set, self.clean_told)),
            Action::PeerVmsAllowed => tell(QuorumUpdate::PeerVmsAllowed),
            Action::Alarm(alarm) => tell(QuorumUpdate::Alarm(alarm)),
            Action::Clear(alarm) => tell(QuorumUpdate::Clear(alarm)),
            Action::Note(note) => tell(QuorumUpdate::Note(clock::now(), note)),
            Action::LeaveDone => tell(QuorumUpdate::LeaveDone),
        }
    }

    fn show(&mut self) {
        let now = clock::now();
        let quorum = &self.parts.quorum;
        let peer_alive = quorum.peer_alive(now);
        let down: Vec<Alarm> = quorum.alarms().collect();
        let snapshot = QuorumSnapshot {
            run_state: Some(quorum.run_state()),
            may_run: quorum.may_run(now),
            peer_alive,
            paths_up: (0..self.parts.paths).map(|path| peer_alive && !down.contains(&Alarm::PathDown(path))).collect(),
            peer_addresses: (0..self.parts.paths).map(|path| self.parts.beacon.peer_address(path)).collect(),
            peer_watchdog: quorum.peer_watchdog(),
            witness: self.health,
        };
        if self.shown.as_ref() != Some(&snapshot) {
            self.shown = Some(snapshot.clone());
            self.parts.inbox.send(Event::Quorum(QuorumUpdate::Snapshot(snapshot)));
        }
    }
}

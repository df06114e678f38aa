//! The simulated network: datagrams that may be lost, late or duplicated; one data session between the daemons, whose
//! messages keep their order; the way to the witness.

use crate::options::PlantedBug;
use crate::partial_faults::{FLAP_PERMILLE, PartialFault, SILENCE_TIMEOUT};
use crate::witness_faults::request_timeout;
use crate::world::{DaemonJob, FutureEvent, World};
use dyad_mirror::{Body, Event, PeerMessage};
use dyad_quorum::{Datagram, MS, Nanos, SEC, WitnessReply, WitnessRequest, WitnessRequestId, acceptor};
use dyad_types::Session;
use std::collections::VecDeque;

/// A session ends when its link has been cut for this long.
const SESSION_TIMEOUT: Nanos = 2 * SEC;

/// The link between both nodes, with its faults.
#[derive(Debug, Default)]
pub struct PeerLink {
    /// By sender: whether nothing that it sends arrives.
    pub cut: [bool; 2],
    /// Lost datagrams, and lost replies of the witness, of a thousand.
    pub loss: u64,
    /// Datagrams that arrive twice, of a thousand.
    pub duplicate: u64,
    /// The longest delay on top of 0.1 ms; at least 1 ms is used.
    pub jitter: Nanos,
    /// Number of the session that was opened last.
    newest_session: Session,
    /// By node: the session that is open there.
    open_sessions: [Option<Session>; 2],
    /// By receiver: messages that are sent and not delivered, the oldest first.
    undelivered: [VecDeque<PeerMessage>; 2],
    /// By receiver: arrival time of the newest message.
    newest_arrival: [Nanos; 2],
    /// Time since which the link has been cut, in at least one direction.
    cut_since: Option<Nanos>,
    /// Time since which a partial fault has blocked the oldest message.
    pub blocked_since: Option<Nanos>,
    /// Beginning of the newest session.
    pub session_since: Nanos,
}

impl World {
    /// Draws the delay of a message.
    fn random_delay(&mut self) -> Nanos {
        100_000 + self.prng.below(self.link.jitter.max(MS))
    }

    pub(crate) fn send_datagram(&mut self, from: usize, datagram: Datagram) {
        let copies = if self.prng.chance(self.link.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.link.cut[from] && !self.prng.chance(self.link.loss) {
                let delay = self.random_delay();
                self.schedule(delay, FutureEvent::Datagram { to: 1 - from, datagram: datagram.clone() });
            }
        }
    }

    pub(crate) fn send_message(&mut self, from: usize, message: PeerMessage) {
        // The session that the core model knows may have ended already at the link.
        let Some(session) = self.nodes[from].core.as_ref().and_then(|core| core.session) else { return };
        if self.link.open_sessions != [Some(session); 2] {
            return;
        }
        let mut message = message;
        if let Body::StoreProgress { steps } = &mut message.body
            && self.options.planted_bug == Some(PlantedBug::NoPeerProgress)
        {
            *steps = 0;
        }
        let to = 1 - from;
        let now = self.now;
        let delay = self.random_delay() / 4;
        self.link.undelivered[to].push_back(message);
        self.link.newest_arrival[to] = self.link.newest_arrival[to].max(now + delay) + 1;
        let delay = self.link.newest_arrival[to] - now;
        self.schedule(delay, FutureEvent::Message { session, to });
    }

    /// Delivers the oldest message to `to`. If the link is cut, tries again 50 ms later, as TCP retransmits.
    pub(crate) fn deliver_message(&mut self, session: Session, to: usize) {
        if self.link.open_sessions[to] != Some(session) {
            return;
        }
        if self.link.cut != [false; 2] {
            return self.schedule(50 * MS, FutureEvent::Message { session, to });
        }
        if self.link.undelivered[to].front().is_some_and(|message| self.partial_fault.blocks(message)) {
            self.link.blocked_since = self.link.blocked_since.or(Some(self.now));
            return self.schedule(50 * MS, FutureEvent::Message { session, to });
        }
        let Some(message) = self.link.undelivered[to].pop_front() else { return };
        self.schedule_job(to, 0, DaemonJob::PeerMessage(session, message));
    }

    /// Ends sessions that are cut or half open, and opens a new one; repeated every 100 ms.
    pub(crate) fn check_session(&mut self) {
        self.schedule(100 * MS, FutureEvent::SessionCheck);
        self.break_session();
        let open = self.link.cut == [false; 2];
        let cores = self.nodes.iter().all(|node| node.core.is_some());
        if open {
            self.link.cut_since = None;
        } else if self.link.cut_since.is_none() {
            self.link.cut_since = Some(self.now);
        }
        let timed_out = self.link.cut_since.is_some_and(|since| self.now >= since + SESSION_TIMEOUT);
        for node in 0..2 {
            let half_open = self.link.open_sessions[node].is_some()
                && self.link.open_sessions[1 - node] != self.link.open_sessions[node];
            // While the link is open an end learns at once that the other end closed, else after `SESSION_TIMEOUT`.
            if self.link.open_sessions[node].is_some() && (timed_out || (half_open && open)) {
                if half_open && open && self.nodes[1 - node].up {
                    self.schedule_job(node, 0, DaemonJob::Quorum(dyad_quorum::Event::PeerClosed));
                }
                self.end_session(node);
            }
        }
        // A node whose pool has failed makes no session.
        let failed = |core: &crate::machine::Core| core.model.placement.lifecycle().pool_has_failed();
        let failed = self.nodes.iter().filter_map(|node| node.core.as_ref()).any(failed);
        let possible = open && cores && !failed && !self.session_is_cut() && !self.has_unadmitted();
        if possible && self.link.open_sessions == [None; 2] && self.prng.chance(400) {
            self.link.session_since = self.now;
            self.link.blocked_since = None;
            let session = self.link.newest_session.advance();
            self.link.open_sessions = [Some(session); 2];
            self.link.undelivered = Default::default();
            for node in 0..2 {
                let delay = self.random_delay();
                self.link.newest_arrival[node] = self.now + delay;
                self.schedule_job(node, delay, DaemonJob::SessionUp(session));
            }
            self.count_event("sessions");
        }
    }

    /// Ends the session at both nodes if a partial fault has blocked it for long enough, or makes it flap.
    fn break_session(&mut self) {
        if self.session_is_cut() {
            // Also a session without messages is silent now.
            self.link.blocked_since = self.link.blocked_since.or(Some(self.now));
        }
        let silent = self.link.blocked_since.is_some_and(|since| self.now >= since + SILENCE_TIMEOUT);
        if silent || self.partial_fault == PartialFault::SessionFlaps && self.prng.chance(FLAP_PERMILLE) {
            (0..2).for_each(|node| self.end_session(node));
        }
    }

    pub(crate) fn end_session(&mut self, node: usize) {
        if let Some(session) = self.link.open_sessions[node].take() {
            self.link.undelivered[node].clear();
            let delay = self.random_delay();
            self.schedule_job(node, delay, DaemonJob::SessionDown(session));
        }
    }

    /// Closes the session at the node, as its daemon does.
    pub(crate) fn close_session(&mut self, node: usize) {
        if let Some(core) = &mut self.nodes[node].core {
            let closed = core.session.take();
            if let Some(session) = closed {
                self.schedule_job(node, 0, DaemonJob::SessionDown(session));
            }
            if closed != self.link.open_sessions[node] {
                return; // The open session is newer than the session that the daemon closes.
            }
        }
        self.link.open_sessions[node] = None;
        self.link.undelivered[node].clear();
    }

    pub(crate) fn session_up(&mut self, node: usize, session: Session) {
        if self.link.open_sessions[node] == Some(session) {
            if let Some(core) = &mut self.nodes[node].core {
                core.session = Some(session);
            }
            self.mirror(node, Event::PeerUp { session });
            self.place(node, dyad_placement::Event::SessionUp);
        }
    }

    pub(crate) fn session_down(&mut self, node: usize, session: Session) {
        let known = self.nodes[node].core.as_ref().and_then(|core| core.session);
        self.mirror(node, Event::PeerDown { session });
        // The end of an old session can be reported after the beginning of a newer one.
        if known.is_none_or(|known| known == session) {
            if let Some(core) = &mut self.nodes[node].core {
                core.session = None;
            }
            self.place(node, dyad_placement::Event::SessionDown);
            self.drop_forwarded(node);
        }
    }

    /// Sends a message of the state thread to that of the peer over the session, behind the messages of the mirror. It is lost
    /// with the session.
    pub(crate) fn send_to_peer_core(&mut self, node: usize, job: impl FnOnce(Session) -> DaemonJob) {
        let Some(session) = self.nodes[node].core.as_ref().and_then(|core| core.session) else { return };
        if self.link.open_sessions != [Some(session); 2] {
            return;
        }
        let delay = self.random_delay();
        let arrival = &mut self.link.newest_arrival[1 - node];
        *arrival = (*arrival).max(self.now + delay) + 1;
        let delay = *arrival - self.now;
        self.schedule_job(1 - node, delay, job(session));
    }

    /// Whether the node's state thread knows this session as the present one.
    pub(crate) fn is_session(&self, node: usize, session: Session) -> bool {
        self.nodes[node].core.as_ref().is_some_and(|core| core.session == Some(session))
    }

    /// Handles a request at the witness and sends the reply back.
    pub(crate) fn ask_witness(&mut self, node: usize, daemon_run: u64, id: WitnessRequestId, request: &WitnessRequest) {
        let mut half = self.witness_rtt / 2;
        let reply = if self.partial_fault == PartialFault::WitnessSilent {
            half = request_timeout(request);
            WitnessReply::NoAnswer
        } else if self.witness_up && self.reaches_witness[node] {
            let answer = acceptor::handle(&mut self.witness, request);
            // The record is durable at once; the network may lose the reply.
            if self.prng.chance(self.link.loss) { WitnessReply::NoAnswer } else { WitnessReply::Received(answer) }
        } else {
            WitnessReply::NoAnswer
        };
        let job = DaemonJob::Quorum(dyad_quorum::Event::Witness { id, reply });
        self.schedule(half, FutureEvent::Job { node, daemon_run, job });
    }
}

//! The network: datagrams that may be lost, late or duplicated; one ordered session between the daemons; the witness.

use crate::world::{Due, Job, World};
use dyad_mirror::{Event, PeerMessage};
use dyad_quorum::{Datagram, MS, Nanos, SEC, WitnessReply, WitnessRequest, WitnessRequestId, acceptor};
use dyad_types::Session;
use std::collections::VecDeque;

/// A session over a link that is cut for this long ends.
const SESSION_TIMEOUT: Nanos = 2 * SEC;

/// The link between both nodes, with its faults.
#[derive(Debug, Default)]
pub struct PeerLink {
    /// By sender: nothing arrives.
    pub cut: [bool; 2],
    /// Lost datagrams, of a thousand.
    pub loss: u64,
    /// Datagrams that arrive twice, of a thousand.
    pub duplicate: u64,
    /// The longest delay on top of 0.1 ms.
    pub jitter: Nanos,
    session: Session,
    /// By end: the session that is open there.
    ends: [Option<Session>; 2],
    /// By receiver: sent and not delivered, in order.
    lines: [VecDeque<PeerMessage>; 2],
    /// By receiver: when the newest message arrives.
    last: [Nanos; 2],
    stalled: Option<Nanos>,
}

impl World {
    fn delay(&mut self) -> Nanos {
        100_000 + self.prng.below(self.net.jitter.max(MS))
    }

    pub(crate) fn send_datagram(&mut self, from: usize, datagram: Datagram) {
        let copies = if self.prng.chance(self.net.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.net.cut[from] && !self.prng.chance(self.net.loss) {
                let delay = self.delay();
                self.put(delay, Due::Datagram { to: 1 - from, datagram: datagram.clone() });
            }
        }
    }

    pub(crate) fn send_message(&mut self, from: usize, message: PeerMessage) {
        // The session that the core model knows may have ended already at the link.
        let Some(session) = self.nodes[from].core.as_ref().and_then(|core| core.session) else { return };
        if self.net.ends != [Some(session); 2] {
            return;
        }
        let to = 1 - from;
        let now = self.now;
        let delay = self.delay() / 4;
        self.net.lines[to].push_back(message);
        self.net.last[to] = self.net.last[to].max(now + delay) + 1;
        let delay = self.net.last[to] - now;
        self.put(delay, Due::Message { session, to });
    }

    /// The oldest message of the line arrives, unless the link is cut: then it waits for a retransmission.
    pub(crate) fn message_arrives(&mut self, session: Session, to: usize) {
        if self.net.ends[to] != Some(session) {
            return;
        }
        if self.net.cut != [false; 2] {
            return self.put(50 * MS, Due::Message { session, to });
        }
        let Some(message) = self.net.lines[to].pop_front() else { return };
        self.job(to, 0, Job::Peer(session, message));
    }

    /// Every 100 ms: sessions without progress break, new ones are tried.
    pub(crate) fn session_tick(&mut self) {
        self.put(100 * MS, Due::Session);
        let open = self.net.cut == [false; 2];
        let cores = self.nodes.iter().all(|node| node.core.is_some());
        if open {
            self.net.stalled = None;
        } else if self.net.stalled.is_none() {
            self.net.stalled = Some(self.now);
        }
        let timed_out = self.net.stalled.is_some_and(|since| self.now >= since + SESSION_TIMEOUT);
        for node in 0..2 {
            let half_open = self.net.ends[node].is_some() && self.net.ends[1 - node] != self.net.ends[node];
            // While the link is open an end learns at once that the other end closed, else after `SESSION_TIMEOUT`.
            if self.net.ends[node].is_some() && (timed_out || (half_open && open)) {
                if half_open && open && self.nodes[1 - node].up {
                    self.job(node, 0, Job::Quorum(dyad_quorum::Event::PeerClosed));
                }
                self.end_session(node);
            }
        }
        if open && cores && self.net.ends == [None; 2] && self.prng.chance(400) {
            let session = self.net.session.advance();
            self.net.ends = [Some(session); 2];
            self.net.lines = Default::default();
            for node in 0..2 {
                let delay = self.delay();
                self.net.last[node] = self.now + delay;
                self.job(node, delay, Job::SessionUp(session));
            }
            self.count("sessions");
        }
    }

    fn end_session(&mut self, node: usize) {
        if let Some(session) = self.net.ends[node].take() {
            self.net.lines[node].clear();
            let delay = self.delay();
            self.job(node, delay, Job::SessionDown(session));
        }
    }

    /// The daemon closes its end.
    pub(crate) fn disconnect(&mut self, node: usize) {
        if let Some(core) = &mut self.nodes[node].core
            && core.session.take() != self.net.ends[node]
        {
            return; // the session below is a newer one
        }
        self.net.ends[node] = None;
        self.net.lines[node].clear();
    }

    pub(crate) fn session_up(&mut self, node: usize, session: Session) {
        if self.net.ends[node] == Some(session) {
            if let Some(core) = &mut self.nodes[node].core {
                core.session = Some(session);
            }
            self.mirror(node, Event::PeerUp { session });
            self.reload(node);
        }
    }

    pub(crate) fn session_down(&mut self, node: usize, session: Session) {
        if let Some(core) = &mut self.nodes[node].core
            && core.session == Some(session)
        {
            core.session = None;
        }
        self.mirror(node, Event::PeerDown { session });
    }

    pub(crate) fn tell_peer_document(&mut self, node: usize) {
        if self.net.ends[node].is_some() && self.net.ends[node] == self.net.ends[1 - node] {
            let delay = self.delay();
            self.job(1 - node, delay, Job::DocumentChanged);
        }
    }

    /// A request reaches the witness; the reply goes back.
    pub(crate) fn ask_witness(&mut self, node: usize, daemon_run: u64, id: WitnessRequestId, request: &WitnessRequest) {
        let half = self.witness_rtt / 2;
        let reply = if self.witness_up && self.reach[node] {
            let answer = acceptor::handle(&mut self.witness, request);
            // The record is durable at once; the network may lose the reply.
            if self.prng.chance(self.net.loss) { WitnessReply::Unreachable } else { WitnessReply::Received(answer) }
        } else {
            WitnessReply::Unreachable
        };
        let job = Job::Quorum(dyad_quorum::Event::Witness { id, reply });
        self.put(half, Due::Node { node, daemon_run, job });
    }
}

//! Handling of the updates of the quorum thread.

use super::CoreState;
use super::sentences::{alarm_text, kill_text, note_text};
use crate::peer_watchdog_cache;
use crate::quorum_update::{QuorumSnapshot, QuorumUpdate};
use dyad_control::{TimelineKind, chain};
use dyad_placement::{Event, RightToRun};
use std::net::SocketAddr;

impl CoreState {
    pub(super) fn apply_quorum_update(&mut self, update: QuorumUpdate) {
        match update {
            QuorumUpdate::Config(config) => {
                self.place(Event::Config(config));
                // A witness that is new in this configuration may already be in the document and not yet in the identity.
                self.remember_witness();
            }
            QuorumUpdate::AckSet(members, reports) => self.place(Event::AckSet { members, reports }),
            QuorumUpdate::Hold => self.place(Event::Freezing),
            QuorumUpdate::Kill(reason) => {
                self.handles
                    .timeline
                    .note(TimelineKind::VmsKilled, format!("VMs of this node are stopped: {}.", kill_text(reason)));
                self.place(Event::Killing);
            }
            QuorumUpdate::PeerVmsAllowed => self.place(Event::PeerVmsAllowed),
            QuorumUpdate::Alarm(alarm) => {
                if self.report.alarms.insert(alarm) {
                    self.handles.timeline.note(TimelineKind::Alarm, alarm_text(alarm, &self.handles.links));
                }
            }
            QuorumUpdate::Clear(alarm) => {
                if self.report.alarms.remove(&alarm) {
                    let text = format!("No longer: {}", alarm_text(alarm, &self.handles.links));
                    self.handles.timeline.note(TimelineKind::AlarmOver, text);
                }
            }
            QuorumUpdate::Note(at, note) => {
                let (kind, text) = note_text(at, &note);
                self.handles.timeline.note_at(at, kind, text);
            }
            QuorumUpdate::Late(turn) => {
                self.handles.timeline.note(TimelineKind::Late, format!("This node sent no heartbeats: {turn}."));
            }
            QuorumUpdate::LeaveDone => self.place(Event::LeaveDone),
            QuorumUpdate::Snapshot(snapshot) => {
                let QuorumSnapshot { may_run, peer_fence_until, .. } = snapshot;
                self.place(Event::RightToRun(RightToRun { may_run, peer_fence_until }));
                self.remember_peer_watchdog(snapshot.peer_watchdog_proven);
                if snapshot.peer_addresses != self.quorum.peer_addresses {
                    self.dial(&snapshot.peer_addresses);
                }
                self.quorum = snapshot;
            }
        }
    }

    /// Stores whether the peer's watchdog is proven, if that has changed.
    fn remember_peer_watchdog(&self, proven: bool) {
        let incarnation = self.placement.peer_incarnation();
        if incarnation == 0 || peer_watchdog_cache::load(&self.handles.paths.state, incarnation) == proven {
            return;
        }
        if let Err(e) = peer_watchdog_cache::save(&self.handles.paths.state, incarnation, proven) {
            tracing::error!(error = chain(&e), "whether the peer's watchdog is proven is forgotten at the next start");
        }
    }

    /// Has the session's task dial the peer at the addresses from which its heartbeats come.
    fn dial(&mut self, addresses: &[Option<SocketAddr>]) {
        let paths = self.handles.links.iter().zip(addresses).filter_map(|(name, address)| {
            let mut peer = (*address)?;
            peer.set_port(dyad_link::PEER_PORT);
            Some(dyad_link::session::Path { name: name.clone(), peer, local: None })
        });
        self.handles.peer.set_paths(paths.collect());
    }
}

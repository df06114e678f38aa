//! Handling of the updates of the quorum thread, and the fail-over.

use super::CoreState;
use super::parts::{FailOver, Pending};
use super::sentences::{alarm_text, kill_text, note_text};
use crate::documents::DocumentRequest;
use crate::peer_watchdog_cache;
use crate::quorum_update::QuorumUpdate;
use dyad_control::{TimelineKind, chain};
use dyad_desired::Change;
use dyad_quorum::{self as quorum, Members};
use std::net::SocketAddr;

impl CoreState {
    pub(super) fn apply_quorum_update(&mut self, update: QuorumUpdate) {
        match update {
            QuorumUpdate::Config(config) => self.set_config(config),
            QuorumUpdate::AckSet(set, handled) => {
                self.membership.ack_set = set;
                self.announce_view();
                if self.membership.readmission.on_ack_set(set, handled) {
                    self.handles.quorum_thread.tell(quorum::Event::PeerInAckSet);
                }
            }
            QuorumUpdate::Hold => self.hold(true),
            QuorumUpdate::Kill(reason) => {
                self.handles
                    .timeline
                    .note(TimelineKind::VmsKilled, format!("VMs of this node are stopped: {}.", kill_text(reason)));
                self.access.killed = true;
                self.access.kills += 1;
                self.access.vms_reported = None;
                self.settle_serving();
            }
            QuorumUpdate::PeerVmsAllowed => {
                self.membership.peer_vms_allowed = true;
                self.fail_over();
            }
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
            QuorumUpdate::Late { waited_ms, worked_ms } => {
                let text = format!(
                    "This node sent no heartbeats: their thread was not scheduled for {waited_ms} ms and then worked for {worked_ms} ms."
                );
                self.handles.timeline.note(TimelineKind::Late, text);
            }
            QuorumUpdate::LeaveDone => self.tell_leave_waiters(&Ok(())),
            QuorumUpdate::Snapshot(snapshot) => {
                self.access.killed = false;
                self.hold(!snapshot.may_run);
                self.remember_peer_watchdog(snapshot.peer_watchdog_proven);
                if snapshot.peer_addresses != self.membership.snapshot.peer_addresses {
                    self.dial(&snapshot.peer_addresses);
                }
                self.membership.snapshot = snapshot;
                self.settle_serving();
            }
        }
    }

    /// Stores whether the peer's watchdog is proven, if that has changed.
    fn remember_peer_watchdog(&self, proven: bool) {
        let incarnation = self.membership.peer_incarnation();
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

    /// Has the mirror hold or resume guests' requests: they wait while this node has no right to run VMs.
    fn hold(&mut self, hold: bool) {
        if self.membership.held != hold {
            self.membership.held = hold;
            self.feed_mirror(if hold { dyad_mirror::Event::Hold } else { dyad_mirror::Event::Resume });
        }
    }

    /// Takes over a configuration: ends access to guests' disks if this node is no member of it, tells the mirror, and has
    /// the document read.
    fn set_config(&mut self, config: quorum::Config) {
        if config.members != Members::only(self.me) {
            self.membership.peer_vms_allowed = false;
        }
        if !config.members.has(self.me) {
            // The servers end before the mirror refuses the open requests: a guest that still runs must not get an I/O
            // error.
            self.access.servers.clear();
            // The pair may change the document while this node is away.
            if self.membership.config.members.has(self.me) {
                self.document.end_term();
            }
        }
        self.membership.config = config;
        self.announce_view();
        self.reload_document();
        // A witness that is new in this configuration may already be in the document and not yet in the identity.
        self.remember_witness();
    }

    /// Tells the mirror configuration and acknowledging set, as its view.
    pub(super) fn announce_view(&mut self) {
        let view = dyad_replica::view(&self.membership.config, self.membership.ack_set, self.me);
        self.feed_mirror(dyad_mirror::Event::View(view));
    }

    /// Has the document's task read the document: as the writer of volume 0, or from the local replica.
    pub(super) fn reload_document(&mut self) {
        self.settle_writers();
        self.document.read_begins();
        let _ = self.handles.documents.send(DocumentRequest::Reload { lead: self.leads(), term: self.document.term() });
    }

    /// Fails the peer's VMs and volumes over to this node. Precondition: the peer's fence is over.
    pub(super) fn fail_over(&mut self) {
        let Some(document) = self.authoritative_document() else { return };
        // A peer that was reported clean may become a member at any moment and start the VMs that the document places on
        // it.
        if self.membership.fail_over != FailOver::Idle || self.membership.readmission.clean() {
            return;
        }
        let me = self.me;
        let foreign =
            document.vms.values().any(|vm| vm.config.node != me) || document.volumes.values().any(|v| v.primary != me);
        if self.membership.peer_vms_allowed && foreign && self.leads() {
            self.membership.fail_over = FailOver::InFlight { clean_deferred: false };
            // A refused change is tried again at the next settling.
            self.change(Change::FailOver { survivor: me }, Pending::FailOver);
        }
    }

    /// Ends the fail-over, whose change is decided, and reports a "clean" of the peer that was deferred.
    pub(super) fn failover_ended(&mut self) {
        let ended = std::mem::replace(&mut self.membership.fail_over, FailOver::Idle);
        if ended == (FailOver::InFlight { clean_deferred: true }) {
            self.peer_is_clean();
        }
    }
}

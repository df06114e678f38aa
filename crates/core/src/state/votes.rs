//! Between the quorum_thread (quorum) and the rest.

use super::CoreState;
use super::changes::Pending;
use crate::documents::DocumentRequest;
use crate::quorum_update::QuorumUpdate;
use dyad_desired::Change;
use dyad_quorum::{self as quorum, Alarm, Members, Note};
use std::net::SocketAddr;

impl CoreState {
    pub(super) fn quorum_update(&mut self, update: QuorumUpdate) {
        match update {
            QuorumUpdate::Config(config) => self.config_is(config),
            QuorumUpdate::AckSet(set, handled) => {
                self.ack_set = set;
                self.announce_view();
                if self.readmission.demand(set, handled) {
                    self.deps.quorum_thread.tell(quorum::Event::AckPeer);
                }
            }
            QuorumUpdate::Hold => self.hold(true),
            QuorumUpdate::Kill(reason) => {
                self.deps.timeline.note("vms-killed", format!("VMs of this node are stopped: {reason}."));
                self.serving = false;
            }
            QuorumUpdate::PeerVmsAllowed => {
                self.peer_vms_allowed = true;
                self.fail_over();
            }
            QuorumUpdate::Alarm(alarm) => {
                if self.alarms.insert(alarm) {
                    self.deps.timeline.note("alarm", alarm_text(alarm, &self.deps.paths));
                }
            }
            QuorumUpdate::Clear(alarm) => {
                if self.alarms.remove(&alarm) {
                    let text = format!("No longer: {}", alarm_text(alarm, &self.deps.paths));
                    self.deps.timeline.note("alarm-over", text);
                }
            }
            QuorumUpdate::Note(at, note) => {
                let (kind, text) = note_text(at, &note);
                self.deps.timeline.note_at(at, kind, text);
            }
            QuorumUpdate::Late { waited_ms, worked_ms } => {
                let text = format!(
                    "The heartbeats of this node stood still: {waited_ms} ms for want of the processor, {worked_ms} ms at work."
                );
                self.deps.timeline.note("late", text);
            }
            QuorumUpdate::LeaveDone => self.tell_leave_waiters(&Ok(())),
            QuorumUpdate::Snapshot(snapshot) => {
                if snapshot.may_run && self.config.members.has(self.me) {
                    self.serving = true;
                }
                self.hold(!snapshot.may_run);
                self.remember_peer_watchdog(snapshot.peer_watchdog);
                if snapshot.peer_addresses != self.snapshot.peer_addresses {
                    self.dial(&snapshot.peer_addresses);
                }
                self.snapshot = snapshot;
            }
        }
    }

    fn remember_peer_watchdog(&self, proven: bool) {
        let incarnation = self.config.incarnations[self.me.peer().index()];
        if incarnation == 0 || crate::peer_watchdog_cache::load(&self.deps.state, incarnation) == proven {
            return;
        }
        if let Err(e) = crate::peer_watchdog_cache::save(&self.deps.state, incarnation, proven) {
            tracing::error!(error = %e, "whether the peer's watchdog is proven is forgotten at the next start");
        }
    }

    /// The data session goes where heartbeats come from.
    fn dial(&mut self, addresses: &[Option<SocketAddr>]) {
        let paths = self.deps.paths.iter().zip(addresses).filter_map(|(name, address)| {
            let mut peer = (*address)?;
            peer.set_port(dyad_link::PEER_PORT);
            Some(dyad_link::session::Path { name: name.clone(), peer, local: None })
        });
        self.deps.peer.set_paths(paths.collect());
    }

    /// Guests' requests wait while this node has no right to run.
    fn hold(&mut self, hold: bool) {
        if self.held != hold {
            self.held = hold;
            self.mirror(if hold { dyad_mirror::Event::Hold } else { dyad_mirror::Event::Resume });
        }
    }

    fn config_is(&mut self, config: quorum::Config) {
        if config.members != Members::only(self.me) {
            self.peer_vms_allowed = false;
        }
        if !config.members.has(self.me) {
            self.serving = false;
            // Before the mirror refuses what is open: no guest may hear of that, should one run still.
            self.servers.clear();
            // The document may change while this node is away, and must be read again before it rules here.
            self.term.number += u64::from(self.config.members.has(self.me));
        }
        self.config = config;
        self.announce_view();
        self.reload_document();
        // The name of a new witness, if one came with this configuration, is in the document and in the identity.
        self.remember_witness();
    }

    /// Tells the mirror where it stands.
    pub(super) fn announce_view(&mut self) {
        let view = dyad_replica::view(&self.config, self.ack_set, self.me);
        self.mirror(dyad_mirror::Event::View(view));
    }

    /// Reads the document again: from volume 0 as its writer, or as the follower's copy.
    pub(super) fn reload_document(&mut self) {
        self.settle_writers();
        self.term.read_in_flight = true;
        let _ = self.deps.documents.send(DocumentRequest::Reload { lead: self.leads(), term: self.term.number });
    }

    /// The peer surely runs nothing: what was its is ours.
    pub(super) fn fail_over(&mut self) {
        let Some(document) = self.authoritative_document() else { return };
        // A peer that was called clean may become a member at any moment, with what the document says is its.
        if self.failover_in_flight || self.readmission.clean() {
            return;
        }
        let me = self.me;
        let foreign =
            document.vms.values().any(|vm| vm.node != me) || document.volumes.values().any(|v| v.primary != me);
        if self.peer_vms_allowed && foreign && self.leads() {
            self.failover_in_flight = true;
            // A refused one is tried again at the next settling.
            self.change(Change::FailOver { survivor: me }, Pending::FailOver);
        }
    }

    pub(super) fn failover_ended(&mut self) {
        self.failover_in_flight = false;
        if self.clean_deferred {
            self.peer_is_clean();
        }
    }
}

/// One sentence for each lasting condition.
pub(super) fn alarm_text(alarm: Alarm, paths: &[String]) -> String {
    match alarm {
        Alarm::PeerSilent => "The other node is silent.".into(),
        Alarm::PathDown(path) => {
            let name = paths.get(usize::from(path)).map_or("?", String::as_str);
            format!("The peer link {name} is down: check its cable.")
        }
        Alarm::PeerUnadmitted => "The other node answers from a store that was never admitted: pair it again.".into(),
        Alarm::WitnessLost => "The witness does not answer.".into(),
        Alarm::WitnessRolledBack => "The witness was set back to an older state: enrol it again.".into(),
        Alarm::TieAt(node) => {
            format!("The witness is away: the pair survives the loss of the other node, not of {node}.")
        }
        Alarm::ClockDrift => "The clocks of the nodes drift apart: no lease is granted until one is repaired.".into(),
        Alarm::RegisterFailed => "The register of this node cannot be written: replace its system disk.".into(),
        Alarm::PeerUnfenced => {
            "The other node's watchdog is not proven: its VMs start here only on proof of its death.".into()
        }
        Alarm::Conflict => "Two configurations carry one epoch: this must never happen; call for help.".into(),
    }
}

/// A stable word and one sentence for each timeline entry of the quorum.
fn note_text(at: u64, note: &Note) -> (&'static str, String) {
    let ms = |time: u64| at.abs_diff(time) / 1_000_000;
    match note {
        Note::PeerSilent { last_alive } => {
            ("peer-silent", format!("The peer is silent; it was last heard {} ms ago.", ms(*last_alive)))
        }
        Note::PeerHeard => ("peer-heard", "The peer is heard in both directions.".into()),
        Note::Deciding { epoch, why, target } => {
            ("deciding", format!("Epoch {epoch} is being decided ({why:?}), asking {target:?}."))
        }
        Note::Chosen { epoch, members, tie, learned } => {
            let how = if *learned { "learned" } else { "decided here" };
            ("epoch", format!("Epoch {epoch}: members {members:?}, tie at {tie:?}, {how}."))
        }
        Note::FenceWait { until: Some(until) } => {
            ("fence-wait", format!("The peer may still run VMs for {} ms.", ms(*until)))
        }
        Note::FenceWait { until: None } => {
            ("fence-wait", "The peer's VMs start here only on proof of its death.".into())
        }
        Note::FenceOver { proof: None } => ("fence-over", "The peer surely runs nothing: its time is over.".into()),
        Note::FenceOver { proof: Some(proof) } => ("fence-over", format!("The peer surely runs nothing: {proof:?}.")),
        Note::LeaseLapsed => ("lease-lapsed", "The right to run has lapsed; VMs are paused.".into()),
        Note::Resumed => ("resumed", "The right to run is back; VMs go on.".into()),
        Note::WitnessLost => ("witness-lost", "Nobody reaches the witness.".into()),
        Note::WitnessBack => ("witness-back", "The witness answers again.".into()),
    }
}

//! The status: everything known in one moment, shown to whoever watches.

use super::CoreState;
use super::votes::alarm_text;
use dyad_control::{
    LinkStatus, MirrorState, MirrorStatus, NodeState, Pair, Phase, QuorumStatus, Status, VolumeStatus, WatchdogStatus,
    WitnessStatus,
};
use dyad_mirror as mirror;
use dyad_quorum as quorum;
use dyad_types::NodeId;

impl CoreState {
    /// Shows the state if it has changed.
    pub(super) fn show(&mut self) {
        let mut status = self.status();
        let revision = self.revision;
        let changed = self.deps.status.send_if_modified(|shown| {
            status.revision = shown.revision;
            let changed = *shown != status;
            if changed {
                status.revision = revision + 1;
                *shown = status;
            }
            changed
        });
        if changed {
            self.revision += 1;
        }
    }

    fn status(&self) -> Status {
        let identity = &self.deps.identity;
        let open_code = self.pairing_code.as_ref().filter(|code| code.is_open());
        Status {
            revision: 0,
            phase: Phase::Running,
            pair: Some(Pair {
                id: identity.pair_id.clone(),
                name: identity.pair.clone(),
                me: self.me,
                node: identity.node.clone(),
                peer: identity.peer.as_ref().map(|peer| peer.node.clone()),
            }),
            quorum: Some(self.quorum_status()),
            links: self
                .deps
                .paths
                .iter()
                .enumerate()
                .map(|(i, name)| LinkStatus { name: name.clone(), up: self.snapshot.paths_up.get(i) == Some(&true) })
                .collect(),
            mirror: Some(self.mirror_status()),
            pool: Some(self.deps.store.usage()),
            watchdog: self.deps.watchdog.as_ref().map_or(WatchdogStatus::Absent, |facts| facts.status()),
            alarms: self.alarm_status(),
            volumes: self.volume_status(),
            permits: self.permits.iter().cloned().collect(),
            document_generation: self.document.as_ref().map_or(0, |document| document.generation),
            pairing_code: open_code.map(|code| code.digits.clone()),
        }
    }

    fn alarm_status(&self) -> Vec<dyad_control::Alarm> {
        let mut alarms: Vec<quorum::Alarm> = self.alarms.iter().copied().collect();
        alarms.sort_by_key(|alarm| word(*alarm).0);
        let alarm = |alarm: quorum::Alarm| dyad_control::Alarm {
            code: word(alarm).1.into(),
            sentence: alarm_text(alarm, &self.deps.paths),
        };
        alarms.into_iter().map(alarm).collect()
    }

    fn quorum_status(&self) -> QuorumStatus {
        let members = [NodeId::A, NodeId::B];
        QuorumStatus {
            epoch: self.config.epoch,
            members: members.into_iter().filter(|node| self.config.members.has(*node)).collect(),
            tie: format!("{:?}", self.config.tie),
            lead: self.config.lead,
            lineage: self.config.lineage,
            may_run: self.snapshot.may_run,
            state: self.node_state(),
            peer_alive: self.snapshot.peer_alive,
            witness: self.witness_status(),
        }
    }

    fn node_state(&self) -> NodeState {
        use quorum::{Fence, RunState as S};
        if let Some(what) = &self.error {
            return NodeState::Faulty { what: what.clone() };
        }
        let Some(run_state) = self.snapshot.run_state else { return NodeState::Starting };
        match run_state {
            S::NotSetUp | S::UnadmittedStore => NodeState::PeerIsNewer { syncing: self.connected },
            S::RegisterFailed => NodeState::Amnesia,
            S::Leaving => NodeState::Faulty { what: "This node is shutting down.".into() },
            S::InSync { .. } => NodeState::Running,
            S::Paused { .. } if self.serving => NodeState::Paused,
            S::Paused { .. } => NodeState::WaitingForVote,
            S::Solo { fence: Fence::Over, .. } => NodeState::Running,
            S::Solo { fence: Fence::Until(until), .. } => {
                NodeState::FenceWait { left_ms: until.saturating_sub(crate::clock::now()) / 1_000_000 }
            }
            S::Solo { fence: Fence::NeedsProof, .. } => NodeState::Faulty {
                what:
                    "The other node is silent and its watchdog is not proven: its VMs start here only on proof of its \
                       death."
                        .into(),
            },
            S::OutOfSync { holder_alive, .. } => NodeState::PeerIsNewer { syncing: holder_alive && self.connected },
        }
    }

    fn witness_status(&self) -> WitnessStatus {
        let Some(witness) = &self.deps.identity.witness else { return WitnessStatus::None };
        let address = witness.address.clone();
        match self.snapshot.witness {
            crate::quorum_update::WitnessHealth::Answers { rtt_us } => WitnessStatus::Reachable { address, rtt_us },
            crate::quorum_update::WitnessHealth::Silent { since } => WitnessStatus::Unreachable {
                address,
                silent_s: since.map(|since| crate::clock::now().saturating_sub(since) / 1_000_000_000),
            },
        }
    }

    fn mirror_status(&self) -> MirrorStatus {
        let members = self.config.members;
        let me = members.has(self.me);
        let state = match (me, members.has(self.me.peer()), self.deps.mirror.phase()) {
            (false, ..) => MirrorState::Behind,
            (true, true, mirror::Phase::Steady) => MirrorState::InSync,
            (true, true, mirror::Phase::Reconcile | mirror::Phase::Handshake) => MirrorState::Reconciling,
            (true, true, _) => MirrorState::Held,
            (true, false, mirror::Phase::Source | mirror::Phase::Handshake) => MirrorState::Resyncing,
            (true, false, _) => MirrorState::Solo,
        };
        MirrorStatus {
            connected: self.connected,
            state,
            dirty_extents: self.deps.mirror.dirty_extents(),
            resync_bytes: self.progress.copied,
            resync_dirty_bytes: self.dirty_bytes,
            healed_blocks: self.healed,
        }
    }

    fn volume_status(&self) -> Vec<VolumeStatus> {
        let Some(document) = &self.document else { return Vec::new() };
        let volumes = document.volumes.iter().map(|(name, volume)| VolumeStatus {
            id: volume.id,
            name: name.clone(),
            size: volume.size,
            writer: match self.writers.get(&volume.id) {
                Some(mirror::Writer::Me) => Some(self.me),
                Some(mirror::Writer::Peer) => Some(self.me.peer()),
                _ => None,
            },
            socket: self.servers.get(&volume.id).map(|served| served.socket.display().to_string()),
        });
        volumes.collect()
    }
}

/// How grave an alarm is, 0 being the gravest, and its stable word.
fn word(alarm: quorum::Alarm) -> (u8, &'static str) {
    use quorum::Alarm;
    match alarm {
        Alarm::Conflict => (0, "conflict"),
        Alarm::RegisterFailed => (1, "register-failed"),
        Alarm::PeerUnadmitted => (2, "peer-unadmitted"),
        Alarm::ClockDrift => (3, "clock-drift"),
        Alarm::PeerUnfenced => (4, "peer-unfenced"),
        Alarm::WitnessRolledBack => (5, "witness-rolled-back"),
        Alarm::PeerSilent => (6, "peer-silent"),
        Alarm::WitnessLost => (7, "witness-lost"),
        Alarm::TieAt(_) => (8, "tie-at-node"),
        Alarm::PathDown(_) => (9, "path-down"),
    }
}

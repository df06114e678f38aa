//! The status for the control socket, built from the state in one step.

use super::CoreState;
use super::sentences::{alarm_text, full_pools_text, vms_do_not_fit_text};
use dyad_control::{
    Alarm, AlarmCode, LinkStatus, MirrorState, MirrorStatus, NodeState, Pair, Phase, QuorumStatus, Status,
    VolumeStatus, WitnessStatus,
};
use dyad_mirror as mirror;
use dyad_quorum as quorum;
use dyad_types::{EXTENT_BYTES, NodeId};

impl CoreState {
    /// Shows the state if it has changed.
    pub(super) fn show(&mut self) {
        let status = self.status();
        self.report.show(status);
    }

    fn status(&self) -> Status {
        let identity = &self.identity;
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
                .handles
                .links
                .iter()
                .enumerate()
                .map(|(i, name)| LinkStatus { name: name.clone(), up: self.quorum.paths_up.get(i) == Some(&true) })
                .collect(),
            mirror: Some(self.mirror_status()),
            pool: Some(self.handles.store.usage()),
            watchdog: self.self_test.status(),
            alarms: self.alarm_status(),
            volumes: self.volume_status(),
            permits: self.placement.permits().iter().cloned().collect(),
            document_generation: self.placement.document().newest().map_or(0, |document| document.generation),
            pairing_code: self.handles.pairing.shown_code(),
        }
    }

    fn alarm_status(&self) -> Vec<Alarm> {
        let quorum = self
            .report
            .alarms
            .iter()
            .map(|alarm| Alarm { code: (*alarm).into(), sentence: alarm_text(*alarm, &self.handles.links) });
        let mut alarms: Vec<Alarm> = quorum.collect();
        let full_pools = &self.replication.full_pools;
        if !full_pools.is_empty() {
            let sentence = full_pools_text(full_pools.iter().map(|node| *node == self.me));
            alarms.push(Alarm { code: AlarmCode::PoolFull, sentence });
        }
        alarms.extend(self.memory_alarm());
        alarms.sort_by_key(|alarm| alarm.code);
        alarms
    }

    /// The alarm that one node cannot run all VMs: a node has come back with less memory than the VMs were admitted for.
    fn memory_alarm(&self) -> Option<Alarm> {
        let sentence = vms_do_not_fit_text(self.placement.document().newest()?)?;
        Some(Alarm { code: AlarmCode::VmsDoNotFit, sentence })
    }

    fn quorum_status(&self) -> QuorumStatus {
        let members = [NodeId::A, NodeId::B];
        QuorumStatus {
            epoch: self.placement.config().epoch,
            members: members.into_iter().filter(|node| self.placement.config().members.has(*node)).collect(),
            tie: self.placement.config().tie,
            lead: self.placement.config().lead,
            lineage: self.placement.config().lineage,
            may_run: self.quorum.may_run,
            state: self.node_state(),
            peer_alive: self.quorum.peer_alive,
            witness: self.witness_status(),
        }
    }

    /// The reason for the right to run, or the error that makes this node faulty.
    fn node_state(&self) -> NodeState {
        use quorum::{Fence, RunState as S};
        if let Some(what) = self.report.faulty() {
            return NodeState::Faulty { what: what.clone() };
        }
        let Some(run_state) = self.quorum.run_state else { return NodeState::Starting };
        match run_state {
            S::NotSetUp | S::UnadmittedStore => NodeState::PeerIsNewer { syncing: self.replication.connected() },
            S::RegisterFailed => NodeState::Amnesia,
            S::Leaving => NodeState::Faulty { what: "This node is shutting down.".into() },
            S::InSync { .. } => NodeState::Running,
            S::Paused { .. } if self.placement.serving() => NodeState::Paused,
            S::Paused { .. } => NodeState::WaitingForVote,
            S::Solo { fence: Fence::Over, .. } => NodeState::Running,
            S::Solo { fence: Fence::Until(until), .. } => {
                NodeState::FenceWait { left_ms: until.since(crate::clock::now()) / 1_000_000 }
            }
            S::Solo { fence: Fence::NeedsProof, .. } => NodeState::Faulty {
                what:
                    "The other node is silent and its watchdog is not proven: its VMs start here only on proof of its \
                       death."
                        .into(),
            },
            S::OutOfSync { holder_alive, .. } => {
                NodeState::PeerIsNewer { syncing: holder_alive && self.replication.connected() }
            }
        }
    }

    fn witness_status(&self) -> WitnessStatus {
        let Some(witness) = &self.identity.witness else { return WitnessStatus::None };
        let address = witness.address.clone();
        match self.quorum.witness {
            crate::quorum_update::WitnessHealth::Answers { rtt_us } => WitnessStatus::Reachable { address, rtt_us },
            crate::quorum_update::WitnessHealth::Silent { since } => WitnessStatus::Unreachable {
                address,
                silent_s: since.map(|since| crate::clock::now().since(since) / 1_000_000_000),
            },
        }
    }

    fn mirror_status(&self) -> MirrorStatus {
        let members = self.placement.config().members;
        let me = members.has(self.me);
        let state = match (me, members.has(self.me.peer()), self.replication.mirror.phase()) {
            (false, ..) => MirrorState::Behind,
            (true, true, mirror::Phase::Steady) => MirrorState::InSync,
            (true, true, mirror::Phase::Reconcile | mirror::Phase::Handshake) => MirrorState::Reconciling,
            (true, true, _) => MirrorState::Held,
            (true, false, mirror::Phase::Source | mirror::Phase::Handshake) => MirrorState::Resyncing,
            (true, false, _) => MirrorState::Solo,
        };
        MirrorStatus {
            connected: self.replication.connected(),
            state,
            dirty_bytes: self.replication.mirror.dirty_extents() * EXTENT_BYTES,
            resync_bytes: self.replication.progress.copied,
            resync_dirty_bytes: self.replication.dirty_bytes,
            healed_blocks: self.replication.healed,
        }
    }

    fn volume_status(&self) -> Vec<VolumeStatus> {
        let Some(document) = self.placement.document().newest() else { return Vec::new() };
        let volumes = document.volumes.iter().map(|(name, volume)| VolumeStatus {
            id: volume.id,
            name: name.clone(),
            size: volume.size,
            writer: match self.placement.writer_of(volume.id) {
                Some(mirror::Writer::Me) => Some(self.me),
                Some(mirror::Writer::Peer) => Some(self.me.peer()),
                _ => None,
            },
            socket: self.access.servers.get(&volume.id).map(|served| served.socket.display().to_string()),
        });
        volumes.collect()
    }
}

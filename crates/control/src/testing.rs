//! A status for tests, behind the feature `testing`.

use dyad_types::{Epoch, NodeId};

use crate::{
    LinkStatus, MirrorState, MirrorStatus, NodeState, Pair, Phase, PoolDiskStatus, PoolStatus, QuorumStatus, Status,
    WatchdogStatus, WitnessStatus,
};

/// The status of node `left` of the pair `office`, which is node A and leads: both nodes and the witness are healthy, and
/// both nodes hold all data.
#[must_use]
pub fn protected() -> Status {
    let link = |name: &str| LinkStatus { name: name.into(), up: true };
    Status {
        revision: 1,
        phase: Phase::Running,
        pair: Some(Pair {
            id: "00ff".into(),
            name: "office".into(),
            me: NodeId::A,
            node: "left".into(),
            peer: Some("right".into()),
        }),
        quorum: Some(QuorumStatus {
            epoch: Epoch(3),
            members: vec![NodeId::A, NodeId::B],
            tie: dyad_quorum::Acceptor::W,
            lead: NodeId::A,
            lineage: 0,
            may_run: true,
            state: NodeState::Running,
            peer_alive: true,
            witness: WitnessStatus::Reachable { address: "w:7403".into(), rtt_us: 400 },
        }),
        links: vec![link("eth1"), link("eth2")],
        mirror: Some(MirrorStatus {
            connected: true,
            state: MirrorState::InSync,
            dirty_bytes: 0,
            resync_bytes: 0,
            resync_dirty_bytes: 0,
            healed_blocks: 0,
        }),
        pool: Some(PoolStatus {
            total_bytes: 1 << 34,
            used_bytes: 1 << 20,
            disks: vec![PoolDiskStatus { path: "/dev/vdb".into(), bytes: 1 << 34, healthy: true, error: None }],
        }),
        watchdog: WatchdogStatus::Armed { identity: "i6300esb".into(), timeout_s: 3, proven: true },
        alarms: vec![],
        volumes: vec![],
        permits: vec![],
        document_generation: 1,
        pairing_code: None,
    }
}

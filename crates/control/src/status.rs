//! What the core says of itself.

use crate::Alarm;
use dyad_types::{NodeId, VolumeId};
use serde::{Deserialize, Serialize};

/// Everything the core knows, read in one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Grows by one at each change.
    pub revision: u64,
    /// How far this node is.
    pub phase: Phase,
    /// The pair this node belongs to.
    pub pair: Option<Pair>,
    /// Membership and the right to run; `None` until the node belongs to a pair.
    pub quorum: Option<QuorumStatus>,
    /// The paths to the peer.
    pub links: Vec<LinkStatus>,
    /// Replication.
    pub mirror: Option<MirrorStatus>,
    /// This node's share of the pool.
    pub pool: Option<PoolStatus>,
    /// The watchdog.
    pub watchdog: WatchdogStatus,
    /// Lasting conditions that somebody has to see to, the gravest first.
    pub alarms: Vec<Alarm>,
    /// The volumes, by id.
    pub volumes: Vec<VolumeStatus>,
    /// Names of the VMs that may run on this node in this moment, with their disks' sockets open.
    pub permits: Vec<String>,
    /// Generation of the newest document known here; 0 = none yet.
    pub document_generation: u64,
    /// The open pairing code, if any: shown on this node's own screens only, never over the network without login.
    pub pairing_code: Option<String>,
}

impl Status {
    /// The status of a node without a pair.
    #[must_use]
    pub fn without_pair(phase: Phase, watchdog: WatchdogStatus) -> Self {
        Status {
            revision: 0,
            phase,
            pair: None,
            quorum: None,
            links: Vec::new(),
            mirror: None,
            pool: None,
            watchdog,
            alarms: Vec::new(),
            volumes: Vec::new(),
            permits: Vec::new(),
            document_generation: 0,
            pairing_code: None,
        }
    }
}

/// How far this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Flashed, not set up.
    Blank,
    /// Setup runs.
    SettingUp {
        /// What is being done, one sentence.
        step: String,
    },
    /// Belongs to a pair and works.
    Running,
    /// Cannot work; says why and what to do.
    Broken {
        /// One or two sentences.
        sentence: String,
    },
}

/// The pair this node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Id in hex.
    pub id: String,
    /// Name.
    pub name: String,
    /// Which node this is.
    pub me: NodeId,
    /// This node's name.
    pub node: String,
    /// The peer's name, once it has joined.
    pub peer: Option<String>,
}

/// Membership and the right to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuorumStatus {
    /// The newest epoch known here.
    pub epoch: u64,
    /// The in-sync set.
    pub members: Vec<NodeId>,
    /// Who holds the tie vote: `A`, `B` or `W`.
    pub tie: String,
    /// The lead.
    pub lead: NodeId,
    /// Grows when an operator forces.
    pub lineage: u64,
    /// Whether VMs owned by this node may run now.
    pub may_run: bool,
    /// Why they may or may not.
    #[serde(alias = "standing")]
    pub state: NodeState,
    /// The peer's heartbeats arrive.
    pub peer_alive: bool,
    /// The witness.
    pub witness: WitnessStatus,
}

/// Why this node's VMs may or may not run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum NodeState {
    /// Just started: membership was read from the register and is not judged yet.
    Starting,
    /// Member of the in-sync set with a lease or the tie.
    Running,
    /// The lease has lapsed: VMs are paused until the peer or the witness answers.
    Paused,
    /// Started, but neither the peer nor the witness has answered yet.
    WaitingForVote,
    /// The peer holds newer data: this node follows it.
    PeerIsNewer {
        /// The peer has been heard and data is being copied.
        syncing: bool,
    },
    /// Solo chosen; the peer's VMs start when the fence time is over.
    FenceWait {
        /// Milliseconds left.
        left_ms: u64,
    },
    /// The register is damaged on all its places: this node has no vote.
    Amnesia,
    /// Something on this node is faulty; it hands over.
    #[serde(alias = "unwell")]
    Faulty {
        /// What.
        what: String,
    },
}

/// The witness as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "witness", rename_all = "kebab-case")]
pub enum WitnessStatus {
    /// None enrolled.
    None,
    /// Enrolled and answering.
    Reachable {
        /// `host:port`.
        address: String,
        /// Last round trip in microseconds.
        rtt_us: u64,
    },
    /// Enrolled, silent.
    Unreachable {
        /// `host:port`.
        address: String,
        /// Seconds since it last answered; `None` = not since this start.
        silent_s: Option<u64>,
    },
}

/// One path to the peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Interface or address.
    pub name: String,
    /// Both directions confirmed.
    pub up: bool,
}

/// Replication as seen from this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// A data session to the peer is up.
    pub connected: bool,
    /// What it does.
    pub state: MirrorState,
    /// Extents that the peer lacks.
    pub dirty_extents: u64,
    /// Bytes copied by the running or last resync.
    pub resync_bytes: u64,
    /// Bytes that were dirty when the running or last resync began.
    pub resync_dirty_bytes: u64,
    /// Blocks that failed their checksum here and were healed from the peer since start.
    pub healed_blocks: u64,
}

/// What replication does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorState {
    /// No peer: writes are kept here and marked.
    Solo,
    /// Comparing journals' tails after a reconnect; guests wait.
    Reconciling,
    /// Copying what changed.
    Resyncing,
    /// Every acknowledged write is on both nodes.
    InSync,
    /// This node is the one that lacks data.
    Behind,
    /// Writes wait for the peer or for a decision.
    Held,
}

/// This node's share of the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Bytes for data on all disks.
    pub total_bytes: u64,
    /// Bytes allocated.
    pub used_bytes: u64,
    /// The disks.
    pub disks: Vec<PoolDiskStatus>,
}

/// One pool disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolDiskStatus {
    /// Path.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Works.
    #[serde(alias = "well")]
    pub healthy: bool,
    /// What is wrong, one sentence.
    pub error: Option<String>,
}

/// The watchdog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "watchdog", rename_all = "kebab-case")]
pub enum WatchdogStatus {
    /// None found: a silent peer's VMs start only on proof of its death.
    Absent,
    /// Armed and fed.
    Armed {
        /// Name from the driver.
        identity: String,
        /// Seconds without food until it resets the node.
        timeout_s: u64,
        /// It has been seen to reset this node.
        proven: bool,
    },
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Number.
    pub id: VolumeId,
    /// Name from the document.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The node that may write it.
    pub writer: Option<NodeId>,
    /// Its vhost-user socket on this node, while it may be used here.
    pub socket: Option<String>,
}

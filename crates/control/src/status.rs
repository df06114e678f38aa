//! Status of the core.

use crate::Alarm;
use dyad_quorum::Acceptor;
use dyad_types::{Epoch, NodeId, VolumeId};
use serde::{Deserialize, Serialize};

/// State of the core at one time.
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
    /// State of replication.
    pub mirror: Option<MirrorStatus>,
    /// This node's share of the pool.
    pub pool: Option<PoolStatus>,
    pub watchdog: WatchdogStatus,
    /// Alarms in force, the gravest first.
    pub alarms: Vec<Alarm>,
    /// The volumes, by id.
    pub volumes: Vec<VolumeStatus>,
    /// Names of the VMs that may run on this node now; the sockets of all their disks are open.
    pub permits: Vec<String>,
    /// Generation of the newest document known here; 0 = none yet.
    pub document_generation: u64,
    /// The open pairing code. It is shown on this node's own screens, and over the network only with a session.
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
    SettingUp {
        /// The present step, one sentence.
        step: String,
    },
    /// Belongs to a pair, with its pool open.
    Running,
    Broken {
        /// The reason and what to do, one or two sentences.
        sentence: String,
    },
}

/// The pair this node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Id, in hexadecimal.
    pub id: String,
    pub name: String,
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
    pub epoch: Epoch,
    /// The in-sync set.
    pub members: Vec<NodeId>,
    /// Holder of the tie vote: `A`, `B` or `W` (the witness).
    pub tie: Acceptor,
    /// The node that writes the document.
    pub lead: NodeId,
    /// Grows by one each time an operator forces a decision.
    pub lineage: u64,
    /// Whether VMs may run on this node now.
    pub may_run: bool,
    /// The reason for `may_run`.
    pub state: NodeState,
    /// Whether the peer's heartbeats arrive.
    pub peer_alive: bool,
    pub witness: WitnessStatus,
}

/// Why this node's VMs may or may not run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum NodeState {
    /// Just started: the register was read, and no vote has been asked for.
    Starting,
    /// Member of the in-sync set with a lease or the tie.
    Running,
    /// The lease has ended: VMs are frozen until the peer or the witness answers.
    Paused,
    /// Started, but neither the peer nor the witness has answered yet.
    WaitingForVote,
    /// The peer holds newer data: this node follows it.
    PeerIsNewer {
        /// Whether data is being copied from the peer.
        syncing: bool,
    },
    /// This node is solo; the peer's VMs start here when the fence is over.
    FenceWait { left_ms: u64 },
    /// Both copies of the register are damaged: this node has no vote.
    Amnesia,
    /// A part of this node has failed: it hands over to the peer.
    #[serde(alias = "unwell")]
    Faulty {
        /// The failed part, one sentence.
        what: String,
    },
}

/// The witness as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "witness", rename_all = "kebab-case")]
pub enum WitnessStatus {
    /// No witness is enrolled.
    None,
    /// Enrolled and answering.
    Reachable {
        /// Where it listens, as `host:port`.
        address: String,
        /// Last round trip in microseconds.
        rtt_us: u64,
    },
    /// Enrolled and not answering.
    Unreachable {
        /// Where it listens, as `host:port`.
        address: String,
        /// Seconds since its last answer; `None` = no answer since this core started.
        silent_s: Option<u64>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Interface or address.
    pub name: String,
    /// Whether heartbeats pass in both directions.
    pub up: bool,
}

/// Replication as seen from this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Whether a data session to the peer is up.
    pub connected: bool,
    /// The present phase.
    pub state: MirrorState,
    /// Bytes that the peer lacks: whole extents of 64 KiB that are marked dirty.
    pub dirty_bytes: u64,
    /// Bytes copied by the running or last resync.
    pub resync_bytes: u64,
    /// Bytes that were dirty when the running or last resync began.
    pub resync_dirty_bytes: u64,
    /// Blocks that failed their checksum here and were healed from the peer since start.
    pub healed_blocks: u64,
}

impl MirrorStatus {
    /// [`Self::dirty_bytes`] in MiB, rounded up.
    #[must_use]
    pub fn dirty_mib(&self) -> u64 {
        self.dirty_bytes.div_ceil(dyad_types::MIB)
    }
}

/// Phase of replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorState {
    /// No peer in the in-sync set: writes are stored here, and their extents are marked dirty.
    Solo,
    /// After a reconnect the nodes compare the ends of their journals; guests wait.
    Reconciling,
    /// Dirty extents are being copied.
    Resyncing,
    /// Every acknowledged write is on both nodes.
    InSync,
    /// This node lacks data.
    Behind,
    /// Writes wait for the peer or for a decision.
    Held,
}

/// This node's share of the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Bytes for data on all disks of this node.
    pub total_bytes: u64,
    pub used_bytes: u64,
    pub disks: Vec<PoolDiskStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolDiskStatus {
    pub path: String,
    pub bytes: u64,
    /// Whether it works.
    #[serde(alias = "well")]
    pub healthy: bool,
    /// Why it does not work, one sentence.
    #[serde(alias = "trouble")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "watchdog", rename_all = "kebab-case")]
pub enum WatchdogStatus {
    /// This node has no watchdog: the peer starts this node's VMs only on proof of its death.
    Absent,
    /// Armed and fed.
    Armed {
        /// Name from the driver.
        identity: String,
        /// Seconds after the last feed at which it resets the node.
        timeout_s: u64,
        /// Whether it has reset this node once.
        proven: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    pub id: VolumeId,
    /// Name from the document.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// The node that may write it.
    pub writer: Option<NodeId>,
    /// Its vhost-user socket on this node; `None` while this node must not use it.
    pub socket: Option<String>,
}

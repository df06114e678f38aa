//! The status: what the core shows of its state.

use crate::Alarm;
use dyad_quorum::Acceptor;
use dyad_types::{Epoch, NodeId, VolumeId};
use serde::{Deserialize, Serialize};

/// State of the core, built in one step; only [`Status::pool`] may be older, by about 0.5 s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Grows by one with each change that is shown. It starts again when the core starts or a blank node becomes a member.
    pub revision: u64,
    /// Whether this node is blank, being set up, running or broken.
    pub phase: Phase,
    /// The pair this node belongs to; `None` unless the phase is [`Phase::Running`].
    pub pair: Option<Pair>,
    /// Membership and the right to run VMs; `None` unless the phase is [`Phase::Running`].
    pub quorum: Option<QuorumStatus>,
    /// The paths to the peer, by path number.
    pub links: Vec<LinkStatus>,
    /// State of replication; `None` unless the phase is [`Phase::Running`].
    pub mirror: Option<MirrorStatus>,
    /// This node's share of the pool; `None` unless the phase is [`Phase::Running`].
    pub pool: Option<PoolStatus>,
    pub watchdog: WatchdogStatus,
    /// Alarms in force, the gravest first.
    pub alarms: Vec<Alarm>,
    /// The volumes of the newest document known here, sorted by name.
    pub volumes: Vec<VolumeStatus>,
    /// Names of the VMs that may run on this node now; the sockets of all their disks are open.
    pub permits: Vec<String>,
    /// Generation of the newest document known here; 0 = none yet.
    pub document_generation: u64,
    /// The open pairing code. It is shown on this node's own screens, and over the network only with a session.
    pub pairing_code: Option<String>,
}

impl Status {
    /// The status of a node that is blank, is being set up, opens its pool, or is broken: phase and watchdog only.
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

/// Whether a node is blank, being set up, running or broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// The node belongs to no pair.
    Blank,
    /// Setup or an erasure runs, or a member opens its pool after a start.
    SettingUp {
        /// The present step, one sentence.
        step: String,
    },
    /// The node belongs to a pair, and its pool is open.
    Running,
    /// The daemon runs and cannot serve this node.
    Broken {
        /// The reason and what to do, one or two sentences.
        sentence: String,
    },
}

/// The pair this node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Id that setup generated, in hexadecimal.
    pub id: String,
    /// Name that the operator chose.
    pub name: String,
    /// Place of this node in the pair.
    pub me: NodeId,
    /// This node's name.
    pub node: String,
    /// The peer's name; `None` until it has joined.
    pub peer: Option<String>,
}

/// Membership and the right to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuorumStatus {
    /// Epoch of the newest configuration known here.
    pub epoch: Epoch,
    /// The in-sync set.
    pub members: Vec<NodeId>,
    /// Holder of the tie vote: `A`, `B` or `W` (the witness).
    pub tie: Acceptor,
    /// The node that writes the document.
    pub lead: NodeId,
    /// Grows by one each time an operator forces a node to go on alone.
    pub lineage: u64,
    /// Whether VMs may run on this node now.
    pub may_run: bool,
    /// The reason for `may_run`, or the error of a faulty node.
    pub state: NodeState,
    /// Whether heartbeats pass in both directions on at least one path.
    pub peer_alive: bool,
    pub witness: WitnessStatus,
}

/// Reason for which VMs may or may not run on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum NodeState {
    /// The core has just started: the quorum machine has not judged yet.
    Starting,
    /// Member of the in-sync set with the right to run VMs, and the peer's fence is over if the peer is no member.
    Running,
    /// The right to run has ended: VMs are frozen until the missing vote of peer or witness arrives.
    Paused,
    /// Without the right to run since the start, since this node became a member or since its VMs were killed: a vote of
    /// peer or witness is missing.
    WaitingForVote,
    /// The peer holds newer data, or the configuration does not admit this node's store: this node runs no VM until it is
    /// in sync.
    PeerIsNewer {
        /// Whether the data session over which it is brought in sync is connected.
        syncing: bool,
    },
    /// This node is solo; the peer's VMs start here when the fence is over.
    FenceWait {
        /// Time until then, in milliseconds.
        left_ms: u64,
    },
    /// The register of this node cannot be written, or its newest record may be lost: this node has no vote.
    Amnesia,
    /// This node cannot do all its work: its pool failed, the identity cannot be written, the document is damaged, it is
    /// shutting down, or the peer's VMs may not start here because the peer's watchdog is not proven.
    #[serde(alias = "unwell")]
    Faulty {
        /// The cause, as one or two sentences.
        what: String,
    },
}

/// The witness as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "witness", rename_all = "kebab-case")]
pub enum WitnessStatus {
    /// This node knows no witness.
    None,
    /// The witness answered the last request.
    Reachable {
        /// Its address, as `host:port`.
        address: String,
        /// Round-trip time of the last request, in microseconds.
        rtt_us: u64,
    },
    /// The witness did not answer the last request, or none was sent yet.
    Unreachable {
        /// Its address, as `host:port`.
        address: String,
        /// Seconds since its last answer; `None` = no answer since this core started.
        silent_s: Option<u64>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Interface, e.g. `eth1`.
    pub name: String,
    /// Whether heartbeats pass in both directions.
    pub up: bool,
}

/// Replication as seen from this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Whether a data session to the peer is up.
    pub connected: bool,
    /// State derived from membership and the mirror's phase.
    pub state: MirrorState,
    /// Bytes that the peer lacks: whole extents of 64 KiB that are marked dirty.
    pub dirty_bytes: u64,
    /// Bytes copied by the running or last resync.
    pub resync_bytes: u64,
    /// Bytes that were dirty when the running or last resync began.
    pub resync_dirty_bytes: u64,
    /// Repairs of damaged extents by the peer's copy since the core started. An extent counts once for each repair. The
    /// name stays for older programs.
    pub healed_blocks: u64,
}

impl MirrorStatus {
    /// [`Self::dirty_bytes`] in MiB, rounded up.
    #[must_use]
    pub fn dirty_mib(&self) -> u64 {
        self.dirty_bytes.div_ceil(dyad_types::MIB)
    }
}

/// State of replication, as membership and the mirror's phase together give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorState {
    /// This node alone is in the in-sync set, and no resync runs: extents that are written are marked dirty.
    Solo,
    /// Both nodes are in sync and have just connected: they compare the extents written since the last confirmation. Guests
    /// wait.
    Reconciling,
    /// This node alone is in the in-sync set and copies dirty extents to the peer.
    Resyncing,
    /// Both nodes hold every acknowledged write.
    InSync,
    /// This node is not in the in-sync set: it may lack data.
    Behind,
    /// Both nodes are in the in-sync set and not connected: writes wait for the peer or for a decision.
    Held,
}

/// This node's share of the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Bytes for data on all disks of this node.
    pub total_bytes: u64,
    /// Bytes of these that are allocated.
    pub used_bytes: u64,
    pub disks: Vec<PoolDiskStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolDiskStatus {
    pub path: String,
    pub bytes: u64,
    /// Whether the pool uses it; `false` after its first failure.
    #[serde(alias = "well")]
    pub healthy: bool,
    /// One sentence with the failure and what to do; `None` while healthy.
    #[serde(alias = "trouble")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "watchdog", rename_all = "kebab-case")]
pub enum WatchdogStatus {
    /// This node has no watchdog: the peer starts this node's VMs only with other proof that it runs none.
    Absent,
    /// The core has the watchdog and feeds it, except during a watchdog test.
    Armed {
        /// Name from the driver.
        identity: String,
        /// Its period: seconds after the last feed at which it resets the node.
        timeout_s: u64,
        /// Whether fencing relies on it: in a test it has reset this node in time.
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
    /// The node that may write it; `None` = no node now.
    pub writer: Option<NodeId>,
    /// Its vhost-user socket on this node; `None` = not served here: no VM of this node uses it, or this node may not write
    /// it.
    pub socket: Option<String>,
}

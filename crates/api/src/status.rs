//! JSON types of status, timeline and login.

use dyad_control as control;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::verdict;

/// The state of the pair as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusReply {
    /// One sentence for people: that the pair is protected, or why not.
    pub sentence: String,
    /// True only if both replicas are in sync, all peer links are up (at least two), the witness answers and holds the tie
    /// vote, the watchdog is proven, no pool disk has failed and no alarm is in force.
    pub protected: bool,
    /// The conditions that keep the pair from being protected, each a short clause; empty exactly when protected.
    pub missing: Vec<String>,
    /// Lasting conditions that the operator must end, the gravest first.
    #[serde(default)]
    pub alarms: Vec<AlarmView>,
    /// "A" or "B"; absent until the node belongs to a pair.
    pub node: Option<String>,
    pub node_name: Option<String>,
    pub pair: Option<String>,
    /// Membership of this node in the in-sync set, and whether it leads.
    pub role: PairRole,
    /// The newest epoch known here; absent until the node belongs to a pair.
    pub epoch: Option<u64>,
    pub versions: Versions,
    /// Absent in a reply to a request without a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// A lasting condition that the operator must end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlarmView {
    /// A short stable word, such as `clock-drift`.
    pub code: String,
    /// One sentence for people.
    pub text: String,
}

/// Membership of a node in the in-sync set of its pair, and whether it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PairRole {
    /// Not part of a pair.
    Blank,
    /// Both nodes are in sync, and this one leads.
    Lead,
    /// Both nodes are in sync, and the other one leads.
    Follower,
    /// This node is in sync; the other node is not.
    Solo,
    /// This node is not in sync: it lacks data.
    Behind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// Version of the appliance.
    pub dyad: String,
    /// The major version that stands in the paths: "1" for `/api/v1`.
    pub api: String,
}

/// The state in detail, for requests with a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Details {
    /// Id of the pair, in hexadecimal; absent until the node belongs to a pair.
    pub pair_id: Option<String>,
    /// The other node, once it has joined.
    pub peer: Option<NodeDetail>,
    /// The nodes of the in-sync set: "A", "B" or both.
    pub members: Vec<String>,
    /// Holder of the tie vote: "A", "B" or "W" (the witness).
    pub tie: Option<String>,
    /// The node that leads: "A" or "B".
    pub lead: Option<String>,
    /// Whether VMs may run on this node now.
    pub may_run: bool,
    /// The paths to the other node.
    pub links: Vec<LinkDetail>,
    /// The witness; absent when none is enrolled.
    pub witness: Option<WitnessDetail>,
    /// State of replication; absent while the pool of this node is not open.
    pub mirror: Option<MirrorDetail>,
    /// This node's share of the pool.
    pub pool: Option<PoolDetail>,
    /// The watchdog of this node; absent if it has none.
    pub watchdog: Option<WatchdogDetail>,
    /// Names of the VMs that may run here now.
    pub permits: Vec<String>,
    /// Generation of the newest replicated document that this node knows; 0 if it knows none.
    pub document_generation: u64,
    /// The open pairing code; absent if none is open.
    pub pairing_code: Option<String>,
    /// Whether VMs run with hardware virtualisation; absent until the node has probed it.
    pub hardware_virtualisation: Option<bool>,
}

/// The sentence that warns of VMs without hardware virtualisation.
pub const EMULATION_WARNING: &str = "Hardware virtualisation does not work on this node, so its VMs are emulated and slow: enable VT-x or \
                            AMD-V in the firmware setup.";

impl Details {
    /// One sentence about a condition that makes VMs slow but endangers no data; `None` if there is none.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        (self.hardware_virtualisation == Some(false)).then_some(EMULATION_WARNING)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    pub name: String,
    /// Whether heartbeats of the node arrive.
    pub alive: bool,
}

/// A path to the other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkDetail {
    /// Name of the port.
    pub name: String,
    /// Whether heartbeats pass in both directions.
    pub up: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WitnessDetail {
    /// Address of the witness as it was enrolled, `host:port`.
    pub address: String,
    /// Whether the witness answers.
    pub reachable: bool,
    /// Round-trip time of the last request, in microseconds; absent while the witness is silent.
    pub rtt_us: Option<u64>,
    /// Seconds since the witness's last answer; absent while it answers, and if it never has.
    pub silent_s: Option<u64>,
}

/// Replication between the nodes, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorDetail {
    /// Whether the data session with the other node is open.
    pub connected: bool,
    /// Phase of replication: "solo", "reconciling", "resyncing", "in-sync", "behind" or "held".
    pub state: String,
    /// Bytes that the other node lacks.
    pub dirty_bytes: u64,
    /// Bytes copied by the running or last resync.
    pub resync_bytes: u64,
    /// Bytes that were to be copied when the running or last resync began.
    pub resync_dirty_bytes: u64,
    /// Blocks with a wrong checksum that were replaced by the other node's copy since `dyad-core` started.
    pub healed_blocks: u64,
}

/// The pool disks of this node, and their space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolDetail {
    /// Bytes for data on all pool disks of this node.
    pub total_bytes: u64,
    /// Bytes of them that hold data of volumes.
    pub used_bytes: u64,
    pub disks: Vec<PoolDiskDetail>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolDiskDetail {
    pub path: String,
    pub bytes: u64,
    /// Whether the pool can use the disk. A failed disk must be replaced.
    #[serde(alias = "well")]
    pub healthy: bool,
    /// One sentence with the defect; absent while the disk works.
    #[serde(alias = "trouble")]
    pub error: Option<String>,
}

/// The watchdog of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchdogDetail {
    /// Name of the device, as its driver reports it.
    pub identity: String,
    /// Seconds after the last feeding at which the watchdog resets the node.
    pub timeout_s: u64,
    /// Whether a test has shown that the watchdog resets this node in time.
    pub proven: bool,
}

/// Events of one node, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineReply {
    /// The events whose number is at least the one asked for, oldest first. The node keeps the newest 2000 events since
    /// `dyad-core` started.
    pub events: Vec<TimelineEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEvent {
    /// Number of the event: 1 for the first one since `dyad-core` started, and one more for each next event.
    pub number: u64,
    /// Milliseconds from the boot of this machine to the event.
    pub boot_ms: u64,
    /// Wall-clock time in milliseconds since 1970. It is only shown to people; no decision uses it.
    pub wall_ms: u64,
    /// The node that wrote the event, "A" or "B".
    pub node: Option<String>,
    /// A short stable word, such as `vm-running`.
    pub kind: String,
    /// One sentence for people.
    pub text: String,
}

/// Request to log in as the administrator.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LoginRequest {
    /// The administrator's password.
    pub password: String,
}

/// A new session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginReply {
    /// Secret of the session, sent with each request as `Authorization: Bearer <token>`. Browsers get it as a cookie as
    /// well.
    pub token: String,
}

impl StatusReply {
    /// Builds the reply from a status of the core. `details` may be true only for a request with a session.
    #[must_use]
    pub fn of(status: &control::Status, versions: Versions, details: bool) -> Self {
        let verdict = verdict(status);
        StatusReply {
            sentence: verdict.sentence,
            protected: verdict.protected,
            missing: verdict.missing,
            alarms: status.alarms.iter().cloned().map(AlarmView::from).collect(),
            node: status.pair.as_ref().map(|p| p.me.to_string()),
            node_name: status.pair.as_ref().map(|p| p.node.clone()),
            pair: status.pair.as_ref().map(|p| p.name.clone()),
            role: role(status),
            epoch: status.quorum.as_ref().map(|q| q.epoch.0),
            versions,
            details: details.then(|| Details::of(status)),
        }
    }
}

impl From<control::Alarm> for AlarmView {
    fn from(alarm: control::Alarm) -> Self {
        AlarmView { code: alarm.code.word().into(), text: alarm.sentence }
    }
}

impl From<control::TimelineEvent> for TimelineEvent {
    fn from(event: control::TimelineEvent) -> Self {
        TimelineEvent {
            number: event.number,
            boot_ms: event.boot_ms,
            wall_ms: event.wall_ms,
            node: event.node.map(|node| node.to_string()),
            kind: event.kind.word().into(),
            text: event.text,
        }
    }
}

fn role(status: &control::Status) -> PairRole {
    let (Some(pair), Some(quorum)) = (&status.pair, &status.quorum) else { return PairRole::Blank };
    match quorum.members.as_slice() {
        members if !members.contains(&pair.me) => PairRole::Behind,
        [_] => PairRole::Solo,
        _ if quorum.lead == pair.me => PairRole::Lead,
        _ => PairRole::Follower,
    }
}

impl Details {
    fn of(status: &control::Status) -> Self {
        let quorum = status.quorum.as_ref();
        let peer = status.pair.as_ref().and_then(|p| p.peer.clone());
        Details {
            pair_id: status.pair.as_ref().map(|p| p.id.clone()),
            peer: peer.map(|name| NodeDetail { name, alive: quorum.is_some_and(|q| q.peer_alive) }),
            members: quorum
                .map(|q| q.members.iter().copied().map(|node| node.to_string()).collect())
                .unwrap_or_default(),
            tie: quorum.map(|q| q.tie.to_string()),
            lead: quorum.map(|q| q.lead.to_string()),
            may_run: quorum.is_some_and(|q| q.may_run),
            links: status.links.iter().map(|l| LinkDetail { name: l.name.clone(), up: l.up }).collect(),
            witness: quorum.and_then(|q| witness(&q.witness)),
            mirror: status.mirror.as_ref().map(mirror),
            pool: status.pool.as_ref().map(pool),
            watchdog: match &status.watchdog {
                control::WatchdogStatus::Absent => None,
                control::WatchdogStatus::Armed { identity, timeout_s, proven } => {
                    Some(WatchdogDetail { identity: identity.clone(), timeout_s: *timeout_s, proven: *proven })
                }
            },
            permits: status.permits.clone(),
            document_generation: status.document_generation,
            pairing_code: status.pairing_code.clone(),
            hardware_virtualisation: None,
        }
    }
}

fn witness(status: &control::WitnessStatus) -> Option<WitnessDetail> {
    match status {
        control::WitnessStatus::None => None,
        control::WitnessStatus::Reachable { address, rtt_us } => {
            Some(WitnessDetail { address: address.clone(), reachable: true, rtt_us: Some(*rtt_us), silent_s: None })
        }
        control::WitnessStatus::Unreachable { address, silent_s } => {
            Some(WitnessDetail { address: address.clone(), reachable: false, rtt_us: None, silent_s: *silent_s })
        }
    }
}

fn mirror(status: &control::MirrorStatus) -> MirrorDetail {
    let state = match status.state {
        control::MirrorState::Solo => "solo",
        control::MirrorState::Reconciling => "reconciling",
        control::MirrorState::Resyncing => "resyncing",
        control::MirrorState::InSync => "in-sync",
        control::MirrorState::Behind => "behind",
        control::MirrorState::Held => "held",
    };
    MirrorDetail {
        connected: status.connected,
        state: state.into(),
        dirty_bytes: status.dirty_bytes,
        resync_bytes: status.resync_bytes,
        resync_dirty_bytes: status.resync_dirty_bytes,
        healed_blocks: status.healed_blocks,
    }
}

fn pool(status: &control::PoolStatus) -> PoolDetail {
    let disks = status.disks.iter().map(|disk| PoolDiskDetail {
        path: disk.path.clone(),
        bytes: disk.bytes,
        healthy: disk.healthy,
        error: disk.error.clone(),
    });
    PoolDetail { total_bytes: status.total_bytes, used_bytes: status.used_bytes, disks: disks.collect() }
}

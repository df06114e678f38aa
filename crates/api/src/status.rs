//! Types of status, timeline and login.

use dyad_control as control;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::verdict;

/// The state of the pair as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusReply {
    /// The state in one sentence.
    pub sentence: String,
    /// True only if both replicas are in sync, both links up, the witness reachable and fencing proven.
    pub protected: bool,
    /// What is missing to be protected; empty exactly when protected.
    pub missing: Vec<String>,
    /// Lasting conditions that the operator must end, the gravest first.
    #[serde(default)]
    pub alarms: Vec<AlarmView>,
    /// "A" or "B"; absent until the node belongs to a pair.
    pub node: Option<String>,
    pub node_name: Option<String>,
    pub pair: Option<String>,
    /// The part of this node in the pair.
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

/// The part of a node in its pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PairRole {
    /// Not part of a pair.
    Blank,
    /// In sync and leading.
    Lead,
    /// In sync and following.
    Follower,
    /// In sync; the other node is not.
    Solo,
    /// Not in sync: it lacks data.
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
    /// Id of the pair, in hexadecimal.
    pub pair_id: Option<String>,
    /// The other node, once it has joined.
    pub peer: Option<NodeDetail>,
    /// The in-sync set.
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
    /// State of replication.
    pub mirror: Option<MirrorDetail>,
    /// This node's share of the pool.
    pub pool: Option<PoolDetail>,
    /// The watchdog of this node; absent if it has none.
    pub watchdog: Option<WatchdogDetail>,
    /// Names of the VMs that may run here now.
    pub permits: Vec<String>,
    /// Generation of the replicated document.
    pub document_generation: u64,
    /// The open pairing code.
    pub pairing_code: Option<String>,
    /// Whether VMs run with hardware virtualisation; absent until the node has probed it.
    pub hardware_virtualisation: Option<bool>,
}

/// The warning of a node whose VMs are emulated.
pub const EMULATED: &str = "Hardware virtualisation does not work on this node, so its VMs are emulated and slow: enable VT-x or \
                            AMD-V in the firmware setup.";

impl Details {
    /// A condition that the operator should know although it endangers no data, one sentence.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        (self.hardware_virtualisation == Some(false)).then_some(EMULATED)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    pub name: String,
    /// Whether its heartbeats arrive.
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
    /// Where the witness listens, as `host:port`, as it was enrolled.
    pub address: String,
    /// Whether it answers.
    pub reachable: bool,
    /// Last round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// Seconds since its last answer, while it is silent.
    pub silent_s: Option<u64>,
}

/// Replication between the nodes, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorDetail {
    /// Whether the data session with the other node is open.
    pub connected: bool,
    /// "solo", "reconciling", "resyncing", "in-sync", "behind" or "held".
    pub state: String,
    /// Bytes that the other node lacks.
    pub dirty_bytes: u64,
    /// Bytes copied by the running or last resync.
    pub resync_bytes: u64,
    /// Bytes that were dirty when it began.
    pub resync_dirty_bytes: u64,
    /// Blocks healed from the other node since the start.
    pub healed_blocks: u64,
}

/// This node's share of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolDetail {
    /// Bytes for data on all disks.
    pub total_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    pub disks: Vec<PoolDiskDetail>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolDiskDetail {
    pub path: String,
    pub bytes: u64,
    /// Whether it works.
    #[serde(alias = "well")]
    pub healthy: bool,
    /// What is wrong, one sentence.
    #[serde(alias = "trouble")]
    pub error: Option<String>,
}

/// The watchdog of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchdogDetail {
    /// Name from the driver.
    pub identity: String,
    /// Seconds after the last feed at which it resets the node.
    pub timeout_s: u64,
    /// Whether it has reset this node once.
    pub proven: bool,
}

/// Events of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineReply {
    /// All events from the number asked for on, oldest first; events that this node no longer keeps are missing.
    pub events: Vec<TimelineEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEvent {
    /// Grows by one from event to event.
    pub number: u64,
    /// Milliseconds since this node started.
    pub boot_ms: u64,
    /// Wall clock in milliseconds since 1970, for people only.
    pub wall_ms: u64,
    /// The node that wrote the event, "A" or "B".
    pub node: Option<String>,
    /// A short stable word, such as `vm-running`.
    pub kind: String,
    /// One sentence for people.
    pub text: String,
}

/// Log in as administrator.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LoginRequest {
    /// The administrator's password.
    pub password: String,
}

/// A new session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginReply {
    /// Send it as `Authorization: Bearer <token>`; browsers get it as a cookie as well.
    pub token: String,
}

impl StatusReply {
    /// The reply for this status of the core; `details` only for a request with a session.
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

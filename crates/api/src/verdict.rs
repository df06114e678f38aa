//! The decision whether the pair is protected, and its sentence. Web pages, serial line and API call this one pure function;
//! the CLI shows the API's sentence.

use dyad_control::{AlarmCode, MirrorState, NodeState, Phase, QuorumStatus, Status, WatchdogStatus, WitnessStatus};
use dyad_quorum::Acceptor;

/// Whether [`missing_conditions`] recognises the condition of this alarm from the rest of the status as well. Then its clause
/// is shown, which has the current figures, and the alarm's own sentence is left out.
fn recognised_from_status(code: AlarmCode) -> bool {
    match code {
        AlarmCode::PeerSilent | AlarmCode::PathDown | AlarmCode::WitnessLost | AlarmCode::TieAtNode => true,
        AlarmCode::Conflict
        | AlarmCode::RegisterFailed
        | AlarmCode::StorageStuck
        | AlarmCode::PoolFull
        | AlarmCode::VmsDoNotFit
        | AlarmCode::PeerUnadmitted
        | AlarmCode::ClockDrift
        | AlarmCode::PeerUnfenced
        | AlarmCode::WitnessRolledBack
        | AlarmCode::Unrecognised => false,
    }
}

/// The decision whether the pair is protected, with the sentence and the missing conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// True only if both replicas are in sync, all peer links are up (at least two), the witness answers and holds the tie
    /// vote, the watchdog is proven, no pool disk has failed and no alarm is in force.
    pub protected: bool,
    /// One sentence for people: that the pair is protected, or why not.
    pub sentence: String,
    /// The missing conditions, each a short clause without a full stop; empty exactly when protected.
    pub missing: Vec<String>,
}

/// Decides from the core's status whether the pair is protected. A condition that is not known counts as missing.
#[must_use]
pub fn verdict(status: &Status) -> Verdict {
    match &status.phase {
        Phase::Blank => {
            not_running_verdict("This node is not set up yet: answer the wizard.".to_owned(), "this node is not set up")
        }
        Phase::SettingUp { step } => {
            let step = step.trim_end_matches('.');
            // A node that is set up has this phase too while it starts.
            not_running_verdict(format!("This node is not ready yet: {step}."), "this node is not ready")
        }
        Phase::Broken { sentence } => not_running_verdict(sentence.clone(), "this node cannot work"),
        Phase::Running => running_verdict(status),
    }
}

fn not_running_verdict(sentence: String, missing: &str) -> Verdict {
    Verdict { protected: false, sentence, missing: vec![missing.to_owned()] }
}

fn running_verdict(status: &Status) -> Verdict {
    let mut missing = missing_conditions(status);
    let has_clause = |code| !missing.is_empty() && recognised_from_status(code);
    let alarms = status.alarms.iter().filter(|alarm| !has_clause(alarm.code));
    let alarms: Vec<String> = alarms.map(|alarm| uncapitalised(&alarm.sentence)).collect();
    // The gravest alarm alone becomes the sentence; `missing` lists all conditions.
    let gravest = alarms.first().cloned();
    missing.splice(..0, alarms);
    let peer = peer_name(status);
    let listed = missing.join("; ");
    let state = status.quorum.as_ref().map(|q| &q.state);
    let sentence = match state {
        None | Some(NodeState::Starting) => {
            "Not protected: this node does not know yet which node holds the newest data.".to_owned()
        }
        Some(NodeState::Paused) => format!(
            "The VMs of this node are paused: neither {peer} nor the witness answers, and they go on when one of them does."
        ),
        Some(NodeState::WaitingForVote) => {
            format!("No VM may start yet: this node waits for {peer} or the witness to answer.")
        }
        Some(NodeState::PeerIsNewer { syncing: true }) => {
            format!("Not protected: this node is receiving the newer data of {peer}.")
        }
        Some(NodeState::PeerIsNewer { syncing: false }) => {
            format!("Not protected: {peer} holds newer data and this node waits for it.")
        }
        Some(NodeState::FenceWait { left_ms }) => {
            format!("Not protected: {peer} is lost and its VMs start here in {} s.", left_ms.div_ceil(1000))
        }
        Some(NodeState::Amnesia) if gravest.is_none() => {
            format!("Not protected: this node lost its record of votes and must be admitted again by {peer}.")
        }
        Some(NodeState::Faulty { what }) => format!("Not protected: {}.", uncapitalised(what)),
        Some(NodeState::Running) if missing.is_empty() => {
            "Protected: every write is on both nodes, and either of them may be lost.".to_owned()
        }
        Some(NodeState::Running | NodeState::Amnesia) => format!("Not protected: {}.", gravest.unwrap_or(listed)),
    };
    Verdict { protected: missing.is_empty(), sentence, missing }
}

fn missing_conditions(status: &Status) -> Vec<String> {
    let mut missing = Vec::new();
    let peer = peer_name(status);
    let joined = status.pair.as_ref().is_some_and(|p| p.peer.is_some());
    match &status.quorum {
        None => missing.push("the state of the pair is not known".to_owned()),
        Some(quorum) if joined => {
            add_missing_replica(status, quorum, &peer, &mut missing);
            add_missing_links(status, quorum, &peer, &mut missing);
        }
        Some(_) => missing.push("the second node has not joined".to_owned()),
    }
    if let Some(quorum) = &status.quorum {
        if quorum.members.len() == 2 && quorum.tie != Acceptor::W {
            missing.push(format!(
                "node {} holds the tie vote: the pair does not survive the loss of that node",
                quorum.tie
            ));
        }
        match &quorum.witness {
            WitnessStatus::Reachable { .. } => {}
            WitnessStatus::None => missing.push("no witness is enrolled".to_owned()),
            WitnessStatus::Unreachable { address, .. } => {
                missing.push(format!("the witness {address} does not answer"));
            }
        }
        match &quorum.state {
            NodeState::FenceWait { .. } => {
                missing.push(format!("the VMs of {peer} wait until it can no longer run them"))
            }
            NodeState::Faulty { what } => missing.push(uncapitalised(what)),
            NodeState::Running if quorum.may_run => {}
            _ => missing.push("this node may not run VMs".to_owned()),
        }
    }
    match &status.watchdog {
        WatchdogStatus::Armed { proven: true, .. } => {}
        WatchdogStatus::Armed { proven: false, .. } => {
            missing.push("the watchdog of this node has not been proven".to_owned());
        }
        WatchdogStatus::Absent => missing.push("this node has no watchdog".to_owned()),
    }
    match &status.pool {
        None => missing.push("the pool of this node is not open".to_owned()),
        Some(pool) => {
            let failed_disks = pool.disks.iter().filter(|d| !d.healthy);
            missing.extend(failed_disks.map(|d| format!("the pool disk {} has failed", d.path)));
        }
    }
    missing
}

fn add_missing_replica(status: &Status, quorum: &QuorumStatus, peer: &str, missing: &mut Vec<String>) {
    let state = status.mirror.as_ref().map(|m| (m.state, m.dirty_mib()));
    let both = quorum.members.len() == 2;
    match state {
        Some((MirrorState::InSync, _)) if both => {}
        Some((MirrorState::Resyncing, dirty_mib)) => {
            missing.push(format!("{dirty_mib} MiB are still to be copied to {peer}"));
        }
        Some((MirrorState::Reconciling, _)) => missing.push(format!("this node and {peer} compare their journals")),
        Some((MirrorState::Behind, _)) => missing.push(format!("this node lacks data that {peer} holds")),
        Some((MirrorState::Held, _)) => missing.push(format!("writes wait for {peer} or for a decision")),
        Some((MirrorState::InSync | MirrorState::Solo, _)) | None => {
            missing.push(format!("the replica on {peer} is not in sync"));
        }
    }
}

fn add_missing_links(status: &Status, quorum: &QuorumStatus, peer: &str, missing: &mut Vec<String>) {
    if !quorum.peer_alive {
        missing.push(format!("{peer} does not answer"));
        return;
    }
    let down = status.links.iter().filter(|l| !l.up);
    missing.extend(down.map(|l| format!("the link {} is down", l.name)));
    if status.links.len() < 2 {
        missing.push(format!("there is no second link to {peer}"));
    }
}

/// Turns a sentence into a clause of another sentence: with a small first letter and without the full stop.
fn uncapitalised(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn peer_name(status: &Status) -> String {
    match status.pair.as_ref().and_then(|p| p.peer.as_ref()) {
        Some(name) => format!("node {name}"),
        None => "the other node".to_owned(),
    }
}

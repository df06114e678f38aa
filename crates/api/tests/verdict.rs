//! Tests of the status sentence: for one healthy pair, then for each condition that may be missing.

use dyad_api::{PairRole, StatusReply, Versions, verdict};
use dyad_control::testing::protected;
use dyad_control::{
    Alarm, AlarmCode, MirrorState, NodeState, Phase, QuorumStatus, Status, WatchdogStatus, WitnessStatus,
};
use dyad_types::NodeId;

fn with(change: impl FnOnce(&mut Status)) -> Status {
    let mut status = protected();
    change(&mut status);
    status
}

fn quorum(change: impl FnOnce(&mut QuorumStatus)) -> Status {
    with(|s| change(s.quorum.as_mut().unwrap()))
}

fn mirror(state: MirrorState) -> Status {
    with(|s| {
        let mirror = s.mirror.as_mut().unwrap();
        mirror.state = state;
        mirror.dirty_bytes = 33 * (64 << 10);
    })
}

#[test]
fn a_healthy_pair_is_protected() {
    let verdict = verdict(&protected());
    assert!(verdict.protected);
    assert_eq!(verdict.sentence, "Protected: every write is on both nodes, and either of them may be lost.");
    assert_eq!(verdict.missing, Vec::<String>::new());
}

#[test]
fn each_missing_condition_has_its_sentence() {
    let cases: Vec<(Status, &str)> = vec![
        (with(|s| s.links[1].up = false), "Not protected: the link eth2 is down."),
        (with(|s| s.links.truncate(1)), "Not protected: there is no second link to node right."),
        (quorum(|q| q.witness = WitnessStatus::None), "Not protected: no witness is enrolled."),
        (
            quorum(|q| q.tie = dyad_quorum::Acceptor::A),
            "Not protected: node A holds the tie vote: the pair does not survive the loss of that node.",
        ),
        (
            quorum(|q| q.witness = WitnessStatus::Unreachable { address: "w:7403".into(), silent_s: Some(9) }),
            "Not protected: the witness w:7403 does not answer.",
        ),
        (with(|s| s.watchdog = WatchdogStatus::Absent), "Not protected: this node has no watchdog."),
        (
            with(|s| s.watchdog = WatchdogStatus::Armed { identity: String::new(), timeout_s: 3, proven: false }),
            "Not protected: the watchdog of this node has not been proven.",
        ),
        (with(|s| s.pool = None), "Not protected: the pool of this node is not open."),
        (
            with(|s| s.pool.as_mut().unwrap().disks[0].healthy = false),
            "Not protected: the pool disk /dev/vdb has failed.",
        ),
        (with(|s| s.mirror = None), "Not protected: the replica on node right is not in sync."),
        (quorum(|q| q.members = vec![NodeId::A]), "Not protected: the replica on node right is not in sync."),
        (mirror(MirrorState::Resyncing), "Not protected: 3 MiB are still to be copied to node right."),
        (mirror(MirrorState::Behind), "Not protected: this node lacks data that node right holds."),
        (mirror(MirrorState::Held), "Not protected: writes wait for node right or for a decision."),
        (mirror(MirrorState::Reconciling), "Not protected: this node and node right compare their journals."),
        (quorum(|q| q.peer_alive = false), "Not protected: node right does not answer."),
        (with(|s| s.pair.as_mut().unwrap().peer = None), "Not protected: the second node has not joined."),
        (with(|s| s.quorum = None), "Not protected: this node does not know yet which node holds the newest data."),
        (quorum(|q| q.state = NodeState::Starting), "Not protected: this node does not know yet which"),
        (quorum(|q| q.state = NodeState::Paused), "The VMs of this node are paused: neither node right nor the"),
        (quorum(|q| q.state = NodeState::WaitingForVote), "No VM may start yet: this node waits for node right"),
        (
            quorum(|q| q.state = NodeState::FenceWait { left_ms: 3001 }),
            "Not protected: node right is lost and its VMs start here in 4 s.",
        ),
        (quorum(|q| q.state = NodeState::PeerIsNewer { syncing: true }), "Not protected: this node is receiving"),
        (quorum(|q| q.state = NodeState::PeerIsNewer { syncing: false }), "Not protected: node right holds newer"),
        (quorum(|q| q.state = NodeState::Amnesia), "Not protected: this node lost its record of votes"),
        (quorum(|q| q.state = NodeState::Faulty { what: "The disk hangs.".into() }), "Not protected: the disk hangs."),
        (with(|s| s.phase = Phase::Blank), "This node is not set up yet: answer the wizard."),
        (
            with(|s| s.phase = Phase::SettingUp { step: "Formatting the disks.".into() }),
            "This node is not ready yet: Formatting the disks.",
        ),
        (with(|s| s.phase = Phase::Broken { sentence: "No pool disk opens.".into() }), "No pool disk opens."),
    ];
    for (status, expected) in cases {
        let verdict = verdict(&status);
        assert!(!verdict.protected, "{expected}");
        assert!(!verdict.missing.is_empty(), "{expected}");
        assert!(verdict.sentence.starts_with(expected), "{}", verdict.sentence);
        assert!(verdict.sentence.ends_with('.') && !verdict.sentence.contains(".."), "{}", verdict.sentence);
        assert!(verdict.missing.iter().all(|m| !m.ends_with('.')), "{:?}", verdict.missing);
    }
}

#[test]
fn everything_missing_at_once_is_listed() {
    let status = with(|s| {
        s.links[0].up = false;
        s.watchdog = WatchdogStatus::Absent;
        s.quorum.as_mut().unwrap().witness = WitnessStatus::None;
    });
    assert_eq!(
        verdict(&status).sentence,
        "Not protected: the link eth1 is down; no witness is enrolled; this node has no watchdog."
    );
}

fn alarm(code: AlarmCode, sentence: &str) -> Alarm {
    Alarm { code, sentence: sentence.into() }
}

#[test]
fn a_pair_with_an_alarm_is_not_protected_and_the_gravest_alarm_is_the_sentence() {
    let drift =
        alarm(AlarmCode::ClockDrift, "The clocks of the nodes drift apart: no lease is granted until one is repaired.");
    let unfenced =
        alarm(AlarmCode::PeerUnfenced, "The other node's watchdog is not proven: its VMs start here only on proof.");
    let status = with(|s| {
        s.alarms = vec![drift, unfenced];
        s.links[1].up = false;
    });
    let judged = verdict(&status);
    assert_eq!(
        judged.sentence,
        "Not protected: the clocks of the nodes drift apart: no lease is granted until one is repaired."
    );
    assert_eq!(judged.missing.len(), 3, "{:?}", judged.missing);
    let versions = Versions { dyad: String::new(), api: String::new() };
    let shown = StatusReply::of(&status, versions, false).alarms;
    assert_eq!((shown.len(), shown[0].code.as_str()), (2, "clock-drift"));
}

#[test]
fn a_condition_with_an_alarm_and_a_clause_is_listed_once() {
    let down = alarm(AlarmCode::PathDown, "The peer link eth2 is down: check its cable.");
    let both = with(|s| {
        s.links[1].up = false;
        s.alarms = vec![down.clone()];
    });
    assert_eq!(verdict(&both).missing, ["the link eth2 is down"]);
    let only = with(|s| s.alarms = vec![down]);
    assert_eq!(verdict(&only).sentence, "Not protected: the peer link eth2 is down: check its cable.");
    let amnesia = with(|s| {
        s.quorum.as_mut().unwrap().state = NodeState::Amnesia;
        s.alarms =
            vec![alarm(AlarmCode::RegisterFailed, "The register of this node cannot be written: replace its disk.")];
    });
    assert!(verdict(&amnesia).sentence.starts_with("Not protected: the register of this node cannot be written"));
}

#[test]
fn a_reply_without_a_session_has_no_details() {
    let versions = Versions { dyad: "0".into(), api: "1".into() };
    let mut status = protected();
    status.pairing_code = Some("123456".into());
    let open = StatusReply::of(&status, versions.clone(), false);
    assert!(!serde_json::to_string(&open).unwrap().contains("123456"));
    assert_eq!((open.role, open.epoch, open.node.as_deref()), (PairRole::Lead, Some(3), Some("A")));
    let details = StatusReply::of(&status, versions, true).details.expect("details");
    assert_eq!(details.pairing_code.as_deref(), Some("123456"));
    assert_eq!(details.links.len(), 2);
}

#[test]
fn the_role_follows_membership() {
    let role =
        |status: &Status| StatusReply::of(status, Versions { dyad: String::new(), api: String::new() }, false).role;
    assert_eq!(role(&quorum(|q| q.lead = NodeId::B)), PairRole::Follower);
    assert_eq!(role(&quorum(|q| q.members = vec![NodeId::A])), PairRole::Solo);
    assert_eq!(role(&quorum(|q| q.members = vec![NodeId::B])), PairRole::Behind);
    assert_eq!(role(&with(|s| s.pair = None)), PairRole::Blank);
}

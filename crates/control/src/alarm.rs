//! Alarms: lasting conditions that the operator must end.

use crate::codes::wire_codes;
use serde::{Deserialize, Serialize};

/// A lasting condition that the operator must end. It is in force while it is in [`Status::alarms`](crate::Status::alarms).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Stable name of the condition, for programs.
    pub code: AlarmCode,
    /// One sentence for people: the condition, and what to do.
    pub sentence: String,
}

wire_codes! {
    /// The condition that an alarm reports. [`Status::alarms`](crate::Status::alarms) is sorted like this list, the gravest
    /// first.
    AlarmCode;

    /// Two different configurations with the same lineage and epoch were chosen, which must never happen.
    Conflict = "conflict",
    /// The register of this node cannot be written, or a write of it hangs.
    RegisterFailed = "register-failed",
    /// The pool of this node has left a command unanswered for 3 s.
    StorageStuck = "storage-stuck",
    /// The pool of a node is full, so guests that write wait.
    PoolFull = "pool-full",
    /// The peer answers from a store that the configuration does not name.
    PeerUnadmitted = "peer-unadmitted",
    /// The clocks of the nodes drift apart by more than ρ = 1 %: no lease is granted.
    ClockDrift = "clock-drift",
    /// The peer's watchdog is not proven: its VMs start here only with other proof that it runs none.
    PeerUnfenced = "peer-unfenced",
    /// The witness was set back to an older state.
    WitnessRolledBack = "witness-rolled-back",
    /// The VMs that shall run need more memory than one node has, so not all of them start after the loss of a node.
    VmsDoNotFit = "vms-do-not-fit",
    /// Heartbeats pass in both directions on no path to the peer.
    PeerSilent = "peer-silent",
    /// The witness does not answer this node, and the peer reports the same or is not heard.
    WitnessLost = "witness-lost",
    /// A node holds the tie vote although a witness is enrolled and both nodes are in sync.
    TieAtNode = "tie-at-node",
    /// Heartbeats do not pass in both directions on one path to the peer.
    PathDown = "path-down",
    /// A word that this version does not know, from a core of another version.
    Unrecognised = "unrecognised",
}

impl From<dyad_quorum::Alarm> for AlarmCode {
    fn from(alarm: dyad_quorum::Alarm) -> Self {
        use dyad_quorum::Alarm as A;
        match alarm {
            A::Conflict => Self::Conflict,
            A::RegisterFailed => Self::RegisterFailed,
            A::StorageStuck => Self::StorageStuck,
            A::PeerUnadmitted => Self::PeerUnadmitted,
            A::ClockDrift => Self::ClockDrift,
            A::PeerUnfenced => Self::PeerUnfenced,
            A::WitnessRolledBack => Self::WitnessRolledBack,
            A::PeerSilent => Self::PeerSilent,
            A::WitnessLost => Self::WitnessLost,
            A::TieAt(_) => Self::TieAtNode,
            A::PathDown(_) => Self::PathDown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_has_its_own_word_and_is_read_back_from_it() {
        let words: BTreeSet<_> = AlarmCode::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), AlarmCode::ALL.len());
        for code in AlarmCode::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(text, format!("\"{}\"", code.word()));
            assert_eq!(serde_json::from_str::<AlarmCode>(&text).unwrap(), *code);
        }
        assert_eq!(AlarmCode::from_word("from-the-future"), AlarmCode::Unrecognised);
    }
}

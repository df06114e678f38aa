//! Alarms: lasting conditions that the operator must end.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A lasting condition that the operator must end. It is in force while it is in [`Status::alarms`](crate::Status::alarms).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// For programs.
    pub code: AlarmCode,
    /// One sentence for people: the condition, and what to do.
    pub sentence: String,
}

macro_rules! alarm_codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Which condition an alarm reports, the gravest first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AlarmCode {
            $($(#[$doc])* $name,)*
        }

        impl AlarmCode {
            /// Every code, the gravest first.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The code of a word; a word of another version is [`AlarmCode::Unrecognised`].
            #[must_use]
            pub fn from_word(word: &str) -> Self {
                match word { $($word => Self::$name,)* _ => Self::Unrecognised }
            }
        }
    };
}

alarm_codes! {
    /// Two configurations carry one epoch.
    Conflict = "conflict",
    /// The register of this node cannot be written, or a write of it hangs.
    RegisterFailed = "register-failed",
    /// The peer answers from a store that was never admitted.
    PeerUnadmitted = "peer-unadmitted",
    /// The clocks of the nodes drift apart beyond ρ: no lease is granted.
    ClockDrift = "clock-drift",
    /// The peer's watchdog is not proven: its VMs start here only on proof of its death.
    PeerUnfenced = "peer-unfenced",
    /// The witness was set back to an older state.
    WitnessRolledBack = "witness-rolled-back",
    /// No heartbeat of the peer arrives.
    PeerSilent = "peer-silent",
    /// The witness does not answer.
    WitnessLost = "witness-lost",
    /// A node holds the tie vote although a witness is enrolled and both nodes are in sync.
    TieAtNode = "tie-at-node",
    /// A path to the peer is down.
    PathDown = "path-down",
    /// A code of another version.
    Unrecognised = "unrecognised",
}

impl From<dyad_quorum::Alarm> for AlarmCode {
    fn from(alarm: dyad_quorum::Alarm) -> Self {
        use dyad_quorum::Alarm as A;
        match alarm {
            A::Conflict => Self::Conflict,
            A::RegisterFailed => Self::RegisterFailed,
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

impl fmt::Display for AlarmCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for AlarmCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for AlarmCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::from_word(&word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_has_its_own_word_and_comes_back_from_it() {
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

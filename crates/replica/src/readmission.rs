//! From quorum to mirror and back.

use dyad_mirror::View;
use dyad_quorum::{Config, Members};
use dyad_types::NodeId;

/// What the mirror must know of a configuration and of who must acknowledge.
pub fn view(config: &Config, acks: Members, me: NodeId) -> View {
    let member = |node| config.exists() && config.members.has(node);
    View {
        epoch: config.epoch,
        me: member(me),
        peer: member(me.peer()),
        ack_peer: acks.has(me.peer()),
        lead: config.lead == me,
    }
}

/// When quorum may be told that both nodes acknowledge (`AckPeer`).
///
/// Quorum and mirror run in different threads and talk through queues. The mirror says clean, dirty, clean; quorum
/// answers each with who must acknowledge. An answer to the *first* clean must not be taken for one to the second:
/// between them quorum has taken the demand back, and the mirror may complete writes alone until it is raised again.
/// So whoever feeds quorum counts the clean and dirty it has handled and sends that count with each answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readmission {
    clean: bool,
    told: u64,
    agreed: bool,
}

impl Readmission {
    /// The mirror said that the peer is clean (or no longer): quorum is told at once.
    pub fn told(&mut self, clean: bool) {
        self.clean = clean;
        self.told += 1;
        self.agreed = false;
    }

    /// The newest word was that the peer is clean.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.clean
    }

    /// Quorum's demand after it handled `handled` of those. The mirror has the matching view already. True: tell quorum
    /// `AckPeer` now.
    #[must_use]
    pub fn demand(&mut self, acks: Members, handled: u64) -> bool {
        let now = self.clean && handled == self.told && acks == Members::Both;
        now && !std::mem::replace(&mut self.agreed, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_the_newest_clean_counts() {
        let mut readmission = Readmission::default();
        readmission.told(true);
        readmission.told(false);
        readmission.told(true);
        assert!(!readmission.demand(Members::Both, 1), "an answer to the first clean");
        assert!(!readmission.demand(Members::OnlyA, 2));
        assert!(readmission.demand(Members::Both, 3));
        assert!(!readmission.demand(Members::Both, 3), "once is enough");
        readmission.told(false);
        assert!(!readmission.demand(Members::Both, 4), "dirty");
        assert!(!readmission.clean());
    }
}

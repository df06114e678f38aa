//! The mirror's view of a configuration, and the condition for making a returned peer a member again.

use dyad_mirror::View;
use dyad_quorum::{Config, Members};
use dyad_types::NodeId;

/// Translates a configuration and the acknowledgement set for the mirror of the node `me`.
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

/// Decides when `PeerInAckSet` (the peer is in the acknowledgement set) may be sent to quorum.
///
/// Quorum and mirror run in different threads and exchange messages through queues. If the mirror reports clean, dirty,
/// clean, quorum answers each report with an acknowledgement set. The answer to the *first* clean must not count for
/// the second: between them quorum has removed the peer from the set, and the mirror may complete writes alone until
/// the peer is in the set again. So the quorum thread counts the reports it has handled and sends that count with each
/// set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readmission {
    /// The newest report was "clean".
    clean: bool,
    /// Number of reports so far.
    reports: u64,
    /// `PeerInAckSet` was sent for the newest report.
    acknowledged: bool,
}

impl Readmission {
    /// Counts a report of the mirror: the peer is clean, or is dirty again. The caller passes the report on to quorum
    /// at once.
    pub fn report(&mut self, clean: bool) {
        self.clean = clean;
        self.reports += 1;
        self.acknowledged = false;
    }

    /// Whether the newest report was that the peer is clean.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.clean
    }

    /// Handles quorum's acknowledgement set, which it sent after `handled` reports. Precondition: the mirror has the
    /// matching view. Returns whether `PeerInAckSet` must be sent to quorum now.
    #[must_use]
    pub fn on_ack_set(&mut self, acks: Members, handled: u64) -> bool {
        let now = self.clean && handled == self.reports && acks == Members::Both;
        now && !std::mem::replace(&mut self.acknowledged, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_acknowledgement_set_after_the_newest_clean_report_counts() {
        let mut readmission = Readmission::default();
        readmission.report(true);
        readmission.report(false);
        readmission.report(true);
        assert!(!readmission.on_ack_set(Members::Both, 1), "an answer to the first clean");
        assert!(!readmission.on_ack_set(Members::OnlyA, 2));
        assert!(readmission.on_ack_set(Members::Both, 3));
        assert!(!readmission.on_ack_set(Members::Both, 3), "once is enough");
        readmission.report(false);
        assert!(!readmission.on_ack_set(Members::Both, 4), "dirty");
        assert!(!readmission.clean());
    }
}

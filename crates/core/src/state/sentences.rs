//! Sentences for people: the alarms and the timeline entries of the quorum machine.

use dyad_quorum::{Alarm, Note};

/// One sentence for each lasting condition.
pub(super) fn alarm_text(alarm: Alarm, paths: &[String]) -> String {
    match alarm {
        Alarm::PeerSilent => "The other node is silent.".into(),
        Alarm::PathDown(path) => {
            let name = paths.get(usize::from(path)).map_or("?", String::as_str);
            format!("The peer link {name} is down: check its cable.")
        }
        Alarm::PeerUnadmitted => "The other node answers from a store that was never admitted: pair it again.".into(),
        Alarm::WitnessLost => "The witness does not answer.".into(),
        Alarm::WitnessRolledBack => "The witness was set back to an older state: enrol it again.".into(),
        Alarm::TieAt(node) => {
            format!("The witness is away: the pair survives the loss of the other node, not of {node}.")
        }
        Alarm::ClockDrift => "The clocks of the nodes drift apart: no lease is granted until one is repaired.".into(),
        Alarm::RegisterFailed => "The register of this node cannot be written: replace its system disk.".into(),
        Alarm::PeerUnfenced => {
            "The other node's watchdog is not proven: its VMs start here only on proof of its death.".into()
        }
        Alarm::Conflict => "Two configurations carry one epoch: this must never happen; call for help.".into(),
    }
}

/// A stable word and one sentence for each timeline entry of the quorum.
pub(super) fn note_text(at: u64, note: &Note) -> (&'static str, String) {
    let ms = |time: u64| at.abs_diff(time) / 1_000_000;
    match note {
        Note::PeerSilent { last_alive } => {
            ("peer-silent", format!("The peer is silent; it was last heard {} ms ago.", ms(*last_alive)))
        }
        Note::PeerHeard => ("peer-heard", "The peer is heard in both directions.".into()),
        Note::Deciding { epoch, why, target } => {
            ("deciding", format!("Epoch {epoch} is being decided ({why:?}), asking {target:?}."))
        }
        Note::Chosen { epoch, members, tie, learned } => {
            let how = if *learned { "learned" } else { "decided here" };
            ("epoch", format!("Epoch {epoch}: members {members:?}, tie at {tie:?}, {how}."))
        }
        Note::FenceWait { until: Some(until) } => {
            ("fence-wait", format!("The peer may still run VMs for {} ms.", ms(*until)))
        }
        Note::FenceWait { until: None } => {
            ("fence-wait", "The peer's VMs start here only on proof of its death.".into())
        }
        Note::FenceOver { proof: None } => ("fence-over", "The peer surely runs nothing: its time is over.".into()),
        Note::FenceOver { proof: Some(proof) } => ("fence-over", format!("The peer surely runs nothing: {proof:?}.")),
        Note::LeaseLapsed => ("lease-lapsed", "The right to run has lapsed; VMs are paused.".into()),
        Note::Resumed => ("resumed", "The right to run is back; VMs go on.".into()),
        Note::WitnessLost => ("witness-lost", "Neither node reaches the witness.".into()),
        Note::WitnessBack => ("witness-back", "The witness answers again.".into()),
    }
}

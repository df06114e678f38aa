//! Sentences for people: the alarms and the timeline entries of the quorum machine.

use dyad_control::TimelineKind;
use dyad_desired::Document;
use dyad_mirror::LostReason;
use dyad_quorum::{Alarm, BootTime, KillReason, Members, Note, Proof, Reason};
use dyad_types::{ExtentIndex, VolumeId};

/// The sentence of an alarm. `paths` are the names of the peer links by path number.
pub(super) fn alarm_text(alarm: Alarm, paths: &[String]) -> String {
    match alarm {
        Alarm::PeerSilent => "The other node is silent: check its power and the cables of the peer link.".into(),
        Alarm::PathDown(path) => {
            let name = paths.get(usize::from(path)).map_or("?", String::as_str);
            format!("The peer link {name} is down: check its cable.")
        }
        Alarm::PeerUnadmitted => "The other node answers from a store that was never admitted: erase the other node, then join it again.".into(),
        Alarm::WitnessLost => "The witness does not answer: check its machine and the network to it.".into(),
        Alarm::WitnessRolledBack => "The witness was set back to an older state: make its store new, then enrol it again.".into(),
        Alarm::TieAt(node) => {
            format!("The witness is away: the pair survives the loss of the other node, not of {node}.")
        }
        Alarm::ClockDrift => "The clocks of the nodes drift apart: no lease is granted until one is repaired.".into(),
        Alarm::RegisterFailed => "The register of this node cannot be written: restart the node; if the alarm returns, replace its disk.".into(),
        Alarm::StorageStuck => {
            "A pool disk of this node does not answer: look at its cable and controller; if the alarm stays, replace the pool disk.".into()
        }
        Alarm::PeerUnfenced => {
            "The other node's watchdog is not proven: prove it there (dyad watchdog prove). Until then its VMs start here only on proof that it has ended.".into()
        }
        Alarm::Conflict => "Two configurations carry one epoch, so the VMs are paused: change, erase and restart nothing, and save the timelines of both nodes.".into(),
    }
}

/// The sentence of the alarm of full pools; each item says whether the pool is that of this node.
pub(super) fn full_pools_text(pools: impl Iterator<Item = bool>) -> String {
    let whose = pools.map(|own| if own { "this node" } else { "the other node" }).collect::<Vec<_>>().join(" and of ");
    format!(
        "The pool of {whose} is full, so guests that write wait: delete volumes that are not needed, or discard data in the guests."
    )
}

/// The sentence of the alarm that the VMs need more memory than one node has; `None` = one node has enough, or none has told how
/// much it has.
pub(super) fn vms_do_not_fit_text(document: &Document) -> Option<String> {
    let (needed_mib, usable_mib) = (document.running_memory_mib(), document.usable_memory_mib()?);
    let text = || {
        format!(
            "The VMs that shall run need {needed_mib} MiB, and one node has {usable_mib} MiB for VMs when the other one is lost: \
             stop VMs, or add memory."
        )
    };
    (needed_mib > usable_mib).then(text)
}

/// The kind and one sentence for each timeline entry of the quorum.
pub(super) fn note_text(at: BootTime, note: &Note) -> (TimelineKind, String) {
    let ms = |time: BootTime| at.0.abs_diff(time.0) / 1_000_000;
    match note {
        Note::PeerSilent { last_alive } => {
            (TimelineKind::PeerSilent, format!("The peer is silent; it was last heard {} ms ago.", ms(*last_alive)))
        }
        Note::PeerHeard => (TimelineKind::PeerHeard, "The peer is heard in both directions.".into()),
        Note::Deciding { epoch, why, target } => {
            (TimelineKind::Deciding, format!("Epoch {epoch} is being decided at {target}: {}.", reason_text(*why)))
        }
        Note::Chosen { epoch, members, tie, learned } => {
            let how = if *learned { "learned" } else { "decided here" };
            (TimelineKind::Epoch, format!("Epoch {epoch}: members {}, tie at {tie}, {how}.", members_text(*members)))
        }
        Note::FenceWait { until: Some(until) } => {
            (TimelineKind::FenceWait, format!("The peer may still run VMs for {} ms.", ms(*until)))
        }
        Note::FenceWait { until: None } => {
            (TimelineKind::FenceWait, "The peer's VMs start here only on proof that the peer has ended.".into())
        }
        Note::FenceOver { proof: None } => {
            (TimelineKind::FenceOver, "The peer can no longer run VMs: its fence has ended.".into())
        }
        Note::FenceOver { proof: Some(proof) } => {
            (TimelineKind::FenceOver, format!("The peer runs no VM: {}.", proof_text(*proof)))
        }
        Note::LeaseLapsed => (TimelineKind::LeaseLapsed, "The right to run has lapsed; VMs are paused.".into()),
        Note::Resumed => (TimelineKind::Resumed, "The right to run is back; VMs go on.".into()),
        Note::WitnessLost => (
            TimelineKind::WitnessLost,
            "The witness answers neither this node nor, as far as is known, the other one.".into(),
        ),
        Note::WitnessBack => (TimelineKind::WitnessBack, "The witness answers again.".into()),
    }
}

/// The proof that the peer runs no VM, as a clause.
fn proof_text(proof: Proof) -> &'static str {
    match proof {
        Proof::PowerOff => "its management controller reports that its power is off",
        Proof::DyingGasp => "its kernel reported its own end",
        Proof::NewBoot => "it has booted again",
        Proof::Removed => "it accepted its removal after it stopped its VMs",
    }
}

/// The nodes of the in-sync set.
fn members_text(members: Members) -> &'static str {
    match members {
        Members::Both => "A and B",
        Members::OnlyA => "A",
        Members::OnlyB => "B",
    }
}

/// The cause of a decision as a clause.
fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Unfinished => "an earlier decision is not known to be complete",
        Reason::PeerSilent => "the peer is silent",
        Reason::PeerStuck => "requests wait for the peer for too long",
        Reason::PeerStorage => "a pool disk of the peer does not answer",
        Reason::PeerRegister => "the register of the peer failed",
        Reason::PeerUnadmitted => "the peer has a store that was never admitted",
        Reason::Leaving => "this node leaves",
        Reason::PeerClean => "the replica of the peer is complete",
        Reason::WitnessLost => "the witness is away, so a node takes the tie vote",
        Reason::WitnessBack => "the witness is back and takes the tie vote",
        Reason::Enrol => "a witness was enrolled",
        Reason::Exceptions => "the list of excepted volumes changed",
        Reason::Abandoned => "an abandoned proposal is made void",
    }
}

/// The sentence of a timeline entry about blocks that no copy can give.
pub(super) fn lost_text(volume: VolumeId, extent: ExtentIndex, reason: LostReason) -> String {
    let cause = match reason {
        LostReason::UnreadableOnBoth => "cannot be read on either node",
        LostReason::PeerOutOfDate => "cannot be read here, and the copy of the other node may be older",
    };
    format!(
        "A part of volume {volume} {cause} (extent {extent}): its damaged blocks read as errors until the guest writes them; restore them from a backup."
    )
}

/// The cause of a stop of all VMs as a clause.
pub(super) fn kill_text(reason: KillReason) -> &'static str {
    match reason {
        KillReason::Removed => "this node is no longer a member of the pair",
        KillReason::Leaving => "this node leaves the pair",
    }
}

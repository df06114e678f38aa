//! Faults of the witness other than those of its network: silence, and a record restored from a backup.

use crate::world::{WITNESS, World};
use dyad_quorum::{AcceptorRecord, Alarm, Event, MS, Nanos, SEC, WitnessRequest};

/// The time after which the client of a silent witness gives a request for a decision up, as in `dyad-core`.
const DECISION_TIMEOUT: Nanos = 1_500 * MS;
/// The same for a read.
const READ_TIMEOUT: Nanos = 12 * SEC;

/// The time after which the client gives this request up.
pub fn request_timeout(request: &WitnessRequest) -> Nanos {
    match request {
        WitnessRequest::Learn(_) => READ_TIMEOUT,
        WitnessRequest::TryDecide(_) => DECISION_TIMEOUT,
    }
}

impl World {
    /// Restores the witness's record from the backup, which is older than the present fault. If nothing was decided since then,
    /// that changes nothing.
    pub(crate) fn restore_witness_backup(&mut self) {
        if let Some(backup) = self.witness_backup.clone() {
            self.witness_is_restored = backup != self.witness;
            self.witness = backup;
        }
    }

    /// Enrols the witness again, with a new store, when a node has noticed that its record is older than it was; whether there is
    /// nothing more to do.
    pub(crate) fn enrol_witness_again(&mut self) -> bool {
        let noticed = |alarm| alarm == Alarm::WitnessRolledBack;
        let mut cores = self.nodes.iter().filter_map(|node| node.core.as_ref());
        let noticed = cores.any(|core| core.quorum.alarms().any(noticed));
        if self.witness_is_restored && noticed {
            self.count_event("witness enrolled again");
            self.witness_is_restored = false;
            let incarnation = self.new_incarnation();
            self.witness = AcceptorRecord::witness(WITNESS, incarnation);
        }
        if noticed {
            let node = self.prng.below(2) as usize;
            let incarnation = self.witness.incarnation;
            self.tell_quorum_thread(node, Event::Enrol { witness: WITNESS, incarnation });
        }
        !self.witness_is_restored && !noticed
    }
}

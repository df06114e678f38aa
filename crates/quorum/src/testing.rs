//! A record for the unit tests of this crate.

use crate::types::{Acceptor, Config, Members, Record, WitnessId};
use dyad_types::NodeId;

/// A record of a pair with both members, after one decision, in which `tie` holds the tie vote.
pub(crate) fn record(tie: Acceptor) -> Record {
    let mut base = Config::first(NodeId::A, 1);
    base.members = Members::Both;
    base.tie = tie;
    base.incarnations = [1, 2, 3];
    base.witness = WitnessId(9);
    let mut record = Record::fresh(1);
    record.adopt(base);
    record
}

//! Fixtures that several unit tests of this crate use.

use crate::timing::SEC;
use crate::types::{Acceptor, AcceptorRecord, BootTime, Config, Members, WitnessId};
use dyad_types::NodeId;

/// The time this many seconds after boot.
pub(crate) fn at(seconds: u64) -> BootTime {
    BootTime(seconds * SEC)
}

/// A record of a pair with both members, after one decision, in which `tie` holds the tie vote.
pub(crate) fn record(tie: Acceptor) -> AcceptorRecord {
    let mut base = Config::first(NodeId::A, 1);
    base.members = Members::Both;
    base.tie = tie;
    base.incarnations = [1, 2, 3];
    base.witness = WitnessId(9);
    let mut record = AcceptorRecord::fresh(1);
    record.adopt(base);
    record
}

//! The acceptor of this node: the durable record, the write under way, a newer configuration, and a deferred vote.

use crate::event::{Action, WriteToken};
use crate::message::{AcceptorReply, TryDecide};
use crate::timing::Timing;
use crate::types::{AcceptorRecord, BootTime, Config};

/// The step that follows when a write of the record is durable. Messages that depend on the write are held here until
/// then.
#[derive(Clone, Debug)]
pub(super) enum AfterPersist {
    /// No step: the write only stored the number of witness changes.
    Nothing,
    /// Send this reply to the peer, on this path.
    Reply(u8, AcceptorReply),
    /// Send the active proposal.
    Propose,
    /// Put the new base into force.
    Chosen {
        /// The base was learned, not decided here.
        learned: bool,
    },
}

/// A write of the record under way.
#[derive(Clone, Debug)]
struct Write {
    token: WriteToken,
    begun: BootTime,
    next: AcceptorRecord,
    then: AfterPersist,
}

/// A vote that the peer requested and that waits until VMs have stopped here (D1, D2).
#[derive(Clone, Debug)]
pub(super) struct DeferredVote {
    /// The path on which the request arrived.
    pub path: u8,
    pub request: TryDecide,
    /// The configuration that the vote would accept.
    pub value: Config,
    /// Arrival of the request.
    pub arrived_at: BootTime,
}

/// The state of this node as an acceptor.
///
/// Invariants, kept by the private fields:
/// * `record` is always the durable one. It changes in [`Register::complete_write`] only, which also returns the step
///   that the write allows: so no message that depends on a record is sent before the record is durable.
/// * At most one write is under way. After a failed write there is never another one.
/// * `newer` ranks above the base, except until [`Register::forget_reached`] after the base has changed.
/// * The configurations in `write`, `failed`, `newer` and `deferred` restrict this node at once
///   ([`Register::pending`]).
#[derive(Clone, Debug)]
pub(super) struct Register {
    record: AcceptorRecord,
    write: Option<Write>,
    /// The record whose write failed. The disk may hold it nevertheless, so its configurations restrict this node until
    /// the daemon ends.
    failed: Option<AcceptorRecord>,
    /// A chosen configuration newer than the base, not yet durable here.
    newer: Option<Config>,
    deferred: Option<DeferredVote>,
    /// Time at which this daemon last accepted a value of the peer; before that, its start.
    accepted_at: BootTime,
    /// Two different chosen configurations with the same rank were found.
    conflict: bool,
}

impl Register {
    pub(super) fn new(record: AcceptorRecord, now: BootTime) -> Register {
        Register { record, write: None, failed: None, newer: None, deferred: None, accepted_at: now, conflict: false }
    }

    /// The durable record.
    pub(super) fn record(&self) -> &AcceptorRecord {
        &self.record
    }

    /// The newest configuration that is durable here.
    pub(super) fn base(&self) -> &Config {
        &self.record.base
    }

    /// The newest configuration known to be chosen, durable or not.
    pub(super) fn newest(&self) -> &Config {
        self.newer.as_ref().unwrap_or(&self.record.base)
    }

    /// A chosen configuration that is not durable here yet.
    pub(super) fn newer(&self) -> Option<&Config> {
        self.newer.as_ref()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.write.is_some()
    }

    /// Whether a write has failed: then the register takes no more writes in this run of the daemon.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether the register has failed, or its write has hung for more than [`Timing::write_timeout`].
    pub(super) fn failed_or_hangs(&self, now: BootTime, timing: &Timing) -> bool {
        self.failed.is_some() || self.write.as_ref().is_some_and(|write| now > write.begun + timing.write_timeout)
    }

    pub(super) fn conflict(&self) -> bool {
        self.conflict
    }

    pub(super) fn accepted_at(&self) -> BootTime {
        self.accepted_at
    }

    pub(super) fn note_acceptance(&mut self, now: BootTime) {
        self.accepted_at = now;
    }

    /// Stores a configuration as `newer` if it ranks above the newest one known. A chosen configuration stays chosen,
    /// so neither its sender nor its age matters.
    pub(super) fn learn(&mut self, config: &Config) {
        // After a conflict the higher number may belong to the wrong copy: nothing is adopted until a person has decided.
        if config.fault().is_some() || self.conflict {
            return;
        }
        let newest = self.newest();
        if config.rank() > newest.rank() {
            self.newer = Some(config.clone());
        } else if config.rank() == newest.rank() && config != newest {
            self.conflict = true;
        }
    }

    /// Sets `conflict` if this chosen configuration has the rank of the base and another content.
    pub(super) fn detect_conflict(&mut self, config: &Config) {
        self.conflict |= config.rank() == self.record.base.rank() && *config != self.record.base;
    }

    /// Takes the word of an admitted acceptor that it knows another configuration with the rank of the base.
    pub(super) fn conflict_reported(&mut self) {
        self.conflict = true;
    }

    /// Clears `newer` if the base has the same or a higher rank.
    pub(super) fn forget_reached(&mut self) {
        self.newer.take_if(|newer| newer.rank() <= self.record.base.rank());
    }

    pub(super) fn deferred(&self) -> Option<&DeferredVote> {
        self.deferred.as_ref()
    }

    pub(super) fn defer(&mut self, vote: DeferredVote) {
        self.deferred = Some(vote);
    }

    pub(super) fn take_deferred(&mut self) -> Option<DeferredVote> {
        self.deferred.take()
    }

    /// Begins the write of `next`; the step `then` follows when it is durable.
    pub(super) fn begin_write(
        &mut self,
        token: WriteToken,
        now: BootTime,
        next: AcceptorRecord,
        then: AfterPersist,
    ) -> Action {
        debug_assert!(self.write.is_none() && self.failed.is_none());
        let record = next.clone();
        self.write = Some(Write { token, begun: now, next, then });
        Action::Persist { token, record }
    }

    /// Makes the record of the write with this token the durable one. Returns the former base, and the step that
    /// follows.
    pub(super) fn complete_write(&mut self, token: WriteToken) -> Option<(Config, AfterPersist)> {
        let write = self.write.take_if(|write| write.token == token)?;
        let before = std::mem::replace(&mut self.record, write.next);
        Some((before.base, write.then))
    }

    /// Records that the write with this token failed. Returns whether such a write was under way.
    pub(super) fn fail_write(&mut self, token: WriteToken) -> bool {
        let write = self.write.take_if(|write| write.token == token);
        let failed = write.is_some();
        if let Some(write) = write {
            self.failed = Some(write.next);
            self.deferred = None;
        }
        failed
    }

    /// Configurations that are not in force but may become so: see [`crate::rules::NodeRights::pending`].
    pub(super) fn pending(&self) -> [Option<&Config>; 6] {
        let written = self.write.as_ref().map(|write| &write.next);
        let failed = self.failed.as_ref();
        [
            self.newer.as_ref(),
            written.and_then(|record| self.other_base(record)),
            written.and_then(accepted_value),
            failed.and_then(|record| self.other_base(record)),
            failed.and_then(accepted_value),
            self.deferred.as_ref().map(|vote| &vote.value),
        ]
    }

    /// The base of `record` if it differs from the base in force.
    fn other_base<'a>(&self, record: &'a AcceptorRecord) -> Option<&'a Config> {
        Some(&record.base).filter(|base| **base != self.record.base)
    }
}

fn accepted_value(record: &AcceptorRecord) -> Option<&Config> {
    record.accepted.as_ref().map(|(_, value)| value)
}

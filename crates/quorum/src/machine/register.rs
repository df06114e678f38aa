//! The acceptor of this node: the durable record, the one write under way, and what is known beyond the record.

use crate::event::{Action, WriteToken};
use crate::message::{AcceptorReply, TryDecide};
use crate::timing::Timing;
use crate::types::{BootTime, Config, Record};

/// What happens once a write of the record is durable. Messages that depend on the write are held here until then.
#[derive(Clone, Debug)]
pub(super) enum AfterPersist {
    /// Nothing: only the witness's count was noted.
    Nothing,
    /// The peer gets this reply, on this path.
    Reply(u8, AcceptorReply),
    /// The active proposal is sent.
    Propose,
    /// The new base is in force.
    Chosen {
        /// It was learned, not decided here.
        learned: bool,
    },
}

/// A write of the record under way.
#[derive(Clone, Debug)]
struct Write {
    token: WriteToken,
    begun: BootTime,
    next: Record,
    then: AfterPersist,
}

/// A vote the peer asked for that waits until VMs have stopped here (D1, D2).
#[derive(Clone, Debug)]
pub(super) struct DeferredVote {
    /// The path on which the request arrived.
    pub path: u8,
    pub request: TryDecide,
    /// The configuration that the vote would accept.
    pub value: Config,
    /// When the request arrived.
    pub at: BootTime,
}

/// The acceptor's state.
///
/// Invariants, kept by the private fields:
/// * `record` is always the durable one. It changes in [`Register::complete_write`] only, which also hands out what
///   the write allows: so nothing that depends on a record leaves before the record is durable.
/// * At most one write is under way. After a failed write there is never another one.
/// * `newer`, if any, ranks above the base.
/// * What `write`, `failed`, `newer` and `deferred` forbid is forbidden at once ([`Register::pending`]).
#[derive(Clone, Debug)]
pub(super) struct Register {
    record: Record,
    write: Option<Write>,
    /// The record whose write failed. It may lie on the disk, so what it forbids stays forbidden.
    failed: Option<Record>,
    /// A chosen configuration newer than the base, not yet durable here.
    newer: Option<Config>,
    deferred: Option<DeferredVote>,
    /// When a value was last accepted here.
    accepted_at: BootTime,
    /// Two different configurations with one rank were seen.
    conflict: bool,
}

impl Register {
    pub(super) fn new(record: Record, now: BootTime) -> Register {
        Register { record, write: None, failed: None, newer: None, deferred: None, accepted_at: now, conflict: false }
    }

    /// The durable record.
    pub(super) fn record(&self) -> &Record {
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

    /// A write failed: the register takes no more writes in this run.
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

    /// Takes note of a chosen configuration. A chosen configuration is true regardless of its sender and its age.
    pub(super) fn learn(&mut self, config: &Config) {
        if config.fault().is_some() {
            return;
        }
        let newest = self.newest();
        if config.rank() > newest.rank() {
            self.newer = Some(config.clone());
        } else if config.rank() == newest.rank() && config != newest {
            self.conflict = true;
        }
    }

    /// Compares a configuration that claims to be chosen with the base.
    pub(super) fn detect_conflict(&mut self, config: &Config) {
        self.conflict |= config.rank() == self.record.base.rank() && *config != self.record.base;
    }

    /// Forgets a newer configuration that the base has reached.
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

    /// Begins the write of `next`; `then` happens once it is durable.
    pub(super) fn begin_write(&mut self, token: WriteToken, now: BootTime, next: Record, then: AfterPersist) -> Action {
        debug_assert!(self.write.is_none() && self.failed.is_none());
        let record = next.clone();
        self.write = Some(Write { token, begun: now, next, then });
        Action::Persist { token, record }
    }

    /// The write with this token is durable: returns the base before it, and what to do now.
    pub(super) fn complete_write(&mut self, token: WriteToken) -> Option<(Config, AfterPersist)> {
        let write = self.write.take_if(|write| write.token == token)?;
        let before = std::mem::replace(&mut self.record, write.next);
        Some((before.base, write.then))
    }

    /// The write with this token failed; whether there was one.
    pub(super) fn fail_write(&mut self, token: WriteToken) -> bool {
        let write = self.write.take_if(|write| write.token == token);
        let failed = write.is_some();
        if let Some(write) = write {
            self.failed = Some(write.next);
            self.deferred = None;
        }
        failed
    }

    /// Configurations under way here. They take rights away and give none.
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

    fn other_base<'a>(&self, record: &'a Record) -> Option<&'a Config> {
        Some(&record.base).filter(|base| **base != self.record.base)
    }
}

fn accepted_value(record: &Record) -> Option<&Config> {
    record.accepted.as_ref().map(|(_, value)| value)
}

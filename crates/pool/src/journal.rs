//! The journal: a ring of records on the first disk. Each record has a number, a checksum, and the checksum of the
//! record before it.
//!
//! Positions are logical byte positions: they only grow, and the position modulo the ring's length is the offset in the
//! ring. A record never wraps: if it does not fit before the end of the ring, a filler record takes the rest.

pub(crate) mod record;
mod ring;
pub(crate) mod scan;

pub(crate) use ring::{RecordBoundary, Ring};

use crate::Position;
use crate::disk::{Access, DiskError};
use crate::label::{JournalTail, Label};
use dyad_types::BLOCK;
use record::{JournalRecord, RecordHeader};
use ring::UNSYNCED_MAX;

/// The writing end of the journal: the ring, and the numbers that the next record needs.
pub(crate) struct Journal {
    pub ring: Ring,
    /// That of the label.
    salt: u128,
    /// Session of the pool, part of each record.
    session: u64,
    /// Records before this position are in the indexes and may be overwritten.
    tail: u64,
    /// Position of the next record.
    head: u64,
    /// Number of the next record.
    next: u64,
    /// Checksum of the header of the last record.
    chain: u32,
    /// Boundary up to which all records are known to be durable.
    synced: RecordBoundary,
    /// Highest number in the `synced` field of a written record: a later open knows that the records up to it were
    /// durable.
    noted: u64,
    /// Number of the last record that is not a [`JournalRecord::Note`].
    last_operation: u64,
}

impl Journal {
    /// Continues a journal at the end that a scan found, in the session after that of `label`. Records after those that
    /// the scan found durable count as durable only after the next sync.
    pub fn resume(ring: Ring, label: &Label, end: &scan::JournalEnd) -> Self {
        let tail = label.tail.position;
        Self {
            ring,
            salt: label.salt,
            session: label.session + 1,
            tail,
            head: end.position,
            next: end.record,
            chain: end.chain,
            synced: RecordBoundary { position: tail, record: end.durable },
            noted: end.durable,
            last_operation: end.record - 1,
        }
    }

    /// Whether the ring would have `spare` bytes left after a record with this body and `data` bytes of data.
    pub fn has_room(&self, record: &JournalRecord, data: usize, spare: u64) -> bool {
        let bytes = record::header_bytes(record) as u64 + data as u64;
        self.used() + self.filler_bytes(bytes) + bytes + spare <= self.ring.len
    }

    /// Number of bytes between tail and head.
    pub fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// Number of bytes to the end of the ring if a record of `bytes` bytes does not fit before it, otherwise 0.
    fn filler_bytes(&self, bytes: u64) -> u64 {
        let left = self.ring.len - self.head % self.ring.len;
        if bytes > left { left } else { 0 }
    }

    /// Writes a record; returns the ring page of its first data block, 0 if it has no data. Syncs first if more than
    /// [`UNSYNCED_MAX`] bytes are not synced.
    ///
    /// # Panics
    /// The ring has no room, which the caller checks with [`Journal::has_room`].
    pub fn append(&mut self, record: &JournalRecord, data: &[u8]) -> Result<u32, DiskError> {
        assert!(self.has_room(record, data.len(), 0), "room is checked before an append");
        if self.head - self.synced.position > UNSYNCED_MAX {
            let end = self.end();
            self.ring.device.sync()?;
            self.set_synced(end);
        }
        let bytes = record::header_bytes(record) as u64 + data.len() as u64;
        if self.filler_bytes(bytes) > 0 {
            self.write_record(&JournalRecord::Filler, &[])?;
        }
        self.write_record(record, data)
    }

    fn write_record(&mut self, record: &JournalRecord, data: &[u8]) -> Result<u32, DiskError> {
        let header = RecordHeader {
            salt: self.salt,
            record: self.next,
            session: self.session,
            synced: self.synced.record,
            position: self.head,
            chain: self.chain,
            data_blocks: (data.len() / BLOCK) as u32,
        };
        let (mut bytes, crc) = record::encode(&header, record);
        let data_at = self.head + bytes.len() as u64;
        bytes.extend_from_slice(data);
        self.ring.device.write(Access::Cached, self.ring.offset(self.head), &bytes)?;
        self.head += match record {
            JournalRecord::Filler => self.ring.len - self.head % self.ring.len,
            _ => bytes.len() as u64,
        };
        if *record != JournalRecord::Note {
            self.last_operation = self.next;
        }
        self.next += 1;
        self.chain = crc;
        self.noted = self.synced.record;
        Ok(if data.is_empty() { 0 } else { self.ring.page(data_at) })
    }

    /// The boundary behind the last record.
    pub fn end(&self) -> RecordBoundary {
        RecordBoundary { position: self.head, record: self.next - 1 }
    }

    /// The tail of the journal once a checkpoint has finished that covers every record written so far.
    pub fn tail_after_checkpoint(&self) -> JournalTail {
        JournalTail { position: self.head, record: self.next, chain: self.chain, session: self.session }
    }

    /// Records that a sync succeeded. `end` is what [`Journal::end`] returned when it began.
    pub fn set_synced(&mut self, end: RecordBoundary) {
        if end.record > self.synced.record {
            self.synced = end;
        }
    }

    /// The position of the last record that is known to be durable.
    pub fn durable(&self) -> Position {
        Position(self.synced.record)
    }

    /// The position of the last record written.
    pub fn last(&self) -> Position {
        Position(self.next - 1)
    }

    /// Whether an operation's record is durable without a later record that proves it, so that a
    /// [`JournalRecord::Note`] is useful.
    pub fn needs_note(&self) -> bool {
        self.synced.record.min(self.last_operation) > self.noted
    }

    /// Moves the tail, which frees the records before it. Called when a checkpoint has finished.
    pub fn move_tail(&mut self, tail: &JournalTail) {
        assert!(tail.position >= self.tail && tail.position <= self.head, "the tail moves forward, not past the head");
        self.tail = tail.position;
    }
}

//! The journal: a ring of records on the first disk, numbered, chained and checksummed.
//!
//! Positions are logical: they only grow, and the position modulo the ring's length is the place in the ring.
//! A record never wraps: if it does not fit before the end of the ring, a filler record takes the rest.

pub(crate) mod record;
mod ring;
pub(crate) mod scan;

pub(crate) use ring::{Mark, Ring};

use crate::Position;
use crate::disk::{Access, Fault};
use crate::label::{JournalTail, Label};
use dyad_types::BLOCK;
use record::{Head, Record};
use ring::UNSYNCED_MAX;

/// The journal as its writer sees it.
pub(crate) struct Journal {
    pub ring: Ring,
    salt: u128,
    session: u64,
    /// Records before this position are in the indexes and may be overwritten.
    tail: u64,
    head: u64,
    next: u64,
    chain: u32,
    synced: Mark,
    /// Highest record whose durability a later record proves.
    noted: u64,
    /// The last record that is not a [`Record::Note`].
    last_operation: u64,
}

impl Journal {
    /// Continues at the end that a scan found, in the session after that of `label`. Records after those that the scan
    /// found durable count as durable only after the next sync.
    pub fn resume(ring: Ring, label: &Label, end: &scan::End) -> Self {
        let tail = label.tail.position;
        Self {
            ring,
            salt: label.salt,
            session: label.session + 1,
            tail,
            head: end.position,
            next: end.record,
            chain: end.chain,
            synced: Mark { position: tail, record: end.durable },
            noted: end.durable,
            last_operation: end.record - 1,
        }
    }

    /// Whether a record with this body and data would leave `spare` bytes free.
    pub fn has_room(&self, record: &Record, data: usize, spare: u64) -> bool {
        let bytes = record::head_bytes(record) as u64 + data as u64;
        self.used() + self.filler(bytes) + bytes + spare <= self.ring.len
    }

    /// Bytes between tail and head.
    pub fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// Bytes to the ring's end if a record of `bytes` does not fit before it.
    fn filler(&self, bytes: u64) -> u64 {
        let left = self.ring.len - self.head % self.ring.len;
        if bytes > left { left } else { 0 }
    }

    /// Writes a record; returns the ring page of its first data block.
    ///
    /// The caller has checked [`Journal::has_room`].
    pub fn append(&mut self, record: &Record, data: &[u8]) -> Result<u32, Fault> {
        assert!(self.has_room(record, data.len(), 0), "room is checked before an append");
        if self.head - self.synced.position > UNSYNCED_MAX {
            let mark = self.mark();
            self.ring.device.sync()?;
            self.synced(mark);
        }
        let bytes = record::head_bytes(record) as u64 + data.len() as u64;
        if self.filler(bytes) > 0 {
            self.put(&Record::Filler, &[])?;
        }
        self.put(record, data)
    }

    fn put(&mut self, record: &Record, data: &[u8]) -> Result<u32, Fault> {
        let head = Head {
            salt: self.salt,
            record: self.next,
            session: self.session,
            synced: self.synced.record,
            position: self.head,
            chain: self.chain,
            data_blocks: (data.len() / BLOCK) as u32,
        };
        let (mut bytes, crc) = record::encode(&head, record);
        let data_at = self.head + bytes.len() as u64;
        bytes.extend_from_slice(data);
        self.ring.device.write(Access::Cached, self.ring.offset(self.head), &bytes)?;
        self.head += match record {
            Record::Filler => self.ring.len - self.head % self.ring.len,
            _ => bytes.len() as u64,
        };
        if *record != Record::Note {
            self.last_operation = self.next;
        }
        self.next += 1;
        self.chain = crc;
        self.noted = self.synced.record;
        Ok(if data.is_empty() { 0 } else { self.ring.page(data_at) })
    }

    /// The end of the journal.
    pub fn mark(&self) -> Mark {
        Mark { position: self.head, record: self.next - 1 }
    }

    /// The tail after a checkpoint that covers every record written so far.
    pub fn cut(&self) -> JournalTail {
        JournalTail { position: self.head, record: self.next, chain: self.chain, session: self.session }
    }

    /// A sync that began at `mark` has succeeded.
    pub fn synced(&mut self, mark: Mark) {
        if mark.record > self.synced.record {
            self.synced = mark;
        }
    }

    /// The last durable record.
    pub fn durable(&self) -> Position {
        Position(self.synced.record)
    }

    /// The last record written.
    pub fn last(&self) -> Position {
        Position(self.next - 1)
    }

    /// Whether a durable record exists whose durability no later record proves, so that a [`Record::Note`] is useful.
    pub fn needs_note(&self) -> bool {
        self.synced.record.min(self.last_operation) > self.noted
    }

    /// Moves the tail at the end of a checkpoint.
    pub fn advance(&mut self, tail: &JournalTail) {
        assert!(tail.position >= self.tail && tail.position <= self.head, "the tail moves forward, not past the head");
        self.tail = tail.position;
    }
}

//! Finds the end of the journal at open, and replays the records before it.
//!
//! After a loss of power any subset of the records written since the last sync may exist, and records may be torn.
//! So a bad record is the end of the journal **unless it is known to have been durable**: the label's `floor` is at or
//! past its number, or the `synced` number of a whole later record is. Then it is damage, and is reported. An append
//! never writes more than [`UNSYNCED_MAX`] ahead of a sync, so such a later record, if there is one, starts within that
//! distance.

use super::record::{self, Head, Record};
use super::ring::{Ring, UNSYNCED_MAX};
use crate::checksum;
use crate::disk::Fault;
use crate::label::{JournalTail, Label};
use dyad_types::{BLOCK, BlockIndex};

/// The end of the journal, where the next record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub position: u64,
    pub record: u64,
    pub chain: u32,
    /// Data blocks of durable records that do not match their checksums: they stay, and reads of them fail.
    pub corrupt_blocks: u64,
    /// The last record known durable.
    pub durable: u64,
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(Fault),
    Damaged { record: u64, what: String },
}

impl From<Fault> for ScanError {
    fn from(fault: Fault) -> Self {
        ScanError::Io(fault)
    }
}

struct ScannedRecord {
    head: Head,
    record: Record,
    crc: u32,
    /// Logical position of the data blocks.
    data_at: u64,
    bytes: u64,
}

/// Records with damaged data beyond which open fails.
const DAMAGED_RECORDS_MAX: usize = 1024;

/// Follows the chain from the label's tail and verifies heads and data.
pub(crate) fn find_end(ring: &Ring, label: &Label) -> Result<End, ScanError> {
    let mut walk = Walk::new(ring, label);
    let mut durable = label.floor.max(label.tail.record.saturating_sub(1));
    let mut suspects: Vec<(End, u64)> = Vec::new();
    loop {
        let before =
            End { position: walk.position, record: walk.record, chain: walk.chain, corrupt_blocks: 0, durable: 0 };
        let Some(found) = walk.next()? else { break };
        durable = durable.max(found.head.synced);
        let bad = bad_blocks(ring, &found)?;
        if bad > 0 {
            suspects.push((before, bad));
            if suspects.len() > DAMAGED_RECORDS_MAX {
                let record = suspects[0].0.record;
                return Err(ScanError::Damaged { record, what: "the data of many records does not match".into() });
            }
        }
    }
    let hole = End { position: walk.position, record: walk.record, chain: walk.chain, corrupt_blocks: 0, durable: 0 };
    if let Some(later) = proof_of(ring, label.salt, &hole, &label.tail)? {
        let what = format!("it is not whole, but record {later} proves that it was durable");
        return Err(ScanError::Damaged { record: hole.record, what });
    }
    if hole.record <= durable {
        let what = format!("it is not whole, but all up to {durable} were durable");
        return Err(ScanError::Damaged { record: hole.record, what });
    }
    let corrupt_blocks = suspects.iter().filter(|(at, _)| at.record <= durable).map(|(_, bad)| bad).sum();
    let torn = suspects.into_iter().map(|(at, _)| at).find(|at| at.record > durable);
    Ok(End { corrupt_blocks, durable, ..torn.unwrap_or(hole) })
}

/// Calls `apply` with each record before `end`, the ring page of its first data block, and its number.
pub(crate) fn replay(
    ring: &Ring,
    label: &Label,
    end: &End,
    mut apply: impl FnMut(&Record, u32, u64),
) -> Result<(), ScanError> {
    let mut walk = Walk::new(ring, label);
    while walk.record < end.record {
        let Some(found) = walk.next()? else {
            return Err(ScanError::Damaged { record: walk.record, what: "it changed between two readings".into() });
        };
        apply(&found.record, ring.page(found.data_at), found.head.record);
    }
    Ok(())
}

struct Walk<'a> {
    ring: &'a Ring,
    salt: u128,
    /// The last session, and its first record.
    newest: u64,
    resumed: u64,
    start: u64,
    position: u64,
    record: u64,
    chain: u32,
    session: u64,
}

impl<'a> Walk<'a> {
    fn new(ring: &'a Ring, label: &Label) -> Self {
        let JournalTail { position, record, chain, session } = label.tail;
        let (salt, newest, resumed) = (label.salt, label.session, label.resumed);
        Self { ring, salt, newest, resumed, start: position, position, record, chain, session }
    }

    /// Whether this session can have written the next record: the records of a session end where the next session
    /// resumed.
    ///
    /// Without this check a torn record of an old session could become whole: a later record at the same place, torn
    /// itself, may have written exactly the sectors that were missing.
    fn plausible(&self, session: u64) -> bool {
        if self.record >= self.resumed {
            session == self.newest
        } else {
            (self.session..self.newest).contains(&session)
        }
    }

    /// The next record of the chain; `None` where the chain breaks.
    fn next(&mut self) -> Result<Option<ScannedRecord>, ScanError> {
        if self.position - self.start >= self.ring.len {
            return Ok(None);
        }
        let Some(found) = read_head(self.ring, self.salt, self.position)? else { return Ok(None) };
        let head = &found.head;
        let fits = head.record == self.record
            && head.chain == self.chain
            && head.position == self.position
            && self.plausible(head.session)
            && self.position + found.bytes - self.start <= self.ring.len;
        if !fits {
            return Ok(None);
        }
        self.position += found.bytes;
        self.record += 1;
        self.chain = found.crc;
        self.session = head.session;
        Ok(Some(found))
    }
}

/// The record at this logical position if its head is whole, with any number.
fn read_head(ring: &Ring, salt: u128, position: u64) -> Result<Option<ScannedRecord>, Fault> {
    let mut bytes = vec![0; BLOCK];
    ring.read(position, &mut bytes)?;
    let Some((head_len, head)) = record::peek(&bytes, salt) else { return Ok(None) };
    let left = ring.len - position % ring.len;
    let data = u64::from(head.data_blocks) * BLOCK as u64;
    if head_len as u64 + data > left {
        return Ok(None);
    }
    if head_len > BLOCK {
        bytes.resize(head_len, 0);
        ring.read(position, &mut bytes)?;
    }
    let Some((record, crc)) = record::decode(&bytes, &head) else { return Ok(None) };
    let total = if record == Record::Filler { left } else { head_len as u64 + data };
    Ok(Some(ScannedRecord { head, record, crc, data_at: position + head_len as u64, bytes: total }))
}

/// Number of data blocks of a record that do not match their checksums.
fn bad_blocks(ring: &Ring, found: &ScannedRecord) -> Result<u64, Fault> {
    let Record::Write { volume, block, birth, crcs, .. } = &found.record else { return Ok(0) };
    let mut data = vec![0; crcs.len() * BLOCK];
    ring.read(found.data_at, &mut data)?;
    let bad = data
        .chunks_exact(BLOCK)
        .zip(crcs)
        .zip((block.0..).map(BlockIndex))
        .filter(|((bytes, crc), number)| checksum::block(*volume, *number, *birth, bytes) != **crc)
        .count();
    Ok(bad as u64)
}

/// Number of a whole later record that proves that the record at `hole` was durable.
fn proof_of(ring: &Ring, salt: u128, hole: &End, tail: &JournalTail) -> Result<Option<u64>, ScanError> {
    let free = ring.len - (hole.position - tail.position);
    let window = free.min(UNSYNCED_MAX + (4 << 20));
    let mut chunk = vec![0; 1 << 20];
    let mut at = hole.position;
    while at < hole.position + window {
        let left = ring.len - at % ring.len;
        let len = (chunk.len() as u64).min(left).min(hole.position + window - at) as usize;
        ring.read(at, &mut chunk[..len])?;
        for (block, position) in chunk[..len].chunks_exact(BLOCK).zip((at..).step_by(BLOCK)) {
            let Some((_, head)) = record::peek(block, salt) else { continue };
            let proves = head.record > hole.record && head.synced >= hole.record && head.position == position;
            if proves && read_head(ring, salt, position)?.is_some_and(|f| f.head == head) {
                return Ok(Some(head.record));
            }
        }
        at += len as u64;
    }
    Ok(None)
}

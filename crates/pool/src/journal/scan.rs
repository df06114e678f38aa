//! Finds the end of the journal at open, and replays the records before it.
//!
//! After a loss of power any subset of the records written since the last sync may exist, and records may be torn. So a
//! bad record is the end of the journal **unless it is known to have been durable**. It was durable if the label's
//! `floor`, or the `synced` field of a later record with a good header, is not lower than its number; then it is
//! damaged, and is reported. An append syncs first if more than [`UNSYNCED_MAX`] bytes are not synced. So such a later
//! record, if there is one, starts at most that distance, one record and one filler behind the bad record.
//!
//! **The page cache proves nothing about durability.** After a failed sync Linux takes the pages for written, and they
//! outlive the process: a restarted daemon reads records that were never on the disk, and that no later sync would write. A
//! loss of power would then break the chain before records that were synced later. So [`JournalEnd::unproven`] tells which
//! records are not known to be durable, and the opener writes them again. The `synced` field of a cached record may be
//! trusted, because it was written after the sync that it tells of.

use super::record::{self, JournalRecord, RecordHeader};
use super::ring::{Ring, UNSYNCED_MAX};
use crate::checksum;
use crate::disk::DiskError;
use crate::label::{JournalTail, Label};
use dyad_types::{BLOCK, BlockIndex};
use std::collections::{BTreeSet, VecDeque};

/// The end of the journal, where the next record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalEnd {
    /// Logical position of the next record.
    pub position: u64,
    /// Number of the next record.
    pub record: u64,
    /// Checksum of the header of the last record.
    pub chain: u32,
    /// Pages of the ring with the data blocks of durable records that do not match their checksums. Such records are
    /// replayed all the same, and reads of these blocks fail.
    pub corrupt_pages: BTreeSet<u32>,
    /// Number of the last record known to be durable.
    pub durable: u64,
    /// Logical position of the first record that is not known to be durable; `position` if there is none. It is at most
    /// [`UNSYNCED_MAX`], one record and one filler before `position`.
    pub unproven: u64,
}

/// The reason why a journal cannot be used.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(DiskError),
    /// Number of the first damaged record, and the evidence that it was durable.
    Damaged {
        record: u64,
        what: String,
    },
}

impl From<DiskError> for ScanError {
    fn from(error: DiskError) -> Self {
        ScanError::Io(error)
    }
}

/// A record with a good header; its data blocks are not verified.
struct ScannedRecord {
    header: RecordHeader,
    record: JournalRecord,
    /// Checksum of the header.
    crc: u32,
    /// Logical position of the data blocks.
    data_at: u64,
    /// Length of the record, data included.
    bytes: u64,
}

/// A journal in which the data of more durable records than this is damaged is refused.
const DAMAGED_RECORDS_MAX: usize = 1024;

/// Finds the end of the journal: follows the chain from the label's tail and verifies headers and data.
pub(crate) fn find_end(ring: &Ring, label: &Label) -> Result<JournalEnd, ScanError> {
    let mut walk = ChainWalk::new(ring, label);
    let mut durable = label.floor.max(label.tail.record.saturating_sub(1));
    // Records with a good header whose data does not match, with the pages of such blocks: torn or damaged.
    let mut suspects: Vec<(JournalEnd, Vec<u32>)> = Vec::new();
    // Number and position of each record after the last durable one.
    let mut unproven: VecDeque<(u64, u64)> = VecDeque::new();
    loop {
        let before = walk.end();
        let Some(found) = walk.next()? else { break };
        durable = durable.max(found.header.synced);
        unproven.push_back((before.record, before.position));
        while unproven.front().is_some_and(|(record, _)| *record <= durable) {
            unproven.pop_front();
        }
        let bad = bad_pages(ring, &found)?;
        if !bad.is_empty() {
            suspects.push((before, bad));
        }
    }
    let chain_end = walk.end();
    if let Some(later) = proof_of_durability(ring, label.salt, &chain_end, &label.tail)? {
        let what = format!("it is not whole, but record {later} proves that it was durable");
        return Err(ScanError::Damaged { record: chain_end.record, what });
    }
    if chain_end.record <= durable {
        let what = format!("it is not whole, but all up to {durable} were durable");
        return Err(ScanError::Damaged { record: chain_end.record, what });
    }
    // Which suspects were durable is known only here: a later record may have proved it.
    let (damaged, torn): (Vec<_>, Vec<_>) = suspects.into_iter().partition(|(at, _)| at.record <= durable);
    if damaged.len() > DAMAGED_RECORDS_MAX {
        let what = "the data of many records does not match".into();
        return Err(ScanError::Damaged { record: damaged[0].0.record, what });
    }
    let corrupt_pages = damaged.into_iter().flat_map(|(_, bad)| bad).collect();
    let torn = torn.into_iter().next().map(|(at, _)| at);
    let end = torn.unwrap_or(chain_end);
    let unproven = unproven.front().map_or(end.position, |(_, position)| end.position.min(*position));
    Ok(JournalEnd { corrupt_pages, durable, unproven, ..end })
}

/// Calls `apply` with each record before `end`, the ring page of its first data block, and its number.
pub(crate) fn replay(
    ring: &Ring,
    label: &Label,
    end: &JournalEnd,
    mut apply: impl FnMut(&JournalRecord, u32, u64),
) -> Result<(), ScanError> {
    let mut walk = ChainWalk::new(ring, label);
    while walk.record < end.record {
        let Some(found) = walk.next()? else {
            return Err(ScanError::Damaged { record: walk.record, what: "it changed between two readings".into() });
        };
        apply(&found.record, ring.page(found.data_at), found.header.record);
    }
    Ok(())
}

/// Reads the records of the chain one after the other, from the label's tail on.
struct ChainWalk<'a> {
    ring: &'a Ring,
    salt: u128,
    /// The session of the label: the last session that may have written records.
    newest: u64,
    /// Number of the first record of that session.
    resumed: u64,
    /// Logical position of the label's tail.
    start: u64,
    /// Logical position of the next record.
    position: u64,
    /// Number of the next record.
    record: u64,
    /// Checksum of the header of the record before.
    chain: u32,
    /// Session of the record before.
    session: u64,
}

impl<'a> ChainWalk<'a> {
    fn new(ring: &'a Ring, label: &Label) -> Self {
        let JournalTail { position, record, chain, session } = label.tail;
        let (salt, newest, resumed) = (label.salt, label.session, label.resumed);
        Self { ring, salt, newest, resumed, start: position, position, record, chain, session }
    }

    /// The end of the journal if the chain breaks here.
    fn end(&self) -> JournalEnd {
        let (position, record, chain) = (self.position, self.record, self.chain);
        JournalEnd { position, record, chain, corrupt_pages: BTreeSet::new(), durable: 0, unproven: position }
    }

    /// Whether `session` can have written the next record: the records of a session end where the next session resumed.
    ///
    /// Without this check a torn record of an old session could become whole: a later record at the same place, torn
    /// itself, may have written exactly the sectors that were missing.
    fn is_possible_session(&self, session: u64) -> bool {
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
        let Some(found) = read_header(self.ring, self.salt, self.position)? else { return Ok(None) };
        let header = &found.header;
        let fits = header.record == self.record
            && header.chain == self.chain
            && header.position == self.position
            && self.is_possible_session(header.session)
            && self.position + found.bytes - self.start <= self.ring.len;
        if !fits {
            return Ok(None);
        }
        self.position += found.bytes;
        self.record += 1;
        self.chain = found.crc;
        self.session = header.session;
        Ok(Some(found))
    }
}

/// The record at this logical position, whatever its number is; `None` if the header is not good.
fn read_header(ring: &Ring, salt: u128, position: u64) -> Result<Option<ScannedRecord>, DiskError> {
    let mut bytes = vec![0; BLOCK];
    ring.read(position, &mut bytes)?;
    let Some((header_len, header)) = record::peek(&bytes, salt) else { return Ok(None) };
    let left = ring.len - position % ring.len;
    let data = u64::from(header.data_blocks) * BLOCK as u64;
    if header_len as u64 + data > left {
        return Ok(None);
    }
    if header_len > BLOCK {
        bytes.resize(header_len, 0);
        ring.read(position, &mut bytes)?;
    }
    let Some((record, crc)) = record::decode(&bytes, &header) else { return Ok(None) };
    let total = if record == JournalRecord::Filler { left } else { header_len as u64 + data };
    Ok(Some(ScannedRecord { header, record, crc, data_at: position + header_len as u64, bytes: total }))
}

/// Pages of the ring with the data blocks of a record that do not match their checksums.
fn bad_pages(ring: &Ring, found: &ScannedRecord) -> Result<Vec<u32>, DiskError> {
    let JournalRecord::Write { volume, block, birth, crcs, .. } = &found.record else { return Ok(Vec::new()) };
    let mut data = vec![0; crcs.len() * BLOCK];
    ring.read(found.data_at, &mut data)?;
    let bad = data
        .chunks_exact(BLOCK)
        .zip(crcs)
        .zip((block.0..).map(BlockIndex))
        .zip(ring.page(found.data_at)..)
        .filter(|(((bytes, crc), number), _)| checksum::block(*volume, *number, *birth, bytes) != **crc)
        .map(|(_, page)| page)
        .collect();
    Ok(bad)
}

/// Number of a later record with a good header whose `synced` field proves that the record at `chain_end` was durable.
fn proof_of_durability(
    ring: &Ring,
    salt: u128,
    chain_end: &JournalEnd,
    tail: &JournalTail,
) -> Result<Option<u64>, ScanError> {
    let free = ring.len - (chain_end.position - tail.position);
    let window = free.min(UNSYNCED_MAX + (4 << 20));
    let mut chunk = vec![0; 1 << 20];
    let mut at = chain_end.position;
    while at < chain_end.position + window {
        let left = ring.len - at % ring.len;
        let len = (chunk.len() as u64).min(left).min(chain_end.position + window - at) as usize;
        ring.read(at, &mut chunk[..len])?;
        for (block, position) in chunk[..len].chunks_exact(BLOCK).zip((at..).step_by(BLOCK)) {
            let Some((_, header)) = record::peek(block, salt) else { continue };
            let proves =
                header.record > chain_end.record && header.synced >= chain_end.record && header.position == position;
            if proves && read_header(ring, salt, position)?.is_some_and(|f| f.header == header) {
                return Ok(Some(header.record));
            }
        }
        at += len as u64;
    }
    Ok(None)
}

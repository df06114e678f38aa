//! Formats and opens pools. Open reads the labels, then the indexes, then the journal, and writes only after that.

mod assemble;
mod format;

use dyad_types::{ExtentIndex, NodeId, Seq, VolumeId};
pub use format::{FormatOptions, Overwrite};

use crate::disk::{Device, Fault, PoolDisk};
use crate::extent_map::ExtentMap;
use crate::index::{Index, Indexes, key, row};
use crate::journal::scan::{self, ScanError};
use crate::journal::{Journal, Ring};
use crate::label::{self, Label};
use crate::overlay::Overlay;
use crate::pool::Pool;
use crate::space::Space;
use crate::state::State;
use crate::{OpenError, Position};
use assemble::Member;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Id of the pair and the node that the disks must belong to.
    pub expected: (u128, NodeId),
    /// False only in simulations, where the index need not survive loss of power.
    pub durable_index: bool,
}

/// Findings of [`Pool::open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Number of journal records replayed.
    pub replayed: u64,
    /// Data blocks of durable journal records that do not match their checksums: reads fail until they are written
    /// again.
    pub corrupt_blocks: u64,
    /// Label copies that were damaged or missing and were written again.
    pub repaired_labels: u32,
    /// Stored extents over all volumes.
    pub extents: u64,
    /// Number of times this pool was opened, this time included.
    pub session: u64,
}

impl Pool {
    /// Opens the pool on `disks`: all disks of the pool, in any order.
    ///
    /// # Errors
    /// See [`OpenError`]; the disks are unchanged unless it is `Io`.
    pub fn open(disks: Vec<PoolDisk>, options: &OpenOptions) -> Result<(Pool, OpenReport), OpenError> {
        let members = assemble::members(disks, options.expected)?;
        let devices: Arc<[Arc<Device>]> = members.iter().map(|m| m.device.clone()).collect();
        let mut label = members[0].label.clone();
        let mut report =
            OpenReport { repaired_labels: members.iter().map(|m| m.damaged).sum(), ..OpenReport::default() };

        let loaded = load_indexes(&members, options.durable_index)?;
        report.extents = loaded.extents;

        let ring = Ring { device: devices[0].clone(), len: label.journal };
        let damaged = |error| journal_error(&devices[0].name, error);
        let end = scan::find_end(&ring, &label).map_err(damaged)?;
        report.corrupt_blocks = end.corrupt_blocks;
        report.replayed = end.record - label.tail.record;

        let session = label.session + 1;
        report.session = session;
        let journal = Journal::resume(ring.clone(), &label, &end);
        let mut pool = Pool {
            label: label.clone(),
            devices: devices.clone(),
            indexes: loaded.indexes,
            extents_at: members.iter().map(|m| m.label.extents_start()).collect(),
            journal,
            state: loaded.state,
            active: Overlay::default(),
            running: None,
            extent_map: loaded.extent_map,
            space: loaded.space,
            syncing: false,
            out_of_space: false,
            idle_at: Position::default(),
            corrupt_blocks: end.corrupt_blocks,
            #[cfg(test)]
            planted: crate::tests::Planted::default(),
        };
        let apply = |record: &_, page, number| pool.apply(record, page, number);
        scan::replay(&ring, &members[0].label, &end, apply).map_err(damaged)?;
        if let Some(volume) = pool.extent_map.volumes().find(|v| !pool.state.volumes.contains_key(v)) {
            let what = format!("it holds extents of volume {volume}, which does not exist");
            return Err(OpenError::IndexDamaged { disk: devices[0].name.clone(), what });
        }

        label.generation += 1;
        label.session = session;
        label.resumed = end.record;
        label.floor = end.durable;
        write_labels(&members, &label)?;
        pool.label = label;
        Ok((pool, report))
    }
}

/// Writes the first disk's label, and the labels of other disks on which a copy was damaged.
fn write_labels(members: &[Member], first: &Label) -> Result<(), Fault> {
    for member in &members[1..] {
        if member.damaged > 0 {
            let label = Label { generation: member.label.generation + 1, ..member.label.clone() };
            label::write(&member.device, &label)?;
        }
    }
    label::write(&members[0].device, first)
}

fn journal_error(disk: &str, error: ScanError) -> OpenError {
    match error {
        ScanError::Io(fault) => fault.into(),
        ScanError::Damaged { record, what } => OpenError::JournalDamaged { disk: disk.to_owned(), record, what },
    }
}

/// Content of the indexes.
struct Loaded {
    indexes: Indexes,
    state: State,
    extent_map: ExtentMap,
    space: Space,
    extents: u64,
}

fn load_indexes(members: &[Member], durable: bool) -> Result<Loaded, OpenError> {
    let slots: Vec<u64> = members.iter().map(|m| m.label.slots).collect();
    let mut loaded = Loaded {
        indexes: Vec::new(),
        state: State::default(),
        extent_map: ExtentMap::default(),
        space: Space::new(&slots),
        extents: 0,
    };
    let checkpoint = members[0].label.checkpoint;
    for (number, member) in members.iter().enumerate() {
        let damaged = |what: String| OpenError::IndexDamaged { disk: member.device.name.clone(), what };
        let index = Index::open(&member.index, member.label.disk, member.label.slots, durable)
            .map_err(|e| damaged(e.text()))?;
        let at = index.checkpoint();
        if at != checkpoint && at != checkpoint + 1 {
            return Err(damaged(format!("it is of checkpoint {at}, the label of {checkpoint}")));
        }
        let mut highest_unconfirmed = std::collections::BTreeMap::new();
        index
            .walk(|entry| take_row(&mut loaded, &mut highest_unconfirmed, number, entry))
            .map_err(|e| damaged(e.text()))?;
        loaded.indexes.push(Arc::new(index));
    }
    Ok(loaded)
}

/// Adds one record of an index; `None` if it is invalid.
fn take_row(
    loaded: &mut Loaded,
    highest_unconfirmed: &mut std::collections::BTreeMap<u64, Seq>,
    disk: usize,
    entry: row::Entry<'_>,
) -> Option<()> {
    let row::Entry { key: name, value } = entry;
    let kind = *name.first()?;
    if kind == key::EXTENT {
        let [volume, extent, _birth] = key::parse(name)?;
        let (volume, extent) = (VolumeId(volume), ExtentIndex(extent));
        let record = row::ExtentRow::decode(value)?;
        if !loaded.space.take(disk, record.slot) || loaded.extent_map.get(volume, extent).is_some_and(|d| d != disk) {
            return None;
        }
        loaded.extent_map.set(volume, extent, Some(disk));
        loaded.extents += 1;
        return Some(());
    }
    if disk != 0 {
        return None;
    }
    let bits = || Box::<[u8]>::from(value).try_into().ok();
    let row = match kind {
        key::VOLUME => {
            let [id] = key::parse(name)?;
            let row = row::VolumeRow::decode(value)?;
            highest_unconfirmed.insert(id, row.unconfirmed_highest);
            row::Row::Volume(VolumeId(id), row)
        }
        key::DIRTY => {
            let [id, chunk] = key::parse(name)?;
            row::Row::Dirty(VolumeId(id), chunk, bits()?)
        }
        key::UNCONFIRMED => {
            let [id, chunk] = key::parse(name)?;
            row::Row::Unconfirmed(VolumeId(id), chunk, bits()?, *highest_unconfirmed.get(&id)?)
        }
        key::META => row::Row::Meta(name[1..].to_vec(), value.to_vec()),
        _ => return None,
    };
    loaded.state.restore(row)
}

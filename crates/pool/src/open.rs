//! Formats and opens pools. Opening reads the labels, then the indexes, then the journal, and only then writes labels.

mod assemble;
mod format;

use dyad_types::{ExtentIndex, NodeId, Seq, VolumeId};
pub use format::{FormatOptions, Overwrite};

use crate::disk::{Device, DiskError, PoolDisk};
use crate::extent_map::ExtentMap;
use crate::index::{Index, Indexes, key, row};
use crate::journal::scan::{self, ScanError};
use crate::journal::{Journal, Ring};
use crate::label::{self, Label};
use crate::overlay::Overlay;
use crate::pool::Pool;
use crate::space::FreeSlots;
use crate::state::MetadataState;
use crate::{OpenError, Position};
use assemble::LabelledDisk;
use std::sync::Arc;

/// Options of [`Pool::open`].
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Id of the pair, and the node, that the disks must belong to.
    pub expected: (u128, NodeId),
    /// Whether commits of the index are synced. False only in simulations, where no power is lost under the index.
    pub durable_index: bool,
}

/// Findings of [`Pool::open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Number of journal records replayed.
    pub replayed: u64,
    /// Number of data blocks of durable journal records that do not match their checksums. Reads of such a block fail
    /// until it is written again.
    pub corrupt_blocks: u64,
    /// Number of label copies that were damaged or missing, and were written again.
    pub repaired_labels: u32,
    /// Number of stored extents of all volumes.
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
        let labelled = assemble::labelled_disks(disks, options.expected)?;
        let devices: Arc<[Arc<Device>]> = labelled.iter().map(|disk| disk.device.clone()).collect();
        let mut label = labelled[0].label.clone();
        let mut report = OpenReport {
            repaired_labels: labelled.iter().map(|disk| disk.damaged_labels).sum(),
            ..OpenReport::default()
        };

        let loaded = load_indexes(&labelled, options.durable_index)?;
        report.extents = loaded.extents;

        let ring = Ring { device: devices[0].clone(), len: label.journal };
        let damaged = |error| journal_error(&devices[0].name, error);
        let end = scan::find_end(&ring, &label).map_err(damaged)?;
        report.corrupt_blocks = end.corrupt_pages.len() as u64;
        report.replayed = end.record - label.tail.record;

        let session = label.session + 1;
        report.session = session;
        let journal = Journal::resume(ring.clone(), &label, &end);
        let mut pool = Pool {
            label: label.clone(),
            devices: devices.clone(),
            indexes: loaded.indexes,
            extents_start: labelled.iter().map(|disk| disk.label.extents_start()).collect(),
            journal,
            state: loaded.state,
            active: Overlay::default(),
            running_checkpoint: None,
            extent_map: loaded.extent_map,
            space: loaded.space,
            sync_in_flight: false,
            operation_refused: false,
            position_at_idle_check: Position::default(),
            corrupt_blocks: report.corrupt_blocks,
            damaged: Vec::new(),
            corrupt_at_open: Arc::new(end.corrupt_pages.clone()),
            #[cfg(test)]
            planted: crate::tests::Planted::default(),
        };
        let apply = |record: &_, page, number| pool.apply(record, page, number);
        scan::replay(&ring, &labelled[0].label, &end, apply).map_err(damaged)?;
        if let Some(volume) = pool.extent_map.volumes().find(|v| !pool.state.volumes.contains_key(v)) {
            let what = format!("it holds extents of volume {volume}, which does not exist");
            return Err(OpenError::IndexDamaged { disk: devices[0].name.clone(), what });
        }

        label.generation += 1;
        label.session = session;
        label.resumed = end.record;
        label.floor = end.durable;
        write_labels(&labelled, &label)?;
        // After the labels, so that their syncs do not wait for it; before the first new record, so that every sync of a new
        // record covers the records before it.
        ring.rewrite(end.unproven..end.position)?;
        pool.label = label;
        Ok((pool, report))
    }
}

/// Writes the first disk's label, and the labels of other disks on which a copy was damaged.
fn write_labels(labelled: &[LabelledDisk], first: &Label) -> Result<(), DiskError> {
    for pool_disk in &labelled[1..] {
        if pool_disk.damaged_labels > 0 {
            let label = Label { generation: pool_disk.label.generation + 1, ..pool_disk.label.clone() };
            label::write(&pool_disk.device, &label)?;
        }
    }
    label::write(&labelled[0].device, first)
}

fn journal_error(disk: &str, error: ScanError) -> OpenError {
    match error {
        ScanError::Io(error) => error.into(),
        ScanError::Damaged { record, what } => OpenError::JournalDamaged { disk: disk.to_owned(), record, what },
    }
}

/// The content of all indexes.
struct LoadedIndexes {
    indexes: Indexes,
    state: MetadataState,
    extent_map: ExtentMap,
    space: FreeSlots,
    /// Number of stored extents.
    extents: u64,
}

fn load_indexes(labelled: &[LabelledDisk], durable: bool) -> Result<LoadedIndexes, OpenError> {
    let slots: Vec<u64> = labelled.iter().map(|disk| disk.label.slots).collect();
    let mut loaded = LoadedIndexes {
        indexes: Vec::new(),
        state: MetadataState::default(),
        extent_map: ExtentMap::default(),
        space: FreeSlots::new(&slots),
        extents: 0,
    };
    let checkpoint = labelled[0].label.checkpoint;
    for (number, pool_disk) in labelled.iter().enumerate() {
        let damaged = |what: String| OpenError::IndexDamaged { disk: pool_disk.device.name.clone(), what };
        let index = Index::open(&pool_disk.index, pool_disk.label.disk, pool_disk.label.slots, durable)
            .map_err(|e| damaged(e.text()))?;
        let at = index.checkpoint();
        if at != checkpoint && at != checkpoint + 1 {
            return Err(damaged(format!("it is of checkpoint {at}, the label of {checkpoint}")));
        }
        let mut highest_unconfirmed = std::collections::BTreeMap::new();
        index
            .walk(|entry| load_record(&mut loaded, &mut highest_unconfirmed, number, entry))
            .map_err(|e| damaged(e.text()))?;
        loaded.indexes.push(Arc::new(index));
    }
    Ok(loaded)
}

/// Adds one record of the index of disk `disk` to `loaded`; `None` if the record is invalid. `highest_unconfirmed`
/// holds, by volume, a field of the volume's record until the volume's unconfirmed extents follow.
fn load_record(
    loaded: &mut LoadedIndexes,
    highest_unconfirmed: &mut std::collections::BTreeMap<u64, Seq>,
    disk: usize,
    entry: row::IndexEntry<'_>,
) -> Option<()> {
    let row::IndexEntry { key: name, value } = entry;
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
            row::MetadataRow::Volume(VolumeId(id), row)
        }
        key::DIRTY => {
            let [id, chunk] = key::parse(name)?;
            row::MetadataRow::Dirty(VolumeId(id), chunk, bits()?)
        }
        key::UNCONFIRMED => {
            let [id, chunk] = key::parse(name)?;
            row::MetadataRow::Unconfirmed(VolumeId(id), chunk, bits()?, *highest_unconfirmed.get(&id)?)
        }
        key::META => row::MetadataRow::Meta(name[1..].to_vec(), value.to_vec()),
        _ => return None,
    };
    loaded.state.restore(row)
}

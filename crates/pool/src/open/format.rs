//! Formats disks: erases both ends, creates empty indexes, and writes the labels last.

use crate::disk::{Access, Device, PoolDisk};
use crate::index::Index;
use crate::inspect::{self, Inspection};
use crate::label::{DISKS_MAX, JournalTail, Label, NAME_MAX};
use crate::layout::{self, DiskSizes, MARGIN};
use crate::pool::Pool;
use crate::{FormatError, PoolIdentity, label};
use dyad_types::EXTENT;

/// Permission to overwrite disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Only disks whose first and last MiB are zero.
    BlankOnly,
    /// Disks with any content. The caller has the operator's confirmation that these disks may be erased.
    Anything,
}

/// Options of [`Pool::format`]. All random numbers of the new pool are among them.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// The pair and node that the disks will belong to.
    pub identity: PoolIdentity,
    /// One random id per disk, all different.
    pub disk_ids: Vec<u128>,
    /// Secret random number that each journal record will contain, so that guest data is never taken for a record.
    pub salt: u128,
    /// Length of the journal in bytes, rounded down to whole extents and limited to 4 MiB … 8 GiB. `None`: 1 % of the
    /// pool within 256 MiB … 8 GiB, at most a quarter of the first disk, but at least 4 MiB.
    pub journal_bytes: Option<u64>,
    /// Whether disks that are not blank may be overwritten.
    pub overwrite: Overwrite,
    /// Whether commits of the index are synced. False only in simulations, where no power is lost under the index.
    pub durable_index: bool,
}

impl Pool {
    /// Creates an empty pool on `disks`. The journal is on the first disk, which should be the fastest.
    ///
    /// # Errors
    /// See [`FormatError`]. After `Io` or `Index` the disks may be erased, and some may carry a label of the new pool
    /// already. That pool does not open, because its other disks have no label.
    pub fn format(disks: Vec<PoolDisk>, options: &FormatOptions) -> Result<(), FormatError> {
        let names = [&options.identity.pair_name, &options.identity.node_name];
        if disks.is_empty() || disks.len() > DISKS_MAX || options.disk_ids.len() != disks.len() {
            return Err(FormatError::InvalidOptions(
                "a node has 1 to 24 pool disks, each with its own id; choose them again",
            ));
        }
        if names.iter().any(|n| n.len() > NAME_MAX) {
            return Err(FormatError::InvalidOptions("names of pair and node may have 255 bytes; choose shorter ones"));
        }
        if (1..disks.len()).any(|i| options.disk_ids[..i].contains(&options.disk_ids[i])) {
            return Err(FormatError::InvalidOptions("two disks were given the same id; choose ids again"));
        }
        let devices: Vec<(Device, std::path::PathBuf)> =
            disks.into_iter().map(|d| (Device::new(d.name, d.device), d.index)).collect();
        let sizes: Vec<u64> = devices.iter().map(|(d, _)| d.size()).collect();
        let step = EXTENT as u64;
        let journal = options.journal_bytes.unwrap_or_else(|| layout::journal_bytes(&sizes));
        let journal = (journal / step * step).clamp(layout::JOURNAL_MIN, layout::JOURNAL_MAX);
        let journal_on = |number: usize| if number == 0 { journal } else { 0 };
        for (number, (device, _)) in devices.iter().enumerate() {
            let needed = layout::min_disk_bytes(journal_on(number));
            if device.size() < needed {
                return Err(FormatError::TooSmall { disk: device.name.clone(), bytes: device.size(), needed });
            }
            if options.overwrite == Overwrite::BlankOnly {
                refuse_if_not_blank(device)?;
            }
        }
        for (device, _) in &devices {
            let zeros = vec![0; MARGIN as usize];
            device.write(Access::Cached, 0, &zeros)?;
            device.write(Access::Cached, device.size() - MARGIN, &zeros)?;
            device.sync()?;
        }
        let labels: Vec<Label> = sizes
            .iter()
            .enumerate()
            .map(|(i, size)| first_label(options, i, DiskSizes { disk: *size, journal: journal_on(i) }))
            .collect();
        for ((_, index), label) in devices.iter().zip(&labels) {
            Index::create(index, label.disk, label.slots, options.durable_index)
                .map_err(|e| FormatError::Index { path: index.clone(), what: e.text() })?;
        }
        for ((device, _), label) in devices.iter().zip(&labels) {
            label::write(device, label)?;
        }
        Ok(())
    }
}

/// The label that the disk `number` gets when it is formatted.
fn first_label(options: &FormatOptions, number: usize, sizes: DiskSizes) -> Label {
    Label {
        version: label::FIRST_VERSION,
        generation: 1,
        identity: options.identity.clone(),
        disk: options.disk_ids[number],
        number: number as u16,
        disks: options.disk_ids.clone(),
        size: sizes.disk,
        journal: sizes.journal,
        slots: layout::slot_count(sizes),
        salt: options.salt,
        session: 0,
        resumed: 1,
        checkpoint: 0,
        tail: JournalTail { position: 0, record: 1, chain: 0, session: 0 },
        floor: 0,
    }
}

fn refuse_if_not_blank(device: &Device) -> Result<(), FormatError> {
    let what = match inspect::inspect_device(device)? {
        Inspection::Blank => return Ok(()),
        Inspection::Foreign { what } => what.to_owned(),
        Inspection::Unreadable { what } => what,
        Inspection::Pool { identity, .. } => {
            format!("node {} of the pair \"{}\"", identity.node_name, identity.pair_name)
        }
    };
    Err(FormatError::NotBlank { disk: device.name.clone(), what })
}

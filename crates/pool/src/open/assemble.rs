//! Reads the labels of the given disks, and checks that these are all disks of one pool and no other disks.

use crate::OpenError;
use crate::disk::{Device, PoolDisk};
use crate::inspect::{self, Inspection};
use crate::label::{self, Label};
use dyad_types::NodeId;
use std::path::PathBuf;
use std::sync::Arc;

/// A disk of the pool, with its label.
pub(super) struct LabelledDisk {
    pub device: Arc<Device>,
    /// Directory of the disk's index.
    pub index: PathBuf,
    pub label: Label,
    /// Number of label copies that are damaged or missing.
    pub damaged_labels: u32,
}

/// The disks with their labels, ascending by their number in the pool.
pub(super) fn labelled_disks(disks: Vec<PoolDisk>, expected: (u128, NodeId)) -> Result<Vec<LabelledDisk>, OpenError> {
    let mut labelled = disks.into_iter().map(|disk| labelled_disk(disk, expected)).collect::<Result<Vec<_>, _>>()?;
    labelled.sort_by_key(|disk| disk.label.number);
    let Some(first) = labelled.first() else {
        return Err(OpenError::DiskMissing { number: 0, count: 0 });
    };
    let (ids, salt) = (first.label.disks.clone(), first.label.salt);
    for disk in &labelled {
        if disk.label.disks != ids || disk.label.salt != salt {
            return Err(OpenError::Mixed { disk: disk.device.name.clone() });
        }
    }
    for pair in labelled.windows(2) {
        if pair[0].label.number == pair[1].label.number {
            return Err(OpenError::Mixed { disk: pair[1].device.name.clone() });
        }
    }
    for (number, _) in (0u16..).zip(&ids) {
        if labelled.get(usize::from(number)).is_none_or(|disk| disk.label.number != number) {
            return Err(OpenError::DiskMissing { number, count: ids.len() as u16 });
        }
    }
    Ok(labelled)
}

fn labelled_disk(disk: PoolDisk, expected: (u128, NodeId)) -> Result<LabelledDisk, OpenError> {
    let device = Device::new(disk.name, disk.device);
    let found = label::find(&device);
    let Some(label) = found.best else {
        return Err(unlabelled(device, found.newer, found.labelled));
    };
    if (label.identity.pool, label.identity.node) != expected {
        let (pair, node) = (label.identity.pair_name, label.identity.node_name);
        return Err(OpenError::ForeignDisk { disk: device.name, pair, node });
    }
    if device.size() < label.size {
        return Err(OpenError::Truncated { bytes: device.size(), expected: label.size, disk: device.name });
    }
    Ok(LabelledDisk { device: Arc::new(device), index: disk.index, label, damaged_labels: found.damaged })
}

/// The error for a disk without a good label.
fn unlabelled(device: Device, newer: Option<u32>, labelled: bool) -> OpenError {
    if let Some(version) = newer {
        return OpenError::Version { disk: device.name, version };
    }
    if labelled {
        return OpenError::LabelDamaged { disk: device.name };
    }
    match inspect::inspect_device(&device) {
        Ok(Inspection::Foreign { what }) => OpenError::NoLabel { disk: device.name, what: what.into() },
        Ok(_) => OpenError::NoLabel { disk: device.name, what: "it is blank".into() },
        Err(error) => error.into(),
    }
}

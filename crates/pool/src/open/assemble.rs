//! Identifies the given disks by their labels and checks that they are all disks of this pool and of no other.

use crate::OpenError;
use crate::disk::{Device, PoolDisk};
use crate::inspect::{self, Inspection};
use crate::label::{self, Label};
use dyad_types::NodeId;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) struct Member {
    pub device: Arc<Device>,
    pub index: PathBuf,
    pub label: Label,
    /// Number of label copies that are damaged or missing.
    pub damaged: u32,
}

/// The disks, ascending by their number in the pool.
pub(super) fn members(disks: Vec<PoolDisk>, expected: (u128, NodeId)) -> Result<Vec<Member>, OpenError> {
    let mut members = disks.into_iter().map(|disk| member(disk, expected)).collect::<Result<Vec<_>, _>>()?;
    members.sort_by_key(|m| m.label.number);
    let Some(first) = members.first() else {
        return Err(OpenError::DiskMissing { number: 0, count: 0 });
    };
    let (ids, salt) = (first.label.disks.clone(), first.label.salt);
    for member in &members {
        if member.label.disks != ids || member.label.salt != salt {
            return Err(OpenError::Mixed { disk: member.device.name.clone() });
        }
    }
    for pair in members.windows(2) {
        if pair[0].label.number == pair[1].label.number {
            return Err(OpenError::Mixed { disk: pair[1].device.name.clone() });
        }
    }
    for (number, _) in (0u16..).zip(&ids) {
        if members.get(usize::from(number)).is_none_or(|m| m.label.number != number) {
            return Err(OpenError::DiskMissing { number, count: ids.len() as u16 });
        }
    }
    Ok(members)
}

fn member(disk: PoolDisk, expected: (u128, NodeId)) -> Result<Member, OpenError> {
    let device = Device::new(disk.name, disk.device);
    let found = label::find(&device);
    let Some(label) = found.best else {
        return Err(unlabelled(device, found.newer, found.any));
    };
    if (label.identity.pool, label.identity.node) != expected {
        let (pair, node) = (label.identity.pair_name, label.identity.node_name);
        return Err(OpenError::ForeignDisk { disk: device.name, pair, node });
    }
    if device.size() < label.size {
        return Err(OpenError::Truncated { bytes: device.size(), expected: label.size, disk: device.name });
    }
    Ok(Member { device: Arc::new(device), index: disk.index, label, damaged: found.damaged })
}

fn unlabelled(device: Device, newer: Option<u32>, any: bool) -> OpenError {
    if let Some(version) = newer {
        return OpenError::Version { disk: device.name, version };
    }
    if any {
        return OpenError::LabelDamaged { disk: device.name };
    }
    match inspect::inspect_device(&device) {
        Ok(Inspection::Foreign { what }) => OpenError::NoLabel { disk: device.name, what: what.into() },
        Ok(_) => OpenError::NoLabel { disk: device.name, what: "it is blank".into() },
        Err(fault) => fault.into(),
    }
}

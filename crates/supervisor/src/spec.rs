//! The parameters with which a VM is started.

use std::path::PathBuf;

use dyad_desired::{Document, Firmware};
use dyad_types::VolumeId;

/// The data from which the QEMU command line is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Lower-case letters, digits and hyphens, as checked by `dyad-desired`.
    pub name: String,
    pub cpus: u32,
    pub memory_mib: u32,
    pub firmware: Firmware,
    /// The VM boots from the first one.
    pub disks: Vec<Disk>,
    pub network: VmNetwork,
    /// The value of `changed` of the VM in the document from which this was made.
    pub changed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The vhost-user socket of the disk's volume.
    pub socket: PathBuf,
}

/// The network connection of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VmNetwork {
    /// The VM has no network card.
    None,
    /// Outgoing connections through the node (QEMU's user network).
    #[default]
    User,
}

/// A volume of the VM is not open on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the disk {volume} of the VM {vm} is not open on this node; the VM starts as soon as it is")]
pub struct MissingDisk {
    pub vm: String,
    pub volume: String,
}

impl VmSpec {
    /// The parameters of the VM `name` in the document. `socket` returns the vhost-user socket of a volume that is open
    /// on this node.
    ///
    /// `Ok(None)` if the document has no such VM.
    ///
    /// # Errors
    ///
    /// [`MissingDisk`] if `socket` returns `None` for one of the VM's volumes.
    pub fn from_document(
        name: &str,
        document: &Document,
        mut socket: impl FnMut(VolumeId) -> Option<PathBuf>,
    ) -> Result<Option<Self>, MissingDisk> {
        let Some(vm) = document.vms.get(name) else { return Ok(None) };
        let mut disks = Vec::new();
        for volume in &vm.config.disks {
            let found = document.volumes.get(volume).and_then(|record| socket(record.id));
            let missing = || MissingDisk { vm: name.to_owned(), volume: volume.clone() };
            disks.push(Disk { socket: found.ok_or_else(missing)? });
        }
        Ok(Some(Self {
            name: name.to_owned(),
            cpus: vm.config.cpus,
            memory_mib: vm.config.memory_mib,
            firmware: vm.config.firmware,
            disks,
            network: VmNetwork::default(),
            changed: vm.changed,
        }))
    }
}

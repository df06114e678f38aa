//! What one VM needs to be started.

use std::path::PathBuf;

use dyad_desired::{Document, Firmware, VolumeId};

/// Everything that the command line of a VM is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Its name: letters, digits and dashes, as `dyad-desired` checks names.
    pub name: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// How it boots.
    pub firmware: Firmware,
    /// Its disks; the first one boots.
    pub disks: Vec<Disk>,
    /// Its network.
    pub network: Network,
    /// The VM's `changed` generation in the document this was made from.
    pub changed: u64,
}

/// One disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The vhost-user socket of its volume.
    pub socket: PathBuf,
}

/// How a VM reaches the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Not at all.
    None,
    /// Outgoing connections through the node.
    #[default]
    User,
}

/// A disk of the VM cannot be used on this node now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the disk {volume} of the VM {vm} is not open on this node; it starts as soon as the disk is")]
pub struct MissingDisk {
    /// The VM.
    pub vm: String,
    /// The volume.
    pub volume: String,
}

impl VmSpec {
    /// The VM `name` of the document. `socket` gives the vhost-user socket of a volume that is open here.
    ///
    /// `Ok(None)` if the document has no such VM.
    ///
    /// # Errors
    ///
    /// [`MissingDisk`] if `socket` has none for one of the VM's volumes.
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
            network: Network::default(),
            changed: vm.changed,
        }))
    }
}

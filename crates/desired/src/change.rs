//! The changes a document may see, and the one function that makes them.

use serde::{Deserialize, Serialize};

use crate::{
    Document, Firmware, Intent, NodeRecord, Policies, Refusal, User, UserRole, Vm, Volume, VolumeId, WitnessInfo,
    document::volume_size, limits, names, refusal::text,
};
use dyad_types::NodeId;

/// One change of the document. Made on the lead, replicated as part of volume 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A node joins, or reports its name, addresses and memory anew.
    SetNode {
        /// Which one.
        node: NodeId,
        /// What it reports.
        record: NodeRecord,
    },
    /// The witness was enrolled, or is given up (`None`).
    SetWitness {
        /// The new witness.
        witness: Option<WitnessInfo>,
    },
    /// A user's password is set; the user is made if new.
    SetPassword {
        /// The user.
        user: String,
        /// Argon2id hash in PHC text form.
        password_hash: String,
    },
    /// The choices for the whole pair.
    SetPolicies {
        /// All of them.
        policies: Policies,
    },
    /// A volume is made; it reads as zeros.
    CreateVolume {
        /// Its name.
        name: String,
        /// Its size in bytes, a whole number of MiB.
        size: u64,
        /// The node that writes it first.
        #[serde(alias = "home")]
        primary: NodeId,
    },
    /// A volume and all it holds is deleted.
    DeleteVolume {
        /// Its name.
        name: String,
    },
    /// An image is about to be sent into a volume: it gets a volume of the pool of its own. What came of an earlier one is
    /// dropped.
    BeginImport {
        /// Name of the volume.
        name: String,
    },
    /// The image is whole and durable: it is what the volume holds, and what it held before is dropped.
    FinishImport {
        /// Name of the volume.
        name: String,
        /// Number in the pool of what the image was sent into.
        id: VolumeId,
    },
    /// The image does not come: what came of it is dropped.
    DropImport {
        /// Name of the volume.
        name: String,
        /// Number in the pool of what the image was sent into.
        id: VolumeId,
    },
    /// A VM is made.
    CreateVm {
        /// Its name.
        name: String,
        /// What it is.
        vm: NewVm,
    },
    /// A stopped VM is deleted; its volumes stay.
    DeleteVm {
        /// Its name.
        name: String,
    },
    /// A VM shall run, stop, or was switched off by its guest.
    SetIntent {
        /// Its name.
        name: String,
        /// What it shall do.
        intent: Intent,
    },
    /// A node was lost: everything belongs to the survivor.
    #[serde(alias = "rehome")]
    FailOver {
        /// The node that goes on.
        survivor: NodeId,
    },
}

/// What a new VM is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVm {
    /// Virtual CPUs, 1 to 128.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// How it boots.
    pub firmware: Firmware,
    /// Names of its volumes, the first one boots.
    pub disks: Vec<String>,
    /// The node that may run it.
    #[serde(alias = "owner")]
    pub node: NodeId,
    /// Whether it starts at once.
    pub intent: Intent,
    /// Starting order, 0 (last) to 100 (first).
    pub priority: u8,
    /// Whether it is started on the survivor when its node is lost.
    pub ha: bool,
}

/// Makes one change, or refuses it and changes nothing.
///
/// # Errors
/// The [`Refusal`] whose sentence says why.
pub fn apply(document: &Document, change: &Change) -> Result<Document, Refusal> {
    let mut new = document.clone();
    new.generation += 1;
    match change {
        Change::SetNode { node, record } => set_node(&mut new, *node, record)?,
        Change::SetWitness { witness } => {
            witness.as_ref().map_or(Ok(()), WitnessInfo::check)?;
            new.witness.clone_from(witness);
        }
        Change::SetPassword { user, password_hash } => {
            names::check(user)?;
            text("The password hash", password_hash)?;
            let record = User { password_hash: password_hash.clone(), role: UserRole::Administrator };
            new.users.insert(user.clone(), record);
        }
        Change::SetPolicies { policies } => {
            policies.check()?;
            new.policies = policies.clone();
        }
        Change::CreateVolume { name, size, primary } => create_volume(&mut new, name, *size, *primary)?,
        Change::DeleteVolume { name } => delete_volume(&mut new, name)?,
        Change::BeginImport { name } => begin_import(&mut new, name)?,
        Change::FinishImport { name, id } => incoming(&mut new, name, *id)?.id = *id,
        Change::DropImport { name, id } => drop(incoming(&mut new, name, *id)?),
        Change::CreateVm { name, vm } => create_vm(&mut new, name, vm)?,
        Change::DeleteVm { name } => {
            if vm(&new, name)?.shall_run() {
                return Err(Refusal::VmRunning { name: name.clone() });
            }
            new.vms.remove(name);
        }
        Change::SetIntent { name, intent } => set_intent(&mut new, name, *intent)?,
        Change::FailOver { survivor } => new = fail_over(document, *survivor),
    }
    debug_assert_eq!(new.check(), Ok(()), "a change broke the document");
    Ok(new)
}

/// The document after `survivor` is the only node left: every VM and every volume is its own.
///
/// VMs without HA move as well, so that a volume's primary stays its VM's node, but they are set to stopped: they
/// ran on the lost node and nobody asked for them here. Nothing to change still gives a new generation.
#[must_use]
pub fn fail_over(document: &Document, survivor: NodeId) -> Document {
    let mut new = document.clone();
    new.generation += 1;
    for vm in new.vms.values_mut().filter(|vm| vm.node != survivor) {
        vm.node = survivor;
        vm.changed = new.generation;
        if !vm.ha && vm.shall_run() {
            vm.intent = Intent::Stopped;
        }
    }
    for volume in new.volumes.values_mut() {
        volume.primary = survivor;
    }
    new
}

fn vm<'a>(document: &'a Document, name: &str) -> Result<&'a Vm, Refusal> {
    document.vms.get(name).ok_or_else(|| Refusal::Unknown { kind: "VM", name: names::printable(name) })
}

fn joined(document: &Document, node: NodeId) -> Result<(), Refusal> {
    if document.nodes.contains_key(&node) { Ok(()) } else { Err(Refusal::NoNode { node }) }
}

fn set_node(new: &mut Document, node: NodeId, record: &NodeRecord) -> Result<(), Refusal> {
    record.check()?;
    if new.nodes.get(&node.peer()).is_some_and(|peer| peer.name == record.name) {
        return Err(Refusal::NameExists { kind: "node", name: record.name.clone() });
    }
    new.nodes.insert(node, record.clone());
    Ok(())
}

fn create_volume(new: &mut Document, name: &str, size: u64, primary: NodeId) -> Result<(), Refusal> {
    names::check(name)?;
    volume_size(size)?;
    joined(new, primary)?;
    if new.volumes.contains_key(name) {
        return Err(Refusal::NameExists { kind: "volume", name: name.to_owned() });
    }
    if new.volumes.len() >= limits::VOLUMES {
        return Err(Refusal::TooMany { kind: "volumes", max: limits::VOLUMES });
    }
    new.volumes.insert(name.to_owned(), Volume { id: new.next_volume, size, primary, incoming: None });
    new.next_volume += 1;
    Ok(())
}

fn delete_volume(new: &mut Document, name: &str) -> Result<(), Refusal> {
    if let Some(vm) = new.user_of(name) {
        return Err(Refusal::VolumeInUse { volume: name.to_owned(), vm: vm.to_owned() });
    }
    // With it goes what an image is being sent into: whoever sends it is told, and a full pool has room again.
    new.volumes.remove(name).map(drop).ok_or_else(|| no_volume(name))
}

fn begin_import(new: &mut Document, name: &str) -> Result<(), Refusal> {
    if let Some(vm) = new.user_of(name) {
        return Err(Refusal::VolumeInUse { volume: name.to_owned(), vm: vm.to_owned() });
    }
    new.volumes.get_mut(name).ok_or_else(|| no_volume(name))?.incoming = Some(new.next_volume);
    new.next_volume += 1;
    Ok(())
}

/// The volume that no image is on its way into any more, if it was this one.
fn incoming<'a>(new: &'a mut Document, name: &str, id: VolumeId) -> Result<&'a mut Volume, Refusal> {
    let volume = new.volumes.get_mut(name).ok_or_else(|| no_volume(name))?;
    let ended = volume.incoming.take_if(|coming| *coming == id);
    ended.map(|_| volume).ok_or_else(|| Refusal::NoImage { volume: name.to_owned() })
}

fn no_volume(name: &str) -> Refusal {
    Refusal::Unknown { kind: "volume", name: names::printable(name) }
}

fn create_vm(new: &mut Document, name: &str, wanted: &NewVm) -> Result<(), Refusal> {
    names::check(name)?;
    joined(new, wanted.node)?;
    if new.vms.contains_key(name) {
        return Err(Refusal::NameExists { kind: "VM", name: name.to_owned() });
    }
    if new.vms.len() >= limits::VMS {
        return Err(Refusal::TooMany { kind: "VMs", max: limits::VMS });
    }
    let vm = Vm {
        cpus: wanted.cpus,
        memory_mib: wanted.memory_mib,
        firmware: wanted.firmware,
        disks: wanted.disks.clone(),
        node: wanted.node,
        intent: wanted.intent,
        priority: wanted.priority,
        ha: wanted.ha,
        changed: new.generation,
    };
    vm.check_numbers()?;
    for (i, disk) in vm.disks.iter().enumerate() {
        if vm.disks[..i].contains(disk) {
            return Err(Refusal::DiskTwice { volume: disk.clone() });
        }
        if let Some(user) = new.user_of(disk) {
            return Err(Refusal::VolumeInUse { volume: disk.clone(), vm: user.to_owned() });
        }
        let volume = new.volumes.get_mut(disk).ok_or_else(|| no_volume(disk))?;
        if volume.incoming.is_some() {
            return Err(Refusal::ImageComing { volume: disk.clone() });
        }
        volume.primary = vm.node;
    }
    fits(new, name, &vm, new.needed_memory_mib())?;
    new.vms.insert(name.to_owned(), vm);
    Ok(())
}

fn set_intent(new: &mut Document, name: &str, intent: Intent) -> Result<(), Refusal> {
    let before = vm(new, name)?;
    if intent == Intent::Running && !before.shall_run() {
        // A node may have come back with less than the VMs were admitted for.
        let running: u64 = new.vms.values().filter(|v| v.shall_run()).map(Vm::needed_memory_mib).sum();
        fits(new, name, before, running)?;
    }
    let generation = new.generation;
    if let Some(vm) = new.vms.get_mut(name) {
        vm.intent = intent;
        vm.changed = generation;
    }
    Ok(())
}

/// Whether `vm` fits beside VMs that need `others_mib`. Either node must be able to carry all of them alone.
fn fits(document: &Document, name: &str, vm: &Vm, others_mib: u64) -> Result<(), Refusal> {
    // A guest with more CPUs than processors waits for those of its own that do not run.
    if let Some(usable_cpus) = document.usable_cpus().filter(|usable| vm.cpus > *usable) {
        return Err(Refusal::TooManyCpus { name: name.to_owned(), cpus: vm.cpus, usable_cpus });
    }
    let needed_mib = others_mib + vm.needed_memory_mib();
    match document.usable_memory_mib() {
        Some(usable_mib) if needed_mib > usable_mib => {
            Err(Refusal::DoesNotFit { name: name.to_owned(), needed_mib, usable_mib })
        }
        _ => Ok(()),
    }
}

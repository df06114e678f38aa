//! All changes of a document, and the function that applies one of them.

use serde::{Deserialize, Serialize};

use crate::{
    Document, Intent, NodeRecord, Policies, Refusal, User, UserRole, Vm, VmConfig, Volume, WitnessInfo,
    document::check_volume_size, limits, names, refusal::check_text,
};
use dyad_types::{NodeId, VolumeId};

/// One change of the document. It is applied on the lead and replicated as a write to volume 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Adds a node, or replaces its record. Each node asks for this change itself when its name, its addresses, its memory
    /// or its processors differ from the record; the lead asks for it when a second node joins.
    SetNode {
        node: NodeId,
        record: NodeRecord,
    },
    /// Sets the witness after its enrolment; `None` removes it.
    SetWitness {
        witness: Option<WitnessInfo>,
    },
    /// Sets a user's password; creates the user if it does not exist.
    SetPassword {
        user: String,
        /// Argon2id hash in PHC text form.
        password_hash: String,
    },
    SetPolicies {
        policies: Policies,
    },
    /// Creates a volume that reads as zeros.
    CreateVolume {
        name: String,
        /// Size in bytes, a whole number of MiB.
        size: u64,
        /// The node that writes the volume until a VM uses it.
        #[serde(alias = "home")]
        primary: NodeId,
    },
    /// Deletes a volume with its content.
    DeleteVolume {
        name: String,
    },
    /// Begins an import into a volume: assigns a new volume id, into which the image is sent. An earlier, unfinished
    /// import into the same volume is cancelled.
    BeginImport {
        /// Name of the volume.
        name: String,
    },
    /// Ends an import whose image is complete and durable: the image becomes the volume's content, and the previous
    /// content is dropped.
    FinishImport {
        /// Name of the volume.
        name: String,
        /// The volume id into which the image was sent.
        id: VolumeId,
    },
    /// Cancels an import: the data sent so far is dropped.
    DropImport {
        /// Name of the volume.
        name: String,
        /// The volume id into which the image was sent.
        id: VolumeId,
    },
    CreateVm {
        name: String,
        vm: VmConfig,
    },
    /// Deletes a stopped VM; its volumes stay. Only the VM's node can make sure that the VM has no process, so that node
    /// asks for this change.
    DeleteVm {
        name: String,
        /// The VM's node, which has found no process of the VM.
        node: NodeId,
        /// [`Vm::changed`] of the VM when its node found no process. A VM that was changed since may have been started.
        changed: u64,
    },
    /// Sets the intent of a VM: running, stopped, or shut down by its guest. Refused if a VM that shall run does not fit
    /// on one node together with the VMs that shall run already.
    SetIntent {
        /// Name of the VM.
        name: String,
        intent: Intent,
    },
    /// Moves every VM and volume to the surviving node. The core makes this change once the other node is out of the
    /// in-sync set and can run no VM any more.
    #[serde(alias = "rehome")]
    FailOver {
        survivor: NodeId,
    },
}

/// Applies one change and returns the new document, or refuses the change.
///
/// # Errors
/// The change breaks a rule of the document; the old document stays valid.
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
            check_text("The password hash", password_hash)?;
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
        Change::FinishImport { name, id } => end_import(&mut new, name, *id)?.id = *id,
        Change::DropImport { name, id } => drop(end_import(&mut new, name, *id)?),
        Change::CreateVm { name, vm } => create_vm(&mut new, name, vm)?,
        Change::DeleteVm { name, node, changed } => {
            let vm = find_vm(&new, name)?;
            if vm.shall_run() {
                return Err(Refusal::VmRunning { name: name.clone() });
            }
            if (vm.config.node, vm.changed) != (*node, *changed) {
                return Err(Refusal::VmChanged { name: name.clone() });
            }
            new.vms.remove(name);
        }
        Change::SetIntent { name, intent } => set_intent(&mut new, name, *intent)?,
        Change::FailOver { survivor } => new = fail_over(document, *survivor),
    }
    debug_assert_eq!(new.check(), Ok(()), "a change broke the document");
    Ok(new)
}

/// The document with `survivor` as the node of every VM and the primary of every volume.
///
/// VMs without HA move as well, because a volume's primary must be its VM's node. They are set to stopped, because no
/// user asked to run them on this node. The generation grows even if nothing else changes.
#[must_use]
pub fn fail_over(document: &Document, survivor: NodeId) -> Document {
    let mut new = document.clone();
    new.generation += 1;
    for vm in new.vms.values_mut().filter(|vm| vm.config.node != survivor) {
        vm.config.node = survivor;
        vm.changed = new.generation;
        if !vm.config.ha && vm.shall_run() {
            vm.config.intent = Intent::Stopped;
        }
    }
    for volume in new.volumes.values_mut() {
        volume.primary = survivor;
    }
    new
}

fn find_vm<'a>(document: &'a Document, name: &str) -> Result<&'a Vm, Refusal> {
    document.vms.get(name).ok_or_else(|| Refusal::Unknown { kind: "VM", name: names::printable(name) })
}

fn require_joined(document: &Document, node: NodeId) -> Result<(), Refusal> {
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
    check_volume_size(size)?;
    require_joined(new, primary)?;
    if new.volumes.contains_key(name) {
        return Err(Refusal::NameExists { kind: "volume", name: name.to_owned() });
    }
    if new.volumes.len() >= limits::VOLUMES_MAX {
        return Err(Refusal::TooMany { kind: "volumes", max: limits::VOLUMES_MAX });
    }
    new.volumes.insert(name.to_owned(), Volume { id: new.next_volume, size, primary, incoming: None });
    new.next_volume.0 += 1;
    Ok(())
}

fn delete_volume(new: &mut Document, name: &str) -> Result<(), Refusal> {
    if let Some(vm) = new.vm_using(name) {
        return Err(Refusal::VolumeInUse { volume: name.to_owned(), vm: vm.to_owned() });
    }
    // An unfinished import ends with the volume: its sender gets a refusal, and its space in the pool is freed.
    new.volumes.remove(name).map(drop).ok_or_else(|| unknown_volume(name))
}

fn begin_import(new: &mut Document, name: &str) -> Result<(), Refusal> {
    if let Some(vm) = new.vm_using(name) {
        return Err(Refusal::VolumeInUse { volume: name.to_owned(), vm: vm.to_owned() });
    }
    new.volumes.get_mut(name).ok_or_else(|| unknown_volume(name))?.incoming = Some(new.next_volume);
    new.next_volume.0 += 1;
    Ok(())
}

/// Ends the import of volume id `id` into the volume `name` and returns the volume.
fn end_import<'a>(new: &'a mut Document, name: &str, id: VolumeId) -> Result<&'a mut Volume, Refusal> {
    let volume = new.volumes.get_mut(name).ok_or_else(|| unknown_volume(name))?;
    let ended = volume.incoming.take_if(|coming| *coming == id);
    ended.map(|_| volume).ok_or_else(|| Refusal::NoImage { volume: name.to_owned() })
}

fn unknown_volume(name: &str) -> Refusal {
    Refusal::Unknown { kind: "volume", name: names::printable(name) }
}

fn create_vm(new: &mut Document, name: &str, wanted: &VmConfig) -> Result<(), Refusal> {
    names::check(name)?;
    require_joined(new, wanted.node)?;
    if new.vms.contains_key(name) {
        return Err(Refusal::NameExists { kind: "VM", name: name.to_owned() });
    }
    if new.vms.len() >= limits::VMS_MAX {
        return Err(Refusal::TooMany { kind: "VMs", max: limits::VMS_MAX });
    }
    let vm = Vm { config: wanted.clone(), changed: new.generation };
    vm.check_numbers()?;
    for (i, disk) in vm.config.disks.iter().enumerate() {
        if vm.config.disks[..i].contains(disk) {
            return Err(Refusal::DiskTwice { volume: disk.clone() });
        }
        if let Some(user) = new.vm_using(disk) {
            return Err(Refusal::VolumeInUse { volume: disk.clone(), vm: user.to_owned() });
        }
        let volume = new.volumes.get_mut(disk).ok_or_else(|| unknown_volume(disk))?;
        if volume.incoming.is_some() {
            return Err(Refusal::ImageComing { volume: disk.clone() });
        }
        volume.primary = vm.config.node;
    }
    require_fit(new, name, &vm, new.needed_memory_mib())?;
    new.vms.insert(name.to_owned(), vm);
    Ok(())
}

fn set_intent(new: &mut Document, name: &str, intent: Intent) -> Result<(), Refusal> {
    let before = find_vm(new, name)?;
    if intent == Intent::Running && !before.shall_run() {
        // A node may have restarted with less memory than the VMs were admitted for.
        require_fit(new, name, before, new.running_memory_mib())?;
    }
    let generation = new.generation;
    if let Some(vm) = new.vms.get_mut(name) {
        vm.config.intent = intent;
        vm.changed = generation;
    }
    Ok(())
}

/// Refuses `vm` if it does not fit beside VMs that need `others_mib`: each node must be able to run all VMs alone.
fn require_fit(document: &Document, name: &str, vm: &Vm, others_mib: u64) -> Result<(), Refusal> {
    // With more virtual CPUs than processors, a guest waits for its own virtual CPUs that are not scheduled.
    if let Some(usable_cpus) = document.usable_cpus().filter(|usable| vm.config.cpus > *usable) {
        return Err(Refusal::TooManyCpus { name: name.to_owned(), cpus: vm.config.cpus, usable_cpus });
    }
    let needed_mib = others_mib + vm.needed_memory_mib();
    match document.usable_memory_mib() {
        Some(usable_mib) if needed_mib > usable_mib => {
            Err(Refusal::DoesNotFit { name: name.to_owned(), needed_mib, usable_mib })
        }
        _ => Ok(()),
    }
}

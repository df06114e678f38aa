//! The document's types and the check of its invariants.

use std::collections::{BTreeMap, BTreeSet};

use dyad_types::{NodeId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::{
    Refusal, limits, names,
    refusal::{check_range, check_text},
};

/// Name of the administrator, the user that is created with the pair.
pub const ADMIN: &str = "admin";

/// The desired state of the pair, replicated to both nodes in volume 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Version of this structure: [`limits::FORMAT_VERSION`] in a new document. A higher number makes the document unreadable
    /// for this program.
    pub format: u32,
    /// Grows by one with each change. The first document has 1, so that 0 can mean "no document".
    pub generation: u64,
    pub pair: String,
    /// The nodes that belong to the pair.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub volumes: BTreeMap<String, Volume>,
    pub vms: BTreeMap<String, Vm>,
    /// Users by name; [`ADMIN`] is created with the pair.
    pub users: BTreeMap<String, User>,
    /// `None` until a witness is enrolled.
    pub witness: Option<WitnessInfo>,
    pub policies: Policies,
    /// The volume id that the next volume gets.
    pub next_volume: VolumeId,
}

/// The facts that a node reported about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The name that people gave the node.
    pub name: String,
    /// Management addresses, as last reported by the node, without ports.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Memory for VMs on this node, in MiB. 0 means not reported yet; such a node does not limit the VMs.
    #[serde(default)]
    pub usable_memory_mib: u64,
    /// Processors for VMs on this node. 0 means not reported yet; such a node does not limit the VMs.
    #[serde(default)]
    pub usable_cpus: u32,
}

/// A virtual disk in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: VolumeId,
    /// Size in bytes, a whole number of MiB.
    pub size: u64,
    /// The node that writes the volume.
    #[serde(alias = "home")]
    pub primary: NodeId,
    /// The volume id into which an image is being sent. It replaces `id` when the image is complete; until then the
    /// volume's content does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<VolumeId>,
}

impl Volume {
    /// The volume ids of this volume: `id`, and `incoming` during an import.
    pub fn ids(&self) -> impl Iterator<Item = VolumeId> + use<> {
        [Some(self.id), self.incoming].into_iter().flatten()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    Bios,
    #[default]
    Uefi,
}

/// The state that a VM is meant to have. Its actual state is never stored in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// The VM shall run. It is started again after a crash, and with `ha` also after the loss of its node.
    Running,
    /// Stopped by a user, or by the fail-over of a VM without `ha`.
    #[default]
    Stopped,
    /// Shut down from inside by its own operating system. It stays off, also after a fail-over, until a user starts it.
    GuestShutDown,
}

/// The virtual hardware, the node and the intent of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmConfig {
    /// Virtual CPUs, 1 to 128.
    pub cpus: u32,
    pub memory_mib: u32,
    pub firmware: Firmware,
    /// Names of the VM's volumes; the VM boots from the first one.
    pub disks: Vec<String>,
    /// The node that may run the VM.
    #[serde(alias = "owner")]
    pub node: NodeId,
    pub intent: Intent,
    /// Starting order after a fail-over, 0 (last) to 100 (first).
    pub priority: u8,
    /// Whether the VM is started on the survivor when its node is lost.
    pub ha: bool,
}

/// A virtual machine: in JSON, the fields of its configuration and `changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    #[serde(flatten)]
    pub config: VmConfig,
    /// Generation of the document in which the VM was created or its intent or its node last changed. The supervisor
    /// notes it at each start of the VM, to tell later whether the VM was changed after that start.
    pub changed: u64,
}

/// A user who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Argon2id hash in PHC text form.
    pub password_hash: String,
    pub role: UserRole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// May call every route of the API.
    Administrator,
}

/// The address and the identity of the pair's witness, set by its enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessInfo {
    /// Host name or address, with port.
    pub address: String,
    /// The witness's id, in hexadecimal.
    pub id: String,
    /// SHA-256 of the witness's certificate, in hexadecimal.
    pub fingerprint: String,
}

/// Settings for the whole pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Time that a guest gets to shut down before it is killed, in seconds.
    pub shutdown_grace_s: u32,
}

impl Default for Policies {
    fn default() -> Self {
        Policies { shutdown_grace_s: 60 }
    }
}

impl Document {
    /// The first document of a pair: one node and the user [`ADMIN`].
    ///
    /// # Errors
    /// The name of the pair or of the node breaks the rule of [`names::check`], or the hash is empty, too long or not
    /// printable.
    pub fn new_pair(pair: &str, node: NodeRecord, admin_hash: &str) -> Result<Document, Refusal> {
        let admin = User { password_hash: admin_hash.to_owned(), role: UserRole::Administrator };
        let document = Document {
            format: limits::FORMAT_VERSION,
            generation: 1,
            pair: pair.to_owned(),
            nodes: BTreeMap::from([(NodeId::A, node)]),
            volumes: BTreeMap::new(),
            vms: BTreeMap::new(),
            users: BTreeMap::from([(ADMIN.to_owned(), admin)]),
            witness: None,
            policies: Policies::default(),
            next_volume: VolumeId(1),
        };
        document.check()?;
        Ok(document)
    }

    /// Memory for VMs in MiB after the loss of one node: the smallest figure that a node has reported. `None` if no node
    /// has reported one.
    #[must_use]
    pub fn usable_memory_mib(&self) -> Option<u64> {
        self.nodes.values().map(|n| n.usable_memory_mib).filter(|m| *m > 0).min()
    }

    /// Processors for VMs after the loss of one node: the smallest figure that a node has reported. `None` if no node has
    /// reported one.
    #[must_use]
    pub fn usable_cpus(&self) -> Option<u32> {
        self.nodes.values().map(|n| n.usable_cpus).filter(|c| *c > 0).min()
    }

    /// Memory in MiB of the VMs that shall run, with [`limits::VM_OVERHEAD_MIB`] for each.
    #[must_use]
    pub fn running_memory_mib(&self) -> u64 {
        self.vms.values().filter(|vm| vm.shall_run()).map(Vm::needed_memory_mib).sum()
    }

    /// Memory in MiB of all VMs, running or not, with [`limits::VM_OVERHEAD_MIB`] for each.
    #[must_use]
    pub fn needed_memory_mib(&self) -> u64 {
        self.vms.values().map(Vm::needed_memory_mib).sum()
    }

    /// Sizes in bytes of all volumes of the pool that this document names, by volume id, with the volumes of unfinished
    /// imports and without volume 0.
    #[must_use]
    pub fn volume_sizes(&self) -> BTreeMap<VolumeId, u64> {
        self.volumes.values().flat_map(|volume| volume.ids().map(|id| (id, volume.size))).collect()
    }

    /// Name of the VM that has this volume as a disk, whether the VM runs or not.
    #[must_use]
    pub fn vm_using(&self, volume: &str) -> Option<&str> {
        self.vms.iter().find(|(_, vm)| vm.config.disks.iter().any(|d| d == volume)).map(|(name, _)| name.as_str())
    }

    /// Checks the invariants of the crate that can be seen in one document. A document read from a disk or a peer is
    /// checked before use.
    ///
    /// Whether the VMs fit into the memory and the processors of a node is not checked: a node may restart with less,
    /// and its VMs stay in the document.
    ///
    /// # Errors
    /// The first violated invariant, as the refusal that fits it best.
    pub fn check(&self) -> Result<(), Refusal> {
        names::check(&self.pair)?;
        let mut node_names = BTreeSet::new();
        for record in self.nodes.values() {
            record.check()?;
            if !node_names.insert(&record.name) {
                return Err(Refusal::NameExists { kind: "node", name: record.name.clone() });
            }
        }
        if self.volumes.len() > limits::VOLUMES_MAX {
            return Err(Refusal::TooMany { kind: "volumes", max: limits::VOLUMES_MAX });
        }
        let mut ids = BTreeSet::new();
        for (name, volume) in &self.volumes {
            names::check(name)?;
            check_volume_size(volume.size)?;
            for id in volume.ids() {
                check_range("The id of a volume", id.0, 1..=self.next_volume.0.saturating_sub(1), "")?;
                if !ids.insert(id) {
                    return Err(Refusal::NameExists { kind: "volume", name: name.clone() });
                }
            }
        }
        if self.vms.len() > limits::VMS_MAX {
            return Err(Refusal::TooMany { kind: "VMs", max: limits::VMS_MAX });
        }
        let mut used = BTreeSet::new();
        for (name, vm) in &self.vms {
            names::check(name)?;
            vm.check_numbers()?;
            for disk in &vm.config.disks {
                let volume = self.volumes.get(disk);
                let volume = volume.ok_or_else(|| Refusal::Unknown { kind: "volume", name: disk.clone() })?;
                if !used.insert(disk) || volume.primary != vm.config.node {
                    return Err(Refusal::VolumeInUse { volume: disk.clone(), vm: name.clone() });
                }
                if volume.incoming.is_some() {
                    return Err(Refusal::ImageComing { volume: disk.clone() });
                }
            }
        }
        for (name, user) in &self.users {
            names::check(name)?;
            check_text("The password hash", &user.password_hash)?;
        }
        if let Some(witness) = &self.witness {
            witness.check()?;
        }
        self.policies.check()
    }
}

impl NodeRecord {
    /// Checks the name and the addresses.
    ///
    /// # Errors
    /// [`Refusal::BadName`], [`Refusal::TooMany`] or [`Refusal::BadText`].
    pub fn check(&self) -> Result<(), Refusal> {
        names::check(&self.name)?;
        if self.addresses.len() > limits::ADDRESSES_MAX {
            return Err(Refusal::TooMany { kind: "addresses of one node", max: limits::ADDRESSES_MAX });
        }
        self.addresses.iter().try_for_each(|a| check_text("An address", a))
    }
}

impl Vm {
    /// Memory in MiB that this VM needs on its node: its guest's memory and [`limits::VM_OVERHEAD_MIB`].
    #[must_use]
    pub fn needed_memory_mib(&self) -> u64 {
        u64::from(self.config.memory_mib) + limits::VM_OVERHEAD_MIB
    }

    /// Whether the VM is meant to run.
    #[must_use]
    pub fn shall_run(&self) -> bool {
        self.config.intent == Intent::Running
    }

    pub(crate) fn check_numbers(&self) -> Result<(), Refusal> {
        check_range("The number of CPUs", self.config.cpus.into(), 1..=limits::CPUS_MAX.into(), "CPUs")?;
        let (min, max) = (limits::MEMORY_MIN_MIB.into(), limits::MEMORY_MAX_MIB.into());
        check_range("The memory of a VM", self.config.memory_mib.into(), min..=max, "MiB")?;
        check_range("The priority", self.config.priority.into(), 0..=limits::PRIORITY_MAX.into(), "(last to first)")?;
        if self.config.disks.len() > limits::DISKS_MAX {
            return Err(Refusal::TooMany { kind: "disks of one VM", max: limits::DISKS_MAX });
        }
        Ok(())
    }
}

impl WitnessInfo {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_text("The address of the witness", &self.address)?;
        check_text("The id of the witness", &self.id)?;
        check_text("The fingerprint of the witness", &self.fingerprint)
    }
}

impl Policies {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let (min, max) = (*limits::GRACE_PERIOD_S.start(), *limits::GRACE_PERIOD_S.end());
        check_range("The time to shut down", self.shutdown_grace_s.into(), min.into()..=max.into(), "seconds")
    }
}

/// Refuses a volume size that is out of range or not a whole number of MiB.
pub(crate) fn check_volume_size(size: u64) -> Result<(), Refusal> {
    let mib = size / limits::MIB;
    let (min, max) = (limits::VOLUME_MIN / limits::MIB, limits::VOLUME_MAX / limits::MIB);
    check_range("The size of a volume", mib, min..=max, "MiB")?;
    if size.is_multiple_of(limits::MIB) { Ok(()) } else { Err(Refusal::NotWholeMib { given: size }) }
}

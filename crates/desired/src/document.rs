//! The document's types and the check of its invariants.

use std::collections::{BTreeMap, BTreeSet};

use dyad_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::{
    Refusal, limits, names,
    refusal::{range, text},
};

/// Number of a volume in the pool. 0 is the document itself; user volumes count from 1 and are never reused.
pub type VolumeId = u64;

/// What the pair is meant to be. Replicated to both nodes in volume 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Version of this shape; see [`limits::FORMAT`].
    pub format: u32,
    /// Grows by one with each change; the founding document has 1, so that 0 can mean "none".
    pub generation: u64,
    /// Name of the pair.
    pub pair: String,
    /// The nodes that are part of the pair.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// VMs by name.
    pub vms: BTreeMap<String, Vm>,
    /// Users by name; "admin" is made at the founding.
    pub users: BTreeMap<String, User>,
    /// The witness, once it is enrolled.
    pub witness: Option<WitnessInfo>,
    /// Choices that hold for the whole pair.
    pub policies: Policies,
    /// Id the next volume gets.
    pub next_volume: VolumeId,
}

/// What the pair knows of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Name people gave the node.
    pub name: String,
    /// Management addresses, newest list the node itself reported, without ports.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Memory VMs may use on this node, in MiB; 0 = not reported yet (then it does not limit anything).
    #[serde(default)]
    pub usable_memory_mib: u64,
    /// Processors VMs may use on this node; 0 = not reported yet (then it does not limit anything).
    #[serde(default)]
    pub usable_cpus: u32,
}

/// One virtual disk in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Number in the pool.
    pub id: VolumeId,
    /// Size in bytes, a whole number of MiB.
    pub size: u64,
    /// The node that writes it.
    #[serde(alias = "home")]
    pub primary: NodeId,
    /// Number in the pool of what an image is being sent into. It takes the place of `id` when the image is whole; until
    /// then nothing of what the volume holds is touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<VolumeId>,
}

impl Volume {
    /// Every number in the pool that belongs to it.
    pub fn ids(&self) -> impl Iterator<Item = VolumeId> + use<> {
        [Some(self.id), self.incoming].into_iter().flatten()
    }
}

/// How a VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    #[default]
    Uefi,
}

/// What a VM is meant to do. What it really does is observed elsewhere and never stored here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// It runs, and is started again when it or its node dies.
    Running,
    /// Someone stopped it through the pair.
    #[default]
    Stopped,
    /// Its own operating system switched it off; HA leaves it off.
    GuestShutDown,
}

/// One virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Virtual CPUs.
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
    /// What it is meant to do.
    pub intent: Intent,
    /// Starting order after a fail-over, 0 (last) to 100 (first).
    pub priority: u8,
    /// Whether it is started on the survivor when its node is lost.
    pub ha: bool,
    /// Generation of the document in which this record last changed: lets an observer tell an old state from a new one.
    pub changed: u64,
}

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Argon2id hash in PHC text form.
    pub password_hash: String,
    /// What the user may do.
    pub role: UserRole,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// Everything.
    Administrator,
}

/// How to reach the witness and how to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessInfo {
    /// Host name or address with port.
    pub address: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: String,
}

/// Choices for the whole pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// How long a guest gets to shut down before it is stopped hard, in seconds.
    pub shutdown_grace_s: u32,
}

impl Default for Policies {
    fn default() -> Self {
        Policies { shutdown_grace_s: 60 }
    }
}

impl Document {
    /// The founding document: one node, one user "admin", nothing else.
    ///
    /// # Errors
    /// A name that breaks the rule, or a hash that is not a printable text.
    pub fn found(pair: &str, node: NodeRecord, admin_hash: &str) -> Result<Document, Refusal> {
        let admin = User { password_hash: admin_hash.to_owned(), role: UserRole::Administrator };
        let document = Document {
            format: limits::FORMAT,
            generation: 1,
            pair: pair.to_owned(),
            nodes: BTreeMap::from([(NodeId::A, node)]),
            volumes: BTreeMap::new(),
            vms: BTreeMap::new(),
            users: BTreeMap::from([("admin".to_owned(), admin)]),
            witness: None,
            policies: Policies::default(),
            next_volume: 1,
        };
        document.check()?;
        Ok(document)
    }

    /// Memory one node has for VMs when the other one is lost, in MiB: the least any node reported, if any did.
    #[must_use]
    pub fn usable_memory_mib(&self) -> Option<u64> {
        self.nodes.values().map(|n| n.usable_memory_mib).filter(|m| *m > 0).min()
    }

    /// Processors of one node when the other one is lost: the least any node reported, if any did.
    #[must_use]
    pub fn usable_cpus(&self) -> Option<u32> {
        self.nodes.values().map(|n| n.usable_cpus).filter(|c| *c > 0).min()
    }

    /// Memory all VMs together need with their overhead, in MiB.
    #[must_use]
    pub fn needed_memory_mib(&self) -> u64 {
        self.vms.values().map(Vm::needed_memory_mib).sum()
    }

    /// Sizes in bytes of the pool's volumes that belong to this document, by their numbers; without volume 0.
    #[must_use]
    pub fn stored(&self) -> BTreeMap<VolumeId, u64> {
        self.volumes.values().flat_map(|volume| volume.ids().map(|id| (id, volume.size))).collect()
    }

    /// The VM that has this volume as a disk.
    #[must_use]
    pub fn user_of(&self, volume: &str) -> Option<&str> {
        self.vms.iter().find(|(_, vm)| vm.disks.iter().any(|d| d == volume)).map(|(name, _)| name.as_str())
    }

    /// Checks every invariant of the crate. A document read from a disk or a peer is checked before use.
    ///
    /// Memory is not part of it: a node may come back with less than it had, and what is there stays there.
    ///
    /// # Errors
    /// The first broken invariant, as the refusal that would have kept it.
    pub fn check(&self) -> Result<(), Refusal> {
        names::check(&self.pair)?;
        let mut node_names = BTreeSet::new();
        for record in self.nodes.values() {
            record.check()?;
            if !node_names.insert(&record.name) {
                return Err(Refusal::NameExists { kind: "node", name: record.name.clone() });
            }
        }
        if self.volumes.len() > limits::VOLUMES {
            return Err(Refusal::TooMany { kind: "volumes", max: limits::VOLUMES });
        }
        let mut ids = BTreeSet::new();
        for (name, volume) in &self.volumes {
            names::check(name)?;
            volume_size(volume.size)?;
            for id in volume.ids() {
                range("The id of a volume", id, 1, self.next_volume.saturating_sub(1), "")?;
                if !ids.insert(id) {
                    return Err(Refusal::NameExists { kind: "volume", name: name.clone() });
                }
            }
        }
        if self.vms.len() > limits::VMS {
            return Err(Refusal::TooMany { kind: "VMs", max: limits::VMS });
        }
        let mut used = BTreeSet::new();
        for (name, vm) in &self.vms {
            names::check(name)?;
            vm.check_numbers()?;
            for disk in &vm.disks {
                let volume = self.volumes.get(disk);
                let volume = volume.ok_or_else(|| Refusal::Unknown { kind: "volume", name: disk.clone() })?;
                if !used.insert(disk) || volume.primary != vm.node {
                    return Err(Refusal::VolumeInUse { volume: disk.clone(), vm: name.clone() });
                }
                if volume.incoming.is_some() {
                    return Err(Refusal::ImageComing { volume: disk.clone() });
                }
            }
        }
        for (name, user) in &self.users {
            names::check(name)?;
            text("The password hash", &user.password_hash)?;
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
        if self.addresses.len() > limits::ADDRESSES {
            return Err(Refusal::TooMany { kind: "addresses of one node", max: limits::ADDRESSES });
        }
        self.addresses.iter().try_for_each(|a| text("An address", a))
    }
}

impl Vm {
    /// Memory this VM takes on its node with its overhead, in MiB.
    #[must_use]
    pub fn needed_memory_mib(&self) -> u64 {
        u64::from(self.memory_mib) + limits::VM_OVERHEAD_MIB
    }

    /// Whether the record says that this VM shall be running.
    #[must_use]
    pub fn shall_run(&self) -> bool {
        self.intent == Intent::Running
    }

    pub(crate) fn check_numbers(&self) -> Result<(), Refusal> {
        range("The number of CPUs", self.cpus.into(), 1, limits::CPUS_MAX.into(), "CPUs")?;
        let (min, max) = (limits::MEMORY_MIN_MIB.into(), limits::MEMORY_MAX_MIB.into());
        range("The memory of a VM", self.memory_mib.into(), min, max, "MiB")?;
        range("The priority", self.priority.into(), 0, limits::PRIORITY_MAX.into(), "(last to first)")?;
        if self.disks.len() > limits::DISKS {
            return Err(Refusal::TooMany { kind: "disks of one VM", max: limits::DISKS });
        }
        Ok(())
    }
}

impl WitnessInfo {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        text("The address of the witness", &self.address)?;
        text("The id of the witness", &self.id)?;
        text("The fingerprint of the witness", &self.fingerprint)
    }
}

impl Policies {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let (min, max) = (*limits::GRACE_S.start(), *limits::GRACE_S.end());
        range("The time to shut down", self.shutdown_grace_s.into(), min.into(), max.into(), "seconds")
    }
}

/// Refuses a volume size outside the range or not a whole number of MiB.
pub(crate) fn volume_size(size: u64) -> Result<(), Refusal> {
    let mib = size / limits::MIB;
    let (min, max) = (limits::VOLUME_MIN / limits::MIB, limits::VOLUME_MAX / limits::MIB);
    range("The size of a volume", mib, min, max, "MiB")?;
    if size.is_multiple_of(limits::MIB) { Ok(()) } else { Err(Refusal::NotWholeMib { given: size }) }
}

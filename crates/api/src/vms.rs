//! Types of VMs on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One VM: its record, and its state as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmView {
    pub name: String,
    pub cpus: u32,
    pub memory_mib: u32,
    /// How it boots.
    pub firmware: FirmwareView,
    /// Names of its volumes; the first one is the boot disk.
    pub disks: Vec<String>,
    /// The node that runs it, "A" or "B".
    #[serde(alias = "owner")]
    pub node: String,
    /// The state that the pair brings it to.
    pub intent: IntentView,
    /// Starting order, 0 (last) to 100 (first).
    pub priority: u8,
    /// Whether it is started on the survivor when its node is lost.
    pub ha: bool,
    /// Its state as this node sees it.
    pub state: VmState,
    /// Why it is in this state, one sentence.
    pub reason: Option<String>,
}

/// How a VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareView {
    /// SeaBIOS, for guests that boot from a master boot record.
    Bios,
    /// OVMF, for guests that boot from an EFI system partition.
    #[default]
    Uefi,
}

/// The state that the pair brings a VM to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IntentView {
    /// It runs; after a crash of it or of its node it is started again.
    Running,
    /// A user stopped it.
    Stopped,
    /// The guest powered off by itself. The VM stays off until a user starts it.
    GuestShutDown,
}

/// State of a VM as one node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// Not running here.
    Stopped,
    /// Being started, or waiting for the right to run.
    Starting,
    /// The VM runs on this node.
    Running,
    /// Frozen on this node until the node has the right to run VMs.
    Paused,
    /// Being shut down.
    Stopping,
    /// It crashed or could not be started.
    Failed,
    /// It is on the other node, which knows its state.
    Elsewhere,
}

fn yes() -> bool {
    true
}

fn middle() -> u8 {
    50
}

/// Request to create a VM.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// 1 to 32 lower-case letters, digits and hyphens.
    pub name: String,
    /// Number of virtual CPUs, 1 to 128.
    pub cpus: u32,
    /// Memory of the guest in MiB, at least 32. Refused if all VMs together would not fit on one node.
    pub memory_mib: u32,
    /// How it boots; UEFI if absent.
    #[serde(default)]
    pub firmware: FirmwareView,
    /// Names of its volumes; the first one is the boot disk.
    #[serde(default)]
    pub disks: Vec<String>,
    /// The node that runs it, "A" or "B"; if absent, the node that takes the request.
    #[serde(default)]
    pub node: Option<String>,
    /// Whether it starts at once.
    #[serde(default = "yes")]
    pub start: bool,
    /// Starting order, 0 (last) to 100 (first).
    #[serde(default = "middle")]
    pub priority: u8,
    /// Whether it is started on the survivor when its node is lost.
    #[serde(default = "yes")]
    pub ha: bool,
}

impl From<dyad_desired::Firmware> for FirmwareView {
    fn from(firmware: dyad_desired::Firmware) -> Self {
        match firmware {
            dyad_desired::Firmware::Bios => FirmwareView::Bios,
            dyad_desired::Firmware::Uefi => FirmwareView::Uefi,
        }
    }
}

impl From<FirmwareView> for dyad_desired::Firmware {
    fn from(firmware: FirmwareView) -> Self {
        match firmware {
            FirmwareView::Bios => dyad_desired::Firmware::Bios,
            FirmwareView::Uefi => dyad_desired::Firmware::Uefi,
        }
    }
}

impl From<dyad_desired::Intent> for IntentView {
    fn from(intent: dyad_desired::Intent) -> Self {
        match intent {
            dyad_desired::Intent::Running => IntentView::Running,
            dyad_desired::Intent::Stopped => IntentView::Stopped,
            dyad_desired::Intent::GuestShutDown => IntentView::GuestShutDown,
        }
    }
}

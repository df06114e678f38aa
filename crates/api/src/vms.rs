//! JSON types of VMs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One VM: its configuration, and its state as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmView {
    pub name: String,
    pub cpus: u32,
    pub memory_mib: u32,
    /// Firmware with which the VM boots.
    pub firmware: FirmwareView,
    /// Names of the volumes that are its disks; the first one is the boot disk.
    pub disks: Vec<String>,
    /// The node that may run the VM, "A" or "B".
    #[serde(alias = "owner")]
    pub node: String,
    /// The state that a user or the guest asked for; the pair brings the VM to it.
    pub intent: IntentView,
    /// Starting order, 0 (last) to 100 (first).
    pub priority: u8,
    /// Whether the VM is started on the survivor when its node is lost.
    pub ha: bool,
    /// State of the VM's process, as this node sees it.
    pub state: VmState,
    /// One sentence with the reason for the state; absent if there is nothing to explain.
    pub reason: Option<String>,
}

/// Firmware with which a VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareView {
    /// SeaBIOS, for guests that boot from a master boot record.
    Bios,
    /// OVMF, for guests that boot from an EFI system partition.
    #[default]
    Uefi,
}

/// The state that a user or the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IntentView {
    /// The VM shall run. It is started again after a crash, and with `ha` also after the loss of its node.
    Running,
    /// A user stopped the VM, or its node was lost and it has no `ha`.
    Stopped,
    /// The guest powered off by itself. The VM stays off until a user starts it.
    GuestShutDown,
}

/// State of a VM as one node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// The VM is on this node and has no process.
    Stopped,
    /// The VM is being started, or waits for the right to run or for its disks.
    Starting,
    /// The VM runs on this node.
    Running,
    /// Frozen on this node until the node has the right to run VMs.
    Paused,
    /// The VM is being shut down or killed.
    Stopping,
    /// The VM crashed or could not be started. It is started again after a delay.
    Failed,
    /// The VM is on the other node; only that node knows its state.
    Elsewhere,
}

fn default_true() -> bool {
    true
}

fn default_priority() -> u8 {
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
    /// Firmware with which the VM boots; UEFI if absent.
    #[serde(default)]
    pub firmware: FirmwareView,
    /// Names of the volumes that become its disks; the first one is the boot disk.
    #[serde(default)]
    pub disks: Vec<String>,
    /// The node that shall run the VM, "A" or "B"; if absent, the node that receives the request.
    #[serde(default)]
    pub node: Option<String>,
    /// Whether the VM is started at once; true if absent.
    #[serde(default = "default_true")]
    pub start: bool,
    /// Starting order, 0 (last) to 100 (first); 50 if absent.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// Whether the VM is started on the survivor when its node is lost; true if absent.
    #[serde(default = "default_true")]
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

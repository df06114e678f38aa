//! Why a change was refused: one sentence each, the same on the web, on the serial line and in the CLI.

use crate::limits;
use dyad_types::NodeId;

/// A refused change. Its `Display` is the sentence people read; [`Refusal::code`] is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name breaks the rule of [`crate::names::check`].
    #[error(
        "The name \"{name}\" cannot be used: take 1 to 32 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
    )]
    BadName {
        /// The name as given, made printable.
        name: String,
    },
    /// Another VM or volume has this name.
    #[error("A {kind} named {name} exists already: choose another name.")]
    NameExists {
        /// "VM", "volume", "user" or "node".
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Nothing has this name.
    #[error("There is no {kind} named {name}.")]
    Unknown {
        /// "VM", "volume", "user" or "node".
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The VMs together would not fit into the memory of one node.
    #[error(
        "The VM {name} does not fit: all VMs together would need {needed_mib} MiB, and one node has {usable_mib} MiB for VMs when the other one is lost."
    )]
    DoesNotFit {
        /// The VM that was to be added or started.
        name: String,
        /// Memory of all VMs with their overhead, in MiB.
        needed_mib: u64,
        /// Usable memory of the smaller node, in MiB.
        usable_mib: u64,
    },
    /// The VM has more processors than one node.
    #[error(
        "The VM {name} does not fit: it has {cpus} CPUs, and one node has {usable_cpus} when the other one is lost."
    )]
    TooManyCpus {
        /// The VM that was to be added or started.
        name: String,
        /// Its virtual CPUs.
        cpus: u32,
        /// Processors of the smaller node.
        usable_cpus: u32,
    },
    /// The volume is a disk of a VM.
    #[error("The volume {volume} is a disk of the VM {vm}: delete that VM first.")]
    VolumeInUse {
        /// The volume.
        volume: String,
        /// The VM that uses it.
        vm: String,
    },
    /// An image is on its way into the volume.
    #[error("An image is on its way into the volume {volume}: wait until it is there or given up.")]
    ImageComing {
        /// The volume.
        volume: String,
    },
    /// The image that was on its way into the volume is not any more: another one is, or its node was lost.
    #[error("The image that was sent into the volume {volume} was given up: send it again.")]
    NoImage {
        /// The volume.
        volume: String,
    },
    /// The same volume was named twice as a disk of one VM.
    #[error("The volume {volume} is named twice: each disk needs a volume of its own.")]
    DiskTwice {
        /// The volume.
        volume: String,
    },
    /// The VM is meant to run and must be stopped first.
    #[error("The VM {name} is meant to run: stop it first.")]
    VmRunning {
        /// The VM.
        name: String,
    },
    /// A number is outside its range.
    #[error("{what} must be from {min} to {max} {unit}, and {given} was given.")]
    OutOfRange {
        /// What the number is, beginning with a capital letter.
        what: &'static str,
        /// The number given.
        given: u64,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
        /// The unit, such as "MiB".
        unit: &'static str,
    },
    /// The size of a volume is not a whole number of MiB.
    #[error("The size of a volume must be a whole number of MiB (1048576 bytes), and {given} bytes were given.")]
    NotWholeMib {
        /// The size given, in bytes.
        given: u64,
    },
    /// A text is too long or holds characters that cannot be printed.
    #[error("{what} must be 1 to {max} printable characters.")]
    BadText {
        /// What the text is, beginning with a capital letter.
        what: &'static str,
        /// Longest accepted text, in bytes.
        max: usize,
    },
    /// Too many of a kind.
    #[error("There can be no more than {max} {kind}: delete one first.")]
    TooMany {
        /// "VMs", "volumes", "disks of one VM".
        kind: &'static str,
        /// The most there may be.
        max: usize,
    },
    /// The pair has no such node yet.
    #[error("Node {node} has not joined the pair yet: let it join first.")]
    NoNode {
        /// The missing node.
        node: NodeId,
    },
    /// The document cannot be stored because it outgrew its slot.
    #[error(
        "The description of the pair has outgrown its place ({bytes} bytes): delete VMs or volumes that are no longer needed."
    )]
    TooLarge {
        /// Encoded size, in bytes.
        bytes: usize,
    },
}

impl Refusal {
    /// A short stable word for programs; never shown alone to people.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::BadName { .. } => "bad-name",
            Refusal::NameExists { .. } => "name-exists",
            Refusal::Unknown { .. } => "unknown-name",
            Refusal::DoesNotFit { .. } | Refusal::TooManyCpus { .. } => "does-not-fit",
            Refusal::VolumeInUse { .. } => "volume-in-use",
            Refusal::ImageComing { .. } => "image-coming",
            Refusal::NoImage { .. } => "no-image",
            Refusal::DiskTwice { .. } => "disk-twice",
            Refusal::VmRunning { .. } => "vm-running",
            Refusal::OutOfRange { .. } => "out-of-range",
            Refusal::NotWholeMib { .. } => "not-whole-mib",
            Refusal::BadText { .. } => "bad-text",
            Refusal::TooMany { .. } => "too-many",
            Refusal::NoNode { .. } => "no-node",
            Refusal::TooLarge { .. } => "too-large",
        }
    }
}

/// Refuses `given` outside `min..=max`.
pub(crate) fn range(what: &'static str, given: u64, min: u64, max: u64, unit: &'static str) -> Result<(), Refusal> {
    if (min..=max).contains(&given) { Ok(()) } else { Err(Refusal::OutOfRange { what, given, min, max, unit }) }
}

/// Refuses an empty, long or unprintable text.
pub(crate) fn text(what: &'static str, given: &str) -> Result<(), Refusal> {
    let good = !given.is_empty() && given.len() <= limits::TEXT_MAX && !given.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Refusal::BadText { what, max: limits::TEXT_MAX }) }
}

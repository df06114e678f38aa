//! The reasons for which a change is refused, each with one sentence for people. Web pages, serial line and CLI show the
//! same sentence.

use crate::limits;
use dyad_types::NodeId;
use std::ops::RangeInclusive;

/// A refused change: `Display` gives the sentence for people. The code for programs is `dyad_control::RefusalCode`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name violates the rule of [`crate::names::check`].
    #[error(
        "The name \"{name}\" cannot be used: take 1 to 32 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
    )]
    BadName {
        /// The name given, made printable.
        name: String,
    },
    /// An object of this kind has the name already.
    #[error("A {kind} named {name} exists already: choose another name.")]
    NameExists {
        /// "VM", "volume" or "node".
        kind: &'static str,
        name: String,
    },
    /// No object of this kind has the name.
    #[error("There is no {kind} named {name}.")]
    Unknown {
        /// "VM" or "volume".
        kind: &'static str,
        name: String,
    },
    /// The VMs together do not fit into the memory of one node.
    #[error(
        "The VM {name} does not fit: all VMs together would need {needed_mib} MiB, and one node has {usable_mib} MiB for VMs when the other one is lost."
    )]
    DoesNotFit {
        /// The VM to be added or started.
        name: String,
        /// Memory in MiB of this VM and the others, with their overhead: of all others if this VM is added, of those that
        /// shall run if this VM is started.
        needed_mib: u64,
        /// Memory for VMs of the smaller node, in MiB.
        usable_mib: u64,
    },
    /// The VM has more virtual CPUs than one node has processors.
    #[error(
        "The VM {name} does not fit: it has {cpus} CPUs, and one node has {usable_cpus} when the other one is lost."
    )]
    TooManyCpus {
        /// The VM to be added or started.
        name: String,
        cpus: u32,
        /// Processors of the smaller node.
        usable_cpus: u32,
    },
    /// The volume is a disk of a VM.
    #[error("The volume {volume} is a disk of the VM {vm}: delete that VM first.")]
    VolumeInUse { volume: String, vm: String },
    /// An image is being sent into the volume.
    #[error("An image is being sent into the volume {volume}: wait until the import ends.")]
    ImageComing { volume: String },
    /// The import into the volume was cancelled: another one began, or the node that received the image was lost.
    #[error("The import into the volume {volume} was cancelled: send the image again.")]
    NoImage { volume: String },
    /// A volume was named twice as a disk of one VM.
    #[error("The volume {volume} is named twice: each disk needs a volume of its own.")]
    DiskTwice { volume: String },
    /// The VM is meant to run and must be stopped first.
    #[error("The VM {name} is meant to run: stop it first.")]
    VmRunning { name: String },
    /// The VM was changed after its node had found no process of it.
    #[error("The VM {name} was changed meanwhile: look at its state and ask again.")]
    VmChanged { name: String },
    /// A number is outside its range.
    #[error("{what} must be from {min} to {max} {unit}, and {given} was given.")]
    OutOfRange {
        /// Name of the number as the beginning of the sentence, such as "The size of a volume".
        what: &'static str,
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
    /// A text is empty, too long or not printable.
    #[error("{what} must be 1 to {max} printable characters.")]
    BadText {
        /// Name of the text as the beginning of the sentence, such as "An address".
        what: &'static str,
        /// Maximum length of the text, in bytes.
        max: usize,
    },
    /// The maximum number of objects of a kind is reached.
    #[error("There can be no more than {max} {kind}: delete one first.")]
    TooMany {
        /// The kind in the plural, such as "VMs" or "disks of one VM".
        kind: &'static str,
        max: usize,
    },
    /// The node has not joined the pair.
    #[error("Node {node} has not joined the pair yet: let it join first.")]
    NoNode { node: NodeId },
    /// The encoded document does not fit into its slot.
    #[error(
        "The document of the pair is too large to store ({bytes} bytes): delete VMs or volumes that are no longer needed."
    )]
    TooLarge {
        /// Size of the encoded document, in bytes.
        bytes: usize,
    },
}

/// Refuses `given` outside `allowed`.
pub(crate) fn check_range(
    what: &'static str,
    given: u64,
    allowed: RangeInclusive<u64>,
    unit: &'static str,
) -> Result<(), Refusal> {
    let (min, max) = (*allowed.start(), *allowed.end());
    if allowed.contains(&given) { Ok(()) } else { Err(Refusal::OutOfRange { what, given, min, max, unit }) }
}

/// Refuses a text that is empty, too long or not printable.
pub(crate) fn check_text(what: &'static str, given: &str) -> Result<(), Refusal> {
    let good = !given.is_empty() && given.len() <= limits::TEXT_MAX && !given.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Refusal::BadText { what, max: limits::TEXT_MAX }) }
}

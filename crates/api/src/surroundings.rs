//! Converts disks and offers from the core's types to those of the wizard. Web pages, serial line and seed file use the
//! same functions.

use dyad_control as control;
use dyad_wizard as wizard;

/// Converts the disks that could become pool disks. Model and serial number become one text.
#[must_use]
pub fn disks(found: Vec<control::DiskCandidate>) -> Vec<wizard::Disk> {
    let disk = |disk: control::DiskCandidate| wizard::Disk {
        path: disk.path,
        model: [disk.model, disk.serial].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" "),
        bytes: disk.bytes,
        content: disk.content,
    };
    found.into_iter().map(disk).collect()
}

/// Converts the offers of first nodes that wait for their second node.
#[must_use]
pub fn offers(heard: &[control::Offer]) -> Vec<wizard::Offer> {
    let offer =
        |o: &control::Offer| wizard::Offer { pair_id: o.pair_id.clone(), pair: o.pair.clone(), node: o.node.clone() };
    heard.iter().map(offer).collect()
}

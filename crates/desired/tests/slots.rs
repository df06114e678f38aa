//! Tests of the encoded document: both slots, torn writes, flipped bits, random bytes, old versions, and the largest document.

use dyad_desired::{
    Change, Document, Firmware, Intent, NodeRecord, VmConfig, apply, limits,
    slots::{self, BLOCK, DocumentChoice, SLOT_BYTES, SlotContent},
};
use dyad_types::{NodeId, VolumeId};
use proptest::prelude::*;

fn document() -> Document {
    let record = NodeRecord { name: "left".into(), addresses: vec![], usable_memory_mib: 0, usable_cpus: 0 };
    Document::new_pair("pair", record, "$argon2id$x").unwrap()
}

fn with_volume(document: &Document, name: &str) -> Document {
    apply(document, &Change::CreateVolume { name: name.into(), size: limits::MIB, primary: NodeId::A }).unwrap()
}

/// The content of volume 0 after these documents were written, one after the other.
fn written(documents: &[&Document]) -> Vec<u8> {
    let mut volume = vec![0; 2 * SLOT_BYTES];
    for document in documents {
        let encoded = slots::encode(document).unwrap();
        assert!(encoded.bytes.len().is_multiple_of(BLOCK));
        let at = usize::try_from(encoded.offset).unwrap();
        volume[at..at + encoded.bytes.len()].copy_from_slice(&encoded.bytes);
    }
    volume
}

fn choose(volume: &[u8]) -> DocumentChoice {
    slots::choose(&volume[..SLOT_BYTES], &volume[SLOT_BYTES..])
}

#[test]
fn zeros_mean_that_the_pair_has_no_document_yet() {
    assert_eq!(choose(&vec![0; 2 * SLOT_BYTES]), DocumentChoice::Fresh);
}

#[test]
fn the_newest_generation_wins_in_either_slot() {
    let first = document();
    let second = with_volume(&first, "a");
    let third = with_volume(&second, "b");
    assert_eq!(choose(&written(&[&first])), DocumentChoice::Current(Box::new(first.clone()), None));
    assert_eq!(choose(&written(&[&first, &second])), DocumentChoice::Current(Box::new(second.clone()), None));
    assert_eq!(choose(&written(&[&first, &second, &third])), DocumentChoice::Current(Box::new(third), None));
}

#[test]
fn a_torn_newest_slot_gives_the_older_document() {
    let first = document();
    let second = with_volume(&first, "a");
    let mut volume = written(&[&first, &second]);
    volume[100] ^= 1;
    let DocumentChoice::Current(found, Some(why)) = choose(&volume) else { panic!("nothing found") };
    assert_eq!(*found, first);
    assert!(why.contains("checksum"), "{why}");
    volume[SLOT_BYTES + 100] ^= 1;
    assert!(matches!(choose(&volume), DocumentChoice::Lost(_)));
}

#[test]
fn a_newer_format_is_refused() {
    let mut newer = document();
    newer.format = limits::FORMAT_VERSION + 1;
    let SlotContent::Bad(why) = slots::decode(&slots::encode(&newer).unwrap().bytes) else { panic!("accepted") };
    assert!(why.contains("newer"), "{why}");
}

#[test]
fn the_largest_document_fits_into_a_slot() {
    let mut document = document();
    let long = |kind: char, i: usize| format!("{kind}{i:0>31}");
    for i in 0..limits::VOLUMES_MAX {
        document = with_volume(&document, &long('v', i));
    }
    for i in 0..limits::VMS_MAX {
        let disks = (2 * i..2 * i + 2).map(|d| long('v', d)).collect();
        let vm = VmConfig {
            cpus: limits::CPUS_MAX,
            memory_mib: limits::MEMORY_MAX_MIB,
            firmware: Firmware::Bios,
            disks,
            node: NodeId::A,
            intent: Intent::GuestShutDown,
            priority: 100,
            ha: false,
        };
        document = apply(&document, &Change::CreateVm { name: long('m', i), vm }).unwrap();
    }
    let bytes = slots::encode(&document).unwrap().bytes.len();
    assert!(bytes < SLOT_BYTES / 2, "{bytes} bytes leave too little room for what later versions add");
}

/// A slot written by version 1. It is never written again, because later versions must be able to read this old one.
const VERSION_1: &[u8] = include_bytes!("data/document-1.slot");

#[test]
fn the_document_of_version_1_is_read() {
    if std::env::var_os("DYAD_WRITE_FIXTURE").is_some() {
        let document = with_vm(&with_volume(&document(), "disk"));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/document-1.slot");
        std::fs::write(path, slots::encode(&document).unwrap().bytes).unwrap();
    }
    let SlotContent::Good(document) = slots::decode(VERSION_1) else { panic!("not read") };
    assert_eq!((document.format, document.generation, document.pair.as_str()), (1, 3, "pair"));
    assert_eq!(document.volumes["disk"].id, VolumeId(1));
    assert_eq!(document.vms["web"].config.disks, ["disk"]);
}

/// `Vm` holds its configuration as a field, but its stored JSON must stay one flat object, as version 1 wrote it.
#[test]
fn the_json_of_a_vm_is_flat() {
    let document = with_vm(&with_volume(&document(), "disk"));
    let json = serde_json::to_value(&document.vms["web"]).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["changed", "cpus", "disks", "firmware", "ha", "intent", "memory_mib", "node", "priority"]);
    assert_eq!(json["changed"], document.vms["web"].changed);
}

fn with_vm(document: &Document) -> Document {
    let vm = VmConfig {
        cpus: 2,
        memory_mib: 64,
        firmware: Firmware::Uefi,
        disks: vec!["disk".into()],
        node: NodeId::A,
        intent: Intent::Running,
        priority: 50,
        ha: true,
    };
    apply(document, &Change::CreateVm { name: "web".into(), vm }).unwrap()
}

proptest! {
    #[test]
    fn one_flipped_bit_is_never_a_good_document(bit in 0usize..8 * 600) {
        let mut bytes = slots::encode(&document()).unwrap().bytes;
        let length = 32 + u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
        let bit = bit % (8 * length);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(matches!(slots::decode(&bytes), SlotContent::Bad(_)));
    }

    #[test]
    fn random_bytes_neither_panic_nor_give_a_document(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut marked = b"DYADDOC\0\x01\0\0\0".to_vec();
        marked.extend_from_slice(&bytes);
        prop_assert!(!matches!(slots::decode(&marked), SlotContent::Good(_)));
        prop_assert!(!matches!(slots::decode(&bytes), SlotContent::Good(_)));
    }
}

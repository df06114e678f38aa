//! Tests of the index at sizes that the tests of the pool do not reach: deep trees, long free lists, overflow pages.

use super::*;
use crate::sim::{Seed, SimDisk};
use crate::tests::model::seeds;
use dyad_testkit::Prng;
use std::collections::BTreeMap;

fn device() -> Device {
    Device::new("disk".into(), Box::new(SimDisk::new(1 << 20, Seed(1))))
}

/// Opens the index and checks that its records are `expected`.
fn reopen(path: &Path, expected: &BTreeMap<Vec<u8>, Vec<u8>>) -> Index {
    let index = Index::open(path, 7, 1 << 20, false).unwrap_or_else(|e| panic!("{}", e.text()));
    let mut seen = BTreeMap::new();
    let walked = index.walk(|IndexEntry { key: name, value }| {
        seen.insert(name.to_vec(), value.to_vec());
        Some(())
    });
    walked.unwrap_or_else(|e| panic!("{}", e.text()));
    assert!(seen == *expected);
    index
}

#[test]
fn the_check_accepts_what_large_commits_leave() {
    let dir = crate::tests::fixture::temporary_directory();
    let device = device();
    Index::create(dir.path(), 7, 1 << 20, false).unwrap_or_else(|e| panic!("{}", e.text()));
    let mut random = Prng::new(1);
    let mut expected = BTreeMap::new();
    for round in 1..=seeds(10) {
        let index = reopen(dir.path(), &expected);
        let mut patch = Patch::new();
        for _ in 0..3000 {
            let name = key::extent(VolumeId(random.below(3)), ExtentIndex(random.below(8000)), Birth(0));
            // The index grows for three rounds, shrinks to almost nothing in the next one, and grows again.
            let keep = random.below(10) < if round % 4 == 3 { 1 } else { 8 };
            patch.push((name, keep.then(|| vec![random.next_u64() as u8; 90])));
        }
        if round % 4 == 3 {
            patch.extend(expected.keys().take(9000).map(|name: &Vec<u8>| (name.clone(), None)));
        }
        for i in 0..4 {
            let value = (random.below(3) > 0).then(|| vec![round as u8; random.below(65536) as usize]);
            patch.push((key::meta(&[i]), value));
        }
        for (name, value) in &patch {
            match value {
                Some(value) => expected.insert(name.clone(), value.clone()),
                None => expected.remove(name),
            };
        }
        index.commit(&device, round, &patch).unwrap_or_else(|e| panic!("{}", e.text()));
        assert_eq!(index.checkpoint(), round);
    }
    let index = reopen(dir.path(), &expected);
    let depth = index.tree.stat(&index.env.read_txn().unwrap()).unwrap().depth;
    assert!(depth >= 3, "depth {depth}");
}

#[test]
fn a_flipped_bit_in_a_deep_index_is_refused_or_changes_no_record() {
    let dir = crate::tests::fixture::temporary_directory();
    let device = device();
    Index::create(dir.path(), 7, 1 << 20, false).unwrap_or_else(|e| panic!("{}", e.text()));
    let mut expected = BTreeMap::new();
    for round in 1..4u64 {
        let index = reopen(dir.path(), &expected);
        let batch = (0..1500).map(|i| {
            (key::extent(VolumeId(1), ExtentIndex((i * 7 + round * 500) % 4000), Birth(0)), Some(vec![round as u8; 90]))
        });
        let patch: Patch = batch.chain([(key::meta(b"long"), Some(vec![3; 30_000]))]).collect();
        expected.extend(patch.iter().map(|(name, value)| (name.clone(), value.clone().unwrap_or_default())));
        index.commit(&device, round, &patch).unwrap_or_else(|e| panic!("{}", e.text()));
    }
    let file = dir.path().join("data.mdb");
    let whole = std::fs::read(&file).unwrap();
    let mut random = Prng::new(2);
    let mut refused = 0;
    for attempt in 0..seeds(150) {
        let mut bad = whole.clone();
        // Half of the flips hit the first 64 bytes of a page, which hold its header and the offsets of its nodes.
        let page = random.below(whole.len() as u64 / 4096) * 4096;
        let inside = if attempt % 2 == 0 { random.below(64) } else { random.below(4096) };
        bad[(page + inside) as usize] ^= 1 << random.below(8);
        std::fs::write(&file, &bad).unwrap();
        let Ok(index) = Index::open(dir.path(), 7, 1 << 20, false) else {
            refused += 1;
            continue;
        };
        let mut seen = BTreeMap::new();
        let walked = index.walk(|IndexEntry { key: name, value }| {
            seen.insert(name.to_vec(), value.to_vec());
            Some(())
        });
        match walked {
            Ok(()) => assert!(seen == expected, "a flip changed a record without an error"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused * 3 > seeds(150), "only {refused} flips were found in live pages");
}

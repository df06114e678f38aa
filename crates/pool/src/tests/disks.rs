//! Tests with several disks, foreign disks and blank disks.

use super::fixture::{POOL, TestPool, blocks};
use crate::sim::{Seed, SimDisk};
use crate::{Disk, FormatError, Inspection, OpenError, OpenOptions, Pool, PoolIdentity, inspect};
use dyad_types::{BlockIndex, Epoch, ExtentIndex, NodeId, Seq, Stamp, VolumeId};

#[test]
fn extents_spread_over_all_disks() {
    let fixture = TestPool::new(1, &[16, 10, 20]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    for i in 0..200 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i * 16), blocks(i, 2)).unwrap();
    }
    pool.checkpoint().unwrap();
    let disk_of_extent: Vec<usize> =
        (0..200).map(|e| pool.extent_map.get(VolumeId(1), ExtentIndex(e)).unwrap()).collect();
    for disk in 0..3 {
        let share = disk_of_extent.iter().filter(|d| **d == disk).count();
        assert!(share > 30, "disk {disk} holds only {share} of 200");
    }
    pool.close().unwrap();
    let mut disks = fixture.pool_disks();
    disks.reverse();
    let (pool, report) = Pool::open(disks, &OpenOptions { expected: (POOL, NodeId::A), durable_index: false }).unwrap();
    assert_eq!(report.extents, 200);
    assert!((0..200).all(|i| pool.read(VolumeId(1), BlockIndex::range(i * 16..i * 16 + 2)).unwrap() == blocks(i, 2)));
}

#[test]
fn the_wrong_disks_are_refused() {
    let fixture = TestPool::new(2, &[10, 10]);
    let options = OpenOptions { expected: (POOL, NodeId::A), durable_index: false };
    let refused = |disks| Pool::open(disks, &options).err().expect("must be refused");
    let mut disks = fixture.pool_disks();
    disks.remove(0);
    assert!(matches!(refused(disks), OpenError::DiskMissing { number: 0, count: 2 }));
    assert!(matches!(refused(Vec::new()), OpenError::DiskMissing { .. }));

    let mut twice = fixture.pool_disks();
    twice.extend(fixture.pool_disks().into_iter().skip(1));
    assert!(matches!(refused(twice), OpenError::Mixed { .. }));

    let other = TestPool::new(3, &[10, 10]);
    let mut options = other.format_options();
    options.overwrite = crate::Overwrite::Anything;
    options.salt = 1;
    Pool::format(other.pool_disks(), &options).unwrap();
    let mut mixed = fixture.pool_disks();
    mixed[1] = other.pool_disks().remove(1);
    assert!(matches!(refused(mixed), OpenError::Mixed { .. }));

    options.identity = PoolIdentity { pool: 1, node: NodeId::A, pair_name: "rival".into(), node_name: "far".into() };
    Pool::format(other.pool_disks(), &options).unwrap();
    let mut foreign = fixture.pool_disks();
    foreign[1] = other.pool_disks().remove(1);
    let text = refused(foreign).to_string();
    assert!(text.contains("disk-1") && text.contains("\"rival\"") && text.contains("node far"), "{text}");

    options.identity = PoolIdentity { pool: POOL, node: NodeId::B, ..super::fixture::identity() };
    Pool::format(other.pool_disks(), &options).unwrap();
    assert!(
        matches!(refused(other.pool_disks()), OpenError::ForeignDisk { .. }),
        "the other node's disk is foreign too"
    );
}

#[test]
fn only_blank_disks_are_formatted_without_permission_to_overwrite() {
    let fixture = TestPool::new(4, &[10]);
    let again = Pool::format(fixture.pool_disks(), &fixture.format_options());
    assert!(again.unwrap_err().to_string().contains("node left of the pair \"office\""));
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 10).unwrap();

    let seen = |disk: &SimDisk| inspect(Box::new(disk.handle())).unwrap();
    let disk = SimDisk::new(10 << 20, Seed(1));
    assert_eq!(seen(&disk), Inspection::Blank);
    disk.poke(5 << 20, &[1; 512]);
    assert_eq!(seen(&disk), Inspection::Blank, "only both ends are read");
    disk.poke(999_936, &[1; 64]);
    assert_eq!(seen(&disk), Inspection::Foreign { what: "unknown data" });
    disk.poke(510, &[0x55, 0xaa]);
    assert_eq!(seen(&disk), Inspection::Foreign { what: "an MBR partition table or boot sector" });
    disk.poke(512, b"EFI PART");
    assert_eq!(seen(&disk), Inspection::Foreign { what: "a GPT partition table" });
    let end = SimDisk::new(10 << 20, Seed(1));
    end.poke((10 << 20) - 512, b"EFI PART");
    assert_eq!(seen(&end), Inspection::Foreign { what: "a GPT partition table" });
    let tiny = SimDisk::new(4096, Seed(1));
    assert_eq!(seen(&tiny), Inspection::Blank);
    assert_eq!(end.size(), 10 << 20);

    let used = TestPool { disks: vec![disk], ..TestPool::new(5, &[10]) };
    let refused = Pool::format(used.pool_disks(), &used.format_options());
    assert!(matches!(refused, Err(FormatError::NotBlank { what, .. }) if what == "a GPT partition table"));
    let mut options = used.format_options();
    options.overwrite = crate::Overwrite::Anything;
    Pool::format(used.pool_disks(), &options).unwrap();
    assert!(matches!(seen(&used.disks[0]), Inspection::Pool { number: 0, count: 1, .. }));
}

#[test]
fn invalid_options_and_small_disks_are_refused() {
    let fixture = TestPool::new(6, &[10, 10]);
    let mut options = fixture.format_options();
    options.overwrite = crate::Overwrite::Anything;
    options.disk_ids = vec![1, 1];
    assert!(matches!(Pool::format(fixture.pool_disks(), &options), Err(FormatError::InvalidOptions(_))));
    options.disk_ids = vec![1];
    assert!(matches!(Pool::format(fixture.pool_disks(), &options), Err(FormatError::InvalidOptions(_))));
    assert!(matches!(Pool::format(Vec::new(), &options), Err(FormatError::InvalidOptions(_))));
    options.disk_ids = vec![1, 2];
    options.journal_bytes = Some(9 << 20);
    assert!(matches!(Pool::format(fixture.pool_disks(), &options), Err(FormatError::TooSmall { .. })));
    fixture.open();
}

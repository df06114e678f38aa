//! Several disks, foreign disks, blank disks.

use super::rig::{POOL, Rig, blocks};
use crate::sim::{Seed, SimDisk};
use crate::{Disk, FormatError, Inspection, OpenError, OpenOptions, Pool, PoolIdentity, inspect};
use dyad_types::{BlockIndex, Epoch, ExtentIndex, NodeId, Seq, Stamp, VolumeId};

#[test]
fn extents_spread_over_all_disks() {
    let rig = Rig::new(1, &[16, 10, 20]);
    let mut pool = rig.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    for i in 0..200 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i * 16), blocks(i, 2)).unwrap();
    }
    pool.checkpoint().unwrap();
    let extent_map: Vec<usize> = (0..200).map(|e| pool.extent_map.get(VolumeId(1), ExtentIndex(e)).unwrap()).collect();
    for disk in 0..3 {
        let share = extent_map.iter().filter(|d| **d == disk).count();
        assert!(share > 30, "disk {disk} holds only {share} of 200");
    }
    pool.close().unwrap();
    let mut disks = rig.plug();
    disks.reverse();
    let (pool, report) = Pool::open(disks, &OpenOptions { expected: (POOL, NodeId::A), durable_index: false }).unwrap();
    assert_eq!(report.extents, 200);
    assert!((0..200).all(|i| pool.read(VolumeId(1), BlockIndex::range(i * 16..i * 16 + 2)).unwrap() == blocks(i, 2)));
}

#[test]
fn the_wrong_disks_are_refused() {
    let rig = Rig::new(2, &[10, 10]);
    let options = OpenOptions { expected: (POOL, NodeId::A), durable_index: false };
    let refused = |disks| Pool::open(disks, &options).err().expect("must be refused");
    let mut disks = rig.plug();
    disks.remove(0);
    assert!(matches!(refused(disks), OpenError::DiskMissing { number: 0, count: 2 }));
    assert!(matches!(refused(Vec::new()), OpenError::DiskMissing { .. }));

    let mut twice = rig.plug();
    twice.extend(rig.plug().into_iter().skip(1));
    assert!(matches!(refused(twice), OpenError::Mixed { .. }));

    let other = Rig::new(3, &[10, 10]);
    let mut options = other.format_options();
    options.overwrite = crate::Overwrite::Anything;
    options.salt = 1;
    Pool::format(other.plug(), &options).unwrap();
    let mut mixed = rig.plug();
    mixed[1] = other.plug().remove(1);
    assert!(matches!(refused(mixed), OpenError::Mixed { .. }));

    options.identity = PoolIdentity { pool: 1, node: NodeId::A, pair_name: "rival".into(), node_name: "far".into() };
    Pool::format(other.plug(), &options).unwrap();
    let mut foreign = rig.plug();
    foreign[1] = other.plug().remove(1);
    let text = refused(foreign).to_string();
    assert!(text.contains("disk-1") && text.contains("\"rival\"") && text.contains("node far"), "{text}");

    options.identity = PoolIdentity { pool: POOL, node: NodeId::B, ..super::rig::identity() };
    Pool::format(other.plug(), &options).unwrap();
    assert!(matches!(refused(other.plug()), OpenError::ForeignDisk { .. }), "the other node's disk is foreign too");
}

#[test]
fn only_blank_disks_are_formatted_unasked() {
    let rig = Rig::new(4, &[10]);
    let again = Pool::format(rig.plug(), &rig.format_options());
    assert!(again.unwrap_err().to_string().contains("node left of the pair \"office\""));
    let mut pool = rig.open();
    pool.create_volume(VolumeId(1), 10).unwrap();

    let seen = |disk: &SimDisk| inspect(Box::new(disk.handle())).unwrap();
    let disk = SimDisk::new(10 << 20, Seed(1));
    assert_eq!(seen(&disk), Inspection::Blank);
    disk.poke(5 << 20, &[1; 512]);
    assert_eq!(seen(&disk), Inspection::Blank, "only the ends are looked at");
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

    let used = Rig { disks: vec![disk], ..Rig::new(5, &[10]) };
    let refused = Pool::format(used.plug(), &used.format_options());
    assert!(matches!(refused, Err(FormatError::NotBlank { what, .. }) if what == "a GPT partition table"));
    let mut options = used.format_options();
    options.overwrite = crate::Overwrite::Anything;
    Pool::format(used.plug(), &options).unwrap();
    assert!(matches!(seen(&used.disks[0]), Inspection::Pool { number: 0, count: 1, .. }));
}

#[test]
fn impossible_plans_are_refused() {
    let rig = Rig::new(6, &[10, 10]);
    let mut options = rig.format_options();
    options.overwrite = crate::Overwrite::Anything;
    options.disk_ids = vec![1, 1];
    assert!(matches!(Pool::format(rig.plug(), &options), Err(FormatError::Plan(_))));
    options.disk_ids = vec![1];
    assert!(matches!(Pool::format(rig.plug(), &options), Err(FormatError::Plan(_))));
    assert!(matches!(Pool::format(Vec::new(), &options), Err(FormatError::Plan(_))));
    options.disk_ids = vec![1, 2];
    options.journal_bytes = Some(9 << 20);
    assert!(matches!(Pool::format(rig.plug(), &options), Err(FormatError::TooSmall { .. })));
    rig.open();
}

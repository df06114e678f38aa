//! A pool on simulated disks that can be crashed and opened again.

use crate::sim::{Seed, SimDisk, format_options};
use crate::{FormatOptions, OpenError, OpenOptions, OpenReport, Pool, PoolDisk, PoolIdentity};
use bytes::Bytes;
use dyad_types::{BLOCK, NodeId};
use std::path::PathBuf;
use tempfile::TempDir;

pub(crate) const POOL: u128 = 0xd1ad;

pub(crate) struct Rig {
    pub disks: Vec<SimDisk>,
    pub dir: TempDir,
    pub planted: super::Planted,
}

pub(crate) fn identity() -> PoolIdentity {
    PoolIdentity { pool: POOL, node: NodeId::A, pair_name: "office".into(), node_name: "left".into() }
}

/// A temporary directory, in memory if `/dev/shm` exists.
pub(crate) fn temporary() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary directory")
}

impl Rig {
    /// A formatted pool: sizes in MiB, a 4 MiB journal.
    pub fn new(seed: u64, sizes: &[u64]) -> Self {
        let rig = Self {
            disks: SimDisk::together(&sizes.iter().map(|s| s << 20).collect::<Vec<_>>(), Seed(seed)),
            dir: temporary(),
            planted: super::Planted::default(),
        };
        Pool::format(rig.plug(), &rig.format_options()).expect("blank disks can be formatted");
        rig
    }

    pub fn format_options(&self) -> FormatOptions {
        format_options(identity(), self.disks.len())
    }

    pub fn index(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("index-{number}"))
    }

    pub fn plug(&self) -> Vec<PoolDisk> {
        let disk = |(i, disk): (usize, &SimDisk)| PoolDisk {
            name: format!("disk-{i}"),
            device: Box::new(disk.handle()),
            index: self.index(i),
        };
        self.disks.iter().enumerate().map(disk).collect()
    }

    pub fn try_open(&self) -> Result<(Pool, OpenReport), OpenError> {
        let options = OpenOptions { expected: (POOL, NodeId::A), durable_index: false };
        let (mut pool, report) = Pool::open(self.plug(), &options)?;
        pool.planted = self.planted;
        Ok((pool, report))
    }

    pub fn open(&self) -> Pool {
        match self.try_open() {
            Ok((pool, _)) => pool,
            Err(e) => panic!("the pool does not open: {e}"),
        }
    }

    pub fn crash(&self) {
        self.disks.iter().for_each(SimDisk::crash);
    }

    pub fn kill(&self) {
        self.disks.iter().for_each(SimDisk::kill);
    }
}

/// `count` blocks whose words contain `tag`, so that a read shows which write a block came from.
pub(crate) fn blocks(tag: u64, count: usize) -> Bytes {
    let block = |i: usize| (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64).to_le_bytes().repeat(BLOCK / 8);
    (0..count).map(block).collect::<Vec<_>>().concat().into()
}

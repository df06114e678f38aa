//! [`TestPool`]: a pool on simulated disks that can lose power and be opened again.

use crate::sim::{Seed, SimDisk, format_options};
use crate::{FormatOptions, OpenError, OpenOptions, OpenReport, Pool, PoolDisk, PoolIdentity};
use bytes::Bytes;
use dyad_types::{BLOCK, NodeId};
use std::path::PathBuf;
use tempfile::TempDir;

/// Id of the pair.
pub(crate) const POOL: u128 = 0xd1ad;

/// The disks of a formatted pool, whether it is open or not.
pub(crate) struct TestPool {
    pub disks: Vec<SimDisk>,
    /// The folder of the indexes.
    pub dir: TempDir,
    /// The planted bugs that each opening passes to the pool.
    pub planted: super::Planted,
}

pub(crate) fn identity() -> PoolIdentity {
    PoolIdentity { pool: POOL, node: NodeId::A, pair_name: "office".into(), node_name: "left".into() }
}

/// A temporary directory, in memory if `/dev/shm` exists.
pub(crate) fn temporary_directory() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary directory")
}

impl TestPool {
    /// Formats a pool with a journal of 4 MiB on blank disks of these sizes in MiB.
    pub fn new(seed: u64, sizes: &[u64]) -> Self {
        Self::with_journal(4, seed, sizes)
    }

    /// The same with a journal of this size in MiB.
    pub fn with_journal(mebibytes: u64, seed: u64, sizes: &[u64]) -> Self {
        let fixture = Self {
            disks: SimDisk::together(&sizes.iter().map(|s| s << 20).collect::<Vec<_>>(), Seed(seed)),
            dir: temporary_directory(),
            planted: super::Planted::default(),
        };
        let options = FormatOptions { journal_bytes: Some(mebibytes << 20), ..fixture.format_options() };
        Pool::format(fixture.pool_disks(), &options).expect("blank disks can be formatted");
        fixture
    }

    pub fn format_options(&self) -> FormatOptions {
        format_options(identity(), self.disks.len())
    }

    /// The folder of a disk's index.
    pub fn index(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("index-{number}"))
    }

    /// New handles of the disks, to format or open.
    pub fn pool_disks(&self) -> Vec<PoolDisk> {
        let disk = |(i, disk): (usize, &SimDisk)| PoolDisk {
            name: format!("disk-{i}"),
            device: Box::new(disk.handle()),
            index: self.index(i),
        };
        self.disks.iter().enumerate().map(disk).collect()
    }

    pub fn try_open(&self) -> Result<(Pool, OpenReport), OpenError> {
        let options = OpenOptions { expected: (POOL, NodeId::A), durable_index: false };
        let (mut pool, report) = Pool::open(self.pool_disks(), &options)?;
        pool.planted = self.planted;
        Ok((pool, report))
    }

    /// Opens the pool, which must succeed.
    pub fn open(&self) -> Pool {
        match self.try_open() {
            Ok((pool, _)) => pool,
            Err(e) => panic!("the pool does not open: {e}"),
        }
    }

    /// Loss of power of all disks; see [`SimDisk::crash`].
    pub fn crash(&self) {
        self.disks.iter().for_each(SimDisk::crash);
    }

    /// End of the process; see [`SimDisk::kill`].
    pub fn kill(&self) {
        self.disks.iter().for_each(SimDisk::kill);
    }
}

/// `count` blocks with content made from `tag`, so that a block that is read shows by which write it was written.
pub(crate) fn blocks(tag: u64, count: usize) -> Bytes {
    let block = |i: usize| (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64).to_le_bytes().repeat(BLOCK / 8);
    (0..count).map(block).collect::<Vec<_>>().concat().into()
}

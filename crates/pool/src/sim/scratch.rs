//! Formatted pools for the tests of this and other crates.

use crate::{FormatOptions, OpenOptions, Overwrite, Pool, PoolDisk, PoolIdentity};
use dyad_types::{BlockIndex, EXTENT, Epoch, NodeId, Seq, Stamp, VolumeId};

/// Options to format `disks` blank disks, with the ids from 1 on: a journal of 4 MiB, and indexes that are not synced.
#[must_use]
pub fn format_options(identity: PoolIdentity, disks: usize) -> FormatOptions {
    FormatOptions {
        identity,
        disk_ids: (1..=disks as u128).collect(),
        salt: 0x5a17,
        journal_bytes: Some(4 << 20),
        overwrite: Overwrite::BlankOnly,
        durable_index: false,
    }
}

/// Formats a pool on the blank `disks` and opens it. Its volume 1 has 256 blocks. Each byte of the first extent is 7,
/// and a checkpoint has moved the extent from the journal to its slot. `disks` is called twice: to format and to open.
///
/// # Panics
/// The disks are too small or fail.
pub fn scratch_pool(disks: impl Fn() -> Vec<PoolDisk>) -> Pool {
    let identity = PoolIdentity { pool: 1, node: NodeId::A, pair_name: "rig".into(), node_name: "left".into() };
    let expected = (identity.pool, identity.node);
    let blank = disks();
    let options = format_options(identity, blank.len());
    Pool::format(blank, &options).expect("blank disks can be formatted");
    let options = OpenOptions { expected, durable_index: options.durable_index };
    let (mut pool, _) = Pool::open(disks(), &options).expect("a new pool opens");
    pool.create_volume(VolumeId(1), 256).expect("a new pool has room");
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), vec![7; EXTENT].into())
        .expect("a new pool takes a write");
    pool.checkpoint().expect("a new pool has a checkpoint");
    pool
}

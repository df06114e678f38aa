//! The index of one disk: an LMDB environment with one tree, changed only by checkpoints.
//!
//! LMDB has no checksums, so four measures detect damage. Each value ends with its own checksum. The root record holds
//! the sum of all these checksums, which is verified at open. The structure of the file is checked before LMDB maps it.
//! While the pool is open, an extent in [`crate::extent_map::ExtentMap`] without a record in the index is reported as
//! damage.

mod check;
mod error;
pub(crate) mod key;
pub(crate) mod row;

pub(crate) use error::IndexError;

use crate::birth::Birth;
use crate::disk::Device;
use dyad_types::{ExtentIndex, VolumeId};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, EnvFlags, EnvOpenOptions, WithoutTls};
use key::Patch;
use row::{ExtentRow, IndexEntry, IndexRoot};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The index of one disk. A checkpoint's job, which may run on another thread, shares it.
pub(crate) struct Index {
    env: heed::Env<WithoutTls>,
    tree: Database<'static, Bytes, Bytes>,
    /// The root record as last committed.
    root: Mutex<IndexRoot>,
    /// The directory with `data.mdb`.
    path: PathBuf,
}

/// Bytes of address space that LMDB reserves for a disk with `slots` slots; the file itself grows as needed.
fn map_size(slots: u64) -> usize {
    (slots * 1024 + (1 << 30)).next_multiple_of(1 << 20) as usize
}

impl Index {
    /// Creates an empty index in the directory `path`. An index that is there already is removed first. `disk` is the
    /// disk's id, `slots` the number of its slots; without `durable` LMDB does not sync.
    pub fn create(path: &Path, disk: u128, slots: u64, durable: bool) -> Result<(), IndexError> {
        let io = |e: std::io::Error| IndexError::Io(e.to_string());
        std::fs::create_dir_all(path).map_err(io)?;
        for name in ["data.mdb", "lock.mdb"] {
            match std::fs::remove_file(path.join(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
                _ => {}
            }
        }
        let index = Self::map(path, slots, durable)?;
        let mut txn = index.env.write_txn()?;
        index.tree.put(&mut txn, key::ROOT, &IndexRoot { disk, ..IndexRoot::default() }.encode())?;
        txn.commit()?;
        if durable {
            std::fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(io)?;
        }
        Ok(())
    }

    /// Opens the index in the directory `path`, after a check of the structure of its file. Parameters as in
    /// [`Index::create`].
    pub fn open(path: &Path, disk: u128, slots: u64, durable: bool) -> Result<Self, IndexError> {
        check::file(&path.join("data.mdb"))?;
        let index = Self::map(path, slots, durable)?;
        let root = {
            let txn = index.env.read_txn()?;
            let stored = index.tree.get(&txn, key::ROOT)?;
            stored.and_then(IndexRoot::decode).ok_or_else(|| IndexError::Damaged("its root record is bad".into()))?
        };
        if root.disk != disk {
            return Err(IndexError::Damaged("it is the index of another disk".into()));
        }
        *index.root.lock().unwrap_or_else(PoisonError::into_inner) = root;
        Ok(index)
    }

    /// Lets LMDB map the file in the directory `path`, creating it if it is missing. The root record is not read.
    #[allow(unsafe_code)]
    fn map(path: &Path, slots: u64, durable: bool) -> Result<Self, IndexError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_size(slots)).max_readers(64);
        if !durable {
            // SAFETY: the flag gives up durability, which only simulations ask for; it does not touch memory safety.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the directory belongs to this pool alone: the disk is locked exclusively while it is
        // open, and nothing else writes there; the structure of an old file was checked before.
        let env = unsafe { options.open(path)? };
        // An entry of a dead process in LMDB's reader table would keep old pages from being reused.
        env.clear_stale_readers()?;
        let txn = env.write_txn()?;
        let tree = env
            .create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
                opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Self { env, tree, root: Mutex::new(IndexRoot::default()), path: path.to_owned() })
    }

    /// Number of the checkpoint that committed last.
    pub fn checkpoint(&self) -> u64 {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).checkpoint
    }

    /// The record of an extent with the largest birth, and that birth; `None` if the index has no record of the extent.
    pub fn extent(&self, volume: VolumeId, extent: ExtentIndex) -> Result<Option<(Birth, ExtentRow)>, IndexError> {
        let txn = self.env.read_txn()?;
        let newest = key::extent(volume, extent, Birth(u64::MAX));
        let Some((found, stored)) = self.tree.get_lower_than_or_equal_to(&txn, &newest)? else { return Ok(None) };
        if found.len() != newest.len() || found[..17] != newest[..17] {
            return Ok(None);
        }
        let bad = || IndexError::Damaged(format!("the record of extent {extent} of volume {volume} is bad"));
        let (value, _) = row::unseal(IndexEntry { key: found, value: stored }).ok_or_else(bad)?;
        let [_, _, birth] = key::parse(found).ok_or_else(bad)?;
        Ok(Some((Birth(birth), ExtentRow::decode(value).ok_or_else(bad)?)))
    }

    /// Calls `each` with every record but the root, then verifies number and sum of their checksums against the root.
    /// `each` returns `None` if a record is invalid.
    pub fn walk(&self, mut each: impl FnMut(IndexEntry<'_>) -> Option<()>) -> Result<(), IndexError> {
        let txn = self.env.read_txn()?;
        let expected = *self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = IndexRoot { count: 0, sum: 0, ..expected };
        for entry in self.tree.iter(&txn)? {
            let (found, stored) = entry?;
            if found == key::ROOT {
                continue;
            }
            let bad = || IndexError::Damaged("a record is bad".into());
            let (value, crc) = row::unseal(IndexEntry { key: found, value: stored }).ok_or_else(bad)?;
            seen.add(crc);
            each(IndexEntry { key: found, value }).ok_or_else(bad)?;
        }
        if seen != expected {
            return Err(IndexError::Damaged(format!(
                "{} records where {} were committed, or others than these",
                seen.count, expected.count
            )));
        }
        Ok(())
    }

    /// Applies a patch and the checkpoint's number in one transaction, which is durable on return.
    pub fn commit(&self, device: &Device, checkpoint: u64, patch: &Patch) -> Result<(), IndexError> {
        device.check().map_err(|error| IndexError::Io(error.source.to_string()))?;
        let mut root = *self.root.lock().unwrap_or_else(PoisonError::into_inner);
        root.checkpoint = checkpoint;
        let mut txn = self.env.write_txn()?;
        for (name, value) in patch {
            let bad = || IndexError::Damaged("a record it replaces is bad".into());
            if let Some(old) = self.tree.get(&txn, name)? {
                root.subtract(row::unseal(IndexEntry { key: name, value: old }).ok_or_else(bad)?.1);
            }
            match value {
                Some(value) => {
                    let (sealed, crc) = row::seal(name, value.clone());
                    root.add(crc);
                    self.tree.put(&mut txn, name, &sealed)?;
                }
                None => {
                    self.tree.delete(&mut txn, name)?;
                }
            }
        }
        self.tree.put(&mut txn, key::ROOT, &root.encode())?;
        txn.commit()?;
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = root;
        Ok(())
    }

    /// Length of the index file in bytes; 0 if it cannot be read.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(self.path.join("data.mdb")).map_or(0, |m| m.len())
    }
}

/// The indexes of a node, in the order of its disks.
pub(crate) type Indexes = Vec<Arc<Index>>;

#[cfg(test)]
mod tests;

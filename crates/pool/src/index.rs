//! The index of one disk: an LMDB environment with one tree, changed only by checkpoints.
//!
//! LMDB has no checksums. So each value ends with its own; a root record contains the sum of all of them and is
//! verified at open; the structure of the file is checked before LMDB maps it; and while the pool is open
//! [`crate::extent_map::ExtentMap`] shows when a record is missing.

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
use row::{Entry, ExtentRow, Root};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The index of one disk. Shared with the job that commits.
pub(crate) struct Index {
    env: heed::Env<WithoutTls>,
    tree: Database<'static, Bytes, Bytes>,
    root: Mutex<Root>,
    path: PathBuf,
}

/// Bytes of address space for the map; the file grows as needed.
fn map_size(slots: u64) -> usize {
    (slots * 1024 + (1 << 30)).next_multiple_of(1 << 20) as usize
}

impl Index {
    /// Creates an empty index in `path`; removes an old one.
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
        index.tree.put(&mut txn, key::ROOT, &Root { disk, ..Root::default() }.encode())?;
        txn.commit()?;
        if durable {
            std::fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(io)?;
        }
        Ok(())
    }

    /// Opens the index, checking the structure of its file first.
    pub fn open(path: &Path, disk: u128, slots: u64, durable: bool) -> Result<Self, IndexError> {
        check::file(&path.join("data.mdb"))?;
        let index = Self::map(path, slots, durable)?;
        let root = {
            let txn = index.env.read_txn()?;
            let stored = index.tree.get(&txn, key::ROOT)?;
            stored.and_then(Root::decode).ok_or_else(|| IndexError::Damaged("its root record is bad".into()))?
        };
        if root.disk != disk {
            return Err(IndexError::Damaged("it is the index of another disk".into()));
        }
        *index.root.lock().unwrap_or_else(PoisonError::into_inner) = root;
        Ok(index)
    }

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
        // The slot of a reader whose process ended would keep old pages from being reused.
        env.clear_stale_readers()?;
        let txn = env.write_txn()?;
        let tree = env
            .create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
                opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Self { env, tree, root: Mutex::new(Root::default()), path: path.to_owned() })
    }

    pub fn checkpoint(&self) -> u64 {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).checkpoint
    }

    /// The newest record of an extent, with its birth.
    pub fn extent(&self, volume: VolumeId, extent: ExtentIndex) -> Result<Option<(Birth, ExtentRow)>, IndexError> {
        let txn = self.env.read_txn()?;
        let newest = key::extent(volume, extent, Birth(u64::MAX));
        let Some((found, stored)) = self.tree.get_lower_than_or_equal_to(&txn, &newest)? else { return Ok(None) };
        if found.len() != newest.len() || found[..17] != newest[..17] {
            return Ok(None);
        }
        let bad = || IndexError::Damaged(format!("the record of extent {extent} of volume {volume} is bad"));
        let (value, _) = row::unseal(Entry { key: found, value: stored }).ok_or_else(bad)?;
        let [_, _, birth] = key::parse(found).ok_or_else(bad)?;
        Ok(Some((Birth(birth), ExtentRow::decode(value).ok_or_else(bad)?)))
    }

    /// Calls `each` with every record but the root, and verifies that the records are those that were committed.
    pub fn walk(&self, mut each: impl FnMut(Entry<'_>) -> Option<()>) -> Result<(), IndexError> {
        let txn = self.env.read_txn()?;
        let expected = *self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Root { count: 0, sum: 0, ..expected };
        for entry in self.tree.iter(&txn)? {
            let (found, stored) = entry?;
            if found == key::ROOT {
                continue;
            }
            let bad = || IndexError::Damaged("a record is bad".into());
            let (value, crc) = row::unseal(Entry { key: found, value: stored }).ok_or_else(bad)?;
            seen.add(crc);
            each(Entry { key: found, value }).ok_or_else(bad)?;
        }
        if seen != expected {
            return Err(IndexError::Damaged(format!(
                "{} records where {} were committed, or others than these",
                seen.count, expected.count
            )));
        }
        Ok(())
    }

    /// Applies a patch and the checkpoint's number in one transaction; durable on return.
    pub fn commit(&self, device: &Device, checkpoint: u64, patch: &Patch) -> Result<(), IndexError> {
        device.check().map_err(|fault| IndexError::Io(fault.source.to_string()))?;
        let mut root = *self.root.lock().unwrap_or_else(PoisonError::into_inner);
        root.checkpoint = checkpoint;
        let mut txn = self.env.write_txn()?;
        for (name, value) in patch {
            let bad = || IndexError::Damaged("a record it replaces is bad".into());
            if let Some(old) = self.tree.get(&txn, name)? {
                root.subtract(row::unseal(Entry { key: name, value: old }).ok_or_else(bad)?.1);
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

    /// Bytes of the index file.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(self.path.join("data.mdb")).map_or(0, |m| m.len())
    }
}

/// The indexes of a node, in the order of its disks.
pub(crate) type Indexes = Vec<Arc<Index>>;

#[cfg(test)]
mod tests;

//! The pairs' entries on disk: an LMDB file with one value of at most 1 KiB for each pair.
//!
//! ```text
//! key                     value                                   (little endian)
//! "store"                 version u8 = 1, postcard Header, CRC32C u32
//! pair id, 16 bytes       version u8 = 1, postcard Entry, CRC32C u32       (the key is big endian)
//! ```
//!
//! The header identifies the file in which the store was created, by inode and creation time. A store in another file
//! is a copy (a restored backup, the disk of a moved or cloned machine), and its votes are void (see [`Store::open`]).
//! On a file system without creation times a copy is not recognised.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dyad_link::{Fingerprint, PairId, random_bytes};
use dyad_quorum::{AcceptorRecord, WitnessId};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RwTxn, WithoutTls};
use rustix::fs::{AtFlags, FlockOperation, StatxFlags, flock, statx};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::protocol::NodeKeys;

/// Maximum size of the file and of its memory map, in bytes: room for a million pairs. The file grows as needed.
const MAP_SIZE: usize = 2 << 30;
const VERSION: u8 = 1;
const HEADER_KEY: &[u8] = b"store";
/// Maximum size of a stored value, in bytes.
const MAX_VALUE: usize = 1024;

/// The errors of the store. Each of them ends the daemon.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("the witness's directory {} cannot be used; check that it exists and may be written", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Another daemon has locked the directory.
    #[error("another dyad-witness already uses the directory {}; stop it first", path.display())]
    InUse { path: PathBuf },
    /// LMDB could not read or write.
    #[error("the witness's records cannot be read or written; check its disk")]
    Database(#[from] heed::Error),
    /// The header is damaged or of a later version.
    #[error(
        "the witness's store is damaged or was made by a later version; install that version or enrol the pairs at a new witness"
    )]
    Header,
    /// The thread that writes the store ended without an error, by a panic: a defect of this program.
    #[error("the thread that writes the witness's records has died; report this")]
    Ended,
    /// A value is larger than [`MAX_VALUE`]. The acceptor's rules limit records to less.
    #[error("a record of {bytes} bytes is larger than the {MAX_VALUE} a pair may use")]
    TooLarge {
        /// Size of the value, in bytes.
        bytes: usize,
    },
}

/// The stored data of a pair: its name, the keys of its nodes, and the witness's acceptor record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) keys: NodeKeys,
    pub(crate) record: AcceptorRecord,
}

impl Entry {
    pub(crate) fn knows(&self, key: Fingerprint) -> bool {
        self.keys.contains(&Some(key))
    }
}

/// The result of reading a pair's entry.
#[derive(Debug)]
pub(crate) enum StoredEntry {
    /// The pair is not enrolled.
    Missing,
    /// The value does not match its checksum or cannot be decoded.
    Damaged,
    Valid(Box<Entry>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// Id of the witness.
    id: u128,
    /// The file in which the store was created; `None` if its file system records no creation times.
    file: Option<FileIdentity>,
}

/// Identity of a file: a copy of the file differs in at least one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FileIdentity {
    inode: u64,
    born_s: i64,
    born_ns: u32,
}

impl FileIdentity {
    /// The identity of the file at `path`; `None` if the file system does not record creation times.
    fn of(path: &Path) -> std::io::Result<Option<Self>> {
        let stat = statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::BTIME)?;
        let has_birth_time = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let identity = Self { inode: stat.stx_ino, born_s: stat.stx_btime.tv_sec, born_ns: stat.stx_btime.tv_nsec };
        Ok(has_birth_time.then_some(identity))
    }
}

/// A random incarnation number for a new record, never 0.
pub(crate) fn new_incarnation() -> u64 {
    u64::from_ne_bytes(random_bytes()).max(1)
}

/// Encodes a value: version, postcard, CRC32C.
fn seal(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(value).expect("records have a postcard form"));
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    if bytes.len() > MAX_VALUE { Err(StoreError::TooLarge { bytes: bytes.len() }) } else { Ok(bytes) }
}

/// Decodes a value; `None` if its checksum, version or content is wrong.
fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
        return None;
    }
    dyad_link::frame::from_payload(content.strip_prefix(&[VERSION])?).ok()
}

/// The open store. A lock on its directory allows one process at a time.
#[derive(Debug)]
pub(crate) struct Store {
    env: Env<WithoutTls>,
    tree: Database<'static, Bytes, Bytes>,
    id: WitnessId,
    /// The directory, locked while the store is open.
    _lock: OwnedFd,
}

impl Store {
    /// Opens the store in `directory`, or creates it.
    ///
    /// A store that was copied becomes a new witness: it gets a new id, and each pair gets an empty record with a new
    /// incarnation. The keys of the nodes stay, so that the pairs need not enrol again: their next configurations admit
    /// the new witness.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Directory { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let lock: OwnedFd = File::open(directory).map_err(io)?.into();
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::InUse { path: directory.to_owned() })?;
        let (env, tree) = Self::open_database(directory)?;
        // A new file must survive a power loss: LMDB syncs its content, this its directory entry.
        rustix::fs::fsync(&lock).map_err(|error| io(error.into()))?;
        let here = FileIdentity::of(&directory.join("data.mdb")).map_err(io)?;
        let mut store = Self { env, tree, id: WitnessId::NONE, _lock: lock };
        store.id = store.read_header(here)?;
        Ok(store)
    }

    /// Opens or creates the LMDB file in `directory`.
    #[allow(unsafe_code)]
    fn open_database(directory: &Path) -> Result<(Env<WithoutTls>, Database<'static, Bytes, Bytes>), StoreError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_SIZE);
        // SAFETY: LMDB maps the file, so no other program may write or truncate it. The directory belongs to the daemon
        // and is locked against other daemons.
        let env = unsafe { options.open(directory)? };
        let txn = env.write_txn()?;
        let tree = env
            .create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
                opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok((env, tree))
    }

    /// Reads the header, or writes it if there is none; returns the witness's id. If the store is in another file than
    /// the header says, replaces the id and all records.
    fn read_header(&self, here: Option<FileIdentity>) -> Result<WitnessId, StoreError> {
        let mut batch = self.begin()?;
        let stored = self.tree.get(&batch.txn, HEADER_KEY)?.map(<[u8]>::to_vec);
        let known: Option<Header> = match stored {
            Some(bytes) => Some(unseal(&bytes).ok_or(StoreError::Header)?),
            None => None,
        };
        let copied = known.as_ref().is_some_and(|known| known.file.is_some() && here.is_some() && known.file != here);
        let id = match &known {
            Some(known) if !copied => known.id,
            _ => u128::from_ne_bytes(random_bytes()).max(1),
        };
        if copied {
            tracing::warn!("this store is a copy of another one: all its votes are void until the pairs admit it");
            for (pair, slot) in batch.entries()? {
                if let StoredEntry::Valid(mut entry) = slot {
                    entry.record = AcceptorRecord::witness(WitnessId(id), new_incarnation());
                    batch.put(pair, &entry)?;
                }
            }
        }
        let header = Header { id, file: here };
        if known.as_ref() != Some(&header) {
            self.tree.put(&mut batch.txn, HEADER_KEY, &seal(&header)?)?;
            batch.changed = true;
        }
        batch.finish()?;
        Ok(WitnessId(id))
    }

    /// The id by which the pairs' configurations name this witness.
    #[cfg(test)]
    pub(crate) fn id(&self) -> WitnessId {
        self.id
    }

    /// The pairs that the file holds, ascending, without the changes of a batch that is not finished.
    #[cfg(test)]
    pub(crate) fn committed_pairs(&self) -> Vec<PairId> {
        let txn = self.env.read_txn().expect("LMDB has a place for a reader");
        let rows = self.tree.iter(&txn).expect("the tree can be read");
        let keys = rows.filter_map(|row| <[u8; 16]>::try_from(row.expect("the row can be read").0).ok());
        keys.map(|key| PairId(u128::from_be_bytes(key))).collect()
    }

    /// Begins a batch of changes. Dropping the batch discards them.
    pub(crate) fn begin(&self) -> Result<Batch<'_>, StoreError> {
        Ok(Batch { txn: self.env.write_txn()?, tree: self.tree, id: self.id, changed: false })
    }
}

/// Reads and changes in one LMDB transaction. The changes become durable together, by [`Batch::finish`].
pub(crate) struct Batch<'s> {
    txn: RwTxn<'s>,
    tree: Database<'static, Bytes, Bytes>,
    id: WitnessId,
    changed: bool,
}

impl Batch<'_> {
    pub(crate) fn witness(&self) -> WitnessId {
        self.id
    }

    pub(crate) fn get(&self, pair: PairId) -> Result<StoredEntry, StoreError> {
        Ok(match self.tree.get(&self.txn, &pair.0.to_be_bytes())? {
            None => StoredEntry::Missing,
            Some(bytes) => unseal(bytes).map_or(StoredEntry::Damaged, |entry| StoredEntry::Valid(Box::new(entry))),
        })
    }

    pub(crate) fn put(&mut self, pair: PairId, entry: &Entry) -> Result<(), StoreError> {
        self.changed = true;
        Ok(self.tree.put(&mut self.txn, &pair.0.to_be_bytes(), &seal(entry)?)?)
    }

    /// Removes the entry of a pair; returns whether there was one.
    pub(crate) fn delete(&mut self, pair: PairId) -> Result<bool, StoreError> {
        self.changed = true;
        Ok(self.tree.delete(&mut self.txn, &pair.0.to_be_bytes())?)
    }

    pub(crate) fn entries(&self) -> Result<Vec<(PairId, StoredEntry)>, StoreError> {
        let mut pairs = Vec::new();
        for found in self.tree.iter(&self.txn)? {
            let (key, bytes) = found?;
            let Ok(key) = <[u8; 16]>::try_from(key) else { continue };
            let slot = unseal(bytes).map_or(StoredEntry::Damaged, |entry| StoredEntry::Valid(Box::new(entry)));
            pairs.push((PairId(u128::from_be_bytes(key)), slot));
        }
        Ok(pairs)
    }

    /// Commits the batch and syncs the file. A batch without changes is ended without a sync.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        if self.changed { Ok(self.txn.commit()?) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use dyad_quorum::{Ballot, Config, Exception, MAX_EXCEPTIONS};
    use dyad_types::{Epoch, NodeId, VolumeId};
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        let record = AcceptorRecord::witness(WitnessId(u128::MAX), u64::MAX);
        Entry { name: "x".repeat(crate::protocol::MAX_NAME), keys: [Some(Fingerprint([9; 32])); 2], record }
    }

    /// The largest entry that the acceptor's rules allow.
    fn largest() -> Entry {
        let exceptions = vec![Exception { volume: VolumeId(u64::MAX), holder: NodeId::B }; MAX_EXCEPTIONS];
        let config = Config {
            epoch: Epoch(u64::MAX),
            incarnations: [u64::MAX; 3],
            witness: WitnessId(u128::MAX),
            lineage: u64::MAX,
            exceptions,
            ..Config::none()
        };
        let ballot = Ballot { round: u64::MAX, node: NodeId::B };
        let mut entry = entry();
        entry.record.witness_changes = u64::MAX;
        entry.record.promised = ballot;
        entry.record.base = config.clone();
        entry.record.accepted = Some((ballot, config));
        entry
    }

    fn put(store: &Store, pair: PairId, entry: &Entry) {
        let mut batch = store.begin().unwrap();
        batch.put(pair, entry).unwrap();
        batch.finish().unwrap();
    }

    fn get(store: &Store, pair: PairId) -> Option<Entry> {
        match store.begin().unwrap().get(pair).unwrap() {
            StoredEntry::Valid(entry) => Some(*entry),
            StoredEntry::Missing | StoredEntry::Damaged => None,
        }
    }

    #[test]
    fn the_largest_entry_is_smaller_than_a_kibibyte() {
        let size = seal(&largest()).unwrap().len();
        assert!(size < 1024, "{size} bytes");
    }

    #[test]
    fn a_finished_batch_is_kept_and_an_unfinished_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let id = {
            let store = Store::open(directory.path()).unwrap();
            put(&store, PairId(1), &entry());
            store.begin().unwrap().put(PairId(2), &entry()).unwrap();
            store.id()
        };
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.id(), id);
        assert_eq!(get(&store, PairId(1)), Some(entry()));
        assert_eq!(get(&store, PairId(2)), None);
    }

    #[test]
    fn two_daemons_do_not_share_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let _store = Store::open(directory.path()).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(StoreError::InUse { .. })));
    }

    #[test]
    fn a_copied_store_keeps_the_keys_and_voids_the_votes() {
        let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut voted = largest();
        {
            let store = Store::open(original.path()).unwrap();
            voted.record.witness = store.id();
            put(&store, PairId(1), &voted);
        }
        std::fs::copy(original.path().join("data.mdb"), copy.path().join("data.mdb")).unwrap();
        let (store, restored) = (Store::open(original.path()).unwrap(), Store::open(copy.path()).unwrap());
        assert_eq!(get(&store, PairId(1)), Some(voted.clone()));
        assert_ne!(store.id(), restored.id());
        let void = get(&restored, PairId(1)).unwrap();
        assert_eq!((void.keys, &void.name), (voted.keys, &voted.name));
        assert_eq!(void.record, AcceptorRecord::witness(restored.id(), void.record.incarnation));
        assert_ne!(void.record.incarnation, voted.record.incarnation);
        // Opened again, the copy keeps its new id and records.
        drop(restored);
        let again = Store::open(copy.path()).unwrap();
        assert_eq!(get(&again, PairId(1)), Some(void));
    }

    /// File systems number their inodes from small values, so a copy on another disk may get the number of the original.
    #[test]
    fn a_store_whose_file_has_another_inode_or_another_birth_is_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let here = FileIdentity { inode: 12, born_s: 1_700_000_000, born_ns: 5 };
        let store = Store::open(directory.path()).unwrap();
        let mut id = store.read_header(Some(here)).unwrap();
        assert_eq!(store.read_header(Some(here)).unwrap(), id);
        for other in [
            FileIdentity { inode: 13, ..here },
            FileIdentity { born_s: here.born_s + 1, ..here },
            FileIdentity { born_ns: 6, ..here },
        ] {
            for file in [other, here] {
                let of_the_copy = store.read_header(Some(file)).unwrap();
                assert_ne!(of_the_copy, id, "{file:?}");
                id = of_the_copy;
            }
        }
    }

    #[test]
    fn a_damaged_entry_is_not_reported_as_missing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut bytes = seal(&entry()).unwrap();
        bytes[20] ^= 1;
        let mut batch = store.begin().unwrap();
        batch.tree.put(&mut batch.txn, &1u128.to_be_bytes(), &bytes).unwrap();
        assert!(matches!(batch.get(PairId(1)).unwrap(), StoredEntry::Damaged));
        assert!(matches!(batch.get(PairId(2)).unwrap(), StoredEntry::Missing));
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_entry_and_no_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(unseal::<Entry>(&noise), None);
            let mut behind = vec![VERSION];
            behind.extend(noise);
            behind.extend(crc32c::crc32c(&behind).to_le_bytes());
            let _ = unseal::<Entry>(&behind);
        }
    }
}

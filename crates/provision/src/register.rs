//! The files of this node's register (the record of its acceptor): two slots in each of two files. Each write is
//! durable when it returns (`O_DSYNC`).
//!
//! One file lies on the state partition, the other in the index directory of the first pool disk, so that damage to one
//! of them leaves the record in the other. If a file is missing, the core does not start: its disk is lost as well.
//!
//! **Invariant.** A record counts as durable only when both files hold it. After the first failed write the caller
//! writes nothing more until the core is started again: what a failed write left on the disk is unknown.

use dyad_quorum::AcceptorRecord;
use dyad_quorum::slots::{self, RegisterChoice, RegisterId, SLOT_BYTES};
use dyad_types::NodeId;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the file in both directories.
const FILE_NAME: &str = "register";

/// The open register of this node.
#[derive(Debug)]
pub struct RegisterFiles {
    id: RegisterId,
    files: [File; 2],
    /// Number of the last written record; it selects the slot.
    write_number: u64,
}

/// The path of the register's file in one of its two directories.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// The errors of creating, opening and writing the register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A file cannot be opened or created.
    #[error("the register {} cannot be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// A file cannot be written.
    #[error("the register in slot {slot} of file {file} cannot be written")]
    Write {
        /// 0: on the state partition, 1: on the first pool disk.
        file: usize,
        /// Slot of the file, 0 or 1.
        slot: usize,
        source: io::Error,
    },
    /// Neither file holds a record: all slots are zero.
    #[error("the register is empty although this node was set up: erase this node and join it again")]
    Empty,
    /// The newest record may be lost: too many slots are unreadable.
    #[error("the register is damaged in both files: erase this node and join it again")]
    Damaged,
    /// A slot belongs to another pair, or to the other node.
    #[error("the register belongs to node {node} of another pair")]
    Foreign {
        /// The node that the slot names.
        node: NodeId,
    },
    /// A slot was written in a format version that this program does not know.
    #[error("the register has version {version}: update this node")]
    Version {
        /// Version in the slot.
        version: u32,
    },
}

fn open(dir: &Path, create: bool) -> Result<File, RegisterError> {
    open_file(dir, create).map_err(|source| RegisterError::Open { path: path(dir), source })
}

fn open_file(dir: &Path, create: bool) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    // DSYNC: a write returns only when the data is durable.
    options.read(true).write(true).mode(0o600).custom_flags(rustix::fs::OFlags::DSYNC.bits() as i32);
    if create {
        options.create(true).truncate(true);
    }
    let file = options.open(path(dir))?;
    if create {
        // Preallocated, so that a later write cannot fail for lack of space.
        file.write_all_at(&[0; 2 * SLOT_BYTES], 0)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

impl RegisterFiles {
    /// Creates the register of a new store and writes its first record.
    ///
    /// # Errors
    /// A file cannot be created or written.
    pub fn create(dirs: [&Path; 2], id: RegisterId, record: &AcceptorRecord) -> Result<(), RegisterError> {
        let files = [open(dirs[0], true)?, open(dirs[1], true)?];
        let mut files = Self { id, files, write_number: 0 };
        // Two writes, so that both slots of both files hold a valid record.
        files.write(record)?;
        files.write(record)
    }

    /// Opens the register and reads the newest record.
    ///
    /// # Errors
    /// A file cannot be opened, or the newest record of this node cannot be determined.
    pub fn open(dirs: [&Path; 2], id: RegisterId) -> Result<(Self, AcceptorRecord), RegisterError> {
        let files = [open(dirs[0], false)?, open(dirs[1], false)?];
        let copies: Vec<Vec<u8>> = files
            .iter()
            .flat_map(|file| [(file, 0), (file, SLOT_BYTES as u64)])
            .map(|(file, at)| {
                let mut slot = vec![0; SLOT_BYTES];
                file.read_exact_at(&mut slot, at).map_or(Vec::new(), |()| slot)
            })
            .collect();
        match slots::choose(id, [[&copies[0], &copies[1]], [&copies[2], &copies[3]]]) {
            RegisterChoice::Record { write_number, record } => Ok((Self { id, files, write_number }, *record)),
            RegisterChoice::Fresh => Err(RegisterError::Empty),
            RegisterChoice::Amnesia => Err(RegisterError::Damaged),
            RegisterChoice::Foreign(other) => Err(RegisterError::Foreign { node: other.node }),
            RegisterChoice::UnknownVersion(version) => Err(RegisterError::Version { version }),
        }
    }

    /// Writes a record to one slot of both files. It is durable when this returns.
    ///
    /// # Errors
    /// [`RegisterError::Write`]: what the files hold now is unknown, and the caller must write nothing more
    /// until the core is started again.
    pub fn write(&mut self, record: &AcceptorRecord) -> Result<(), RegisterError> {
        let write_number = self.write_number + 1;
        let bytes = slots::encode(self.id, write_number, record);
        let slot = slots::slot_of(write_number);
        let at = (slot * SLOT_BYTES) as u64;
        for (file, handle) in self.files.iter().enumerate() {
            handle.write_all_at(&bytes, at).map_err(|source| RegisterError::Write { file, slot, source })?;
        }
        self.write_number = write_number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_is_read_from_either_file_and_its_loss_in_both_is_an_error() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = [a.path(), b.path()];
        let id = RegisterId { pair: 7, node: NodeId::A };
        let mut record = AcceptorRecord::first_node(NodeId::A, 3);
        RegisterFiles::create(dirs, id, &record).unwrap();
        let (mut files, read) = RegisterFiles::open(dirs, id).unwrap();
        assert_eq!(read, record);
        record.witness_changes = 9;
        files.write(&record).unwrap();
        drop(files);
        // The newest slot is torn in the first file.
        let file = File::options().write(true).open(a.path().join(FILE_NAME)).unwrap();
        file.write_all_at(&[0xff; 100], SLOT_BYTES as u64).unwrap();
        assert_eq!(RegisterFiles::open(dirs, id).unwrap().1, record);
        // It is torn in the second file too: an error, not the older record.
        let file = File::options().write(true).open(b.path().join(FILE_NAME)).unwrap();
        file.write_all_at(&[0xff; 100], SLOT_BYTES as u64).unwrap();
        assert!(RegisterFiles::open(dirs, id).unwrap_err().to_string().contains("damaged"));
    }

    /// Otherwise each vote after the first restart of the daemon would be in the page cache only.
    #[test]
    fn a_write_is_durable_when_it_returns_also_after_the_register_was_opened_again() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dirs, id) = ([a.path(), b.path()], RegisterId { pair: 7, node: NodeId::A });
        RegisterFiles::create(dirs, id, &AcceptorRecord::first_node(NodeId::A, 3)).unwrap();
        for file in RegisterFiles::open(dirs, id).unwrap().0.files {
            let flags = rustix::fs::fcntl_getfl(&file).unwrap();
            assert!(flags.contains(rustix::fs::OFlags::DSYNC), "{flags:?}");
        }
    }
}

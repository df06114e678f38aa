//! The register's slots on disk: two slots in each of two files, written through to the medium.
//!
//! One file lies on the state partition, the other beside the index of the first pool disk, so that damage to either leaves
//! the record. A node that has lost one of the two files does not start: the disk below it is gone too.
//!
//! **Invariant.** A record counts as durable only when both files hold it. After the first failed write the caller writes
//! nothing any more in this run: what a failed `fsync` left behind is unknown.

use dyad_quorum::AcceptorRecord;
use dyad_quorum::slots::{self, RegisterChoice, RegisterId, SLOT_BYTES};
use dyad_types::NodeId;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the file in both folders.
const NAME: &str = "register";

/// The open register of this node.
#[derive(Debug)]
pub struct RegisterFiles {
    id: RegisterId,
    files: [File; 2],
    write_number: u64,
}

/// The register's file in one of its two folders.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Why the register cannot be made, opened or written.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A file cannot be opened or made.
    #[error("the register {} cannot be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// A file cannot be written.
    #[error("the register in slot {slot} of file {file} cannot be written")]
    Write {
        /// 0 = on the state partition, 1 = on the first pool disk.
        file: usize,
        /// Slot of the file, 0 or 1.
        slot: usize,
        source: io::Error,
    },
    /// Both files are empty.
    #[error("the register is empty although this node was set up: erase this node and join it again")]
    Empty,
    /// No slot of either file is readable.
    #[error("the register is damaged in both files: erase this node and join it again")]
    Damaged,
    /// The files belong to another pair.
    #[error("the register belongs to node {node} of another pair")]
    Foreign {
        /// A or B, as the files say.
        node: NodeId,
    },
    /// The files are of another version of this program.
    #[error("the register has version {version}: update this node")]
    Version {
        /// Version of the files.
        version: u32,
    },
}

fn open(dir: &Path, create: bool) -> Result<File, RegisterError> {
    open_file(dir, create).map_err(|source| RegisterError::Open { path: path(dir), source })
}

fn open_file(dir: &Path, create: bool) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    // Written through: the return of a write means that the medium has it.
    options.read(true).write(true).mode(0o600).custom_flags(rustix::fs::OFlags::DSYNC.bits() as i32);
    if create {
        options.create(true).truncate(true);
    }
    let file = options.open(path(dir))?;
    if create {
        // Preallocated, so that a later write needs no space.
        file.write_all_at(&[0; 2 * SLOT_BYTES], 0)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

impl RegisterFiles {
    /// Makes the register of a new store and writes its first record.
    ///
    /// # Errors
    /// A file cannot be made or written.
    pub fn create(dirs: [&Path; 2], id: RegisterId, record: &AcceptorRecord) -> Result<(), RegisterError> {
        let files = [open(dirs[0], true)?, open(dirs[1], true)?];
        let mut files = Self { id, files, write_number: 0 };
        // Twice: both slots of both files are whole from the first moment.
        files.write(record)?;
        files.write(record)
    }

    /// Opens the register and reads the newest record.
    ///
    /// # Errors
    /// A file cannot be opened, or no record of this node is readable in either.
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

    /// Writes a record to both files. It is durable when this returns.
    ///
    /// # Errors
    /// [`RegisterError::Write`]: what the files hold now is unknown, and nothing may be written any more in this run.
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
    fn a_record_comes_back_and_one_file_is_enough_for_the_newest() {
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
        // The newest slot is torn in one file.
        let file = File::options().write(true).open(a.path().join(NAME)).unwrap();
        file.write_all_at(&[0xff; 100], SLOT_BYTES as u64).unwrap();
        assert_eq!(RegisterFiles::open(dirs, id).unwrap().1, record);
        // And in the other: amnesia, never the older one.
        let file = File::options().write(true).open(b.path().join(NAME)).unwrap();
        file.write_all_at(&[0xff; 100], SLOT_BYTES as u64).unwrap();
        assert!(RegisterFiles::open(dirs, id).unwrap_err().to_string().contains("damaged"));
    }
}

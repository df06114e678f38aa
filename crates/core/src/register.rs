//! The register's slots on disk: two slots in each of two files, written through to the medium.
//!
//! One place is a file on the state partition, the other a file beside the index of the first pool disk, so that damage to
//! either leaves the record. A node one of whose files is gone altogether does not start: its disk is gone too.
//!
//! **Invariants.** A record counts as durable only when both files hold it. After the first failed write nothing is
//! written any more in this run: what a failed `fsync` left behind is unknown.

use crate::quorum_handle::{QuorumHandle, QuorumInput};
use anyhow::{Context, bail};
use dyad_quorum::slots::{self, Choice, RegisterId, SLOT_BYTES};
use dyad_quorum::{Event, Record};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

/// The file's name in both files.
const NAME: &str = "register";

/// The open register of this node.
#[derive(Debug)]
pub struct RegisterFiles {
    id: RegisterId,
    files: [File; 2],
    generation: u64,
}

/// The register's file in one of its files.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

fn open(dir: &Path, create: bool) -> anyhow::Result<File> {
    let path = path(dir);
    let mut options = fs::OpenOptions::new();
    // Written through: the return of a write means that the medium has it.
    options.read(true).write(true).mode(0o600).custom_flags(rustix::fs::OFlags::DSYNC.bits() as i32);
    if create {
        options.create(true).truncate(true);
    }
    let file = options.open(&path).with_context(|| format!("the register {} cannot be opened", path.display()))?;
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
    pub fn create(dirs: [&Path; 2], id: RegisterId, record: &Record) -> anyhow::Result<()> {
        let files = [open(dirs[0], true)?, open(dirs[1], true)?];
        let mut files = Self { id, files, generation: 0 };
        // Twice: both slots of both files are whole from the first moment.
        files.write(record)?;
        files.write(record)
    }

    /// Opens the register and reads the newest record.
    pub fn open(dirs: [&Path; 2], id: RegisterId) -> anyhow::Result<(Self, Record)> {
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
            Choice::Record { generation, record } => Ok((Self { id, files, generation }, *record)),
            Choice::Fresh => {
                bail!("the register is empty although this node was set up: erase this node and join it again")
            }
            Choice::Amnesia => bail!("the register is damaged in both files: erase this node and join it again"),
            Choice::Foreign(other) => bail!("the register belongs to node {} of another pair", other.node),
            Choice::UnknownVersion(version) => bail!("the register has version {version}: update this node"),
        }
    }

    fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        let generation = self.generation + 1;
        let bytes = slots::encode(self.id, generation, record);
        let at = (slots::slot_of(generation) * SLOT_BYTES) as u64;
        for file in &self.files {
            file.write_all_at(&bytes, at)?;
        }
        self.generation = generation;
        Ok(())
    }
}

/// The way to the register's thread.
pub struct Register(Sender<(u64, Record)>);

impl Register {
    /// Starts the thread; it reports to the quorum_thread.
    pub fn start(mut files: RegisterFiles, quorum_thread: QuorumHandle) -> Self {
        let (sender, orders) = channel::<(u64, Record)>();
        let run = move || {
            let mut failed = false;
            for (token, record) in orders {
                let written = if failed { bail_failed() } else { files.write(&record) };
                let event = match written {
                    Ok(()) => Event::Persisted { token },
                    Err(e) => {
                        failed = true;
                        tracing::error!(error = format!("{e:#}"), "the register cannot be written");
                        Event::PersistFailed { token }
                    }
                };
                quorum_thread.send(QuorumInput::Quorum(event));
            }
        };
        std::thread::Builder::new()
            .name("register".into())
            .spawn(run)
            .expect("the system can start a thread at start-up");
        Self(sender)
    }

    /// Makes a record durable, then reports its token.
    pub fn save(&self, token: u64, record: Record) {
        let _ = self.0.send((token, record));
    }
}

fn bail_failed() -> anyhow::Result<()> {
    bail!("an earlier write failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_types::NodeId;

    #[test]
    fn a_record_comes_back_and_one_place_is_enough_for_the_newest() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = [a.path(), b.path()];
        let id = RegisterId { pair: 7, node: NodeId::A };
        let mut record = Record::first_node(NodeId::A, 3);
        RegisterFiles::create(dirs, id, &record).unwrap();
        let (mut files, read) = RegisterFiles::open(dirs, id).unwrap();
        assert_eq!(read, record);
        record.mark = 9;
        files.write(&record).unwrap();
        drop(files);
        // The newest slot is torn in one place.
        let file = File::options().write(true).open(a.path().join(NAME)).unwrap();
        file.write_all_at(&[0xff; 100], SLOT_BYTES as u64).unwrap();
        assert_eq!(RegisterFiles::open(dirs, id).unwrap().1, record);
        // And in the other: amnesia, never the older one.
        let file = File::options().write(true).open(b.path().join(NAME)).unwrap();
        file.write_all_at(&[0xff; 100], SLOT_BYTES as u64).unwrap();
        assert!(RegisterFiles::open(dirs, id).unwrap_err().to_string().contains("damaged"));
    }
}

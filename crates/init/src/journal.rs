//! The output of the services, kept on the state partition.
//!
//! Services write into pipes; init empties them and hands the text to one thread, which alone touches the disk. When
//! the disk hangs, text is dropped: a service must never wait for its own log, least of all `dyad-core`.

use crate::log;
use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const DIRECTORY: &str = "/state/log";
/// A log of this size, in bytes, becomes `NAME.log.1`, replacing the older one.
const LARGEST: u64 = 8 << 20;
/// Pieces of text that may wait for the disk. Each has at most [`PIECE`] bytes.
const WAITING: usize = 64;
const PIECE: usize = 16 << 10;

type Piece = (String, Vec<u8>);

/// Sends output to the thread that writes it.
#[derive(Clone)]
pub struct Journal {
    sender: SyncSender<Piece>,
}

impl Journal {
    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::Builder::new().name("journal".into()).spawn(move || keep(&receiver, Path::new(DIRECTORY)))?;
        Ok(Self { sender })
    }

    /// A pipe for the output of one service.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    pub fn pipe(&self, name: &str) -> io::Result<(Output, PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((Output { name: name.into(), reader, sender: self.sender.clone() }, writer))
    }
}

/// The output of one run of a service.
pub struct Output {
    name: String,
    reader: PipeReader,
    sender: SyncSender<Piece>,
}

impl Output {
    /// Takes what is there; call it when the pipe is readable. `false`: the service and its children closed it.
    pub fn take(&mut self) -> bool {
        let mut buffer = vec![0; PIECE];
        match self.reader.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                buffer.truncate(length);
                let _ = self.sender.try_send((self.name.clone(), buffer));
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

fn keep(receiver: &Receiver<Piece>, directory: &Path) {
    let mut healthy = true;
    for (name, text) in receiver {
        let result = append(directory, &name, &text, LARGEST);
        if let (true, Err(error)) = (healthy, &result) {
            log::warn(&format!("logs are not kept: {error}"));
        }
        healthy = result.is_ok();
    }
}

fn append(directory: &Path, name: &str, text: &[u8], largest: u64) -> io::Result<()> {
    let path: PathBuf = directory.join(format!("{name}.log"));
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    if file.metadata()?.len() + text.len() as u64 > largest {
        fs::rename(&path, path.with_extension("log.1"))?;
        file = OpenOptions::new().create(true).append(true).open(&path)?;
    }
    file.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_makes_room_and_keeps_one_older() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in ["first\n", "second\n", "third\n"] {
            append(dir.path(), "dyad-core", text.as_bytes(), 13).expect("written");
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("kept");
        assert_eq!(read("dyad-core.log"), "third\n");
        assert_eq!(read("dyad-core.log.1"), "first\nsecond\n");
    }

    #[test]
    fn a_hanging_disk_drops_text_instead_of_blocking() {
        let (sender, receiver) = sync_channel(1);
        let journal = Journal { sender };
        let (mut output, mut writer) = journal.pipe("x").expect("a pipe");
        for _ in 0..3 {
            writer.write_all(b"text").expect("written");
            assert!(output.take());
        }
        drop(writer);
        assert!(!output.take(), "the end was not noticed");
        drop((journal, output));
        assert_eq!(receiver.iter().count(), 1);
    }
}

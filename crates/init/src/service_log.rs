//! The log of the services: their standard output and error, stored on the state partition.
//!
//! Services write into pipes. init reads the pipes and passes the text to one thread, which alone writes to the disk. If the
//! disk hangs, text is dropped, because a service must never wait for its log: `dyad-core` must feed the watchdog.
//!
//! Text is durable within about a second: after a reset by the watchdog the log tells what came before it.

use crate::log;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "/state/log";
/// Maximum size of `NAME.log` in bytes. Before it grows larger it is renamed to `NAME.log.1`, which replaces the older one.
const MAX_LOG_BYTES: u64 = 8 << 20;
/// Maximum number of chunks that wait for the disk; further ones are dropped.
const MAX_QUEUED_CHUNKS: usize = 64;
/// Maximum size of one chunk, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// Longest time for which text is not durable, besides the time that the disk takes.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Name of a service and a part of its output.
type Chunk = (String, Vec<u8>);

/// Handle of the thread that writes the logs.
#[derive(Clone)]
pub struct ServiceLog {
    sender: SyncSender<Chunk>,
}

impl ServiceLog {
    /// Starts the thread that writes the logs.
    ///
    /// # Errors
    ///
    /// The kernel starts no thread.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_QUEUED_CHUNKS);
        std::thread::Builder::new()
            .name("service-log".into())
            .spawn(move || write_chunks(&receiver, Path::new(DIRECTORY), FLUSH_INTERVAL, flush))?;
        Ok(Self { sender })
    }

    /// Creates a pipe for the output of one run of a service.
    ///
    /// # Errors
    ///
    /// The kernel creates no pipe, for example because no descriptor is free.
    pub fn pipe(&self, name: &str) -> io::Result<(ServiceOutput, PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((ServiceOutput { name: name.into(), reader, sender: self.sender.clone() }, writer))
    }
}

/// The pipe with the output of one run of a service.
pub struct ServiceOutput {
    name: String,
    reader: PipeReader,
    sender: SyncSender<Chunk>,
}

impl ServiceOutput {
    /// Reads one chunk and passes it to the writing thread; blocks unless the pipe is readable. Returns `false` when the
    /// service and all its children have closed the pipe.
    pub fn read_chunk(&mut self) -> bool {
        let mut buffer = vec![0; CHUNK_BYTES];
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

impl AsFd for ServiceOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// Writes the chunks until no sender is left. Each chunk is durable after at most `flush_interval`.
fn write_chunks(receiver: &Receiver<Chunk>, directory: &Path, flush_interval: Duration, mut flush: impl FnMut(&File)) {
    let mut healthy = true;
    let mut unflushed = BTreeMap::new();
    let mut flush_at: Option<Instant> = None;
    loop {
        let chunk = match flush_at {
            Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let ended = matches!(chunk, Err(RecvTimeoutError::Disconnected));
        if let Ok((name, text)) = chunk {
            let result = append(directory, &name, &text, MAX_LOG_BYTES);
            if let (true, Err(error)) = (healthy, &result) {
                log::warn(&format!("the logs of the services cannot be written: {error}"));
            }
            healthy = result.is_ok();
            if let Ok(file) = result {
                unflushed.insert(name, file);
                flush_at.get_or_insert_with(|| Instant::now() + flush_interval);
            }
        }
        if ended || flush_at.is_some_and(|at| at <= Instant::now()) {
            std::mem::take(&mut unflushed).values().for_each(&mut flush);
            flush_at = None;
        }
        if ended {
            return;
        }
    }
}

/// A failure is ignored: a disk that cannot flush cannot keep a message about it either.
fn flush(file: &File) {
    let _ = file.sync_data();
}

/// Appends to the log of this service, and returns its file.
fn append(directory: &Path, name: &str, text: &[u8], max_bytes: u64) -> io::Result<File> {
    let path: PathBuf = directory.join(format!("{name}.log"));
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    if file.metadata()?.len() + text.len() as u64 > max_bytes {
        fs::rename(&path, path.with_extension("log.1"))?;
        file = OpenOptions::new().create(true).append(true).open(&path)?;
    }
    file.write_all(text)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_renamed_and_one_older_log_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in ["first\n", "second\n", "third\n"] {
            append(dir.path(), "dyad-core", text.as_bytes(), 13).expect("written");
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("kept");
        assert_eq!(read("dyad-core.log"), "third\n");
        assert_eq!(read("dyad-core.log.1"), "first\nsecond\n");
    }

    #[test]
    fn text_is_flushed_once_for_many_chunks_and_again_for_later_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let (sender, receiver) = sync_channel(MAX_QUEUED_CHUNKS);
        let (flushed, flushes) = std::sync::mpsc::channel();
        let folder = dir.path().to_owned();
        let flush = move |file: &File| {
            let _ = flushed.send(file.metadata().expect("a size").len());
        };
        let writer = std::thread::spawn(move || write_chunks(&receiver, &folder, Duration::from_millis(200), flush));
        for text in ["ab", "cd"] {
            sender.send(("dyad-core".into(), text.into())).expect("the thread runs");
        }
        // Flushed while nothing else happens; on a busy machine once before the second text.
        let mut flushed = flushes.recv_timeout(Duration::from_secs(10));
        if flushed == Ok(2) {
            flushed = flushes.recv_timeout(Duration::from_secs(10));
        }
        assert_eq!(flushed, Ok(4));
        sender.send(("dyad-core".into(), "e".into())).expect("the thread runs");
        drop(sender);
        writer.join().expect("no panic");
        assert_eq!(flushes.iter().collect::<Vec<_>>(), [5], "at the end");
    }

    #[test]
    fn text_is_dropped_and_the_service_goes_on_when_the_disk_hangs() {
        let (sender, receiver) = sync_channel(1);
        let log = ServiceLog { sender };
        let (mut output, mut writer) = log.pipe("x").expect("a pipe");
        for _ in 0..3 {
            writer.write_all(b"text").expect("written");
            assert!(output.read_chunk());
        }
        drop(writer);
        assert!(!output.read_chunk(), "the end was not noticed");
        drop((log, output));
        assert_eq!(receiver.iter().count(), 1);
    }
}

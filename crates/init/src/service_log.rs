//! The log of the services: their standard output and error, stored on the state partition.
//!
//! Services write into pipes. init reads the pipes and passes the text to one thread, which alone writes to the disk. If the
//! disk hangs, text is dropped, because a service must never wait for its log: `dyad-core` must feed the watchdog.
//!
//! Text is durable within about a second: after a reset by the watchdog the log tells what came before it.

use crate::log;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "/state/log";
/// Maximum size of `NAME.log` in bytes. Before it grows larger it is renamed to `NAME.log.1`, which replaces the older one.
const MAX_LOG_BYTES: u64 = 8 << 20;
/// Maximum number of chunks that wait for the disk; further ones are dropped. A flush takes a second or two on a busy hard
/// disk, and a chunk may be a single line.
const MAX_QUEUED_CHUNKS: usize = 1024;
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
    /// Number of chunks that were dropped and are not mentioned in a log yet.
    dropped: Arc<AtomicU64>,
}

impl ServiceLog {
    /// Starts the thread that writes the logs.
    ///
    /// # Errors
    ///
    /// The kernel starts no thread.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_QUEUED_CHUNKS);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer =
            LogWriter { directory: DIRECTORY.into(), flush_interval: FLUSH_INTERVAL, dropped: dropped.clone() };
        std::thread::Builder::new().name("service-log".into()).spawn(move || writer.run(&receiver, flush))?;
        Ok(Self { sender, dropped })
    }

    /// Creates a pipe for the output of one run of a service.
    ///
    /// # Errors
    ///
    /// The kernel creates no pipe, for example because no descriptor is free.
    pub fn pipe(&self, name: &str) -> io::Result<(ServiceOutput, PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((ServiceOutput { name: name.into(), reader, log: self.clone() }, writer))
    }
}

/// The pipe with the output of one run of a service.
pub struct ServiceOutput {
    name: String,
    reader: PipeReader,
    log: ServiceLog,
}

impl ServiceOutput {
    /// Reads one chunk and passes it to the writing thread; blocks unless the pipe is readable. Returns `false` when the
    /// service and all its children have closed the pipe.
    pub fn read_chunk(&mut self) -> bool {
        let mut buffer = [0; CHUNK_BYTES];
        match self.reader.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                if self.log.sender.try_send((self.name.clone(), buffer[..length].to_vec())).is_err() {
                    self.log.dropped.fetch_add(1, Ordering::Relaxed);
                }
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

/// The thread that writes the logs.
struct LogWriter {
    directory: PathBuf,
    /// Longest time from the arrival of a chunk to its flush.
    flush_interval: Duration,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Writes the chunks until no sender is left. `flush` makes a file durable.
    fn run(&self, receiver: &Receiver<Chunk>, mut flush: impl FnMut(&File)) {
        let mut healthy = true;
        let mut unflushed = BTreeSet::new();
        let mut flush_at: Option<Instant> = None;
        loop {
            let chunk = match flush_at {
                Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let ended = matches!(chunk, Err(RecvTimeoutError::Disconnected));
            if let Ok((name, text)) = chunk {
                let result = self.write(&name, &text, &mut flush);
                if let (true, Err(error)) = (healthy, &result) {
                    log::warn(&format!("the logs of the services cannot be written: {error}"));
                }
                healthy = result.is_ok();
                unflushed.insert(name);
                flush_at.get_or_insert_with(|| Instant::now() + self.flush_interval);
            }
            if ended || flush_at.is_some_and(|at| at <= Instant::now()) {
                for name in std::mem::take(&mut unflushed) {
                    // Opened for the moment of the flush only: an open file keeps the state partition from being unmounted.
                    if let Ok(file) = File::open(self.path(&name)) {
                        flush(&file);
                    }
                }
                flush_at = None;
            }
            if ended {
                return;
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Appends to the log of this service, and before it how many chunks of any service were dropped.
    fn write(&self, name: &str, text: &[u8], flush: &mut impl FnMut(&File)) -> io::Result<()> {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let told = format!("dyad-init: {dropped} parts of the services' output were dropped: the disk was slow\n");
            append(&self.path(name), told.as_bytes(), MAX_LOG_BYTES, flush)?;
        }
        append(&self.path(name), text, MAX_LOG_BYTES, flush)
    }
}

/// Makes the file durable. A failure is ignored: a disk that cannot flush cannot keep a message about it either.
fn flush(file: &File) {
    let _ = file.sync_data();
}

/// Appends to a log. If it would grow larger than `max_bytes`, it is flushed and renamed first.
fn append(path: &Path, text: &[u8], max_bytes: u64, flush: &mut impl FnMut(&File)) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() + text.len() as u64 > max_bytes {
        flush(&file);
        fs::rename(path, path.with_extension("log.1"))?;
        file = OpenOptions::new().create(true).append(true).open(path)?;
    }
    file.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_flushed_and_renamed_and_one_older_log_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dyad-core.log");
        let mut flushed = Vec::new();
        for text in ["first\n", "second\n", "third\n"] {
            let mut flush = |file: &File| flushed.push(file.metadata().expect("a size").len());
            append(&path, text.as_bytes(), 13, &mut flush).expect("written");
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("kept");
        assert_eq!(read("dyad-core.log"), "third\n");
        assert_eq!(read("dyad-core.log.1"), "first\nsecond\n");
        assert_eq!(flushed, [13], "before the rename");
    }

    fn writer(directory: &Path, dropped: &Arc<AtomicU64>) -> LogWriter {
        let flush_interval = Duration::from_millis(200);
        LogWriter { directory: directory.to_owned(), flush_interval, dropped: dropped.clone() }
    }

    #[test]
    fn text_is_flushed_once_for_many_chunks_and_again_for_later_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let (sender, receiver) = sync_channel(MAX_QUEUED_CHUNKS);
        let (flushed, flushes) = std::sync::mpsc::channel();
        let flush = move |file: &File| {
            let _ = flushed.send(file.metadata().expect("a size").len());
        };
        let writer = writer(dir.path(), &Arc::default());
        let writer = std::thread::spawn(move || writer.run(&receiver, flush));
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
        let dir = tempfile::tempdir().expect("a directory");
        let (sender, receiver) = sync_channel(1);
        let log = ServiceLog { sender, dropped: Arc::default() };
        let writer = writer(dir.path(), &log.dropped);
        let (mut output, mut pipe) = log.pipe("x").expect("a pipe");
        for _ in 0..3 {
            pipe.write_all(b"text\n").expect("written");
            assert!(output.read_chunk());
        }
        drop(pipe);
        assert!(!output.read_chunk(), "the end was not noticed");
        drop((log, output));
        writer.run(&receiver, |_| ());
        let told = fs::read_to_string(dir.path().join("x.log")).expect("written");
        assert_eq!(told, "dyad-init: 2 parts of the services' output were dropped: the disk was slow\ntext\n");
    }
}

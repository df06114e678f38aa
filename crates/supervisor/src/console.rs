//! The serial line of a VM: stays connected to QEMU, keeps the last 64 KiB of output, and serves any number of viewers.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};

/// Amount of output that is kept, in bytes.
const MAX_RECENT_BYTES: usize = 64 << 10;
/// Number of output chunks that wait for a slow viewer; of more it loses the oldest ones.
const MAX_OUTPUT_CHUNKS: usize = 1024;
/// Number of input chunks that may wait for the VM.
const MAX_INPUT_CHUNKS: usize = 64;
/// Pause between two attempts to connect. Also the time limit for the write of one input chunk.
const CONNECT_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The serial line of one VM. It stays the same over restarts of the VM. Clones share it.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Mutex<Shared>>,
    input: mpsc::Sender<Bytes>,
    /// Receiving end of `input`; locked by the task that serves the line.
    queued_input: Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>,
}

struct Shared {
    /// The last output, at most [`MAX_RECENT_BYTES`].
    recent: VecDeque<u8>,
    output: broadcast::Sender<Bytes>,
}

/// The output for a new viewer, without a gap or an overlap between its two parts.
pub struct Subscription {
    /// The last output, at most 64 KiB.
    pub recent: Vec<u8>,
    /// The output after `recent`. A viewer that is too slow gets `Lagged` and continues with newer output.
    pub output: broadcast::Receiver<Bytes>,
}

impl Console {
    pub(crate) fn new() -> Self {
        let (input, queued_input) = mpsc::channel(MAX_INPUT_CHUNKS);
        let shared = Shared { recent: VecDeque::new(), output: broadcast::Sender::new(MAX_OUTPUT_CHUNKS) };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            input,
            queued_input: Arc::new(tokio::sync::Mutex::new(queued_input)),
        }
    }

    /// Adds a viewer.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        Subscription { recent: shared.recent.iter().copied().collect(), output: shared.output.subscribe() }
    }

    /// Queues input for the VM. Returns false if [`MAX_INPUT_CHUNKS`] are queued already: the VM is off or does not read.
    /// Input that is queued while the VM is off is dropped at its next start.
    #[must_use]
    pub fn send(&self, input: Bytes) -> bool {
        self.input.try_send(input).is_ok()
    }

    /// Adds output of the VM, and sends it to all viewers.
    fn append(&self, bytes: &[u8]) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.recent.extend(bytes);
        let excess = shared.recent.len().saturating_sub(MAX_RECENT_BYTES);
        shared.recent.drain(..excess);
        // Fails only without viewers.
        let _ = shared.output.send(Bytes::copy_from_slice(bytes));
    }

    /// Ends an unfinished line of the previous run, so that the first line of the next run is separate.
    fn begin_line(&self) {
        let last = self.shared.lock().unwrap_or_else(PoisonError::into_inner).recent.back().copied();
        if last.is_some_and(|last| last != b'\n') {
            self.append(b"\r\n");
        }
    }

    /// Keeps the line connected to the socket at `path`; never returns. Calls `on_first_output` once.
    pub(crate) async fn serve(&self, path: &Path, on_first_output: impl FnOnce() + Send) {
        let mut on_first_output = Some(on_first_output);
        let mut queued_input = self.queued_input.lock().await;
        // Input that was typed while the VM was off is dropped: it was not meant for this boot.
        while queued_input.try_recv().is_ok() {}
        loop {
            let Ok(stream) = UnixStream::connect(path).await else {
                tokio::time::sleep(CONNECT_RETRY_INTERVAL).await;
                continue;
            };
            let (mut reader, mut writer) = stream.into_split();
            let mut buffer = vec![0; 4096];
            loop {
                tokio::select! {
                    count = reader.read(&mut buffer) => match count {
                        Ok(0) | Err(_) => break,
                        Ok(count) => {
                            if let Some(on_first_output) = on_first_output.take() {
                                self.begin_line();
                                on_first_output();
                            }
                            self.append(&buffer[..count]);
                        }
                    },
                    Some(input) = queued_input.recv() => {
                        // A guest that does not read its input must not block the reading of its output.
                        let write = tokio::time::timeout(CONNECT_RETRY_INTERVAL, writer.write_all(&input)).await;
                        if matches!(write, Ok(Err(_))) {
                            break;
                        }
                    }
                }
            }
            tokio::time::sleep(CONNECT_RETRY_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_viewer_gets_the_last_output_and_then_all_new_output() {
        let console = Console::new();
        console.append(&[b'x'; MAX_RECENT_BYTES]);
        console.append(b"login: ");
        let mut viewer = console.subscribe();
        assert_eq!(viewer.recent.len(), MAX_RECENT_BYTES);
        assert!(viewer.recent.ends_with(b"xlogin: "));
        console.append(b"root");
        assert_eq!(viewer.output.try_recv().unwrap(), "root");
    }

    #[tokio::test]
    async fn the_output_of_a_run_begins_on_a_new_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial");
        let console = Console::new();
        for said in [&b"first\r\n"[..], b"cut o", b"again\r\n"] {
            let _ = std::fs::remove_file(&path);
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let mut viewer = console.subscribe().output;
            let run = tokio::spawn({
                let (console, path) = (console.clone(), path.clone());
                async move { console.serve(&path, || {}).await }
            });
            let (mut vm, _) = listener.accept().await.unwrap();
            vm.write_all(said).await.unwrap();
            while viewer.recv().await.unwrap() != said {}
            run.abort();
            let _ = run.await;
        }
        assert_eq!(String::from_utf8(console.subscribe().recent).unwrap(), "first\r\ncut o\r\nagain\r\n");
    }
}

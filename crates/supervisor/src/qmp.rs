//! Client of QEMU's control protocol (QMP).
//!
//! Format: one JSON object per line. QEMU greets with `{"QMP": …}`; after `qmp_capabilities` it answers each
//! command with `{"return": …}` or `{"error": …}`, both with the command's id, and sends `{"event": …}` at any
//! time (QEMU manual, "QEMU Machine Protocol Specification").

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Time limit for the greeting, for the write of a command, and for its answer. A frozen QEMU never answers.
const QMP_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a line, in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The errors of a command.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("QEMU's control socket failed")]
    Socket(#[from] io::Error),
    /// No greeting or answer came within 5 s, a command could not be written within 5 s, or the connection ended.
    #[error("QEMU does not answer on its control socket; it may be frozen or ending")]
    NoAnswer,
    /// The other side does not speak QMP.
    #[error("the program at the control socket is not QEMU")]
    NotQmp,
    /// QEMU refused the command.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        command: String,
        /// The reason that QEMU gave.
        reason: String,
    },
}

/// The run state of a machine (QEMU manual, `RunState`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QemuState {
    Running,
    Paused,
    /// The guest has shut down; QEMU waits for the command to quit.
    Shutdown,
    /// The guest's operating system has reported a panic.
    GuestPanicked,
    /// A run state without a variant of its own, by its name.
    #[serde(untagged)]
    Other(String),
}

/// The answer to `query-status`.
#[derive(Deserialize)]
struct StatusAnswer {
    status: QemuState,
}

/// An event sent by QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QmpEvent {
    /// The machine shut down.
    Shutdown {
        /// Whether the guest caused it.
        guest: bool,
    },
    /// The machine was reset.
    Reset {
        /// Whether the guest caused it.
        guest: bool,
    },
    /// The guest's operating system reported a panic.
    Panicked,
    /// Any other event, by name.
    Other(String),
}

/// The commands without an answer, by id. The sender is dropped when the connection ends.
type PendingCommands = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// A connection to one QEMU. Dropping it closes the connection.
pub struct Qmp {
    writer: OwnedWriteHalf,
    pending: PendingCommands,
    next: u64,
    reader: tokio::task::JoinHandle<()>,
}

impl Qmp {
    /// Connects and negotiates. Returns the connection and its events; the event channel ends with the connection.
    ///
    /// # Errors
    ///
    /// A [`QmpError`], after at most 15 s: 5 s for the greeting and 10 s for the first command.
    pub async fn connect(path: &Path) -> Result<(Self, mpsc::Receiver<QmpEvent>), QmpError> {
        let stream = UnixStream::connect(path).await?;
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let greeting = timeout(QMP_ANSWER_TIMEOUT, read_line(&mut reader)).await;
        let greeting = greeting.map_err(|_| QmpError::NoAnswer)??;
        if greeting.and_then(|line| line.get("QMP").cloned()).is_none() {
            return Err(QmpError::NotQmp);
        }
        let pending = PendingCommands::default();
        let (events, receiver) = mpsc::channel(64);
        let reader = tokio::spawn(listen(reader, pending.clone(), events));
        let mut qmp = Self { writer, pending, next: 0, reader };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok((qmp, receiver))
    }

    /// Runs one command and returns its answer.
    ///
    /// # Errors
    ///
    /// A [`QmpError`], after at most 10 s: 5 s for the write and 5 s for the answer.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let id = self.next;
        self.next += 1;
        let (sender, answer) = oneshot::channel();
        lock(&self.pending).insert(id, sender);
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments, "id": id}));
        let write = timeout(QMP_ANSWER_TIMEOUT, self.writer.write_all(line.as_bytes())).await;
        write.map_err(|_| QmpError::NoAnswer)??;
        let Ok(Ok(mut answer)) = timeout(QMP_ANSWER_TIMEOUT, answer).await else {
            lock(&self.pending).remove(&id);
            return Err(QmpError::NoAnswer);
        };
        if let Some(error) = answer.get("error") {
            let reason = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
            return Err(QmpError::Refused { command: command.to_owned(), reason: reason.to_owned() });
        }
        Ok(answer["return"].take())
    }

    /// The run state of the machine.
    ///
    /// # Errors
    ///
    /// As [`Qmp::execute`]; [`QmpError::NotQmp`] if the answer has no status.
    pub async fn status(&mut self) -> Result<QemuState, QmpError> {
        let answer = self.execute("query-status", json!({})).await?;
        serde_json::from_value(answer).map(|StatusAnswer { status }| status).map_err(|_| QmpError::NotQmp)
    }

    /// Presses the power button of the virtual machine.
    ///
    /// # Errors
    ///
    /// As [`Qmp::execute`].
    pub async fn power_down(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", json!({})).await.map(drop)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    ///
    /// As [`Qmp::execute`], but a missing answer is no error, because QEMU may end before it answers.
    pub async fn quit(&mut self) -> Result<(), QmpError> {
        match self.execute("quit", json!({})).await {
            Ok(_) | Err(QmpError::NoAnswer) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Locks the commands, also after a panic of another thread.
fn lock(pending: &PendingCommands) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Value>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Value>> {
    let mut line = Vec::new();
    let count = reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
    if count == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::from)
}

/// Reads lines until the connection ends: passes events on, and answers to the commands that wait for them.
async fn listen(mut reader: BufReader<OwnedReadHalf>, pending: PendingCommands, events: mpsc::Sender<QmpEvent>) {
    while let Ok(Some(line)) = read_line(&mut reader).await {
        if let Some(event) = event(&line) {
            if events.send(event).await.is_err() {
                break;
            }
        } else if let Some(id) = line.get("id").and_then(Value::as_u64) {
            let waiter = lock(&pending).remove(&id);
            // The caller may have stopped waiting.
            let _ = waiter.map(|waiter| waiter.send(line));
        }
    }
    lock(&pending).clear();
}

/// The event in a line; `None` = the line is an answer.
fn event(line: &Value) -> Option<QmpEvent> {
    let name = line.get("event")?.as_str()?;
    let guest = line["data"]["guest"].as_bool().unwrap_or(false);
    Some(match name {
        "SHUTDOWN" => QmpEvent::Shutdown { guest },
        "RESET" => QmpEvent::Reset { guest },
        "GUEST_PANICKED" => QmpEvent::Panicked,
        other => QmpEvent::Other(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_recognised_by_their_names() {
        let line = json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}});
        assert_eq!(event(&line), Some(QmpEvent::Shutdown { guest: true }));
        assert_eq!(event(&json!({"return": {}, "id": 1})), None);
        assert_eq!(event(&json!({"event": "STOP"})), Some(QmpEvent::Other("STOP".into())));
    }

    #[test]
    fn run_states_are_recognised_by_their_names() {
        let state = |name: &str| {
            let answer = json!({"running": false, "singlestep": false, "status": name});
            serde_json::from_value::<StatusAnswer>(answer).unwrap().status
        };
        assert_eq!(state("running"), QemuState::Running);
        assert_eq!(state("paused"), QemuState::Paused);
        assert_eq!(state("shutdown"), QemuState::Shutdown);
        assert_eq!(state("guest-panicked"), QemuState::GuestPanicked);
        assert_eq!(state("io-error"), QemuState::Other("io-error".into()));
        assert!(serde_json::from_value::<StatusAnswer>(json!({"running": true})).is_err());
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_qmp_is_refused_and_a_silent_one_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let other_server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"{\"hello\": 1}\n").await.unwrap();
            stream
        };
        let (answer, _stream) = tokio::join!(Qmp::connect(&path), other_server);
        assert!(matches!(answer.err(), Some(QmpError::NotQmp)));
        tokio::time::pause();
        let silent = async { listener.accept().await.unwrap() };
        let (answer, _stream) = tokio::join!(Qmp::connect(&path), silent);
        assert!(matches!(answer.err(), Some(QmpError::NoAnswer)));
    }
}

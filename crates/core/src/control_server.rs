//! Server of the control socket: each connection is a task that passes requests to the core's state thread and waits for
//! the replies.

use crate::event::{ControlRequest, Event, EventSender};
use crate::guests::VolumeBackend;
use crate::volume_request::VolumeError;
use dyad_control::{Refusal, RefusalCode, Reply, Request, Status, read_request, write_reply};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

/// Bytes of an image that become one write. Small, so that guests' writes find room in the journal between them.
const IMPORT_CHUNK_BYTES: usize = 256 << 10;
/// Minimum interval between two lines of [`watch`], unless permits or phase have changed.
const STATUS_MIN_INTERVAL: Duration = Duration::from_millis(200);

/// Failures of the listening socket; each ends the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory of the socket, or the socket itself, cannot be made.
    #[error("{} cannot be made", socket.display())]
    Bind { socket: PathBuf, source: io::Error },
    /// The socket takes no connections any more.
    #[error("{} takes no connections", socket.display())]
    Accept { socket: PathBuf, source: io::Error },
}

/// Accepts connections until the process ends.
///
/// # Errors
/// The socket cannot be made, or takes no connections any more.
pub async fn serve(path: &Path, event_sender: EventSender, status: watch::Receiver<Status>) -> Result<(), ServeError> {
    let listener = bind(path).map_err(|source| ServeError::Bind { socket: path.to_owned(), source })?;
    loop {
        let (stream, _) =
            listener.accept().await.map_err(|source| ServeError::Accept { socket: path.to_owned(), source })?;
        let (event_sender, status) = (event_sender.clone(), status.clone());
        tokio::spawn(async move {
            // An error of a connection ends that connection only: the client sees its end and may connect again.
            let _ = serve_connection(stream, &event_sender, status).await;
        });
    }
}

/// Creates the socket, in place of the socket file of an earlier process.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Answers the requests of one connection, one after the other, until the client closes it.
async fn serve_connection(
    stream: UnixStream,
    event_sender: &EventSender,
    status: watch::Receiver<Status>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = match read_request(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => {
                let reply = Reply::refused(RefusalCode::BadRequest, error.to_string());
                return write_reply(stream.get_mut(), &reply).await;
            }
        };
        match request {
            Request::Status => {
                let now = Box::new(status.borrow().clone());
                write_reply(stream.get_mut(), &Reply::Status(now)).await?;
            }
            Request::Watch => return watch(stream.get_mut(), status, STATUS_MIN_INTERVAL).await,
            Request::Import { volume, bytes } => import(&mut stream, event_sender, volume, bytes).await?,
            request => {
                let erases = matches!(request, Request::Erase { disk: None, .. });
                let reply = ask(event_sender, request).await;
                let written = write_reply(stream.get_mut(), &reply).await;
                if erases && matches!(reply, Reply::Done) {
                    // The reply was written, or the client has closed the connection. The next process erases the disks.
                    event_sender.send(Event::Stop);
                }
                written?;
            }
        }
    }
}

/// Sends the status now and at changes, until the client closes the connection or the core ends. A change of permits or
/// phase is sent at once, because a VM that fails over waits for its permit. Other changes are sent at most once in
/// `interval`, the newest of them.
async fn watch(stream: &mut UnixStream, mut status: watch::Receiver<Status>, interval: Duration) -> io::Result<()> {
    loop {
        let shown = Box::new(status.borrow_and_update().clone());
        let (permits, phase) = (shown.permits.clone(), shown.phase.clone());
        write_reply(stream, &Reply::Status(shown)).await?;
        let rest = tokio::time::sleep(interval);
        if status.changed().await.is_err() {
            return Ok(());
        }
        let urgent = status.wait_for(|now| now.permits != permits || now.phase != phase);
        tokio::select! {
            () = rest => {}
            outcome = urgent => if outcome.is_err() { return Ok(()) },
        }
    }
}

/// Passes a request to the core's state thread.
async fn ask(event_sender: &EventSender, request: Request) -> Reply {
    let (answer, reply) = oneshot::channel();
    event_sender.send(Event::Control(ControlRequest { request, answer }));
    reply
        .await
        .unwrap_or_else(|_| Reply::refused(RefusalCode::Stopping, "The core is stopping; ask again in a moment."))
}

/// Carries out [`Request::Import`]: asks for a new volume, fills it from the connection, and has it replace the old
/// content.
async fn import(
    stream: &mut BufReader<UnixStream>,
    event_sender: &EventSender,
    volume: String,
    bytes: u64,
) -> io::Result<()> {
    let (answer, opened) = oneshot::channel();
    event_sender.send(Event::OpenImport { volume: volume.clone(), bytes, answer });
    let incoming = match opened.await {
        Ok(Ok(target)) => VolumeBackend::new(event_sender.clone(), target.id, target.size),
        Ok(Err(refusal)) => return write_reply(stream.get_mut(), &refusal.into()).await,
        Err(_) => {
            return write_reply(stream.get_mut(), &Reply::refused(RefusalCode::Stopping, "The core is stopping."))
                .await;
        }
    };
    // Also if the client closes the connection, this task ends only after it has closed the import.
    let written = write_reply(stream.get_mut(), &Reply::Done).await;
    let filled = fill(stream, &incoming, bytes).await;
    let (answer, closed) = oneshot::channel();
    event_sender.send(Event::CloseImport { volume, id: incoming.id(), whole: filled.is_ok(), answer });
    let closed = closed.await.unwrap_or_else(|_| Err(Refusal::new(RefusalCode::Stopping, "The core is stopping.")));
    written?;
    let why = match filled {
        Ok(()) => return write_reply(stream.get_mut(), &Reply::from(closed.map_err(import_refusal))).await,
        Err(why) => why,
    };
    let refusal = Reply::refused(RefusalCode::ImportFailed, format!("{why}: the volume holds what it held before."));
    write_reply(stream.get_mut(), &refusal).await?;
    // The client may still send the rest of the image, which must not be read as a request: the connection ends.
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// The refusal for a client whose image arrived completely. If the change of the document may have been made all the same,
/// its code is [`RefusalCode::ImportUnknown`].
fn import_refusal(refusal: Refusal) -> Refusal {
    if refusal.code.change_certainly_not_made() {
        return refusal;
    }
    let text = format!("It is not known whether the image is in the volume, send it again. {}", refusal.sentence);
    Refusal::new(RefusalCode::ImportUnknown, text)
}

/// Reasons for which an image was not written completely. Each text is one clause.
#[derive(Debug, thiserror::Error)]
enum FillError {
    /// The connection ended before the announced bytes had arrived.
    #[error("The image ended before its {bytes} bytes had arrived")]
    TooShort {
        /// Size that the client announced, in bytes.
        bytes: u64,
    },
    /// The volume refused a write or a flush.
    #[error("The image was not written ({0})")]
    Volume(VolumeError),
}

/// Writes `bytes` bytes of the connection to a new volume, from its beginning, and flushes it.
async fn fill(stream: &mut BufReader<UnixStream>, volume: &VolumeBackend, bytes: u64) -> Result<(), FillError> {
    let mut at = 0;
    while at < bytes {
        let n = IMPORT_CHUNK_BYTES.min((bytes - at) as usize);
        // The last block is filled up with zeros: a volume is a whole number of blocks.
        let mut chunk = vec![0; n.next_multiple_of(4096)];
        stream.read_exact(&mut chunk[..n]).await.map_err(|_| FillError::TooShort { bytes })?;
        // A new volume reads as zeros.
        if chunk.iter().any(|b| *b != 0) {
            volume.write(at, chunk.into()).await.map_err(FillError::Volume)?;
        }
        at += n as u64;
    }
    volume.flush().await.map_err(FillError::Volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ImportTarget;
    use crate::volume_request::VolumeRequest;
    use dyad_control::{Phase, WatchdogStatus};
    use dyad_mirror::GuestOp;
    use dyad_types::VolumeId;
    use std::sync::mpsc::channel;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

    /// Interval of 100 000 s, longer than any test: only a change of permits or phase can send a line before it ends.
    const UNREACHABLE_INTERVAL: Duration = Duration::from_secs(100_000);

    #[tokio::test]
    async fn a_change_of_permits_or_phase_is_sent_at_once() {
        let (changes, status) = watch::channel(Status::without_pair(Phase::Running, WatchdogStatus::Absent));
        let (client, mut server) = UnixStream::pair().unwrap();
        tokio::spawn(async move { watch(&mut server, status, UNREACHABLE_INTERVAL).await });
        let mut lines = tokio::io::BufReader::new(client).lines();
        let mut next = async || match serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap() {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await.revision, 0);
        changes.send_modify(|now| now.revision = 1);
        tokio::task::yield_now().await;
        changes.send_modify(|now| (now.revision, now.permits) = (2, vec!["web".into()]));
        let urgent = next().await;
        assert_eq!(
            (urgent.revision, urgent.permits),
            (2, vec!["web".into()]),
            "revision 1 changed neither permits nor phase"
        );
        changes.send_modify(|now| now.permits.clear());
        assert!(next().await.permits.is_empty());
        changes.send_modify(|now| now.phase = Phase::Broken { sentence: "It broke.".into() });
        assert!(matches!(next().await.phase, Phase::Broken { .. }));
    }

    #[tokio::test]
    async fn other_changes_are_sent_at_most_once_in_an_interval() {
        let (changes, status) = watch::channel(Status::without_pair(Phase::Running, WatchdogStatus::Absent));
        let (client, mut server) = UnixStream::pair().unwrap();
        let interval = Duration::from_millis(50);
        tokio::spawn(async move { watch(&mut server, status, interval).await });
        let mut lines = tokio::io::BufReader::new(client).lines();
        lines.next_line().await.unwrap().unwrap();
        let (began, mut shown) = (tokio::time::Instant::now(), 0);
        for revision in 1..=200 {
            changes.send_modify(|now| now.revision = revision);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = began.elapsed();
        drop(changes);
        while lines.next_line().await.unwrap().is_some() {
            shown += 1;
        }
        assert!((1..=took.as_millis() / interval.as_millis() + 1).contains(&shown), "{shown} in {took:?}");
    }

    const BLOCKS: usize = 16;

    /// Imports an image of `announced` bytes, of which the client sends only `sent`; the change of the document is decided
    /// with `decision`. Returns the first byte of each block of the new volume, whether [`Event::CloseImport`] called the
    /// image whole, and the last reply.
    fn after_import(announced: u64, sent: &[u8], decision: Result<(), Refusal>) -> (Vec<u8>, bool, Reply) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, events) = channel();
        let event_sender = EventSender(sender);
        let incoming = ImportTarget { id: VolumeId(7), size: BLOCKS as u64 * 4096 };
        let state_thread = std::thread::spawn(move || {
            let (mut blocks, mut flushed) = (vec![0; BLOCKS], false);
            for event in events {
                match event {
                    Event::OpenImport { answer, .. } => drop(answer.send(Ok(incoming))),
                    Event::Volume(VolumeRequest { volume: VolumeId(7), op, reply_to }) => {
                        flushed = matches!(op, GuestOp::Flush);
                        if let GuestOp::Write { block, data } = op {
                            for (i, bytes) in data.chunks(4096).enumerate() {
                                blocks[block.0 as usize + i] = bytes[0];
                            }
                        }
                        reply_to.complete(Ok(bytes::Bytes::new()));
                    }
                    Event::CloseImport { volume, id, whole, answer } => {
                        assert_eq!((volume.as_str(), id), ("disk", VolumeId(7)));
                        assert!(flushed || !whole, "it is not durable yet");
                        let _ = answer.send(decision);
                        return (blocks, whole);
                    }
                    _ => panic!("an import asks for nothing else"),
                }
            }
            panic!("the import was not closed")
        });
        let reply = runtime.block_on(async {
            let (mut client, server) = UnixStream::pair().unwrap();
            let importing = tokio::spawn(async move {
                let _ = import(&mut BufReader::new(server), &event_sender, "disk".into(), announced).await;
            });
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            importing.await.unwrap();
            let mut replies = String::new();
            client.read_to_string(&mut replies).await.unwrap();
            serde_json::from_str(replies.lines().last().unwrap()).unwrap()
        });
        let (blocks, whole) = state_thread.join().unwrap();
        (blocks, whole, reply)
    }

    /// A refusal without the tag of a [`Reply`] was once sent here, and the client could not read it.
    #[tokio::test]
    async fn a_refused_import_is_answered_with_its_reason() {
        let (sender, events) = channel();
        let event_sender = EventSender(sender);
        let (mut client, server) = UnixStream::pair().unwrap();
        let importing = tokio::spawn(async move {
            let _ = import(&mut BufReader::new(server), &event_sender, "disk".into(), 5000).await;
        });
        let opened = tokio::task::spawn_blocking(move || events.recv().unwrap()).await.unwrap();
        let Event::OpenImport { answer, .. } = opened else { panic!("{opened:?}") };
        answer.send(Err(Refusal::new(RefusalCode::VolumeInUse, "A VM uses it."))).unwrap();
        importing.await.unwrap();
        let mut replies = String::new();
        client.read_to_string(&mut replies).await.unwrap();
        let Reply::Refused(refusal) = serde_json::from_str(&replies).unwrap() else { panic!("{replies}") };
        assert_eq!((refusal.code, refusal.sentence.as_str()), (RefusalCode::VolumeInUse, "A VM uses it."));
    }

    #[test]
    fn the_imported_image_is_followed_by_zeros() {
        let (blocks, whole, reply) = after_import(5000, &[1; 5000], Ok(()));
        assert!(whole && matches!(reply, Reply::Done), "{reply:?}");
        assert_eq!(blocks, [vec![1; 2], vec![0; BLOCKS - 2]].concat());
    }

    #[test]
    fn an_image_that_ends_early_is_refused() {
        let (_, whole, reply) = after_import(60_000, &[1; 50_000], Ok(()));
        let Reply::Refused(Refusal { code, sentence }) = reply else { panic!("{reply:?}") };
        assert!(!whole);
        assert_eq!(code, RefusalCode::ImportFailed);
        assert_eq!(
            sentence,
            "The image ended before its 60000 bytes had arrived: the volume holds what it held before."
        );
    }

    #[test]
    fn an_import_of_unknown_outcome_asks_for_the_image_again() {
        let refusal = |code| Err(Refusal::new(code, "The reason."));
        for (code, expected) in [
            (
                RefusalCode::MembershipChanged,
                "It is not known whether the image is in the volume, send it again. The reason.",
            ),
            (RefusalCode::NoImage, "The reason."),
        ] {
            let (_, whole, reply) = after_import(5000, &[1; 5000], refusal(code));
            let Reply::Refused(Refusal { sentence, .. }) = reply else { panic!("{reply:?}") };
            assert!(whole);
            assert_eq!(sentence, expected);
        }
    }
}

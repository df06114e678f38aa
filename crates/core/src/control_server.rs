//! Answers the local socket: each connection is a task that passes requests to the core's state thread and waits for the
//! replies.

use crate::event::{ControlRequest, Event, Inbox};
use crate::guests::VolumeBackend;
use crate::volume_request::VolumeError;
use dyad_control::{Refusal, RefusalCode, Reply, Request, Status, read_request, write_reply};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

/// Bytes of an import that travel as one write. Small enough to leave guests their share of the journal.
const IMPORT_CHUNK: usize = 256 << 10;
/// Minimum interval between two lines of `watch` that are not urgent.
const STATUS_MIN_INTERVAL: Duration = Duration::from_millis(200);

/// Why the local socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory of the socket, or the socket itself, cannot be made.
    #[error("{} cannot be made", socket.display())]
    Bind { socket: PathBuf, source: io::Error },
    /// The socket takes no connections any more.
    #[error("{} takes no connections", socket.display())]
    Accept { socket: PathBuf, source: io::Error },
}

/// Listens until the process ends.
///
/// # Errors
/// The socket cannot be made, or takes no connections any more.
pub async fn serve(path: &Path, inbox: Inbox, status: watch::Receiver<Status>) -> Result<(), ServeError> {
    let listener = bind(path).map_err(|source| ServeError::Bind { socket: path.to_owned(), source })?;
    loop {
        let (stream, _) =
            listener.accept().await.map_err(|source| ServeError::Accept { socket: path.to_owned(), source })?;
        let (inbox, status) = (inbox.clone(), status.clone());
        tokio::spawn(async move {
            // An error of a connection ends that connection only: the client sees its end and may connect again.
            let _ = converse(stream, &inbox, status).await;
        });
    }
}

/// Makes the socket, in place of the one of an earlier process.
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

async fn converse(stream: UnixStream, inbox: &Inbox, status: watch::Receiver<Status>) -> io::Result<()> {
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
            Request::Import { volume, bytes } => import(&mut stream, inbox, volume, bytes).await?,
            request => {
                let erases = matches!(request, Request::Erase { disk: None, .. });
                let reply = ask(inbox, request).await;
                let told = write_reply(stream.get_mut(), &reply).await;
                if erases && matches!(reply, Reply::Done) {
                    // The client knows, or has hung up; the next process does the erasing.
                    inbox.send(Event::Stop);
                }
                told?;
            }
        }
    }
}

/// Shows the state now and at every change until the client hangs up or the core ends. A change of permits or phase is shown
/// at once, as a VM that is restarted after a failure waits for it. Other changes are shown at most once in `interval`, the
/// newest of them.
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
async fn ask(inbox: &Inbox, request: Request) -> Reply {
    let (answer, reply) = oneshot::channel();
    inbox.send(Event::Control(ControlRequest { request, answer }));
    reply
        .await
        .unwrap_or_else(|_| Reply::refused(RefusalCode::Stopping, "The core is stopping; ask again in a moment."))
}

async fn import(stream: &mut BufReader<UnixStream>, inbox: &Inbox, volume: String, bytes: u64) -> io::Result<()> {
    let (answer, opened) = oneshot::channel();
    inbox.send(Event::OpenImport { volume: volume.clone(), bytes, answer });
    let incoming = match opened.await {
        Ok(Ok(target)) => VolumeBackend::new(inbox.clone(), target.id, target.size),
        Ok(Err(refusal)) => return write_reply(stream.get_mut(), &refusal.into()).await,
        Err(_) => {
            return write_reply(stream.get_mut(), &Reply::refused(RefusalCode::Stopping, "The core is stopping."))
                .await;
        }
    };
    // Whatever happens to the client, this task ends only after it has closed the import.
    let told = write_reply(stream.get_mut(), &Reply::Done).await;
    let filled = fill(stream, &incoming, bytes).await;
    let (answer, closed) = oneshot::channel();
    inbox.send(Event::CloseImport { volume, id: incoming.id(), whole: filled.is_ok(), answer });
    let closed = closed.await.unwrap_or_else(|_| Err(Refusal::new(RefusalCode::Stopping, "The core is stopping.")));
    told?;
    let why = match filled {
        Ok(()) => return write_reply(stream.get_mut(), &Reply::from(closed.map_err(taken_over))).await,
        Err(why) => why,
    };
    let refusal = Reply::refused(RefusalCode::ImportFailed, format!("{why}: the volume holds what it held before."));
    write_reply(stream.get_mut(), &refusal).await?;
    // What may still come is the rest of the image, not a request.
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// The refusal of a whole image. A change that is refused while the pair changes may have been made all the same.
fn taken_over(refusal: Refusal) -> Refusal {
    if refusal.code.change_certainly_not_made() {
        return refusal;
    }
    let text = format!("It is not known whether the image is in the volume, send it again. {}", refusal.sentence);
    Refusal::new(RefusalCode::ImportUnknown, text)
}

/// Why an image did not fill its volume. Each text is one clause.
#[derive(Debug, thiserror::Error)]
enum FillError {
    /// The client ended too early.
    #[error("The image ended before its {bytes} bytes had arrived")]
    TooShort {
        /// Size that the client announced, in bytes.
        bytes: u64,
    },
    /// The volume refused a write or a flush.
    #[error("The image was not written ({0})")]
    Volume(VolumeError),
}

/// Fills a new volume from its beginning, durably.
async fn fill(stream: &mut BufReader<UnixStream>, volume: &VolumeBackend, bytes: u64) -> Result<(), FillError> {
    let mut at = 0;
    while at < bytes {
        let n = IMPORT_CHUNK.min((bytes - at) as usize);
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

    /// Interval of 100 000 s, longer than any test: only an urgent change can have a line sent before it ends.
    const UNREACHABLE_DEADLINE: Duration = Duration::from_secs(100_000);

    #[tokio::test]
    async fn permits_and_phase_do_not_wait_for_the_interval() {
        let (changes, status) = watch::channel(Status::without_pair(Phase::Running, WatchdogStatus::Absent));
        let (client, mut server) = UnixStream::pair().unwrap();
        tokio::spawn(async move { watch(&mut server, status, UNREACHABLE_DEADLINE).await });
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
        assert_eq!((urgent.revision, urgent.permits), (2, vec!["web".into()]), "the first one was not worth a line");
        changes.send_modify(|now| now.permits.clear());
        assert!(next().await.permits.is_empty());
        changes.send_modify(|now| now.phase = Phase::Broken { sentence: "It broke.".into() });
        assert!(matches!(next().await.phase, Phase::Broken { .. }));
    }

    #[tokio::test]
    async fn everything_else_is_shown_at_its_interval() {
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

    /// Sends these bytes as an image said to be `claimed` long. Gives what the new volume holds afterwards, one byte a
    /// block, whether it was said to be whole, and the last reply, if the pair takes it over with this answer.
    fn after_import(claimed: u64, sent: &[u8], takes: Result<(), Refusal>) -> (Vec<u8>, bool, Reply) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, events) = channel();
        let inbox = Inbox(sender);
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
                        let _ = answer.send(takes);
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
                let _ = import(&mut BufReader::new(server), &inbox, "disk".into(), claimed).await;
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

    /// The client must be able to read the reason: a refusal without the tag of a [`Reply`] looked like a cut connection.
    #[tokio::test]
    async fn a_refused_import_is_answered_with_its_reason() {
        let (sender, events) = channel();
        let inbox = Inbox(sender);
        let (mut client, server) = UnixStream::pair().unwrap();
        let importing = tokio::spawn(async move {
            let _ = import(&mut BufReader::new(server), &inbox, "disk".into(), 5000).await;
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
    fn an_image_is_all_the_volume_holds() {
        let (blocks, whole, reply) = after_import(5000, &[1; 5000], Ok(()));
        assert!(whole && matches!(reply, Reply::Done), "{reply:?}");
        assert_eq!(blocks, [vec![1; 2], vec![0; BLOCKS - 2]].concat());
    }

    #[test]
    fn an_image_that_ends_early_is_not_taken_over() {
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
    fn an_image_that_may_or_may_not_be_there_is_asked_for_again() {
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

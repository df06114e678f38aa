//! Answers the local socket: each connection is a task that passes requests to the owner and waits for its answer.

use crate::event::{Event, Inbox};
use crate::guests::VolumeBackend;
use dyad_control::{Reply, Request, Status, read_request, write_line};
use std::path::Path;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

/// Bytes of an import that travel as one write. Small enough to leave guests their share of the journal.
const IMPORT_CHUNK: usize = 256 << 10;

/// Listens until the process ends.
pub async fn serve(path: &Path, inbox: Inbox, status: watch::Receiver<Status>) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (inbox, status) = (inbox.clone(), status.clone());
        tokio::spawn(async move {
            // A client that hangs up is its own business.
            let _ = converse(stream, &inbox, status).await;
        });
    }
}

async fn converse(stream: UnixStream, inbox: &Inbox, mut status: watch::Receiver<Status>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = match read_request(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(sentence) => return write_line(stream.get_mut(), &Reply::refused("bad-request", sentence)).await,
        };
        match request {
            Request::Status => {
                let now = Box::new(status.borrow().clone());
                write_line(stream.get_mut(), &Reply::Status(now)).await?;
            }
            Request::Watch => loop {
                let now = Box::new(status.borrow_and_update().clone());
                write_line(stream.get_mut(), &Reply::Status(now)).await?;
                if status.changed().await.is_err() {
                    return Ok(());
                }
                // At most five a second: the newest one wins.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            },
            Request::Import { volume, bytes } => import(&mut stream, inbox, volume, bytes).await?,
            request => {
                let reply = ask(inbox, request).await;
                write_line(stream.get_mut(), &reply).await?;
            }
        }
    }
}

/// Passes a request to the owner.
async fn ask(inbox: &Inbox, request: Request) -> Reply {
    let (answer, reply) = oneshot::channel();
    inbox.send(Event::Control { request, answer });
    reply.await.unwrap_or_else(|_| Reply::refused("stopping", "The core is stopping; ask again in a moment."))
}

async fn import(stream: &mut BufReader<UnixStream>, inbox: &Inbox, volume: String, bytes: u64) -> std::io::Result<()> {
    let (answer, backend) = oneshot::channel();
    inbox.send(Event::OpenImport { volume, bytes, answer });
    let backend: VolumeBackend = match backend.await {
        Ok(Ok(backend)) => backend,
        Ok(Err(refusal)) => return write_line(stream.get_mut(), &refusal).await,
        Err(_) => return write_line(stream.get_mut(), &Reply::refused("stopping", "The core is stopping.")).await,
    };
    write_line(stream.get_mut(), &Reply::Done).await?;
    let filled = fill(stream, &backend, bytes).await;
    backend.close_import();
    match filled {
        Ok(()) => write_line(stream.get_mut(), &Reply::Done).await,
        Err(Fill::Client(e)) => Err(e),
        Err(Fill::Pool(why)) => write_line(stream.get_mut(), &Reply::refused("import-failed", why)).await,
    }
}

enum Fill {
    Client(std::io::Error),
    Pool(String),
}

async fn fill(stream: &mut BufReader<UnixStream>, backend: &VolumeBackend, bytes: u64) -> Result<(), Fill> {
    let mut at = 0;
    while at < bytes {
        let n = IMPORT_CHUNK.min((bytes - at) as usize);
        // The last block is filled up with zeros: a volume is a whole number of blocks.
        let mut chunk = vec![0; n.next_multiple_of(4096)];
        stream.read_exact(&mut chunk[..n]).await.map_err(Fill::Client)?;
        if chunk.iter().all(|b| *b == 0) {
            backend.discard(at, chunk.len() as u64).await.map_err(Fill::Pool)?;
        } else {
            backend.write(at, chunk.into()).await.map_err(Fill::Pool)?;
        }
        at += n as u64;
    }
    backend.flush().await.map_err(Fill::Pool)
}

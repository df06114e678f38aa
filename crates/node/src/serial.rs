//! The serial line of a VM: connected to a WebSocket in both directions, or read as a stream of text.

use std::{io, sync::Arc};

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use dyad_api::{ApiError, ErrorCode};
use futures_util::Stream;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use crate::snapshot::{SerialLine, Snapshot};

/// The serial line of this VM. Refused if the VM has not run on this node since this program started.
pub(crate) fn vm_serial_line(snapshot: &Snapshot, name: &str) -> Result<Arc<dyn SerialLine>, ApiError> {
    snapshot.vms.get(name).and_then(|vm| vm.serial.clone()).ok_or_else(|| {
        let sentence =
            format!("The VM {name} has not run since this node's services started: it has no serial line yet.");
        ApiError::new(ErrorCode::NoSerial, sentence)
    })
}

/// Copies bytes in both directions until the browser closes the WebSocket or the serial line ends. The last output is sent
/// first, so that the browser shows the guest's prompt.
pub(crate) async fn bridge(mut browser: WebSocket, line: Arc<dyn SerialLine>) {
    let (recent, mut output) = line.subscribe();
    if browser.send(Message::Binary(recent.into())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            written = output.recv() => match written {
                Ok(bytes) => if browser.send(Message::Binary(bytes)).await.is_err() { return },
                // The browser reads too slowly: the oldest output that it has not read is dropped.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
            message = browser.recv() => {
                let typed = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => Bytes::from(text.to_string()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                // Input for a VM that is off is lost, as on a real serial line.
                let _ = line.send(typed);
            }
        }
    }
    // This fails if the browser has closed the connection.
    let _ = browser.send(Message::Close(None)).await;
}

/// The last output of the VM. With `follow` the stream continues with new output: it waits for the VM's first start and goes
/// on after restarts of the VM. It ends when the client disconnects, the VM is deleted, or the VM moves to the other node.
pub(crate) fn log(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    name: String,
    follow: bool,
) -> impl Stream<Item = io::Result<Bytes>> {
    let reader = LogReader { snapshots, name, follow, output: None };
    futures_util::stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok(bytes), reader))
    })
}

/// State of the stream that [`log`] returns.
struct LogReader {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    name: String,
    follow: bool,
    /// New output; `None` until the VM has a serial line.
    output: Option<broadcast::Receiver<Bytes>>,
}

impl LogReader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let snapshot = self.snapshots.borrow_and_update().clone();
            if self.has_left(&snapshot) {
                return None;
            }
            let Some(output) = &mut self.output else {
                if let Some(line) = snapshot.vms.get(&self.name).and_then(|vm| vm.serial.as_ref()) {
                    let (recent, output) = line.subscribe();
                    self.output = Some(output);
                    return Some(recent.into());
                }
                if !self.follow {
                    return None;
                }
                self.snapshots.changed().await.ok()?;
                continue;
            };
            if !self.follow {
                return None;
            }
            tokio::select! {
                written = output.recv() => match written {
                    Ok(bytes) => return Some(bytes),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => self.output = None,
                },
                changed = self.snapshots.changed() => changed.ok()?,
            }
        }
    }

    /// Whether the VM was deleted or is on the other node now.
    fn has_left(&self, snapshot: &Snapshot) -> bool {
        let (Some(document), Some(me)) = (&snapshot.document, snapshot.me()) else { return false };
        // Before the first output, a VM that is not in this document may have been created after it: the stream waits.
        let node = document.vms.get(&self.name).map(|vm| vm.config.node);
        node.map_or(self.output.is_some(), |node| node != me)
    }
}

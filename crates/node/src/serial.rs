//! The serial line of a VM: attached both ways over a WebSocket, or read as text.

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

/// The serial line of this VM; refused before its first start on this node.
pub(crate) fn vm_serial_line(snapshot: &Snapshot, name: &str) -> Result<Arc<dyn SerialLine>, ApiError> {
    snapshot.vms.get(name).and_then(|vm| vm.serial.clone()).ok_or_else(|| {
        let sentence = format!("The VM {name} has not been started on this node yet: it has no serial line.");
        ApiError::new(ErrorCode::NoSerial, sentence)
    })
}

/// Copies bytes both ways until the browser closes the WebSocket. The last output is sent first, so that the browser shows
/// the prompt.
pub(crate) async fn bridge(mut browser: WebSocket, line: Arc<dyn SerialLine>) {
    let (recent, mut output) = line.subscribe();
    if browser.send(Message::Binary(recent.into())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            written = output.recv() => match written {
                Ok(bytes) => if browser.send(Message::Binary(bytes)).await.is_err() { return },
                // A browser that reads too slowly misses some output.
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
                // Input to a VM that is off is lost, as on a real serial line.
                let _ = line.send(typed);
            }
        }
    }
    // Fails if the browser has closed the connection.
    let _ = browser.send(Message::Close(None)).await;
}

/// The last output of the VM. With `follow` the stream continues with new output, from the VM's first start and across
/// restarts, until the client disconnects, the VM is deleted, or the VM moves to the other node.
pub(crate) fn log(
    moments: watch::Receiver<Arc<Snapshot>>,
    name: String,
    follow: bool,
) -> impl Stream<Item = io::Result<Bytes>> {
    let reader = LogReader { moments, name, follow, output: None };
    futures_util::stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok(bytes), reader))
    })
}

struct LogReader {
    moments: watch::Receiver<Arc<Snapshot>>,
    name: String,
    follow: bool,
    output: Option<broadcast::Receiver<Bytes>>,
}

impl LogReader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let moment = self.moments.borrow_and_update().clone();
            if self.left(&moment) {
                return None;
            }
            let Some(output) = &mut self.output else {
                if let Some(line) = moment.vms.get(&self.name).and_then(|vm| vm.serial.as_ref()) {
                    let (recent, output) = line.subscribe();
                    self.output = Some(output);
                    return Some(recent.into());
                }
                if !self.follow {
                    return None;
                }
                self.moments.changed().await.ok()?;
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
                changed = self.moments.changed() => changed.ok()?,
            }
        }
    }

    /// Whether the VM was deleted or is on the other node now.
    fn left(&self, moment: &Snapshot) -> bool {
        let (Some(document), Some(me)) = (&moment.document, moment.me()) else { return false };
        // Before the first output an absent VM may be newer than this document: its line is waited for.
        let node = document.vms.get(&self.name).map(|vm| vm.config.node);
        node.map_or(self.output.is_some(), |node| node != me)
    }
}

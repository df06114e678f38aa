//! The control plane's connections to `dyad-core`: they read the status and the document and report the running VMs.

use std::{sync::Arc, time::Duration};

use dyad_control::{Client, ClientError, Reply, Request};
use dyad_desired::Document;
use tokio::sync::{mpsc, watch};

use crate::event::Event;

/// Delay before the next request to a core that does not answer. It usually restarts within 1 s, and four requests a second
/// cost nothing.
pub(crate) const CORE_RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// Reads the newest document that the core knows.
pub(crate) async fn newest_document(core: &Client) -> Result<Arc<Document>, ClientError> {
    match core.ask(&Request::Document).await? {
        Reply::Document { document } => Ok(Arc::new(*document)),
        _ => Err(ClientError::Cut(std::io::ErrorKind::InvalidData.into())),
    }
}

/// Sends each status of the core to the control plane, and `None` after the connection has failed; then reconnects. Ends with
/// the control plane.
pub(crate) async fn watch_status(core: Client, sender: mpsc::UnboundedSender<Event>) {
    loop {
        if let Ok(mut watch) = core.watch().await {
            while let Ok(status) = watch.next().await {
                if sender.send(Event::CoreStatus(Some(Box::new(status)))).is_err() {
                    return;
                }
            }
        }
        if sender.send(Event::CoreStatus(None)).is_err() {
            return;
        }
        tokio::time::sleep(CORE_RECONNECT_DELAY).await;
    }
}

/// Reports the names of the running VMs to the core at the start and after each change, one report after the other. Repeats a
/// report that failed.
pub(crate) async fn report_running(core: Client, mut running: watch::Receiver<Vec<String>>) {
    loop {
        let vms = running.borrow_and_update().clone();
        if core.ask(&Request::Running { vms }).await.is_err() {
            tokio::time::sleep(CORE_RECONNECT_DELAY).await;
        } else if running.changed().await.is_err() {
            return;
        }
    }
}

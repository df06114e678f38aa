//! The control plane's connections to `dyad-core`: status, document, and the names of running VMs.

use std::{sync::Arc, time::Duration};

use dyad_control::{Client, ClientError, Reply, Request};
use dyad_desired::Document;
use tokio::sync::{mpsc, watch};

use crate::event::Event;

/// Wait before a core that does not answer is asked again. It restarts within a second; four tries a second cost nothing.
pub(crate) const CORE_RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// Reads the newest document from the core.
pub(crate) async fn newest_document(core: &Client) -> Result<Arc<Document>, ClientError> {
    match core.ask(&Request::Document).await? {
        Reply::Document { document } => Ok(Arc::new(*document)),
        _ => Err(ClientError::Cut(std::io::ErrorKind::InvalidData.into())),
    }
}

/// Passes each status of the core on as an event, and reconnects after a failure. Ends with the control plane.
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

/// Tells the core the names of the running VMs at each change, in order, and again after a failure.
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

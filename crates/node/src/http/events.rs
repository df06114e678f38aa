//! Handlers of the status, of its changes as server-sent events, and of the timeline.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    response::sse::{self, KeepAlive, Sse},
};
use dyad_api::{Service, StatusReply, TimelineReply, VmView};
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use super::{auth::HasSession, reply::HandlerResult};
use crate::{NodeHandle, convert, snapshot::Snapshot};

/// Name of the event with the status. The script `live.js` of the pages listens to this event and to [`VMS_EVENT`].
const STATUS_EVENT: &str = "status";
/// Name of the event with all VMs.
const VMS_EVENT: &str = "vms";

/// Interval at which a comment is sent in a stream without events, so that proxies and browsers keep the connection open.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) async fn status(State(node): State<Arc<NodeHandle>>, session: HasSession) -> Json<StatusReply> {
    Json(node.status(session.0))
}

/// The events last sent to one client.
#[derive(Default)]
struct SentEvents {
    status: Option<StatusReply>,
    vms: Option<Vec<VmView>>,
}

impl SentEvents {
    /// The next event to send for this snapshot; `None` if the client has got all of it. VMs are sent only with a session,
    /// because their names are not public.
    fn next(&mut self, snapshot: &Snapshot, logged_in: bool) -> Option<sse::Event> {
        let status = NodeHandle::status_of(snapshot, logged_in);
        if self.status.as_ref() != Some(&status) {
            return Some(event(STATUS_EVENT, self.status.insert(status)));
        }
        let vms = convert::vms(snapshot.document.as_deref()?, snapshot);
        if !logged_in || self.vms.as_ref() == Some(&vms) {
            return None;
        }
        Some(event(VMS_EVENT, self.vms.insert(vms)))
    }
}

fn event(name: &str, data: &impl Serialize) -> sse::Event {
    // Cannot fail: the data consist of maps, numbers and texts.
    sse::Event::default().event(name).json_data(data).unwrap_or_default()
}

/// Sends the status, and with a session also the VMs, at once and after each change.
pub(super) async fn stream_status_and_vms(
    State(node): State<Arc<NodeHandle>>,
    session: HasSession,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let start = (node.follow(), SentEvents::default());
    let stream = futures_util::stream::unfold(start, move |(mut snapshots, mut sent)| async move {
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(event) = sent.next(&snapshot, session.0) {
                return Some((Ok(event), (snapshots, sent)));
            }
            snapshots.changed().await.ok()?;
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEPALIVE_INTERVAL))
}

#[derive(Deserialize)]
pub(super) struct TimelineQuery {
    #[serde(default)]
    since: u64,
}

pub(super) async fn timeline(
    State(node): State<Arc<NodeHandle>>,
    Query(TimelineQuery { since }): Query<TimelineQuery>,
) -> HandlerResult<Json<TimelineReply>> {
    Ok(Json(node.timeline(since).await?))
}

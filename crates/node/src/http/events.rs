//! Status, its changes as server-sent events, and the timeline.

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

/// Name of the event with the status. `live.js` listens to both.
const STATUS: &str = "status";
/// Name of the event with every VM.
const VMS: &str = "vms";

/// Interval of comments in a silent event stream, so that proxies and browsers keep the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) async fn status(State(node): State<Arc<NodeHandle>>, who: HasSession) -> Json<StatusReply> {
    Json(node.status(who.0))
}

/// The events last sent to one client.
#[derive(Default)]
struct SentEvents {
    status: Option<StatusReply>,
    vms: Option<Vec<VmView>>,
}

impl SentEvents {
    /// The next event for this snapshot, if it differs from the last one sent. VMs are sent only with a session, because their
    /// names are not public.
    fn next(&mut self, moment: &Snapshot, logged_in: bool) -> Option<sse::Event> {
        let status = NodeHandle::status_of(moment, logged_in);
        if self.status.as_ref() != Some(&status) {
            return Some(event(STATUS, self.status.insert(status)));
        }
        let vms = convert::vms(moment.document.as_deref()?, moment);
        if !logged_in || self.vms.as_ref() == Some(&vms) {
            return None;
        }
        Some(event(VMS, self.vms.insert(vms)))
    }
}

fn event(name: &str, data: &impl Serialize) -> sse::Event {
    // Cannot fail: the data are plain maps, numbers and texts.
    sse::Event::default().event(name).json_data(data).unwrap_or_default()
}

/// Sends the status and the VMs now and at each change; an event equal to the last one is not sent again.
pub(super) async fn follow(
    State(node): State<Arc<NodeHandle>>,
    who: HasSession,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let start = (node.follow(), SentEvents::default());
    let stream = futures_util::stream::unfold(start, move |(mut moments, mut sent)| async move {
        loop {
            let moment = moments.borrow_and_update().clone();
            if let Some(event) = sent.next(&moment, who.0) {
                return Some((Ok(event), (moments, sent)));
            }
            moments.changed().await.ok()?;
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

//! Status, its changes, and the timeline.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    response::sse::{self, KeepAlive, Sse},
};
use dyad_api::{Service, StatusReply, TimelineReply};
use futures_util::Stream;
use serde::Deserialize;

use super::{
    Reply,
    auth::{LoggedIn, Maybe},
};
use crate::NodeHandle;

/// Longest silence of an event stream.
const BEAT: Duration = Duration::from_secs(10);

pub(super) async fn status(State(node): State<Arc<NodeHandle>>, who: Maybe) -> Json<StatusReply> {
    Json(node.status(who.0))
}

/// The status now and at every change; equal ones are not repeated.
pub(super) async fn follow(
    State(node): State<Arc<NodeHandle>>,
    who: Maybe,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let start = (node.follow(), None::<StatusReply>);
    let stream = futures_util::stream::unfold(start, move |(mut moments, shown)| async move {
        loop {
            let status = NodeHandle::status_of(&moments.borrow_and_update().clone(), who.0);
            if shown.as_ref() != Some(&status) {
                // Plain maps, numbers and texts: JSON can always hold them.
                let event = sse::Event::default().event("status").json_data(&status).unwrap_or_default();
                return Some((Ok(event), (moments, Some(status))));
            }
            moments.changed().await.ok()?;
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(BEAT))
}

#[derive(Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    since: u64,
}

pub(super) async fn timeline(
    State(node): State<Arc<NodeHandle>>,
    _: LoggedIn,
    Query(Since { since }): Query<Since>,
) -> Reply<Json<TimelineReply>> {
    Ok(Json(node.timeline(since).await?))
}

//! Delivers a refusal to a client that is still sending its request.
//!
//! Most clients read the answer only after they have sent the whole request, and TCP resets a connection that is closed while
//! received bytes wait unread: an upload refused at its beginning would end as a broken connection without the reason. So the
//! refusal is sent at once, and its body ends only when the rest of the request was read and discarded.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes, HttpBody},
    extract::Request,
    http::header,
    middleware::Next,
    response::Response,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{sync::oneshot, time};

/// Limit for reading on after a refusal: the same as for the head of a request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Lets the body of a refusal end with its request.
pub(super) async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // A client that sent `Expect: 100-continue` and was refused sends no body.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let (back, mut returned) = oneshot::channel();
    let (head, body) = request.into_parts();
    let draining = DrainBody { body: Some(body.into_data_stream()), sent: !asks_first, back: Some(back) };
    let response = next.run(Request::from_parts(head, Body::from_stream(draining))).await;
    // The handler has ended and dropped its body, which comes back unless it was read to its end.
    match returned.try_recv() {
        Ok(rest) if response.status().is_client_error() || response.status().is_server_error() => hold(response, rest),
        _ => response,
    }
}

/// The same response, whose body ends when `rest` has ended.
fn hold(response: Response, rest: BodyDataStream) -> Response {
    let (mut head, body) = response.into_parts();
    // With a Content-Length the answer would end, and the connection close, when that many bytes are sent.
    head.headers.remove(header::CONTENT_LENGTH);
    let discarding = async move {
        let all = rest.for_each(|_| std::future::ready(()));
        let _ = time::timeout(DRAIN_TIMEOUT, all).await;
        None::<(Result<Bytes, axum::Error>, Infallible)>
    };
    let nothing = stream::once(discarding).filter_map(async |none| none.map(|(item, _)| item));
    Response::from_parts(head, Body::from_stream(body.into_data_stream().chain(nothing)))
}

/// The body of a request as its handler reads it; a rest comes back when the handler drops it.
struct DrainBody {
    body: Option<BodyDataStream>,
    /// Whether the client sends the body: it did not ask first, or was told to continue.
    sent: bool,
    back: Option<oneshot::Sender<BodyDataStream>>,
}

impl Stream for DrainBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sent = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = ready!(body.poll_next_unpin(context));
        // A body that has ended or failed has no rest.
        if !matches!(next, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(next)
    }
}

impl Drop for DrainBody {
    fn drop(&mut self) {
        if let (Some(body), true, Some(back)) = (self.body.take(), self.sent, self.back.take()) {
            // Fails if the client is gone.
            let _ = back.send(body);
        }
    }
}

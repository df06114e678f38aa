//! Middleware that delivers a refusal to a client that is still sending its request.
//!
//! Most clients read the response only after they have sent the whole request. If the server closes a connection with unread
//! bytes, TCP resets it, and the client loses the response. A refused upload would then end as a broken connection without a
//! reason. Therefore the refusal is sent at once, and its body ends only when the rest of the request was read and discarded.

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

/// Limit for reading the rest of a request after its refusal, as long as that for the head of a request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The middleware: runs the handler, and delays the end of a refusal's body until the rest of the request was read.
pub(super) async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // A client that sends `Expect: 100-continue` and is refused does not send the body.
    let waits_for_continue = request.headers().contains_key(header::EXPECT);
    let (back, mut returned) = oneshot::channel();
    let (head, body) = request.into_parts();
    let draining = DrainBody { body: Some(body.into_data_stream()), is_sent: !waits_for_continue, back: Some(back) };
    let response = next.run(Request::from_parts(head, Body::from_stream(draining))).await;
    // The handler has ended and has dropped its body, which is returned here unless it was read to its end.
    match returned.try_recv() {
        Ok(rest) if response.status().is_client_error() || response.status().is_server_error() => {
            end_after(response, rest)
        }
        _ => response,
    }
}

/// The response with a body that ends only after `rest` has ended or [`DRAIN_TIMEOUT`] has passed.
fn end_after(response: Response, rest: BodyDataStream) -> Response {
    let (mut head, body) = response.into_parts();
    // With a Content-Length the response would end, and the connection be closed, after that number of bytes.
    head.headers.remove(header::CONTENT_LENGTH);
    let discarding = async move {
        let all = rest.for_each(|_| std::future::ready(()));
        let _ = time::timeout(DRAIN_TIMEOUT, all).await;
        None::<(Result<Bytes, axum::Error>, Infallible)>
    };
    let nothing = stream::once(discarding).filter_map(async |none| none.map(|(item, _)| item));
    Response::from_parts(head, Body::from_stream(body.into_data_stream().chain(nothing)))
}

/// The body of a request, as its handler reads it. When the handler drops it, the unread rest is returned to [`drain`].
struct DrainBody {
    body: Option<BodyDataStream>,
    /// Whether the client sends the body: it does not wait for `100 Continue`, or has got it because the handler read.
    is_sent: bool,
    back: Option<oneshot::Sender<BodyDataStream>>,
}

impl Stream for DrainBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.is_sent = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = ready!(body.poll_next_unpin(context));
        // A body that has ended or failed has no unread rest.
        if !matches!(next, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(next)
    }
}

impl Drop for DrainBody {
    fn drop(&mut self) {
        if let (Some(body), true, Some(back)) = (self.body.take(), self.is_sent, self.back.take()) {
            // This fails if the client has disconnected.
            let _ = back.send(body);
        }
    }
}

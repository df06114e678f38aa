//! A refusal that reaches those who are still sending.
//!
//! Most clients read the answer only after they have sent everything, and a connection that is closed while bytes of it
//! wait unread is reset: an image that is refused at its beginning would end as a broken connection, and nobody would
//! learn why. So a refusal is sent at once, but it ends only when the rest of the request was read and thrown away.

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

/// Longest time to read on after a refusal: as long as somebody may take for the head of a request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Lets a refusal wait for the end of its request.
pub(super) async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Who asked first and was not told to go on sends nothing.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let (back, mut returned) = oneshot::channel();
    let (head, body) = request.into_parts();
    let lent = DrainBody { body: Some(body.into_data_stream()), sent: !asks_first, back: Some(back) };
    let response = next.run(Request::from_parts(head, Body::from_stream(lent))).await;
    // The handler has ended, and with it the loan, unless it read everything.
    match returned.try_recv() {
        Ok(rest) if response.status().is_client_error() || response.status().is_server_error() => hold(response, rest),
        _ => response,
    }
}

/// The same response, whose body ends when `rest` has ended.
fn hold(response: Response, rest: BodyDataStream) -> Response {
    let (mut head, body) = response.into_parts();
    // With a length the answer would be over, and the connection closed, once so many bytes are sent.
    head.headers.remove(header::CONTENT_LENGTH);
    let discarding = async move {
        let all = rest.for_each(|_| std::future::ready(()));
        let _ = time::timeout(DRAIN_TIMEOUT, all).await;
        None::<(Result<Bytes, axum::Error>, Infallible)>
    };
    let nothing = stream::once(discarding).filter_map(async |none| none.map(|(item, _)| item));
    Response::from_parts(head, Body::from_stream(body.into_data_stream().chain(nothing)))
}

/// The body of a request while its handler has it.
struct DrainBody {
    body: Option<BodyDataStream>,
    /// Whether anything is to come: the client did not ask first, or was told to send.
    sent: bool,
    back: Option<oneshot::Sender<BodyDataStream>>,
}

impl Stream for DrainBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sent = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = ready!(body.poll_next_unpin(context));
        // One that ended or broke has nothing left to read.
        if !matches!(next, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(next)
    }
}

impl Drop for DrainBody {
    fn drop(&mut self) {
        if let (Some(body), true, Some(back)) = (self.body.take(), self.sent, self.back.take()) {
            // Nobody waits for it if the client is gone.
            let _ = back.send(body);
        }
    }
}

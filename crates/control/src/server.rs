//! Reading of requests and writing of replies as JSON lines, for the core.

use crate::{MAX_LINE_BYTES, Reply, Request};
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Failures of reading a request. The text is one sentence for the client.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection failed.
    #[error("The request could not be read: {0}.")]
    Connection(#[source] std::io::Error),
    /// The line is no request of this version, or longer than [`MAX_LINE_BYTES`].
    #[error("The request is not understood: {0}.")]
    Malformed(#[source] serde_json::Error),
}

/// Reads one request; `None` if the client has closed the connection before the first byte of one.
///
/// # Errors
/// The connection fails, or the line is no request.
pub async fn read_request(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Request>, RequestError> {
    let mut line = String::new();
    let length = from.take(MAX_LINE_BYTES as u64).read_line(&mut line).await.map_err(RequestError::Connection)?;
    if length == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(RequestError::Malformed)
}

/// Writes one reply as a JSON line. It takes a [`Reply`] only: a [`Refusal`](crate::Refusal) alone has no tag, and the
/// client could not read it.
///
/// # Errors
/// The error of writing to the connection; the caller knows its client.
pub async fn write_reply(to: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> std::io::Result<()> {
    write_line(to, reply).await
}

/// Writes one value as a JSON line.
pub(crate) async fn write_line(to: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

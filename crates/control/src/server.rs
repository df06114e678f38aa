//! The few lines of framing the core's side needs.

use crate::{MAX_LINE, Request};
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads one request. `Ok(None)` at a clean end; an unreadable line is an error with one sentence.
pub async fn read_request(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Request>, String> {
    let mut line = String::new();
    let n = from
        .take(MAX_LINE as u64)
        .read_line(&mut line)
        .await
        .map_err(|e| format!("The request could not be read: {e}."))?;
    if n == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(|e| format!("The request is not understood: {e}."))
}

/// Writes one value as a JSON line.
pub async fn write_line(to: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

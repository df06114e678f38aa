//! Accepting connections, with a delay after a failure.

use std::io;
use std::time::Duration;

/// Delay after the kernel failed to accept a connection, usually because no file descriptors are left. The connection still
/// waits, so without a delay the next attempt would fail at once.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The next connection that `accept` gives. May be cancelled.
pub(crate) async fn next_connection<C, F>(mut accept: impl FnMut() -> F) -> C
where
    F: Future<Output = io::Result<C>>,
{
    loop {
        match accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_accept_is_tried_again_ten_times_a_second_until_it_succeeds() {
        let begin = tokio::time::Instant::now();
        let mut attempts = 0;
        let accepted = next_connection(|| {
            attempts += 1;
            // As long as no descriptors are free.
            let free = begin.elapsed() >= Duration::from_secs(1);
            async move { if free { Ok("connection") } else { Err(io::Error::from_raw_os_error(24)) } }
        });
        assert_eq!(accepted.await, "connection");
        assert_eq!(attempts, 11);
    }
}

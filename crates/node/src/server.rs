//! The listening sockets: HTTPS for the network, and the same router without TLS on a Unix socket to which only root can
//! connect.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use dyad_api::Source;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

/// Maximum number of HTTPS connections at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// Maximum number of HTTPS connections of one source: half of all, so that one source cannot use all of them. It is not
/// smaller, because many people may have one address behind a gateway.
const MAX_CONNECTIONS_PER_SOURCE: usize = 256;
/// Limit of the TLS handshake of a connection.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for a client to send the head of a request.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Delay after `accept` has failed, for example because too many files are open: an immediate call would fail too.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves HTTPS until the process ends.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>, site: Router) {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let limits = Arc::new(ConnectionLimits::default());
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, source) = match listener.accept().await {
            Ok((stream, peer)) => (stream, Source::from(peer.ip())),
            Err(error) => {
                wait_after_failed_accept(&error).await;
                continue;
            }
        };
        // A connection above the limit of its source is closed at once.
        let Some(permit) = limits.permit(source) else { continue };
        // Nagle's algorithm is turned off, so that a character on a serial line is sent without waiting for further ones.
        let _ = stream.set_nodelay(true);
        let (acceptor, site) = (acceptor.clone(), site.clone().layer(Extension(source)));
        tokio::spawn(async move {
            // A failed TLS handshake is not logged: any client can cause it.
            if let Ok(Ok(stream)) = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                serve_connection(stream, site).await;
            }
            drop((slot, permit));
        });
    }
}

/// Number of open connections of each source.
#[derive(Default)]
struct ConnectionLimits(Mutex<HashMap<Source, usize>>);

impl ConnectionLimits {
    /// A permit for one more connection of this source; `None` if its limit is reached.
    fn permit(self: &Arc<Self>, source: Source) -> Option<ConnectionPermit> {
        let mut counts = self.counts();
        let count = counts.entry(source).or_default();
        if *count == MAX_CONNECTIONS_PER_SOURCE {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { limits: self.clone(), source })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection. Dropping it subtracts the connection from the count.
struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    source: Source,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// The local socket could not be created.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be created", path.display())]
pub struct LocalSocketError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Creates the local socket with mode 0600, so that only root can connect.
///
/// # Errors
/// The directory does not exist or cannot be written.
pub fn local_listener(path: &Path) -> Result<UnixListener, LocalSocketError> {
    let _ = fs::remove_file(path);
    let failed = |source| LocalSocketError { path: path.to_owned(), source };
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves the local socket until the process ends.
pub async fn serve_local(listener: UnixListener, site: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(stream, site.clone()))),
            Err(error) => wait_after_failed_accept(&error).await,
        }
    }
}

async fn wait_after_failed_accept(error: &io::Error) {
    tracing::warn!("a connection was not accepted: {error}");
    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
}

/// Serves the requests of one connection until it ends.
async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, site: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD_TIMEOUT);
    // An error is not logged: the client has closed the connection or violated HTTP.
    let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(site)).with_upgrades().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn answer_to(request: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(serve_connection(server, Router::new()));
        client.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        serving.await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The limits of this server are set for HTTP/1.1 only, so HTTP/2 must be refused, also without negotiation.
    #[tokio::test]
    async fn http_2_is_refused() {
        let http_1 = answer_to(b"GET / HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").await;
        assert!(http_1.starts_with("HTTP/1.1 404"), "{http_1}");
        // The preface of HTTP/2 and an empty SETTINGS frame.
        let http_2 = answer_to(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        assert!(http_2.is_empty() || http_2.starts_with("HTTP/1.1 4"), "{http_2}");
    }

    #[test]
    fn one_source_cannot_use_all_connections() {
        let limits = Arc::new(ConnectionLimits::default());
        let [one, other] = [1, 2].map(|number| Source::V4(std::net::Ipv4Addr::from(number)));
        let mut permits: Vec<_> = (0..MAX_CONNECTIONS_PER_SOURCE).map(|_| limits.permit(one).unwrap()).collect();
        assert!(limits.permit(one).is_none());
        assert!(limits.permit(other).is_some());
        permits.pop();
        permits.push(limits.permit(one).expect("a permit is free again"));
        drop(permits);
        assert!(limits.counts().is_empty());
    }
}

//! TLS connections: the handshakes of client and server, the established [`Channel`], and the meaning of errors.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, CommonState, Error, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::verify::PinMismatch;
use super::{Protocol, TlsError};
use crate::Fingerprint;
use crate::frame::{FrameError, FrameReader, FrameWriter};

/// Time limit for a client whose handshake failed to read the alert and close, before the server closes.
const REFUSAL_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// An established TLS connection.
pub struct Channel {
    /// The fingerprint of the other side's certificate, whose key it has proven to own.
    pub peer: Fingerprint,
    /// The negotiated protocol.
    pub protocol: Protocol,
    /// Exported keying material, which only the two ends of this connection know (RFC 8446, 7.5).
    pub binding: [u8; 32],
    /// Frames from the other side.
    pub reader: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    /// Frames to the other side.
    pub writer: FrameWriter<WriteHalf<TlsStream<TcpStream>>>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("peer", &self.peer).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// Makes `stream` a TLS connection as its client, within `limit`.
///
/// Success does not mean that the server accepts this side's key: it may refuse after its last message. The first read
/// then fails, and [`TlsError::from_io`] tells the reason.
///
/// # Errors
/// [`TlsError::WrongKey`], [`TlsError::Protocol`], [`TlsError::Timeout`] or [`TlsError::Io`].
pub async fn connect(stream: TcpStream, config: Arc<ClientConfig>, limit: Duration) -> Result<Channel, TlsError> {
    stream.set_nodelay(true).map_err(TlsError::Io)?;
    // The name is not used: the peer is identified by its pinned key, and SNI is off.
    let name = ServerName::try_from("dyad").expect("a constant name is valid");
    let handshake = TlsConnector::from(config).connect(name, stream);
    match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => Channel::new(stream.into()),
        Ok(Err(error)) => Err(TlsError::from_io(error)),
        Err(_) => Err(TlsError::Timeout { seconds: limit.as_secs() }),
    }
}

/// Makes `stream` a TLS connection as its server, within `limit`.
///
/// # Errors
/// As [`connect`].
pub async fn accept(stream: TcpStream, config: Arc<ServerConfig>, limit: Duration) -> Result<Channel, TlsError> {
    stream.set_nodelay(true).map_err(TlsError::Io)?;
    let handshake = TlsAcceptor::from(config).accept(stream).into_fallible();
    match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => Channel::new(stream.into()),
        Ok(Err((error, stream))) => {
            tokio::spawn(drain(stream));
            Err(TlsError::from_io(error))
        }
        Err(_) => Err(TlsError::Timeout { seconds: limit.as_secs() }),
    }
}

/// Reads until the client closes, so that it receives the alert: to close with unread bytes would reset the connection.
async fn drain(mut stream: TcpStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    let _ = tokio::time::timeout(REFUSAL_DRAIN_TIMEOUT, drain).await;
}

impl Channel {
    fn new(stream: TlsStream<TcpStream>) -> Result<Self, TlsError> {
        let (binding, state): ([u8; 32], &CommonState) = match &stream {
            TlsStream::Client(stream) => {
                let session = stream.get_ref().1;
                (export(session.export_keying_material([0; 32], EXPORT_LABEL, None))?, session)
            }
            TlsStream::Server(stream) => {
                let session = stream.get_ref().1;
                (export(session.export_keying_material([0; 32], EXPORT_LABEL, None))?, session)
            }
        };
        let certificate = state.peer_certificates().and_then(|chain| chain.first()).ok_or(TlsError::Protocol)?;
        let peer = Fingerprint::of(certificate);
        let protocol = state.alpn_protocol().and_then(Protocol::from_alpn).ok_or(TlsError::Protocol)?;
        let (reader, writer) = tokio::io::split(stream);
        Ok(Self { peer, protocol, binding, reader: FrameReader::new(reader), writer: FrameWriter::new(writer) })
    }
}

/// Label of [`Channel::binding`] (RFC 8446, 7.5).
const EXPORT_LABEL: &[u8] = b"EXPORTER-dyad-channel-binding";

fn export(outcome: Result<[u8; 32], Error>) -> Result<[u8; 32], TlsError> {
    outcome.map_err(|error| TlsError::Io(std::io::Error::other(error)))
}

impl TlsError {
    /// Classifies an I/O error of a TLS stream: a wrong key, a refused key, another protocol, or a broken connection.
    #[must_use]
    pub fn from_io(error: std::io::Error) -> Self {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match cause {
            Some(Error::InvalidCertificate(CertificateError::Other(other))) => {
                match other.0.downcast_ref::<PinMismatch>() {
                    Some(mismatch) => Self::WrongKey { found: mismatch.found },
                    None => Self::Io(error),
                }
            }
            Some(Error::AlertReceived(
                AlertDescription::CertificateUnknown
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied,
            )) => Self::KeyRefused,
            Some(
                Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                | Error::NoApplicationProtocol
                | Error::InvalidMessage(_)
                | Error::PeerIncompatible(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. },
            ) => Self::Protocol,
            _ => Self::Io(error),
        }
    }

    /// Classifies an error of reading or writing a frame on a TLS stream.
    ///
    /// # Errors
    /// The given error, if it concerns the content of the frame and not the stream.
    pub fn from_frame(error: FrameError) -> Result<Self, FrameError> {
        match error {
            FrameError::Io(error) => Ok(Self::from_io(error)),
            other => Err(other),
        }
    }
}

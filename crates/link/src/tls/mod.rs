//! TLS 1.3 between identities that pin each other by fingerprint.
//!
//! The protocol inside the connection is chosen by ALPN ([`Protocol`]), so that a listener for several protocols (the
//! witness: pairing and requests) knows the protocol before the first frame.

mod channel;
mod error;
mod identity;
mod trust;
mod verify;

use std::sync::Arc;

pub use rustls::{ClientConfig, ServerConfig};

pub use channel::{Channel, accept, connect};
pub use error::TlsError;
pub use identity::TlsIdentity;
pub use trust::Trust;

/// The protocol inside a TLS connection, sent as ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The data session of both nodes, [`crate::session`].
    Peer,
    /// The exchange that a one-time code protects, [`crate::pairing`].
    Pairing,
    /// Requests to the witness.
    Witness,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peer => b"dyad-peer/1",
            Self::Pairing => b"dyad-pairing/1",
            Self::Witness => b"dyad-witness/1",
        }
    }

    fn from_alpn(name: &[u8]) -> Option<Self> {
        [Self::Peer, Self::Pairing, Self::Witness].into_iter().find(|protocol| protocol.alpn() == name)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client configuration that presents `identity`, accepts servers by `trust` and offers one protocol.
///
/// # Errors
/// [`TlsError::Config`] if the identity's key and certificate do not match.
pub fn client_config(identity: &TlsIdentity, trust: Trust, protocol: Protocol) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = Arc::new(verify::PinVerifier::new(trust, &provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Config)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate()], identity.key())
        .map_err(TlsError::Config)?;
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A server configuration that presents `identity`, requires a client certificate, accepts clients by `trust` and
/// speaks any of `protocols`.
///
/// # Errors
/// [`TlsError::Config`] if the identity's key and certificate do not match.
pub fn server_config(
    identity: &TlsIdentity,
    trust: Trust,
    protocols: &[Protocol],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier = Arc::new(verify::PinVerifier::new(trust, &provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate()], identity.key())
        .map_err(TlsError::Config)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.alpn().to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;

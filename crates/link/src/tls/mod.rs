//! TLS 1.3 between identities that pin each other by fingerprint.
//!
//! The protocol on top is chosen by ALPN ([`Protocol`]), so that a listener which serves several
//! (the witness: pairing and requests) knows what it talks before the first frame.

mod channel;
mod identity;
mod verify;

use std::sync::Arc;

pub use rustls::{ClientConfig, ServerConfig};

pub use channel::{Channel, accept, connect};
pub use identity::Identity;

use crate::Fingerprint;

/// Whom a side of a TLS connection accepts as its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Only the owner of the key with this fingerprint.
    Pinned(Fingerprint),
    /// Anyone who owns the key he shows. The caller must decide by [`Channel::peer`] before he
    /// acts on a single byte: by a one-time code (pairing) or by a list of keys (the witness).
    AnyKey,
}

/// What is spoken inside a TLS connection; travels as ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// [`crate::session`].
    Peer,
    /// [`crate::pairing`].
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

/// Why a TLS connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate could not be made.
    #[error("no TLS identity could be made")]
    Generate(#[source] rcgen::Error),
    /// An identity file cannot be read or written.
    #[error("the identity file {} cannot be used; restore it or pair this node again", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An identity file holds no key or certificate.
    #[error("the identity file {} is damaged; restore it or pair this node again", path.display())]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
    },
    /// TLS itself refuses this identity.
    #[error("this identity cannot be used for TLS")]
    Config(#[source] rustls::Error),
    /// The peer owns another key than the one that was pinned.
    #[error(
        "the other side shows the key {found}, not the expected one; it is another machine or was set up anew, pair it again"
    )]
    WrongKey {
        /// The fingerprint it showed.
        found: Fingerprint,
    },
    /// The peer does not accept our key.
    #[error("the other side refuses this node's key; it belongs to another pair or must be paired again")]
    KeyRefused,
    /// The peer speaks none of our protocols.
    #[error("the other side does not speak this protocol; check the address and the port")]
    Protocol,
    /// The peer did not finish the handshake in time.
    #[error("the other side did not finish the handshake within {seconds} s; check the network between them")]
    Timeout {
        /// The bound that passed, in seconds.
        seconds: u64,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] std::io::Error),
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client configuration that shows `identity` and accepts only `trust`.
///
/// # Errors
/// [`TlsError::Config`] if the identity's key and certificate do not fit.
pub fn client_config(identity: &Identity, trust: Trust, protocol: Protocol) -> Result<Arc<ClientConfig>, TlsError> {
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

/// A server configuration that shows `identity`, demands a client key and accepts only `trust`.
///
/// # Errors
/// [`TlsError::Config`] if the identity's key and certificate do not fit.
pub fn server_config(identity: &Identity, trust: Trust, protocols: &[Protocol]) -> Result<Arc<ServerConfig>, TlsError> {
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

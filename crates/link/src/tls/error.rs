//! Errors of TLS connections and identities.

use crate::Fingerprint;

/// The errors of TLS connections and of identity files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate cannot be created.
    #[error("no TLS identity could be made")]
    Generate(#[source] rcgen::Error),
    /// An identity file cannot be read or written.
    #[error("the identity file {} cannot be used; restore it or pair this node again", path.display())]
    File {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// An identity file cannot be removed.
    #[error("the identity file {} cannot be removed", path.display())]
    Remove {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// An identity file has no readable key or certificate.
    #[error("the identity file {} is damaged; restore it or pair this node again", path.display())]
    Damaged { path: std::path::PathBuf },
    /// The TLS library refuses this identity, for instance because key and certificate do not match.
    #[error("this identity cannot be used for TLS")]
    Config(#[source] rustls::Error),
    /// The peer has another key than the pinned one.
    #[error(
        "the other side has the key {found}, not the expected one; it is another machine or was set up again, pair it again"
    )]
    WrongKey {
        /// The fingerprint of the peer's key.
        found: Fingerprint,
    },
    /// The peer refuses this side's key.
    #[error("the other side refuses this node's key; it belongs to another pair or must be paired again")]
    KeyRefused,
    /// The peer does not speak TLS 1.3, or none of the offered protocols.
    #[error("the other side does not speak this protocol; check the address and the port")]
    Protocol,
    /// The peer did not finish the handshake in time.
    #[error("the other side did not finish the handshake within {seconds} s; check the network between them")]
    Timeout {
        /// The time limit, in seconds.
        seconds: u64,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] std::io::Error),
}

//! Errors of TLS connections and identities.

use crate::Fingerprint;

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

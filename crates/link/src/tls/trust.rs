//! The choice of the peers that a TLS connection accepts.

use crate::Fingerprint;

/// The keys that one side of a TLS connection accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Only the key with this fingerprint.
    Pinned(Fingerprint),
    /// Any key. The caller must authenticate [`Channel::peer`](super::Channel::peer) before it uses any received byte:
    /// by a one-time code (pairing) or by a list of keys (the witness).
    AnyKey,
}

//! The peers that a TLS connection accepts.

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

//! dyad-quorum

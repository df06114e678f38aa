//! dyad-mirror

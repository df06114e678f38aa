//! dyad-update

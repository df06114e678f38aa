//! dyad-link

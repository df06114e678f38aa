//! dyad-console

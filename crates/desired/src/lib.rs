//! dyad-desired

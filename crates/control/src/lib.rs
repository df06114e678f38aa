//! dyad-control

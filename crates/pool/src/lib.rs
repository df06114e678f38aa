//! dyad-pool

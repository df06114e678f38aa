//! dyad-network

//! dyad-node

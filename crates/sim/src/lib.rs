//! dyad-sim

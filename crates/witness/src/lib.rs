//! dyad-witness

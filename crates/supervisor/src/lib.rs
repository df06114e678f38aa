//! dyad-supervisor

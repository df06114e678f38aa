//! dyad-blockdev

//! dyad-web

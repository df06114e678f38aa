//! dyad-api

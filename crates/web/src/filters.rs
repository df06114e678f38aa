//! Filters of the templates. askama looks for a module of this name.

use askama::Values;
use std::fmt;

/// Bytes as people read them.
#[askama::filter_fn]
pub(crate) fn size(bytes: &u64, _: &dyn Values) -> Result<String, fmt::Error> {
    Ok(crate::pages::size(bytes))
}

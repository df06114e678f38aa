//! Filters of the templates. askama requires a module of this name.

use askama::Values;
use std::fmt;

/// Bytes with a binary unit.
#[askama::filter_fn]
pub(crate) fn size(bytes: &u64, _: &dyn Values) -> Result<String, fmt::Error> {
    Ok(crate::pages::size(bytes))
}

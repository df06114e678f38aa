//! Filters that the templates use. askama looks for them in a module of this name.

use askama::Values;
use std::fmt;

/// Shows a number of bytes with a binary unit, such as "64.0 MiB".
#[askama::filter_fn]
pub(crate) fn size(bytes: &u64, _: &dyn Values) -> Result<String, fmt::Error> {
    Ok(crate::pages::size(bytes))
}

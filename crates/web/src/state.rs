//! The state that axum passes to each handler.

use dyad_api::Service;
use std::sync::Arc;

/// The node that the pages show, as all handlers share it.
pub(crate) type SharedService = Arc<dyn Service>;

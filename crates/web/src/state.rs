//! The state that each handler gets.

use dyad_api::Service;
use std::sync::Arc;

/// The node's service, shared by all handlers.
pub(crate) type Shared = Arc<dyn Service>;

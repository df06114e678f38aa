//! Why a request of a guest failed.

use std::error::Error;
use std::sync::Arc;

/// The failure of a request. The guest sees an I/O error, so a backend that may succeed later waits instead.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// No replica could read or write the data.
    #[error("the volume could not serve the request")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The request does not lie inside the volume.
    #[error("the request lies outside of the volume; compare the volume's size with the guest's")]
    OutOfRange,
}

impl BackendError {
    /// A failure with its cause, for the log.
    pub fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(cause.into()))
    }
}

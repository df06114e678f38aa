//! [`BackendError`]: the reason why a request to a backend failed.

use std::error::Error;
use std::sync::Arc;

/// The reason why a request failed. The guest sees an I/O error and may stop using the disk. So a backend that may
/// succeed later does not answer yet.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The backend cannot read or write the data. The source is the cause, for the log.
    #[error("the volume could not serve the request")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The request does not lie inside the volume.
    #[error("the request lies outside of the volume; compare the volume's size with the guest's")]
    OutOfRange,
}

impl BackendError {
    /// [`BackendError::Failed`] with any error, or a text, as its source.
    pub fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(cause.into()))
    }
}

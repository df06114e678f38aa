//! The error of an operation on an index.

/// The reason why an operation on an index failed.
#[derive(Debug)]
pub(crate) enum IndexError {
    /// Structure or content of the file differs from what was committed.
    Damaged(String),
    /// LMDB or the file system returned an error.
    Io(String),
}

impl IndexError {
    /// The text of either variant, for an error of the pool.
    pub fn text(self) -> String {
        match self {
            IndexError::Damaged(text) | IndexError::Io(text) => text,
        }
    }
}

impl From<heed::Error> for IndexError {
    fn from(error: heed::Error) -> Self {
        IndexError::Io(error.to_string())
    }
}

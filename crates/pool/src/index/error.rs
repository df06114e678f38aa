//! Why an index cannot be used.

/// Why an index cannot be used.
#[derive(Debug)]
pub(crate) enum IndexError {
    /// The content differs from what was committed.
    Damaged(String),
    /// LMDB or the file system returned an error.
    Io(String),
}

impl IndexError {
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

//! What can go wrong.

use std::path::Path;

/// A failure of comparing itself; that a program fails in some mode is a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What failed, and why.
    #[error("{0}")]
    Failed(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A step failed.
    pub fn step(what: &str, why: impl std::fmt::Display) -> Error {
        Error::Failed(format!("{what}: {why}"))
    }

    /// Something failed on a file.
    pub fn on(path: &Path, why: impl std::fmt::Display) -> Error {
        Error::Failed(format!("{}: {why}", path.display()))
    }
}

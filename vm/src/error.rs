//! Why a machine could not be run, in words for the person who asked.

use nix::errno::Errno;

/// A failure: what, on what, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Duet or the host cannot.
    #[error("{0}")]
    Failed(String),
    /// The program exists but cannot be run.
    #[error("{program}: {reason}")]
    CannotRun {
        /// The program as it was named.
        program: String,
        /// Why.
        reason: String,
    },
    /// There is no such program in the tree.
    #[error("{program}: {reason}")]
    NotFound {
        /// The program as it was named.
        program: String,
        /// Where it was looked for.
        reason: String,
    },
}

impl Error {
    /// A failed step of Duet's own.
    pub fn step(what: impl AsRef<str>, errno: Errno) -> Error {
        Error::Failed(format!("{}: {}", what.as_ref(), errno.desc()))
    }

    /// A failed step, with the standard library's error.
    pub fn io(what: impl AsRef<str>, error: &std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(n) => Error::step(what, Errno::from_raw(n)),
            None => Error::Failed(format!("{}: {error}", what.as_ref())),
        }
    }

    /// The exit status that tells of it: 125, 126 or 127.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) => 125,
            Error::CannotRun { .. } => 126,
            Error::NotFound { .. } => 127,
        }
    }
}

/// What this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

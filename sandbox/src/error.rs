//! Why a program could not be run, in words for the person who asked, with an exit status.

use nix::errno::Errno;

/// A failure to run the program at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Duet itself, or the host, cannot.
    #[error("{0}")]
    Failed(String),
    /// The program exists but cannot be run.
    #[error("{program}: {reason}")]
    CannotRun {
        /// The program as it was named.
        program: String,
        /// Why, and what to do.
        reason: String,
    },
    /// There is no such program.
    #[error("{program}: {reason}")]
    NotFound {
        /// The program as it was named.
        program: String,
        /// Where it was looked for, and what to do.
        reason: String,
    },
}

impl Error {
    /// The exit status that tells of it: 125, 126 or 127.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) => 125,
            Error::CannotRun { .. } => 126,
            Error::NotFound { .. } => 127,
        }
    }

    /// A failed step.
    pub fn step(what: impl AsRef<str>, errno: Errno) -> Error {
        Error::Failed(format!("{}: {}", what.as_ref(), errno.desc()))
    }
}

/// What this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

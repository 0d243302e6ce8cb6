//! One running sandbox: its namespaces, its init, its tree, its process table and run loop, the
//! terminal, and the exit status.
//!
//! [`run`](run::run) forks the init into new namespaces, joins the tree, installs the filter in the
//! first guest process, and serves its calls with `duet-syscalls` until it ends.
//!
//! Lock order: [`names`] before the answers of [`requests`]; neither is held while the VFS is called.

pub mod channel;
pub mod config;
pub mod doctor;
pub mod error;
pub mod init;
pub mod landlock;
pub mod limits;
pub mod look;
pub mod machine;
pub mod names;
pub mod namespaces;
pub(crate) mod program;
pub mod requests;
pub mod run;
pub mod source;
pub mod terminal;
pub mod tree;
pub mod usage;
pub mod usernet;
pub mod workers;

pub use config::{Config, Engine, Limits, Messages, Network, Port, Protocol, Seen, Tree, Volume};
pub use error::{Error, Result};
pub use run::{Outcome, run};
pub use usage::Usage;

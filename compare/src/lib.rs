//! The same program natively, in the layer and in a virtual machine, side by side.
//!
//! [`session::compare`] runs a [`subject::Subject`] in each [`modes::Mode`] in turn, every run from an equal
//! start ([`stage`]), and looks at what came of it: whether status, output and written files are those of
//! the native run ([`agree`]), and what it took ([`figures`]). A mode of Duet is run as what a user would
//! run, `duet run`, which tells of the inside in a file ([`inside`]). [`mod@bench`] runs a built-in set of
//! measurements by the same means, with other programs of this kind beside, and [`suite`] many programs.
//!
//! Timed runs are left alone: what needs looking at processes, or counting each call, is measured in
//! further runs, whose times are not used.
//!
//! The calling process must have a single thread: what its children read and write is told from the
//! accounts of the process less those of the thread. No locks are held.
//!
//! | module | owns |
//! |---|---|
//! | [`modes`], [`subject`] | what is run, and in which way |
//! | [`stage`], [`mirror`], [`tree`], [`files`] | equal starts, and what was written |
//! | [`spawn`], [`peers`], [`child`], [`processes`] | one run, from its start to its last process |
//! | [`stats`], [`figures`], [`agree`] | many runs: medians, spread, agreement |
//! | [`report`], [`text`], [`svg`], [`html`] | what is shown of it |
//! | [`mod@bench`], [`sets`], [`material`] | the built-in sets, and what they work on |
//! | [`tables`], [`page`], [`aims`], [`against`] | what is shown of them; what has changed |
//! | [`suite`] | many programs, one verdict each |

pub mod against;
pub mod agree;
pub mod aims;
pub mod bench;
pub mod child;
pub mod error;
pub mod figures;
pub mod files;
pub mod html;
pub mod inside;
pub mod material;
pub mod mirror;
pub mod modes;
pub mod page;
pub mod peers;
pub mod processes;
pub mod report;
pub mod session;
pub mod sets;
pub mod spawn;
pub mod stage;
pub mod stats;
pub mod subject;
pub mod suite;
pub mod svg;
pub mod tables;
pub mod text;
pub mod tree;

pub use error::{Error, Result};

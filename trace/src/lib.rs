//! Traces of system calls: from a call to the text that strace(1) writes for it.
//!
//! [`decode`] goes by the types of the one table of `duet-syscalls`, with what single calls need beside and
//! what results mean; [`sets`] has the names of constants, [`structs`] what pointers lead to, [`signals`]
//! signals. Guest memory is read while the thread is stopped, and every byte of it is untrusted.
//!
//! [`recorder`] is the observer of an engine: it shows of a run what a [`filter`] lets through, as lines of
//! text ([`format`](mod@format)), as JSON ([`json`]), explained ([`explain`]), counted ([`counts`]) or summed up
//! ([`summary`]), in one file or several ([`output`]). It
//! decodes without a lock, and holds its one lock while it writes; it calls nobody else's code under it.

pub mod counts;
pub mod decode;
pub mod explain;
pub mod filter;
pub mod format;
mod full;
pub mod json;
mod messages;
pub mod output;
mod prctl;
mod rare_sets;
pub mod recorder;
mod result;
pub mod sets;
mod shapes;
pub mod signals;
mod special;
pub mod structs;
pub mod summary;
mod terminals;
mod text;

pub use result::errno_text;

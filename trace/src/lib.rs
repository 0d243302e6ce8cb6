//! Traces of system calls: from a call to the text that strace(1) writes for it.
//!
//! [`decode`] goes by the types of the one table of `duet-syscalls`; [`sets`] has the names of constants,
//! [`structs`] the shapes of what pointers lead to, [`signals`] those of signals. Guest memory is read while the thread is stopped, and
//! every byte of it is untrusted.
//!
//! [`recorder`] is the observer of an engine that writes such lines; it holds its one lock while it reads the
//! memory of the thread that it is told of, and calls nobody else's code under it.

pub mod decode;
mod rare_sets;
pub mod recorder;
pub mod sets;
pub mod signals;
pub mod structs;
mod text;

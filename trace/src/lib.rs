//! Traces of system calls: from a call to the text that strace(1) writes for it.
//!
//! [`decode`] goes by the types of the one table of `duet-syscalls`; [`sets`] has the names of constants,
//! [`structs`] the shapes of what pointers lead to. Guest memory is read while the thread is stopped, and
//! every byte of it is untrusted.
//!
//! This crate holds no lock.

pub mod decode;
pub mod sets;
pub mod structs;
mod text;

//! Loading a program: reading its headers, planning its address space, and the stub that carries
//! the plan out inside the guest.
//!
//! What Linux's `binfmt_elf` and `binfmt_script` do in one step inside the kernel happens here in
//! three: [`Image::parse`] and [`Script::parse`] judge the file, [`Plan::new`] chooses the
//! addresses, and, once the guest's thread has natively executed the [`stub`],
//! [`rewrite_stack`] and [`records_for`] say what to write into the guest's memory so that the stub
//! finishes the job. Order and errors follow the kernel (6.18): [`LoadError::errno`] is what
//! `execve` returns, and [`LoadError::kills`] tells the faults that Linux finds only when the old
//! program is gone already.
//!
//! The crate does no I/O of its own: files are read through [`ReadAt`], a header and its table at a
//! time, and guest memory is the caller's. It takes no locks. Every byte it is given may be hostile.

mod elf;
mod error;
mod plan;
mod record;
mod script;
mod stack;
pub mod stub;

pub use elf::{Image, Kind, ReadAt, Segment};
pub use error::{LoadError, SegmentFault};
pub use plan::{Plan, Source, Step};
pub use record::{Record, encode, records_for};
pub use script::{HEAD_SIZE, MAX_DEPTH, Script};
pub use stack::{Ids, MAX_BLOCK, Rewritten, StackError, StackFix, rewrite_stack};

/// Size of a page of x86-64.
pub const PAGE_SIZE: u64 = 4096;

/// End of the address space of a process with four-level page tables (`TASK_SIZE`).
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// The page that holds `addr`.
pub(crate) const fn page_start(addr: u64) -> u64 {
    addr & !(PAGE_SIZE - 1)
}

/// Where in its page `addr` lies.
pub(crate) const fn page_offset(addr: u64) -> u64 {
    addr & (PAGE_SIZE - 1)
}

/// The first page boundary at or above `addr`, which is at most [`TASK_SIZE`].
pub(crate) const fn page_align(addr: u64) -> u64 {
    page_start(addr + (PAGE_SIZE - 1))
}

//! The engine contract, and the engines that keep it.
//!
//! An *engine* brings the system calls of guest threads to the supervisor and carries answers back.
//! It knows nothing of what a call means; that is for `duet-syscalls`.
//!
//! # The contract
//!
//! - [`Engine::next`] blocks until a guest thread makes a call that the engine was told to intercept,
//!   and yields it as a [`Call`]. Several workers may wait at once; each call is yielded once.
//! - The thread stays stopped in that call until exactly one of [`Engine::answer`],
//!   [`Engine::answer_with_descriptor`] or [`Engine::execute_instead`] is called for it, or it dies.
//!   A thread that died meanwhile makes those return `ESRCH`; that is no fault of the supervisor.
//! - While stopped, only fatal signals end the wait: a call that was yielded is never made a second
//!   time because a signal came.
//! - [`Engine::is_live`] says whether the caller still waits. Memory read by thread id is only to be
//!   trusted if it is asked *after* the read.
//! - [`Answer::Run`] lets the kernel perform the original call with its original registers. It must not
//!   be used where the meaning of the call hangs on guest memory that another thread can change.
//! - Descriptors are injected into the caller's own table with [`Engine::inject`].
//! - All but [`Engine::next`] may be called from any thread, whichever received the call.
//!
//! # The engines
//!
//! - [`seccomp`], the default: several threads may wait in [`Engine::next`], and a call costs one round
//!   trip.
//! - [`ptrace`]: needs no user notification, and can see native calls with their results, which it tells
//!   an [`Observer`]. The kernel lets one thread trace, so that thread alone may call [`Engine::next`];
//!   it serves best what it receives itself.
//!
//! # Lock order
//!
//! This crate holds no lock while it waits or calls out.

pub mod agent;
pub mod mem;
pub mod notify;
mod observer;
mod placement;
pub mod ptrace;
pub mod seccomp;
mod signals;

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

pub use nix::errno::Errno;
pub use observer::{Ended, Names, Observed, Observer};
pub use placement::spawn;

/// What every operation of this crate returns.
pub type Result<T> = std::result::Result<T, Errno>;

/// A thread, by its id in the supervisor's pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tid(pub i32);

/// `AUDIT_ARCH_X86_64`: the only architecture whose calls are translated.
pub const ARCH_X86_64: u32 = 0xc000_003e;

/// One intercepted system call. Every field but `id` and `tid` is chosen by the guest.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The engine's name for it.
    pub id: u64,
    /// The calling thread.
    pub tid: Tid,
    /// `AUDIT_ARCH_*` of the entry that was used.
    pub arch: u32,
    /// System call number.
    pub nr: u32,
    /// The argument registers.
    pub args: [u64; 6],
    /// Address behind the `syscall` instruction.
    pub ip: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returns this value.
    Value(i64),
    /// It fails.
    Error(Errno),
    /// A signal interrupts it: as the handler's `SA_RESTART` says, it is made again or fails with
    /// `EINTR`. Only while a signal waits for the caller, which would see an unknown error otherwise.
    Interrupt,
    /// The kernel runs it as it stands.
    Run,
}

/// Bytes for a guest's memory, and where they go; `None` for nothing.
pub type Out<'a> = Option<(u64, &'a [u8])>;

/// Registers of the call that a thread is made to perform in place of the one it made.
#[derive(Clone, Copy, Debug)]
pub struct Replacement {
    /// System call number.
    pub nr: u32,
    /// The argument registers.
    pub args: [u64; 6],
}

/// The argument, counted from 0, that holds the mark of a call of Duet's own: in its high half, at which
/// the kernel does not look in any call that Duet has a guest make (mmap(2) has a descriptor there).
pub const MARKED: u8 = 4;

/// Arguments with a mark; as they are if it is 0.
pub fn marked(mut args: [u64; 6], mark: u32) -> [u64; 6] {
    if mark != 0
        && let Some(arg) = args.get_mut(usize::from(MARKED))
    {
        *arg = *arg & u64::from(u32::MAX) | u64::from(mark) << 32;
    }
    args
}

/// What is done when an `execve` has succeeded.
pub type Executed = Box<dyn FnOnce() + Send>;

/// Brings system calls to the supervisor, and answers back; see the crate's documentation.
pub trait Engine: Send + Sync {
    /// Waits for the next call. `None` when no guest is left.
    fn next(&self) -> Result<Option<Call>>;

    /// Ends the call.
    fn answer(&self, call: &Call, answer: Answer) -> Result<()>;

    /// Gives the caller a copy of `fd`, at the number `at` or the lowest free one, and returns the
    /// number. The call goes on waiting for its answer. `EMFILE` if its table is full.
    fn inject(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        at: Option<RawFd>,
        cloexec: bool,
    ) -> Result<RawFd>;

    /// Gives the caller copies of both at the lowest free numbers, to be closed by `execve`, and returns those. If
    /// that fails, it may have one.
    fn inject_pair(&self, call: &Call, fds: [BorrowedFd<'_>; 2]) -> Result<[RawFd; 2]> {
        let [first, second] = fds;
        let first = self.inject(call, first, None, true)?;
        Ok([first, self.inject(call, second, None, true)?])
    }

    /// Hands `fd` over to the caller, so that nobody else holds it when the caller goes on, and ends the call with
    /// its number, which it returns too.
    fn answer_with_descriptor(&self, call: &Call, fd: OwnedFd, cloexec: bool) -> Result<RawFd>;

    /// Makes the caller perform another call, an `execve`, instead; its result is the original call's result.
    /// `executed` is called if it succeeds, before the new program runs.
    fn execute_instead(
        &self,
        call: &Call,
        replacement: Replacement,
        executed: Executed,
    ) -> Result<()>;

    /// Whether the caller still waits for its answer.
    fn is_live(&self, call: &Call) -> bool;

    /// Whether processes can have an [`agent`].
    fn has_agents(&self) -> bool {
        false
    }

    /// Ends the call, as [`Engine::answer`] does, of the only thread of a process, which calls itself `owner`,
    /// and brings it an agent. The call is ended whether that could be done or not.
    fn answer_with_agent(
        &self,
        call: &Call,
        answer: Answer,
        agent: &agent::Agent,
        owner: i32,
    ) -> Result<()> {
        let _ = (agent, owner);
        self.answer(call, answer).and(Err(Errno::ENOSYS))
    }

    /// Whether somebody is to be told of the calls that agents hand over.
    fn watches_agents(&self) -> bool {
        false
    }

    /// Such a call is about to be served.
    fn agent_asks(&self, call: &Call) {
        let _ = call;
    }

    /// It has been served: it returns this value or negated errno, and the agent is to write `out` to the caller's
    /// memory. `None`: it comes the other way.
    fn agent_is_answered(&self, call: &Call, answer: Option<(i64, Out<'_>)>) {
        let _ = (call, answer);
    }

    /// Whether guest threads may have a tracer of their own, ptrace(2).
    fn leaves_tracing(&self) -> bool {
        true
    }

    /// Gives all guest threads that the engine holds on a processor for the moment the affinity back that they
    /// had: it is about to be looked at.
    fn let_go(&self) {}

    /// A process is about to differ in what it may do from those that it was forked with, and that may have
    /// descriptors in common with it.
    fn differ(&self) {}

    /// The descriptor that the engine itself keeps in the table of a process (its id in the
    /// supervisor's numbers) and that the guest is not to be shown.
    fn own_descriptor(&self, pid: i32) -> Option<RawFd> {
        let _ = pid;
        None
    }
}

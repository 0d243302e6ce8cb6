//! The virtual state of guest processes, and the table that finds it by thread id.
//!
//! The kernel keeps the processes; this keeps what Duet virtualises of them: root, working directory,
//! umask, credentials and executable. Forking is not intercepted. A process is entered when it first
//! makes an intercepted call, and finds its state by the number it has inherited ([`states`]).
//!
//! # Lock order
//!
//! `ProcessTable::inner`, then `Process::pending_exec`, then `Process::state`, then `ProcessTable::states`. None is
//! held over a call to the VFS. `ProcessTable::differences` may be locked with any of them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use duet_intercept::{Tid, agent};
use duet_vfs::BackingId;
use duet_vfs::account::host;
use duet_vfs::types::{Creds, Errno, Result};
use duet_vfs::walk::Location;
use parking_lot::Mutex;

use crate::agents::{Accelerated, Owed};
use crate::pidns::PidNamespace;
use crate::states;

mod status;
mod table;

pub(crate) use status::children_of;
pub use status::{controlling_terminal, parent_of, tracer_of};
use status::{innermost_pid, read_proc};
pub(crate) use status::{may_be_in, user_ticks};
pub use table::ProcessTable;
pub(crate) use table::serving;

/// The program a process runs.
#[derive(Clone)]
pub struct Program {
    /// The executable (for a script, its interpreter).
    pub location: Location,
    /// For a `#!` script: what stands in `/proc/PID/cmdline` in place of the first argument, each
    /// string with its NUL.
    pub cmdline_prefix: Option<Vec<u8>>,
    /// The auxiliary vector, `/proc/PID/auxv`, where the kernel knows that of the stub.
    pub auxv: Option<Arc<[u8]>>,
}

/// Virtual state, replaced as a whole when it changes, and shared by `fork`.
#[derive(Clone)]
pub struct State {
    /// Root directory.
    pub root: Location,
    /// Working directory.
    pub cwd: Location,
    /// File mode creation mask.
    pub umask: u32,
    /// Credentials.
    pub creds: Arc<Creds>,
    /// What it runs; `None` before the first `execve`.
    pub program: Option<Program>,
    /// Its number, given by the process table.
    pub number: u64,
    /// `PR_SET_KEEPCAPS`.
    pub keep_caps: bool,
    /// `PR_SET_NO_NEW_PRIVS` as the guest set it.
    pub no_new_privs: bool,
}

/// An `execve` whose new image has not reported yet.
pub struct PendingExec {
    /// The thread that called.
    pub tid: Tid,
    /// State to take on when it does.
    pub state: State,
    /// What the stub is to do.
    pub launch: Arc<crate::handlers::exec::Launch>,
    /// Whether it is known to have succeeded, so that whoever reports is the stub: it is, of one by which the process
    /// gains something.
    pub proven: bool,
    /// Whether the kernel finds the stub at the path of the program, and so gives the process the name that it is to
    /// have.
    pub named: bool,
    /// If the kernel loads the program itself, the copy that it is given, and what the caller held in
    /// its place.
    pub native: Option<Native>,
}

/// A program that the kernel loads; see [`images`](crate::images).
pub struct Native {
    /// The copy.
    pub copy: BackingId,
    /// What the caller held in its place.
    pub held: Option<Held>,
}

/// A descriptor of a process that a copy has taken the place of for the time of an execveat(2).
pub struct Held {
    /// Its number.
    pub number: RawFd,
    /// What it was.
    pub fd: OwnedFd,
    /// Whether it is closed by `execve`.
    pub closes: bool,
    /// The copy.
    pub copy: BackingId,
}

/// One guest process (thread group).
pub struct Process {
    tgid: i32,
    serial: u64,
    pidfd: OwnedFd,
    guest_pid: OnceLock<i32>,
    /// The sandbox's, where the kernel tells its numbers.
    namespace: Option<Arc<PidNamespace>>,
    state: Mutex<Arc<State>>,
    /// The `execve` under way.
    pub pending_exec: Mutex<Option<PendingExec>>,
    /// The thread that makes it: there is one at a time, as with `cred_guard_mutex` in the kernel.
    executing: Mutex<Option<Tid>>,
    /// Whether the kernel does that.
    loads_natively: AtomicBool,
    /// See [`Held`].
    held: Mutex<Option<Held>>,
    /// Whether there is any: it is asked for in each call.
    holds: AtomicBool,
    /// Whether it has an agent. Locked for a moment only, and nothing else with it.
    pub accelerated: Mutex<Accelerated>,
    /// What a call has come to that its agent has handed over, and makes again to get it. Locked as that.
    pub(crate) owed: Mutex<Option<Owed>>,
    /// How many programs it has executed since it was entered.
    executions: AtomicU64,
}

impl Process {
    /// Thread-group id in the supervisor's pid namespace.
    pub fn host_pid(&self) -> i32 {
        self.tgid
    }

    /// A number that no other process of the sandbox has or had.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// A pidfd of it.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Thread-group id in the sandbox's pid namespace; 0 if it is gone.
    pub fn guest_pid(&self) -> i32 {
        *self.guest_pid.get_or_init(|| {
            if let Some(namespace) = &self.namespace {
                let inner = namespace.inner(self.tgid);
                // Else the number may be another's already.
                return inner.ok().filter(|_| self.exists()).unwrap_or(0);
            }
            let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
            read_proc(&path, |text| innermost_pid(&String::from_utf8_lossy(text))).unwrap_or(0)
        })
    }

    /// Lets `tid` execute a program, unless another thread does: that one is returned.
    pub(crate) fn begin_exec(&self, tid: Tid) -> std::result::Result<(), Tid> {
        let mut executing = self.executing.lock();
        match *executing {
            Some(other) if other != tid && (self.may_execute(other) || self.has_left(other)) => {
                Err(other)
            }
            _ => {
                *executing = Some(tid);
                Ok(())
            }
        }
    }

    /// The `execve` under way has succeeded.
    pub(crate) fn prove_exec(&self) {
        if let Some(pending) = &mut *self.pending_exec.lock() {
            pending.proven = true;
        }
    }

    /// Whether a thread is one of it.
    pub(crate) fn has_thread(&self, tid: Tid) -> bool {
        std::path::Path::new(&format!("/proc/{}/task/{}", self.tgid, tid.0)).exists()
    }

    fn may_execute(&self, tid: Tid) -> bool {
        let thread = format!("/proc/{}/task/{}", self.tgid, tid.0);
        may_be_in(&thread, &[libc::SYS_execve, libc::SYS_execveat])
    }

    /// Whether `tid` has gone and left a program to start: if it has executed that, its number is the leader's now,
    /// and the stub is about to report.
    fn has_left(&self, tid: Tid) -> bool {
        let is_its = |p: &PendingExec| p.tid == tid;
        self.pending_exec.lock().as_ref().is_some_and(is_its) && !self.has_thread(tid)
    }

    /// `tid` executes nothing any more, or never did.
    pub(crate) fn end_exec(&self, tid: Tid) {
        self.executing.lock().take_if(|t| *t == tid);
    }

    /// An `execve` has succeeded, and its state has been taken on.
    pub(crate) fn has_executed(&self) {
        let done = self.pending_exec.lock().take();
        *self.executing.lock() = None;
        if let Some(native) = done.and_then(|p| p.native) {
            self.loads_natively.store(false, Ordering::Release);
            self.hold(native.held);
        }
    }

    /// Forgets an `execve` that `tid` has come back from: the kernel has refused it.
    pub fn forget_failed_exec(&self, tid: Tid) {
        self.end_exec(tid);
        let failed = self.pending_exec.lock().take_if(|p| p.tid == tid);
        let Some(native) = failed.and_then(|p| p.native) else {
            return;
        };
        self.loads_natively.store(false, Ordering::Release);
        self.hold(native.held);
        // The new state's number is there already.
        self.restamp();
    }

    /// If the kernel has loaded a program, takes on the state after that `execve`: nobody tells of it.
    pub fn notice_exec(&self) {
        if self.loads_natively.load(Ordering::Acquire) {
            self.settle();
        }
    }

    /// The host's file that it executes.
    pub fn running(&self) -> Result<BackingId> {
        let stat = host("stat", || {
            nix::sys::stat::stat(format!("/proc/{}/exe", self.tgid).as_str())
        })?;
        Ok(BackingId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }

    fn settle(&self) {
        let mut pending = self.pending_exec.lock();
        let copy = pending.as_ref().and_then(|p| p.native.as_ref());
        let (Some(copy), Ok(running)) = (copy.map(|n| n.copy), self.running()) else {
            return;
        };
        if running != copy {
            return;
        }
        if let Some(done) = pending.take() {
            self.loads_natively.store(false, Ordering::Release);
            *self.executing.lock() = None;
            self.loses_agent();
            *self.state.lock() = Arc::new(done.state);
            self.hold(done.native.and_then(|n| n.held));
            self.restamp();
        }
    }

    /// It has executed a program, which has no agent yet.
    fn loses_agent(&self) {
        self.executions.fetch_add(1, Ordering::AcqRel);
        *self.accelerated.lock() = Accelerated::default();
    }

    /// How many programs it has executed since it was entered.
    pub(crate) fn executions(&self) -> u64 {
        self.executions.load(Ordering::Acquire)
    }

    fn restamp(&self) {
        if let Err(e) = states::stamp(self.tgid, self.state.lock().number) {
            log::debug!("process {} is gone: {e}", self.tgid);
        }
    }

    fn hold(&self, held: Option<Held>) {
        let mut place = self.held.lock();
        self.holds.store(held.is_some(), Ordering::Release);
        *place = held;
    }

    /// What the process is to hold again, once.
    pub fn take_held(&self) -> Option<Held> {
        if !self.holds.load(Ordering::Acquire) {
            return None;
        }
        let mut place = self.held.lock();
        self.holds.store(false, Ordering::Release);
        place.take()
    }

    /// Its `RLIMIT_FSIZE` in bytes.
    pub fn file_size_limit(&self) -> Result<u64> {
        let mut limit = libc::rlimit64 {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let new = std::ptr::null();
        // SAFETY: nothing is set, and `limit` is ours.
        let n = host("prlimit64", || unsafe {
            libc::prlimit64(self.tgid, libc::RLIMIT_FSIZE, new, &mut limit)
        });
        Errno::result(n).map(|_| limit.rlim_cur)
    }

    /// Sends it a signal from outside the sandbox.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        let pidfd = self.pidfd.as_raw_fd();
        // SAFETY: integers and a null pointer.
        let n = host("pidfd_send_signal", || unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, info, 0)
        });
        Errno::result(n).map(drop)
    }

    /// The number of the descriptor that it has for an agent, its own or that of a process it was forked from.
    pub fn agent_descriptor(&self) -> Option<RawFd> {
        agent::in_process(Tid(self.tgid), self.pidfd())
    }

    /// Whether it has not been waited for yet, if it has ended.
    fn exists(&self) -> bool {
        self.signal(0) != Err(Errno::ESRCH)
    }

    /// Whether it has not ended yet. It may be known for a moment after.
    pub(crate) fn is_alive(&self) -> bool {
        let mut p = libc::pollfd {
            fd: self.pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, and the count says so.
        host("poll", || unsafe { libc::poll(&mut p, 1, 0) == 0 })
    }

    /// The present state.
    pub fn state(&self) -> Arc<State> {
        self.notice_exec();
        self.state.lock().clone()
    }

    /// A copy of the caller's descriptor `fd`: the same open file description.
    pub fn descriptor(&self, fd: RawFd, caller: Tid) -> Result<OwnedFd> {
        match get_descriptor(&self.pidfd, fd) {
            // A leader that has left has no table any more; its threads have.
            Err(e @ (Errno::EBADF | Errno::ESRCH)) if caller.0 != self.tgid => {
                let thread = open_pidfd(caller.0, PIDFD_THREAD).map_err(|_| e)?;
                get_descriptor(&thread, fd)
            }
            other => other,
        }
    }
}

/// `PIDFD_THREAD` (Linux 6.9): of one thread.
const PIDFD_THREAD: i32 = libc::O_EXCL;

fn open_pidfd(pid: i32, flags: i32) -> Result<OwnedFd> {
    // SAFETY: plain integers; the kernel checks them.
    owned(host("pidfd_open", || unsafe {
        libc::syscall(libc::SYS_pidfd_open, pid, flags)
    }))
}

pub(crate) fn get_descriptor(pidfd: &OwnedFd, fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: plain integers; the kernel checks them.
    owned(host("pidfd_getfd", || unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0)
    }))
}

/// The descriptor that a system call has returned.
fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let n = Errno::result(result)?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(n as RawFd) })
}

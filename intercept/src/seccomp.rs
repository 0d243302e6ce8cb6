//! The default engine: seccomp user notification.
//!
//! # Current limits
//!
//! - [`Engine::execute_instead`] attaches with ptrace for a moment, so it fails with `EPERM` for a thread
//!   that another process traces.
//! - Before Linux 6.6 there is no synchronous wake-up; each call then costs several times more.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::agent::{self, Agent};
use crate::notify::{self, AddFd, Response};
use crate::observer::ERESTARTSYS;
use crate::placement::{self, Placement};
use crate::signals;
use crate::{Answer, Call, Engine, Errno, Executed, Replacement, Result, Tid};

/// The listener of one sandbox's filter.
pub struct Seccomp {
    listener: OwnedFd,
    placement: Placement,
}

impl Seccomp {
    /// Takes over the listener that [`notify::install`] returned in the guest.
    pub fn new(listener: OwnedFd) -> Seccomp {
        if !notify::set_sync_wake_up(listener.as_fd()) {
            log::info!("no synchronous wake-up (Linux 6.6): intercepted calls will be slower");
        }
        Seccomp {
            listener,
            placement: Placement::default(),
        }
    }
}

fn gone(e: Errno) -> Errno {
    // ENOENT: the notification is not there any more, so its thread is not either.
    if e == Errno::ENOENT { Errno::ESRCH } else { e }
}

impl Engine for Seccomp {
    fn next(&self) -> Result<Option<Call>> {
        loop {
            match notify::receive(self.listener.as_fd()) {
                Ok(n) => {
                    placement::received_from(Tid(n.pid as i32));
                    return Ok(Some(Call {
                        id: n.id,
                        tid: Tid(n.pid as i32),
                        arch: n.arch,
                        nr: n.nr as u32,
                        args: n.args,
                        ip: n.ip,
                    }));
                }
                // ENOENT: the caller died before it could be handed over, or no guest is left.
                Err(Errno::ENOENT) if self.hung_up() => return Ok(None),
                Err(Errno::EINTR | Errno::ENOENT) => continue,
                Err(e) => return Err(e),
            }
        }
    }

    fn answer(&self, call: &Call, answer: Answer) -> Result<()> {
        let mut r = Response {
            id: call.id,
            ..Response::default()
        };
        match answer {
            Answer::Value(v) => r.val = v,
            Answer::Error(e) => r.error = -(e as i32),
            Answer::Interrupt => r.error = -ERESTARTSYS,
            Answer::Run => r.flags = notify::RESP_CONTINUE,
        }
        notify::send(self.listener.as_fd(), r).map_err(gone)
    }

    fn inject(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        at: Option<RawFd>,
        cloexec: bool,
    ) -> Result<RawFd> {
        let add = || self.add(call, fd, at, cloexec);
        let added = self.placement.exchange(call.tid, add).map_err(gone);
        placement::let_go();
        added
    }

    fn inject_pair(&self, call: &Call, fds: [BorrowedFd<'_>; 2]) -> Result<[RawFd; 2]> {
        let [first, second] = fds;
        let add = || {
            let first = self.add(call, first, None, true)?;
            Ok([first, self.add(call, second, None, true)?])
        };
        let added = self.placement.exchange(call.tid, add).map_err(gone);
        placement::let_go();
        added
    }

    fn answer_with_descriptor(&self, call: &Call, fd: OwnedFd, cloexec: bool) -> Result<RawFd> {
        let add = || self.add(call, fd.as_fd(), None, cloexec);
        let number = self.placement.exchange(call.tid, add).map_err(gone)?;
        drop(fd);
        self.answer(call, Answer::Value(number.into()))?;
        Ok(number)
    }

    fn execute_instead(
        &self,
        call: &Call,
        replacement: Replacement,
        executed: Executed,
    ) -> Result<()> {
        let pid = Pid::from_raw(call.tid.0);
        let options = ptrace::Options::PTRACE_O_TRACEEXEC | ptrace::Options::PTRACE_O_TRACESYSGOOD;
        ptrace::seize(pid, options)?;
        let answered = ptrace::interrupt(pid).and_then(|()| self.answer(call, Answer::Value(0)));
        let stopped = match answered {
            // Who cannot be answered is about to die.
            Ok(()) | Err(Errno::ESRCH) => wait_for_stop(pid),
            Err(e) => Err(e),
        };
        let redirected = answered.and(stopped).and_then(|()| {
            redirect(pid, replacement)?;
            // No handler of its own is to run meanwhile.
            signals::block(pid)
        });
        // From here on it may have its process's number.
        let (pid, ran) = match redirected {
            Ok(blocked) => {
                let (pid, ran) = wait_for_exec(pid, executed);
                (pid, ran.and_then(|()| signals::restore(pid, blocked)))
            }
            Err(e) => (pid, Err(e)),
        };
        let detached = ptrace::detach(pid, None);
        if detached == Err(Errno::ESRCH) {
            collect(pid);
        }
        ran.and(detached)
    }

    fn has_agents(&self) -> bool {
        true
    }

    fn answer_with_agent(
        &self,
        call: &Call,
        answer: Answer,
        agent: &Agent,
        owner: i32,
    ) -> Result<()> {
        let pid = Pid::from_raw(call.tid.0);
        if let Err(e) = ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD) {
            return self.answer(call, answer).and(Err(e));
        }
        let [channel, socket] = agent::given(agent);
        let channel = self.inject(call, channel, None, true);
        // It does without, if there is no room.
        let socket = self.inject(call, socket, None, true).ok();
        let interrupted = ptrace::interrupt(pid);
        let answered = self.answer(call, answer);
        let stopped = match answered {
            // Who cannot be answered is about to die.
            Ok(()) | Err(Errno::ESRCH) => interrupted.and_then(|()| wait_for_stop(pid)),
            Err(e) => Err(e),
        };
        let channel = channel.and_then(|channel| answered.and(stopped).map(|()| channel));
        let installed = channel.and_then(|channel| {
            let given = agent::Given { channel, socket };
            agent::install(call.tid, agent, given, owner)
        });
        let detached = ptrace::detach(pid, None);
        if detached == Err(Errno::ESRCH) {
            collect(pid);
        }
        installed.and(detached)
    }

    fn is_live(&self, call: &Call) -> bool {
        notify::id_valid(self.listener.as_fd(), call.id)
    }
}

impl Seccomp {
    /// Adds one descriptor to the caller's.
    fn add(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        at: Option<RawFd>,
        cloexec: bool,
    ) -> Result<RawFd> {
        let request = AddFd {
            id: call.id,
            flags: if at.is_some() { notify::ADDFD_SETFD } else { 0 },
            srcfd: fd.as_raw_fd() as u32,
            newfd: at.unwrap_or(0) as u32,
            newfd_flags: cloexec_flag(cloexec),
        };
        notify::add_fd(self.listener.as_fd(), request)
    }

    /// Whether every thread under the filter is gone.
    fn hung_up(&self) -> bool {
        let mut p = libc::pollfd {
            fd: self.listener.as_raw_fd(),
            events: 0,
            revents: 0,
        };
        // SAFETY: one pollfd, and the count says so.
        unsafe { libc::poll(&mut p, 1, 0) == 1 && p.revents & libc::POLLHUP != 0 }
    }
}

fn cloexec_flag(cloexec: bool) -> u32 {
    if cloexec { libc::O_CLOEXEC as u32 } else { 0 }
}

/// Waits for the stop that `PTRACE_INTERRUPT` asked for. `ESRCH` if the thread died instead.
fn wait_for_stop(pid: Pid) -> Result<()> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours. Only this thread's tracees are waited for.
        let n =
            unsafe { libc::waitpid(pid.as_raw(), &mut status, libc::__WALL | libc::__WNOTHREAD) };
        match Errno::result(n) {
            Ok(_) if libc::WIFSTOPPED(status) => return Ok(()),
            Ok(_) => return Err(Errno::ESRCH),
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e),
        }
    }
}

/// Lets a stopped thread make the call that it stands before, and waits until that has executed a program, or failed
/// to. Returns the number that it has then.
fn wait_for_exec(pid: Pid, executed: Executed) -> (Pid, Result<()>) {
    let (mut at_exit, mut waits, mut signal) = (false, false, 0);
    loop {
        if !std::mem::take(&mut waits)
            && let Err(e) = cont_to_call(pid, std::mem::take(&mut signal))
        {
            return (pid, Err(e));
        }
        let mut status = 0;
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // Its number may become its process's: but this thread traces no other.
        // SAFETY: `status` is ours.
        let n = unsafe { libc::waitpid(-1, &mut status, flags) };
        let now = match Errno::result(n) {
            Ok(n) if libc::WIFSTOPPED(status) => Pid::from_raw(n),
            Ok(_) => return (pid, Err(Errno::ESRCH)),
            // Asked again, it is where it is.
            Err(Errno::EINTR) => {
                waits = true;
                continue;
            }
            Err(e) => return (pid, Err(e)),
        };
        match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_EXEC, _) => {
                executed();
                return (now, Ok(()));
            }
            (0, stop) if stop == libc::SIGTRAP | 0x80 && at_exit => return (now, Ok(())),
            (0, stop) if stop == libc::SIGTRAP | 0x80 => at_exit = true,
            // One that cannot be blocked.
            (0, stop) => signal = stop,
            _ => (),
        }
    }
}

/// Lets a stopped thread go to where it enters or leaves a call.
fn cont_to_call(pid: Pid, signal: i32) -> Result<()> {
    // SAFETY: integers.
    let n = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid.as_raw(), 0, signal) };
    Errno::result(n).map(drop)
}

/// Waits for the end of a thread that was killed while it was traced: until then its parent is not told
/// of it, and an `execve` of another thread of its process waits for ever. Does nothing if its end has
/// been seen already.
fn collect(pid: Pid) {
    while wait_for_stop(pid).is_ok() {
        if ptrace::detach(pid, None).is_ok() {
            return;
        }
    }
}

/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

fn redirect(pid: Pid, replacement: Replacement) -> Result<()> {
    let mut regs = ptrace::getregs(pid)?;
    let [a0, a1, a2, a3, a4, a5] = replacement.args;
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
    regs.rax = u64::from(replacement.nr);
    // Not in a system call any more: nothing for the kernel to restart.
    regs.orig_rax = u64::MAX;
    (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) = (a0, a1, a2, a3, a4, a5);
    ptrace::setregs(pid, regs)
}

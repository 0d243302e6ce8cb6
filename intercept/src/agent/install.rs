//! How an agent comes into a process: its thread is stopped for a moment with ptrace(2), on its way out of
//! a call, and made to map what the agent needs.

use std::fs::OpenOptions;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::code::{self, BASE, CHANNEL, DATA, DATA_SIZE, OWNER, Piece, TEXT_SIZE};
use super::{Agent, channel};
use crate::{Errno, Result, Tid, mem};

/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

/// Writes into a guest's memory whatever its protection is.
pub(super) fn write(tid: Tid, pieces: &[Piece]) -> Result<()> {
    let path = format!("/proc/{}/mem", tid.0);
    let io = |e: std::io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let memory = OpenOptions::new().write(true).open(path).map_err(io)?;
    for piece in pieces {
        memory.write_all_at(&piece.bytes, piece.addr).map_err(io)?;
    }
    Ok(())
}

/// Maps `agent` into the process whose only thread is `tid`, which is stopped behind a `syscall`
/// instruction, has the channel's descriptor at `fd`, and calls itself `owner`. The descriptor is closed in
/// any case. Also gives the signal that came meanwhile and that the thread is yet to be given.
pub(crate) fn install(
    tid: Tid,
    agent: &Agent,
    fd: RawFd,
    owner: i32,
) -> (Result<()>, Option<Signal>) {
    let mut remote = match Remote::new(Pid::from_raw(tid.0)) {
        Ok(remote) => remote,
        Err(e) => return (Err(e), None),
    };
    let mapped = map(&mut remote, tid, agent, fd, owner);
    let closed = remote.call(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]);
    let restored = ptrace::setregs(remote.pid, remote.regs);
    (mapped.and(closed.map(drop)).and(restored), remote.signal)
}

fn map(remote: &mut Remote, tid: Tid, agent: &Agent, fd: RawFd, owner: i32) -> Result<()> {
    const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let (mark_at, mark) = code::mark();
    let mut found = [0; 8];
    let forked = mem::read(tid, mark_at, &mut found).is_ok() && found == mark;
    if !forked {
        let (r, w, x) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        remote.map(BASE, TEXT_SIZE, r | x, ANONYMOUS, -1)?;
        remote.map(DATA, DATA_SIZE, r | w, ANONYMOUS, -1)?;
        remote.advise(DATA, DATA_SIZE, libc::MADV_WIPEONFORK)?;
        write(tid, &code::text())?;
    }
    let shared = libc::PROT_READ | libc::PROT_WRITE;
    remote.map(CHANNEL, channel::SIZE, shared, libc::MAP_SHARED, fd)?;
    remote.advise(CHANNEL, channel::SIZE, libc::MADV_DONTFORK)?;
    agent.inherit(tid)?;
    mem::write(tid, OWNER, &owner.to_le_bytes())
}

/// A stopped thread that makes calls.
struct Remote {
    pid: Pid,
    /// As it was stopped.
    regs: libc::user_regs_struct,
    /// What came in between.
    signal: Option<Signal>,
}

impl Remote {
    fn new(pid: Pid) -> Result<Remote> {
        let mut regs = ptrace::getregs(pid)?;
        // Not in a system call any more: nothing for the kernel to restart.
        regs.orig_rax = u64::MAX;
        Ok(Remote {
            pid,
            regs,
            signal: None,
        })
    }

    fn call(&mut self, nr: libc::c_long, args: [u64; 6]) -> Result<u64> {
        if self.signal.is_some() {
            return Err(Errno::EINTR);
        }
        let mut regs = self.regs;
        regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
        regs.rax = nr as u64;
        (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) = args.into();
        ptrace::setregs(self.pid, regs)?;
        ptrace::step(self.pid, None)?;
        let mut status = 0;
        // SAFETY: `status` is ours. Only this thread's tracees are waited for.
        let wait = || unsafe {
            let flags = libc::__WALL | libc::__WNOTHREAD;
            Errno::result(libc::waitpid(self.pid.as_raw(), &mut status, flags))
        };
        let waited = std::iter::repeat_with(wait).find(|r| *r != Err(Errno::EINTR));
        waited.unwrap_or(Err(Errno::EINTR))?;
        if !libc::WIFSTOPPED(status) {
            return Err(Errno::ESRCH);
        }
        let event = status >> 16;
        let signal = Signal::try_from(libc::WSTOPSIG(status)).unwrap_or(Signal::SIGSTOP);
        if signal != Signal::SIGTRAP || event != 0 {
            self.signal = Some(signal).filter(|_| event == 0);
            return Err(Errno::EINTR);
        }
        let after = ptrace::getregs(self.pid)?;
        match after.rax as i64 {
            e @ -4095..0 => Err(Errno::from_raw(-e as i32)),
            _ => Ok(after.rax),
        }
    }

    fn map(&mut self, at: u64, len: usize, protection: i32, flags: i32, fd: RawFd) -> Result<()> {
        let flags = flags | libc::MAP_FIXED_NOREPLACE;
        let args = [
            at,
            len as u64,
            protection as u64,
            flags as u64,
            fd as i64 as u64,
            0,
        ];
        match self.call(libc::SYS_mmap, args)? {
            there if there == at => Ok(()),
            _ => Err(Errno::EEXIST),
        }
    }

    fn advise(&mut self, at: u64, len: usize, advice: i32) -> Result<()> {
        let args = [at, len as u64, advice as u64, 0, 0, 0];
        self.call(libc::SYS_madvise, args).map(drop)
    }
}

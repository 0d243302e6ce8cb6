//! How an agent comes into a process: its thread is stopped for a moment with ptrace(2), on its way out of
//! a call, and made to map what the agent needs.

use std::fs::{File, OpenOptions};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::unistd::Pid;

use super::code::{self, BASE, CHANNEL, DATA, DATA_SIZE, OWNER, Piece, TEXT_SIZE, WIPED_SIZE};
use super::{Agent, channel, socket};
use crate::{Errno, Result, Tid, mem, signals};

/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

/// How long a call of [`Remote`] may take. Each is one that does not wait; but the guest decides what it closes.
const LIMIT: Duration = Duration::from_millis(200);

/// The memory of a process, whatever its protection is: that of one process for good, even if its number passes
/// to another.
pub(super) struct Memory(File);

impl Memory {
    /// That of the process of `tid`.
    pub(super) fn of(tid: Tid) -> Result<Memory> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{}/mem", tid.0));
        file.map(Memory).map_err(errno)
    }

    pub(super) fn read(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(buf, addr).map_err(errno)
    }

    pub(super) fn write(&self, pieces: &[Piece]) -> Result<()> {
        let write = |p: &Piece| self.0.write_all_at(&p.bytes, p.addr).map_err(errno);
        pieces.iter().try_for_each(write)
    }
}

fn errno(e: std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EFAULT, Errno::from_raw)
}

/// Descriptors that a process has for its agent while that is installed.
#[derive(Clone, Copy)]
pub(crate) struct Given {
    /// The channel.
    pub channel: RawFd,
    /// Its end of the socket, if it has one.
    pub socket: Option<RawFd>,
}

/// What of an agent a process is given.
pub(crate) fn given(agent: &Agent) -> [BorrowedFd<'_>; 2] {
    [agent.channel.fd(), agent.socket.theirs()]
}

/// Maps `agent` into the process whose only thread is `tid`, which is stopped behind a `syscall`
/// instruction (and traced with `PTRACE_O_TRACESYSGOOD`), has what it was given, and calls itself
/// `owner`. No signal comes in between.
pub(crate) fn install(tid: Tid, agent: &Agent, given: Given, owner: i32) -> Result<()> {
    let mut remote = Remote::new(Pid::from_raw(tid.0))?;
    let mapped = map(&mut remote, tid, agent, given, owner);
    let closed = [Some(given.channel), given.socket]
        .into_iter()
        .flatten()
        .try_for_each(|fd| remote.close(fd));
    mapped.and(closed).and(remote.restore())
}

fn map(remote: &mut Remote, tid: Tid, agent: &Agent, given: Given, owner: i32) -> Result<()> {
    const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let (mark_at, mark) = code::mark();
    let mut found = [0; 8];
    let forked = mem::read(tid, mark_at, &mut found).is_ok() && found == mark;
    if !forked {
        let (r, w, x) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        remote.map(BASE, TEXT_SIZE, r | x, ANONYMOUS, -1)?;
        remote.map(DATA, DATA_SIZE, r | w, ANONYMOUS, -1)?;
        remote.advise(DATA, WIPED_SIZE, libc::MADV_WIPEONFORK)?;
        Memory::of(tid)?.write(&code::text())?;
    }
    let shared = libc::PROT_READ | libc::PROT_WRITE;
    remote.map(
        CHANNEL,
        channel::SIZE,
        shared,
        libc::MAP_SHARED,
        given.channel,
    )?;
    remote.advise(CHANNEL, channel::SIZE, libc::MADV_DONTFORK)?;
    agent.inherit(tid)?;
    if forked && let Some(inherited) = socket::of_thread(tid) {
        remote.close(inherited)?;
    }
    // Without one, the process has its descriptors come the other way.
    if let (Some(socket), Some(least)) = (given.socket, socket::least_number(tid)) {
        let dup = [socket as u64, libc::F_DUPFD_CLOEXEC as u64, least, 0, 0, 0];
        if let Ok(number) = remote.call(libc::SYS_fcntl, dup) {
            let pieces = code::socket(number as RawFd, agent.socket.cookie());
            Memory::of(tid)?.write(&pieces)?;
        }
    }
    mem::write(tid, OWNER, &owner.to_le_bytes())
}

/// A stopped thread that makes calls.
struct Remote {
    pid: Pid,
    /// As it was stopped.
    regs: libc::user_regs_struct,
    /// The signals that it blocks.
    blocked: u64,
}

impl Remote {
    fn new(pid: Pid) -> Result<Remote> {
        let mut regs = ptrace::getregs(pid)?;
        // Not in a system call any more: nothing for the kernel to restart.
        regs.orig_rax = u64::MAX;
        let blocked = signals::block(pid)?;
        Ok(Remote { pid, regs, blocked })
    }

    /// Leaves the thread as it was.
    fn restore(self) -> Result<()> {
        ptrace::setregs(self.pid, self.regs)?;
        signals::restore(self.pid, self.blocked)
    }

    fn call(&mut self, nr: libc::c_long, args: [u64; 6]) -> Result<u64> {
        let mut regs = self.regs;
        regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
        regs.rax = nr as u64;
        (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) = args.into();
        ptrace::setregs(self.pid, regs)?;
        // Its entry, and its exit.
        self.go_on()?;
        self.go_on()?;
        let after = ptrace::getregs(self.pid)?;
        match after.rax as i64 {
            e @ -4095..0 => Err(Errno::from_raw(-e as i32)),
            _ => Ok(after.rax),
        }
    }

    /// Lets the thread go to where it enters or leaves a call.
    fn go_on(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut interrupted = false;
        ptrace::syscall(self.pid, None)?;
        loop {
            let mut status = 0;
            let flags = libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG;
            // SAFETY: `status` is ours. Only this thread's tracees are waited for.
            let n = unsafe { libc::waitpid(self.pid.as_raw(), &mut status, flags) };
            match Errno::result(n) {
                Ok(0) => (),
                Ok(_) if !libc::WIFSTOPPED(status) => return Err(Errno::ESRCH),
                Ok(_) if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 => return Ok(()),
                Ok(_) if interrupted => return Err(Errno::ETIMEDOUT),
                // Its process is being stopped: it is again when it is let go.
                Ok(_) => ptrace::syscall(self.pid, None)?,
                Err(Errno::EINTR) => (),
                Err(e) => return Err(e),
            }
            let passed = begun.elapsed();
            if passed > LIMIT && !interrupted {
                interrupted = true;
                ptrace::interrupt(self.pid)?;
            } else if passed > 2 * LIMIT {
                return Err(Errno::ETIMEDOUT);
            } else if passed > Duration::from_micros(100) {
                thread::sleep(Duration::from_micros(50));
            } else {
                thread::yield_now();
            }
        }
    }

    fn close(&mut self, fd: RawFd) -> Result<()> {
        let args = [fd as u64, 0, 0, 0, 0, 0];
        self.call(libc::SYS_close, args).map(drop)
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

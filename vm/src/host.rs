//! What the host offers: programs, and descriptors of processes.

use std::ffi::OsStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{AccessFlags, Pid, access};

/// Where a program is, by `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    find_program_in(name.as_ref(), &std::env::var_os("PATH")?)
}

/// Where a program is, by the value of such a variable.
pub fn find_program_in(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let mut all = std::env::split_paths(path).map(|dir| dir.join(name));
    all.find(|p| p.is_file() && access(p, AccessFlags::X_OK).is_ok())
}

/// Whether a program can be found.
pub fn is_installed(name: &str) -> bool {
    find_program(name).is_some()
}

/// Processor time that this process has used so far, and another one, if it is to be counted too.
pub fn cpu_time(other: Option<u32>) -> nix::Result<Duration> {
    let mut all = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
    if let Some(pid) = other {
        let pid = Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::ESRCH)?);
        all += Duration::from(clock_gettime(clock_getcpuclockid(pid)?)?);
    }
    Ok(all)
}

/// A descriptor of a child that is readable once it has ended (pidfd_open(2)).
pub fn pidfd(pid: u32) -> nix::Result<OwnedFd> {
    // SAFETY: integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Signals that end a process which makes a mistake: never blocked.
const FAULTS: [Signal; 5] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
];

/// Blocks signals in this thread and those it starts, and makes a descriptor to read them from.
pub fn block_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::all();
    FAULTS.into_iter().for_each(|s| mask.remove(s));
    mask.thread_set_mask()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)
}

/// A reading of the time-stamp counter, to measure its rate by.
pub struct TscSample {
    ticks: u64,
    at: Instant,
}

impl TscSample {
    /// Reads the counter.
    pub fn take() -> TscSample {
        // SAFETY: every processor of this architecture has the instruction.
        let ticks = unsafe { std::arch::x86_64::_rdtsc() };
        let at = Instant::now();
        TscSample { ticks, at }
    }

    /// Kilohertz of the counter, as measured since. Waits until a few milliseconds have passed, for a
    /// part in a thousand.
    pub fn khz(&self) -> u64 {
        const LEAST: Duration = Duration::from_millis(5);
        std::thread::sleep(LEAST.saturating_sub(self.at.elapsed()));
        let now = TscSample::take();
        let micros = now.at.duration_since(self.at).as_micros().max(1);
        let ticks = u128::from(now.ticks.saturating_sub(self.ticks));
        u64::try_from(ticks * 1000 / micros).unwrap_or(0)
    }
}

//! Calls of the host that another process is to make, or one with a root directory of its own.
//!
//! A helper is a process but for its memory and descriptors, which are the supervisor's. It makes a few
//! system calls and ends. No guest sees it.

use std::arch::asm;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::types::{Errno, Result};

/// Calls that a helper makes, up to the first that fails. What they point to is borrowed.
#[derive(Default)]
pub struct Calls<'a> {
    calls: Vec<[u64; 4]>,
    borrowed: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Calls<'a> {
    /// fchdir(2).
    pub fn fchdir(mut self, dir: BorrowedFd<'a>) -> Calls<'a> {
        let dir = dir.as_raw_fd() as u64;
        self.calls.push([libc::SYS_fchdir as u64, dir, 0, 0]);
        self
    }

    /// chroot(2) to the working directory.
    pub fn chroot(mut self) -> Calls<'a> {
        let here = c".".as_ptr() as u64;
        self.calls.push([libc::SYS_chroot as u64, here, 0, 0]);
        self
    }

    /// bind(2) to an address as the kernel takes it.
    pub fn bind(self, socket: BorrowedFd<'a>, address: &'a [u8]) -> Calls<'a> {
        self.name(libc::SYS_bind, socket, address)
    }

    /// connect(2) to an address as the kernel takes it.
    pub fn connect(self, socket: BorrowedFd<'a>, address: &'a [u8]) -> Calls<'a> {
        self.name(libc::SYS_connect, socket, address)
    }

    fn name(mut self, nr: libc::c_long, socket: BorrowedFd<'a>, address: &'a [u8]) -> Calls<'a> {
        let (at, len) = (address.as_ptr() as u64, address.len() as u64);
        self.calls
            .push([nr as u64, socket.as_raw_fd() as u64, at, len]);
        self
    }
}

/// Makes the calls; the exit status is the errno.
extern "C" fn main(calls: *mut libc::c_void) -> i32 {
    // SAFETY: `Helper::start` passes its calls, which the helper keeps.
    let calls = unsafe { &*calls.cast::<Calls<'_>>() };
    for &[nr, a, b, c] in &calls.calls {
        let result: i64;
        // SAFETY: calls that only read what `Calls` borrows. They are made without libc, whose `errno`
        // belongs to the thread that waits.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") nr => result,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        if result < 0 {
            return result.unsigned_abs().min(255) as i32;
        }
    }
    0
}

/// Which user namespace a helper is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The supervisor's.
    Same,
    /// A new one, in which it has every capability. Its user and group on the host are the same.
    New,
}

/// A helper at work. It has ended when this is dropped.
pub struct Helper<'a> {
    pid: Option<Pid>,
    _calls: Box<Calls<'a>>,
    /// Words of 16 bytes, as a stack must be aligned.
    _stack: Vec<u128>,
}

impl<'a> Helper<'a> {
    /// Starts one.
    pub fn start(calls: Calls<'a>, namespace: Namespace) -> Result<Helper<'a>> {
        let calls = Box::new(calls);
        let mut stack = vec![0u128; 2048];
        let top = stack.as_mut_ptr_range().end;
        // No signal tells of its end.
        let flags = libc::CLONE_VM | libc::CLONE_FILES;
        let flags = match namespace {
            Namespace::Same => flags,
            Namespace::New => flags | libc::CLONE_NEWUSER,
        };
        let argument = (&raw const *calls).cast_mut().cast();
        // SAFETY: the helper makes system calls on a stack of its own. That and the calls live until it has
        // ended, which `wait` and `drop` see to.
        let n = unsafe { libc::clone(main, top.cast(), flags, argument) };
        Ok(Helper {
            pid: Some(Pid::from_raw(Errno::result(n)?)),
            _calls: calls,
            _stack: stack,
        })
    }

    /// Its number in the supervisor's pid namespace; 0 once it has ended.
    pub fn pid(&self) -> i32 {
        self.pid.map_or(0, Pid::as_raw)
    }

    /// Waits until it has ended; the error of the call that failed. `EINTR` if a signal to this thread ended
    /// the wait, and with it the helper.
    pub fn wait(mut self) -> Result<()> {
        match self.status() {
            Err(_) => result(self.end()),
            Ok(status) => result(status),
        }
    }

    /// As [`Helper::wait`], signal or not: for calls that do not block.
    pub fn wait_to_the_end(mut self) -> Result<()> {
        loop {
            match self.status() {
                Err(Errno::EINTR) => (),
                Err(_) => return result(self.end()),
                Ok(status) => return result(status),
            }
        }
    }

    /// The status it exits with; `EINTR` for one that was killed.
    fn status(&mut self) -> Result<i32> {
        let Some(pid) = self.pid else {
            return Ok(libc::EINTR);
        };
        let status = waitpid(pid, Some(WaitPidFlag::__WALL))?;
        self.pid = None;
        match status {
            WaitStatus::Exited(_, status) => Ok(status),
            _ => Ok(libc::EINTR),
        }
    }

    /// Has it end now, as it must not use the stack any longer; its status.
    fn end(&mut self) -> i32 {
        if let Some(pid) = self.pid
            && let Err(e) = kill(pid, Signal::SIGKILL)
        {
            log::debug!("helper {pid}: {e}");
        }
        loop {
            match self.status() {
                Err(Errno::EINTR) => (),
                Ok(status) => return status,
                Err(_) => return libc::EINTR,
            }
        }
    }
}

fn result(status: i32) -> Result<()> {
    match status {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        if self.pid.is_some() {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;

    /// An address as the kernel takes it.
    fn address(path: &[u8]) -> Vec<u8> {
        let family = (libc::AF_UNIX as u16).to_le_bytes();
        [&family[..], path, b"\0"].concat()
    }

    #[test]
    fn a_helper_has_a_directory_of_its_own() {
        let before = std::env::current_dir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let (a, b) = UnixDatagram::pair().unwrap();
        for (socket, name, namespace) in [(a, "a", Namespace::Same), (b, "b", Namespace::New)] {
            // A pair has no names yet, so each can be bound.
            let at = address(name.as_bytes());
            let calls = Calls::default()
                .fchdir(fd.as_fd())
                .bind(socket.as_fd(), &at);
            Helper::start(calls, namespace).unwrap().wait().unwrap();
            let bound = socket.local_addr().unwrap();
            let path = bound.as_pathname().unwrap();
            assert_eq!(path.as_os_str().as_bytes(), name.as_bytes());
            assert!(dir.path().join(name).exists());
        }
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn the_first_call_that_fails_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile().unwrap();
        let (socket, _other) = UnixDatagram::pair().unwrap();
        let at = address(dir.path().join("s").as_os_str().as_bytes());
        let calls = Calls::default()
            .fchdir(file.as_fd())
            .bind(socket.as_fd(), &at);
        let done = Helper::start(calls, Namespace::Same).unwrap().wait();
        assert_eq!(done, Err(Errno::ENOTDIR));
        assert!(!dir.path().join("s").exists());
    }
}

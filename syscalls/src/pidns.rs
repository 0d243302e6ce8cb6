//! The numbers of processes in the sandbox's pid namespace and in the supervisor's (`ioctl_nsfs(2)`).

use std::fs::File;
use std::os::fd::AsRawFd;

use duet_vfs::account::host;
use duet_vfs::types::{Errno, Result};

/// `NS_GET_TGID_FROM_PIDNS` and `NS_GET_TGID_IN_PIDNS` (Linux 6.11; `linux/nsfs.h`).
const TGID_FROM: libc::c_ulong = 0x8004_b707;
const TGID_IN: libc::c_ulong = 0x8004_b709;

/// The sandbox's pid namespace.
pub(crate) struct PidNamespace(File);

impl PidNamespace {
    /// That of a process, given by its id in the supervisor's numbers.
    pub fn of(pid: i32) -> Result<PidNamespace> {
        let file = host("open", || File::open(format!("/proc/{pid}/ns/pid")));
        let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        file.map(PidNamespace).map_err(errno)
    }

    /// The sandbox's number of a process, given by the supervisor's. `ESRCH` if there is none, `ENOTTY` before
    /// Linux 6.11.
    pub fn inner(&self, pid: i32) -> Result<i32> {
        self.ask(TGID_IN, pid)
    }

    /// The supervisor's number of the process of a thread, given by the sandbox's. Errors as above.
    pub fn outer(&self, tid: i32) -> Result<i32> {
        self.ask(TGID_FROM, tid)
    }

    fn ask(&self, what: libc::c_ulong, number: i32) -> Result<i32> {
        // The kernel takes any number, and would take a negative one for its bits.
        let number = libc::c_ulong::try_from(number).map_err(|_| Errno::ESRCH)?;
        // SAFETY: these requests take a number in place of a pointer, and write nothing.
        let n = host("ioctl", || unsafe {
            libc::ioctl(self.0.as_raw_fd(), what, number)
        });
        Errno::result(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_own_namespace_has_the_same_number_in_both() {
        let own = std::process::id() as i32;
        let namespace = PidNamespace::of(own).unwrap();
        match namespace.inner(own) {
            Err(Errno::ENOTTY) => (),
            inner => {
                assert_eq!(inner, Ok(own));
                assert_eq!(namespace.outer(own), Ok(own));
                // SAFETY: no arguments.
                assert_eq!(namespace.outer(unsafe { libc::gettid() }), Ok(own));
                assert_eq!(namespace.outer(i32::MAX), Err(Errno::ESRCH));
                assert_eq!(namespace.outer(-1), Err(Errno::ESRCH));
            }
        }
    }
}

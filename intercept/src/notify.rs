//! The host interface of seccomp user notification (seccomp_unotify(2)): structures, requests, and
//! the installation of a filter with a listener.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result};

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Notif {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) flags: u32,
    pub(crate) nr: i32,
    pub(crate) arch: u32,
    pub(crate) ip: u64,
    pub(crate) args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Response {
    pub id: u64,
    pub val: i64,
    pub error: i32,
    pub flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct AddFd {
    pub id: u64,
    pub flags: u32,
    pub srcfd: u32,
    pub newfd: u32,
    pub newfd_flags: u32,
}

const _: () = assert!(size_of::<Notif>() == 80);
const _: () = assert!(size_of::<Response>() == 24);
const _: () = assert!(size_of::<AddFd>() == 24);

const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
const NOTIF_ID_VALID: libc::c_ulong = 0x4008_2102;
const NOTIF_ADDFD: libc::c_ulong = 0x4018_2103;
const NOTIF_SET_FLAGS: libc::c_ulong = 0x4008_2104;

pub(crate) const RESP_CONTINUE: u32 = 1;
pub(crate) const ADDFD_SETFD: u32 = 1;

const FD_SYNC_WAKE_UP: u64 = 1;
const FILTER_NEW_LISTENER: libc::c_ulong = 1 << 3;
const FILTER_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Installs `program` on the calling thread and returns the listener. The thread needs
/// `no_new_privs`. `EBUSY` if it has a listener already, `EINVAL` if the kernel is older than 5.19.
pub fn install(program: &[libc::sock_filter]) -> Result<OwnedFd> {
    let fd = set_filter(program, FILTER_NEW_LISTENER | FILTER_WAIT_KILLABLE_RECV)?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Installs `program` on the calling thread, for a tracer to be asked. The thread needs
/// `no_new_privs`.
pub fn install_traced(program: &[libc::sock_filter]) -> Result<()> {
    set_filter(program, 0).map(drop)
}

fn set_filter(program: &[libc::sock_filter], flags: libc::c_ulong) -> Result<libc::c_long> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` describes exactly `program`, which outlives the call.
    let n = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_long,
            flags,
            &fprog,
        )
    };
    Errno::result(n)
}

fn request<T>(fd: BorrowedFd<'_>, code: libc::c_ulong, arg: *mut T) -> Result<i32> {
    // SAFETY: every caller in this module passes the structure that belongs to `code`.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), code, arg) })
}

pub(crate) fn receive(fd: BorrowedFd<'_>) -> Result<Notif> {
    let mut n = Notif::default();
    request(fd, NOTIF_RECV, &mut n).map(|_| n)
}

pub(crate) fn send(fd: BorrowedFd<'_>, mut r: Response) -> Result<()> {
    request(fd, NOTIF_SEND, &mut r).map(drop)
}

pub(crate) fn add_fd(fd: BorrowedFd<'_>, mut a: AddFd) -> Result<RawFd> {
    request(fd, NOTIF_ADDFD, &mut a)
}

pub(crate) fn id_valid(fd: BorrowedFd<'_>, mut id: u64) -> bool {
    request(fd, NOTIF_ID_VALID, &mut id).is_ok()
}

/// Asks the kernel to switch straight between guest and supervisor on one CPU. Linux 6.6 and later;
/// false where it is not to be had.
pub fn set_sync_wake_up(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: this request takes its flags by value.
    unsafe { libc::ioctl(fd.as_raw_fd(), NOTIF_SET_FLAGS, FD_SYNC_WAKE_UP) == 0 }
}

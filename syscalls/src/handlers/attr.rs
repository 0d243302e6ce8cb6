//! Calls that change attributes: mode, owner, times, size.

use duet_vfs::types::{Errno, Result, SetTime, Timespec};
use duet_vfs::walk::{Location, Lookup};

use super::stat::{open_file, target_location};
use crate::abi;
use crate::task::{Reply, Task};

pub(super) fn chmod(t: &Task) -> Result<Reply> {
    do_chmod(t, target_location(t, libc::AT_FDCWD, 0, 0)?, t.uint(1))
}

pub(super) fn fchmod(t: &Task) -> Result<Reply> {
    match open_file(t, t.int(0))?.location {
        Some(l) => do_chmod(t, l, t.uint(1)),
        // A pipe, socket or something handed in: the kernel decides, with the guest's own rights.
        None => Ok(Reply::Run),
    }
}

pub(super) fn fchmodat(t: &Task) -> Result<Reply> {
    do_chmod(t, target_location(t, t.int(0), 1, 0)?, t.uint(2))
}

pub(super) fn fchmodat2(t: &Task) -> Result<Reply> {
    let flags = t.int(3);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    do_chmod(t, target_location(t, t.int(0), 1, flags)?, t.uint(2))
}

fn do_chmod(t: &Task, location: Location, mode: u32) -> Result<Reply> {
    t.kernel.vfs.chmod(&t.cx(), &location, mode & 0o7777)?;
    Ok(Reply::DONE)
}

pub(super) fn chown(t: &Task) -> Result<Reply> {
    do_chown(t, target_location(t, libc::AT_FDCWD, 0, 0)?, 1)
}

pub(super) fn lchown(t: &Task) -> Result<Reply> {
    do_chown(
        t,
        target_location(t, libc::AT_FDCWD, 0, libc::AT_SYMLINK_NOFOLLOW)?,
        1,
    )
}

pub(super) fn fchown(t: &Task) -> Result<Reply> {
    match open_file(t, t.int(0))?.location {
        Some(l) => do_chown(t, l, 1),
        None => Ok(Reply::Run),
    }
}

pub(super) fn fchownat(t: &Task) -> Result<Reply> {
    let flags = t.int(4);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    do_chown(t, target_location(t, t.int(0), 1, flags)?, 2)
}

fn do_chown(t: &Task, location: Location, first_arg: usize) -> Result<Reply> {
    let id = |v: u32| if v == u32::MAX { None } else { Some(v) };
    let (uid, gid) = (id(t.uint(first_arg)), id(t.uint(first_arg + 1)));
    t.kernel.vfs.chown(&t.cx(), &location, uid, gid)?;
    Ok(Reply::DONE)
}

pub(super) fn truncate(t: &Task) -> Result<Reply> {
    let size = u64::try_from(t.arg(1) as i64).map_err(|_| Errno::EINVAL)?;
    let location = target_location(t, libc::AT_FDCWD, 0, 0)?;
    if t.kernel.processes.is_running(&location) {
        t.kernel.vfs.access(&t.cx(), &location, libc::W_OK as u32)?;
        return Err(Errno::ETXTBSY);
    }
    if size > location.attr()?.size && size > t.process.file_size_limit()? {
        t.process.signal(libc::SIGXFSZ)?;
        return Err(Errno::EFBIG);
    }
    t.kernel.vfs.truncate(&t.cx(), &location, size)?;
    Ok(Reply::DONE)
}

type Times = (Option<SetTime>, Option<SetTime>);

const NOW: Times = (Some(SetTime::Now), Some(SetTime::Now));

pub(super) fn utime(t: &Task) -> Result<Reply> {
    let times = match t.arg(1) {
        0 => NOW,
        addr => {
            let b: [u8; 16] = t.read_array(addr)?;
            let at = |i| -> Result<_> {
                Ok(Some(SetTime::At(Timespec {
                    sec: abi::u64_at(&b, i)? as i64,
                    nsec: 0,
                })))
            };
            (at(0)?, at(8)?)
        }
    };
    set_times(t, target_location(t, libc::AT_FDCWD, 0, 0)?, times)
}

pub(super) fn utimes(t: &Task) -> Result<Reply> {
    let times = timevals(t, 1)?;
    set_times(t, target_location(t, libc::AT_FDCWD, 0, 0)?, times)
}

pub(super) fn futimesat(t: &Task) -> Result<Reply> {
    let times = timevals(t, 2)?;
    let location = match t.arg(1) {
        0 => t.located(t.int(0))?,
        _ => target_location(t, t.int(0), 1, 0)?,
    };
    set_times(t, location, times)
}

/// Two `struct timeval` in argument `i`.
fn timevals(t: &Task, i: usize) -> Result<Times> {
    if t.arg(i) == 0 {
        return Ok(NOW);
    }
    let b: [u8; 32] = t.read_array(t.arg(i))?;
    let at = |i| -> Result<_> {
        let (sec, usec) = (abi::u64_at(&b, i)? as i64, abi::u64_at(&b, i + 8)?);
        if usec >= 1_000_000 {
            return Err(Errno::EINVAL);
        }
        Ok(Some(SetTime::At(Timespec {
            sec,
            nsec: usec as u32 * 1000,
        })))
    };
    Ok((at(0)?, at(16)?))
}

pub(super) fn utimensat(t: &Task) -> Result<Reply> {
    let flags = t.int(3);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let times = match t.arg(2) {
        0 => NOW,
        addr => {
            let b: [u8; 32] = t.read_array(addr)?;
            (
                abi::utime_spec(b.get(..16).unwrap_or_default())?,
                abi::utime_spec(b.get(16..).unwrap_or_default())?,
            )
        }
    };
    if times == (None, None) {
        return Ok(Reply::DONE);
    }
    let location = match t.arg(1) {
        0 if t.int(0) == libc::AT_FDCWD => return Err(Errno::EFAULT),
        0 if flags != 0 => return Err(Errno::EINVAL),
        0 => match open_file(t, t.int(0))?.location {
            Some(l) => l,
            None => return Ok(Reply::Run),
        },
        _ => target_location(t, t.int(0), 1, flags)?,
    };
    set_times(t, location, times)
}

fn set_times(t: &Task, location: Location, (atime, mtime): Times) -> Result<Reply> {
    t.kernel.vfs.utimes(&t.cx(), &location, atime, mtime)?;
    Ok(Reply::DONE)
}

/// Follows a path for the calls that name one file plainly.
pub(super) fn follow(t: &Task, path_arg: usize, how: Lookup) -> Result<Location> {
    let path = t.path(path_arg)?;
    t.kernel.vfs.resolve(&t.cx(), &t.state.cwd, &path, how)
}

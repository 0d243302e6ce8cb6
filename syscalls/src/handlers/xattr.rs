//! Extended attributes (xattr(7)).

use duet_vfs::types::{Errno, Result};
use duet_vfs::walk::{Location, Lookup};

use super::attr::follow;
use super::stat::{open_file, target_location};
use crate::abi;
use crate::task::{Reply, Task};

/// `XATTR_NAME_MAX` with the NUL.
const NAME_MAX: usize = 256;
/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX`.
const SIZE_MAX: u64 = 65536;

fn name(t: &Task, i: usize) -> Result<Vec<u8>> {
    let name = t.string(i, NAME_MAX, Errno::ERANGE)?;
    if name.is_empty() {
        Err(Errno::ERANGE)
    } else {
        Ok(name)
    }
}

/// The node of descriptor argument 0. What is no node of the tree has no attributes here.
fn by_descriptor(t: &Task) -> Result<Location> {
    open_file(t, t.int(0))?.location.ok_or(Errno::EOPNOTSUPP)
}

/// Writes a value or list as the calls that read do: size 0 asks for the length.
fn write_value(t: &Task, addr: u64, size: u64, value: &[u8]) -> Result<Reply> {
    if size != 0 {
        if size < value.len() as u64 {
            return Err(Errno::ERANGE);
        }
        t.write(addr, value)?;
    }
    Ok(Reply::Value(value.len() as i64))
}

fn set(t: &Task, l: &Location, name: &[u8], addr: u64, size: u64, flags: i32) -> Result<Reply> {
    if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let value = t.read(addr, size as usize)?;
    t.kernel.vfs.set_xattr(&t.cx(), l, name, &value, flags)?;
    Ok(Reply::DONE)
}

fn get(t: &Task, l: &Location, name: &[u8], addr: u64, size: u64) -> Result<Reply> {
    let value = t.kernel.vfs.get_xattr(&t.cx(), l, name)?;
    write_value(t, addr, size, &value)
}

fn list(t: &Task, l: &Location, addr: u64, size: u64) -> Result<Reply> {
    let mut all = Vec::new();
    for name in t.kernel.vfs.list_xattr(&t.cx(), l)? {
        all.extend_from_slice(&name);
        all.push(0);
    }
    if all.len() as u64 > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    write_value(t, addr, size, &all)
}

fn remove(t: &Task, l: &Location, name: &[u8]) -> Result<Reply> {
    t.kernel.vfs.remove_xattr(&t.cx(), l, name)?;
    Ok(Reply::DONE)
}

pub(super) fn setxattr(t: &Task) -> Result<Reply> {
    set(
        t,
        &follow(t, 0, Lookup::FOLLOW)?,
        &name(t, 1)?,
        t.arg(2),
        t.arg(3),
        t.int(4),
    )
}

pub(super) fn lsetxattr(t: &Task) -> Result<Reply> {
    set(
        t,
        &follow(t, 0, Lookup::empty())?,
        &name(t, 1)?,
        t.arg(2),
        t.arg(3),
        t.int(4),
    )
}

pub(super) fn fsetxattr(t: &Task) -> Result<Reply> {
    set(
        t,
        &by_descriptor(t)?,
        &name(t, 1)?,
        t.arg(2),
        t.arg(3),
        t.int(4),
    )
}

pub(super) fn getxattr(t: &Task) -> Result<Reply> {
    get(
        t,
        &follow(t, 0, Lookup::FOLLOW)?,
        &name(t, 1)?,
        t.arg(2),
        t.arg(3),
    )
}

pub(super) fn lgetxattr(t: &Task) -> Result<Reply> {
    get(
        t,
        &follow(t, 0, Lookup::empty())?,
        &name(t, 1)?,
        t.arg(2),
        t.arg(3),
    )
}

pub(super) fn fgetxattr(t: &Task) -> Result<Reply> {
    get(t, &by_descriptor(t)?, &name(t, 1)?, t.arg(2), t.arg(3))
}

pub(super) fn listxattr(t: &Task) -> Result<Reply> {
    list(t, &follow(t, 0, Lookup::FOLLOW)?, t.arg(1), t.arg(2))
}

pub(super) fn llistxattr(t: &Task) -> Result<Reply> {
    list(t, &follow(t, 0, Lookup::empty())?, t.arg(1), t.arg(2))
}

pub(super) fn flistxattr(t: &Task) -> Result<Reply> {
    match open_file(t, t.int(0))?.location {
        Some(l) => list(t, &l, t.arg(1), t.arg(2)),
        None => Ok(Reply::DONE),
    }
}

pub(super) fn removexattr(t: &Task) -> Result<Reply> {
    remove(t, &follow(t, 0, Lookup::FOLLOW)?, &name(t, 1)?)
}

pub(super) fn lremovexattr(t: &Task) -> Result<Reply> {
    remove(t, &follow(t, 0, Lookup::empty())?, &name(t, 1)?)
}

pub(super) fn fremovexattr(t: &Task) -> Result<Reply> {
    remove(t, &by_descriptor(t)?, &name(t, 1)?)
}

/// The node of the `*xattrat` calls: `(dirfd, path, at_flags, …)`.
fn at(t: &Task) -> Result<Location> {
    let flags = t.int(2);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    target_location(t, t.int(0), 1, flags)
}

/// `struct xattr_args`: value address, size, flags.
fn xattr_args(t: &Task) -> Result<(u64, u64, i32)> {
    const SIZE_VER0: u64 = 16;
    match t.arg(5) {
        SIZE_VER0 => (),
        0..SIZE_VER0 => return Err(Errno::EINVAL),
        _ => return Err(Errno::E2BIG),
    }
    let b: [u8; 16] = t.read_array(t.arg(4))?;
    Ok((
        abi::u64_at(&b, 0)?,
        u64::from(abi::u32_at(&b, 8)?),
        abi::u32_at(&b, 12)? as i32,
    ))
}

pub(super) fn setxattrat(t: &Task) -> Result<Reply> {
    let (addr, size, flags) = xattr_args(t)?;
    set(t, &at(t)?, &name(t, 3)?, addr, size, flags)
}

pub(super) fn getxattrat(t: &Task) -> Result<Reply> {
    let (addr, size, flags) = xattr_args(t)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    get(t, &at(t)?, &name(t, 3)?, addr, size)
}

pub(super) fn listxattrat(t: &Task) -> Result<Reply> {
    list(t, &at(t)?, t.arg(3), t.arg(4))
}

pub(super) fn removexattrat(t: &Task) -> Result<Reply> {
    remove(t, &at(t)?, &name(t, 3)?)
}

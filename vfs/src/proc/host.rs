//! Reading the host's procfs: bounded, and always below a directory descriptor.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;

use crate::account::host;
use crate::types::*;

/// The longest file that is read into memory: 65530 mappings (`max_map_count`) of ordinary length fit.
const MAX_FILE: u64 = 32 << 20;

/// Room for one `getdents64` call.
const DIRENT_BUFFER: usize = 16 << 10;

/// Opens `path` below `dir`.
pub(crate) fn open(dir: BorrowedFd<'_>, path: &str, flags: OFlag) -> Result<OwnedFd> {
    crate::counted::openat(
        dir,
        path,
        flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY,
        Mode::empty(),
    )
}

/// The whole contents of `path` below `dir`; ENOMEM if they are absurdly long.
pub(crate) fn read(dir: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>> {
    read_all(open(dir, path, OFlag::O_RDONLY)?)
}

/// The whole contents of an open file; ENOMEM if they are absurdly long.
pub(crate) fn read_all(fd: OwnedFd) -> Result<Vec<u8>> {
    let mut content = Vec::with_capacity(4096);
    let mut file = File::from(fd).take(MAX_FILE + 1);
    host("read", || file.read_to_end(&mut content))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    if content.len() as u64 > MAX_FILE {
        return Err(Errno::ENOMEM);
    }
    Ok(content)
}

/// The text of the link `path` below `dir`.
pub(crate) fn read_link(dir: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>> {
    crate::counted::readlinkat(dir, path).map(OsString::into_vec)
}

/// `fstatat`, of the link itself.
pub(crate) fn lstat(dir: BorrowedFd<'_>, path: &str) -> Result<libc::stat> {
    crate::counted::fstatat(dir, path, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// `fstatat`, of what the link leads to.
pub(crate) fn stat(dir: BorrowedFd<'_>, path: &str) -> Result<libc::stat> {
    crate::counted::fstatat(dir, path, AtFlags::empty())
}

/// The entries of directory `path` below `dir` whose names are decimal numbers, in the kernel's
/// order behind `cookie` (0, or one handed out before), as `(number, next cookie)` until `sink`
/// returns false. Procfs orders these by number.
pub(crate) fn read_numbers(
    dir: BorrowedFd<'_>,
    path: &str,
    cookie: u64,
    sink: &mut dyn FnMut(i32, u64) -> bool,
) -> Result<()> {
    let fd = open(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    if cookie != 0 {
        let at = i64::try_from(cookie).map_err(|_| Errno::EINVAL)?;
        crate::counted::lseek(&fd, at, nix::unistd::Whence::SeekSet)?;
    }
    let mut buffer = vec![0u8; DIRENT_BUFFER];
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which lives through
        // the call.
        let n = Errno::result(host("getdents64", || unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                fd.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        }))?;
        let mut rest = buffer.get(..n as usize).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        // struct linux_dirent64: d_ino u64, d_off s64, d_reclen u16, d_type u8, d_name.
        while let Some((head, _)) = rest.split_at_checked(19) {
            let next = u64::from_ne_bytes(array(head, 8));
            let length = usize::from(u16::from_ne_bytes(array(head, 16)));
            let Some((entry, tail)) = rest.split_at_checked(length.max(19)) else {
                break;
            };
            let name = entry.get(19..).unwrap_or_default();
            let name = name.split(|&b| b == 0).next().unwrap_or_default();
            if let Some(number) = parse_number(name)
                && !sink(number, next)
            {
                return Ok(());
            }
            rest = tail;
        }
    }
}

/// `N` bytes of `bytes` from `at`, zeros where there are none.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..at + N)
        .and_then(|b| b.try_into().ok())
        .unwrap_or([0; N])
}

/// A number as procfs names its entries: decimal, no sign, no leading zero.
pub(crate) fn parse_number(name: &[u8]) -> Option<i32> {
    if name.is_empty() || name.len() > 10 || (name.len() > 1 && name[0] == b'0') {
        return None;
    }
    let mut number = 0i64;
    for &b in name {
        if !b.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i64::from(b - b'0');
    }
    i32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn numbers_are_canonical() {
        assert_eq!(parse_number(b"0"), Some(0));
        assert_eq!(parse_number(b"2147483647"), Some(i32::MAX));
        for bad in [
            &b""[..],
            b"01",
            b"-1",
            b"+1",
            b"2147483648",
            b"99999999999",
            b"1x",
        ] {
            assert_eq!(parse_number(bad), None);
        }
    }

    #[test]
    fn listing_continues_at_a_cookie() {
        let proc = File::open("/proc").unwrap();
        let (mut first, mut rest, mut cookie) = (Vec::new(), Vec::new(), 0);
        read_numbers(proc.as_fd(), ".", 0, &mut |n, next| {
            first.push(n);
            if first.len() == 1 {
                cookie = next;
            }
            true
        })
        .unwrap();
        read_numbers(proc.as_fd(), ".", cookie, &mut |n, _| {
            rest.push(n);
            true
        })
        .unwrap();
        assert_eq!(first.first(), Some(&1));
        assert!(first.is_sorted());
        assert_eq!(rest.first(), first.get(1));
    }
}

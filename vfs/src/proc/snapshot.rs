//! Files whose contents are fixed at open: sealed memfds.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SealFlag};
use nix::sys::memfd::MFdFlags;
use nix::sys::stat::Mode;

use crate::account::host;
use crate::counted::memfd_create;
use crate::inode::OpenedFile;
use crate::types::*;

/// The name that a snapshot bears in the host's `/proc/PID/maps`.
const NAME: &CStr = c"proc";

/// A read-only descriptor of a file that holds `content` and can never change (memfd_create(2)).
pub(crate) fn open(content: &[u8], flags: i32) -> Result<OpenedFile> {
    if flags & libc::O_ACCMODE != libc::O_RDONLY {
        return Err(Errno::EACCES);
    }
    let base = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = match memfd_create(
        NAME,
        base | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL),
    ) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::EINVAL) => memfd_create(NAME, base)?,
        other => other?,
    };
    let mut file = File::from(fd);
    host("write", || file.write_all(content))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    crate::counted::fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(OpenedFile {
        fd: reopen(&file, flags)?,
        backing: None,
    })
}

/// A new, read-only description of `file` with offset 0.
fn reopen(file: &File, flags: i32) -> Result<OwnedFd> {
    let keep = OFlag::from_bits_truncate(flags) & OFlag::O_NONBLOCK;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    crate::counted::open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC | keep,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_from_its_start_and_cannot_be_written() {
        let opened = open(b"text\n", libc::O_RDONLY).unwrap();
        let mut again = File::from(reopen(&File::from(opened.fd.try_clone().unwrap()), 0).unwrap());
        assert!(again.write_all(b"x").is_err());
        assert_eq!(super::super::host::read_all(opened.fd).unwrap(), b"text\n");
        assert_eq!(open(b"", libc::O_RDWR).err(), Some(Errno::EACCES));
    }

    #[test]
    fn nobody_gets_a_writable_description() {
        let opened = open(b"text\n", libc::O_RDONLY).unwrap();
        let path = format!("/proc/self/fd/{}", opened.fd.as_raw_fd());
        let mut file = File::options().write(true).open(path).unwrap();
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
    }
}

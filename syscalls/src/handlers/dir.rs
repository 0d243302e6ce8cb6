//! Reading directories, and watching them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use duet_vfs::account::host;
use duet_vfs::types::{DirEntry, Errno, FileType, Result};
use duet_vfs::walk::{Location, Lookup};

use super::stat::open_file;
use crate::task::{Reply, Task};

/// Bytes returned by one call at most, whatever the caller offers.
const MAX_BUFFER: usize = 1 << 18;

pub(super) fn getdents64(t: &Task) -> Result<Reply> {
    read_entries(t, pack_dirent64)
}

pub(super) fn getdents(t: &Task) -> Result<Reply> {
    read_entries(t, pack_dirent)
}

/// Appends an entry; false if it does not fit in `room` bytes in all.
type Pack = fn(&mut Vec<u8>, room: usize, &DirEntry) -> bool;

fn read_entries(t: &Task, pack: Pack) -> Result<Reply> {
    let d = open_file(t, t.int(0))?;
    let location = d.location.ok_or(Errno::ENOTDIR)?;
    if location.kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let room = (t.uint(2) as usize).min(MAX_BUFFER);
    // The stand-in's own offset is the place in the stream: dup, fork and lseek keep it right.
    let cookie = seek(&d.fd, 0, libc::SEEK_CUR)?;
    let mut out = Vec::with_capacity(room.min(32 << 10));
    let (mut next, mut full) = (cookie, false);
    t.kernel
        .vfs
        .read_dir(&t.cx(), &location, cookie as u64, &mut |e| {
            if !pack(&mut out, room, &e) {
                full = true;
                return false;
            }
            next = e.next as i64;
            true
        })?;
    if out.is_empty() && full {
        return Err(Errno::EINVAL);
    }
    if !out.is_empty() {
        t.write(t.arg(1), &out)?;
        seek(&d.fd, next, libc::SEEK_SET)?;
    }
    Ok(Reply::Value(out.len() as i64))
}

fn seek(fd: &OwnedFd, offset: i64, whence: i32) -> Result<i64> {
    // SAFETY: plain integers.
    Errno::result(host("lseek", || unsafe {
        libc::lseek(fd.as_raw_fd(), offset, whence)
    }))
}

fn header(out: &mut Vec<u8>, e: &DirEntry, reclen: usize) {
    out.extend_from_slice(&e.ino.to_le_bytes());
    out.extend_from_slice(&e.next.to_le_bytes());
    out.extend_from_slice(&(reclen as u16).to_le_bytes());
}

fn dirent_type(e: &DirEntry) -> u8 {
    e.kind.map_or(libc::DT_UNKNOWN, FileType::dirent_type)
}

/// `struct linux_dirent64`: ino, off, reclen, type, name with its NUL, padding to 8.
fn pack_dirent64(out: &mut Vec<u8>, room: usize, e: &DirEntry) -> bool {
    let reclen = (19 + e.name.len() + 1).next_multiple_of(8);
    let end = out.len() + reclen;
    if end > room {
        return false;
    }
    header(out, e, reclen);
    out.push(dirent_type(e));
    out.extend_from_slice(&e.name);
    out.resize(end, 0);
    true
}

/// `struct linux_dirent`: ino, off, reclen, name with its NUL, padding to 8, type as the last byte.
fn pack_dirent(out: &mut Vec<u8>, room: usize, e: &DirEntry) -> bool {
    let reclen = (18 + e.name.len() + 2).next_multiple_of(8);
    let end = out.len() + reclen;
    if end > room {
        return false;
    }
    header(out, e, reclen);
    out.extend_from_slice(&e.name);
    out.resize(end - 1, 0);
    out.push(dirent_type(e));
    true
}

pub(super) fn inotify_add_watch(t: &Task) -> Result<Reply> {
    let mask = t.uint(2);
    let inotify = t.copy_of(t.int(0))?;
    let path = t.path(1)?;
    let mut how = Lookup::FOLLOW;
    how.set(Lookup::FOLLOW, mask & libc::IN_DONT_FOLLOW == 0);
    how.set(Lookup::DIRECTORY, mask & libc::IN_ONLYDIR != 0);
    let location: Location = t.kernel.vfs.resolve(&t.cx(), &t.state.cwd, &path, how)?;
    t.kernel.vfs.access(&t.cx(), &location, libc::R_OK as u32)?;
    let vfs = &t.kernel.vfs;
    let node = match vfs.watched_path(&location) {
        // Too many directories have been watched: most likely not all of them still are.
        Err(Errno::ENOSPC) => {
            vfs.forget_unwatched(|| t.kernel.processes.watched())?;
            vfs.watched_path(&location)
        }
        other => other,
    };
    let node = match node {
        // Nothing on the host stands for this node, so nothing can be watched.
        Err(Errno::ECONNREFUSED) => return Err(Errno::ENOSYS),
        other => other?,
    };
    let host_path = std::ffi::CString::new(format!("/proc/self/fd/{}", node.as_raw_fd()))
        .map_err(|_| Errno::EINVAL)?;
    let mask = mask & !libc::IN_DONT_FOLLOW;
    t.kernel.watches.store(true, Ordering::Relaxed);
    // SAFETY: a C string of ours, and integers.
    let n = host("inotify_add_watch", || unsafe {
        libc::inotify_add_watch(inotify.as_raw_fd(), host_path.as_ptr(), mask)
    });
    Errno::result(n).map(|wd| Reply::Value(i64::from(wd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_laid_out_as_the_kernel_does() {
        let e = DirEntry {
            ino: 7,
            kind: Some(FileType::Directory),
            name: b"ab".to_vec(),
            next: 9,
        };
        let mut out = Vec::new();
        assert!(pack_dirent64(&mut out, 24, &e));
        assert_eq!(out.len(), 24);
        assert_eq!(
            (out[16], out[18], &out[19..22]),
            (24, libc::DT_DIR, &b"ab\0"[..])
        );
        assert!(!pack_dirent64(&mut out, 47, &e));
        let mut old = Vec::new();
        assert!(pack_dirent(&mut old, 24, &e));
        assert_eq!(
            (old.len(), old[23], &old[18..21]),
            (24, libc::DT_DIR, &b"ab\0"[..])
        );
    }
}

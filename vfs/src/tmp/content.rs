//! Host files in the store: the contents of regular files, FIFOs, sockets.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::UnlinkatFlags;
use parking_lot::RwLock;

use crate::counted::{fstat, fstatat, ftruncate, unlinkat, utimensat};
use crate::host_call;
use crate::inode::{BackingId, OpenedFile};
use crate::types::*;

/// The name of a host file in the store, unique in this process.
#[derive(Clone, Copy)]
pub(super) struct Serial(u64);

impl Serial {
    fn next() -> Serial {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Serial(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn name(self) -> String {
        self.0.to_string()
    }

    pub(super) fn open(self, files: &OwnedFd, flags: i32) -> Result<OwnedFd> {
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        crate::counted::openat(files, self.name().as_str(), flags, mode)
    }

    fn stat(self, files: &OwnedFd) -> Result<FileStat> {
        fstatat(files, self.name().as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    pub(super) fn unlink(self, files: &OwnedFd) {
        if let Err(e) = unlinkat(files, self.name().as_str(), UnlinkatFlags::NoRemoveDir) {
            log::warn!("cannot remove file {} of the store: {e}", self.0);
        }
    }

    /// Makes a FIFO or an unconnected socket node.
    pub(super) fn make_node(files: &OwnedFd, kind: FileType) -> Result<Serial> {
        let serial = Serial::next();
        let kind = match kind {
            FileType::Fifo => SFlag::S_IFIFO,
            _ => SFlag::S_IFSOCK,
        };
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        crate::counted::mknodat(files, serial.name().as_str(), kind, mode, 0)?;
        Ok(serial)
    }

    /// Binds a socket to a new node.
    pub(super) fn bind(files: &OwnedFd, socket: BorrowedFd<'_>) -> Result<Serial> {
        let serial = Serial::next();
        let path = format!("{}/{}", host_call::proc_fd(files.as_raw_fd()), serial.0);
        let addr = UnixAddr::new(path.as_str())?;
        let socket: RawFd = socket.as_raw_fd();
        crate::counted::bind(socket, &addr)?;
        Ok(serial)
    }
}

#[derive(Clone)]
enum State {
    /// Never opened, empty.
    Empty,
    /// In the store by name.
    Named(Serial, BackingId),
    /// Unlinked; held for those who have it open.
    Nameless(Arc<OwnedFd>),
}

/// The contents of a regular file.
pub(super) struct Content {
    state: RwLock<State>,
}

impl Content {
    pub(super) fn new() -> Content {
        Content {
            state: RwLock::new(State::Empty),
        }
    }

    /// The host's view; `None` while there is no host file.
    pub(super) fn stat(&self, files: &OwnedFd) -> Result<Option<FileStat>> {
        loop {
            let state = self.state.read().clone();
            match state {
                State::Empty => return Ok(None),
                State::Nameless(fd) => return Ok(Some(fstat(&*fd)?)),
                State::Named(serial, _) => match serial.stat(files) {
                    Err(Errno::ENOENT) if self.is_nameless() => (),
                    stat => return Ok(Some(stat?)),
                },
            }
        }
    }

    fn is_nameless(&self) -> bool {
        matches!(*self.state.read(), State::Nameless(_))
    }

    /// Opens the host file. `times` are the access and modification time of the empty file.
    pub(super) fn open(
        &self,
        files: &OwnedFd,
        flags: i32,
        times: (Timespec, Timespec),
    ) -> Result<OpenedFile> {
        loop {
            let state = self.state.read().clone();
            match state {
                State::Empty => {
                    if let Some(opened) = self.make(files, flags, times)? {
                        return Ok(opened);
                    }
                }
                State::Nameless(fd) => {
                    let path = host_call::proc_fd(fd.as_raw_fd());
                    let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC;
                    let fd = crate::counted::open(path.as_str(), flags, Mode::empty())?;
                    return Ok(OpenedFile { fd, backing: None });
                }
                State::Named(serial, id) => match serial.open(files, flags) {
                    Err(Errno::ENOENT) if self.is_nameless() => (),
                    fd => {
                        return Ok(OpenedFile {
                            fd: fd?,
                            backing: Some(id),
                        });
                    }
                },
            }
        }
    }

    /// Makes the host file, and opens it; `None` if another thread has made it.
    fn make(
        &self,
        files: &OwnedFd,
        flags: i32,
        (atime, mtime): (Timespec, Timespec),
    ) -> Result<Option<OpenedFile>> {
        let mut state = self.state.write();
        if !matches!(*state, State::Empty) {
            return Ok(None);
        }
        let serial = Serial::next();
        let path_only = flags & libc::O_PATH != 0;
        let first = if path_only { libc::O_RDONLY } else { flags };
        let fd = serial.open(files, first | libc::O_CREAT | libc::O_EXCL)?;
        let made = fstat(&fd).and_then(|stat| {
            let (atime, mtime) = (host_time(atime), host_time(mtime));
            crate::counted::futimens(&fd, &atime, &mtime)?;
            Ok(host_call::backing(&stat))
        });
        let id = match made {
            Ok(id) => id,
            Err(e) => {
                serial.unlink(files);
                return Err(e);
            }
        };
        *state = State::Named(serial, id);
        drop(state);
        let fd = if path_only {
            serial.open(files, flags)?
        } else {
            fd
        };
        Ok(Some(OpenedFile {
            fd,
            backing: Some(id),
        }))
    }

    pub(super) fn truncate(
        &self,
        files: &OwnedFd,
        size: u64,
        times: (Timespec, Timespec),
    ) -> Result<()> {
        if size == 0 && matches!(*self.state.read(), State::Empty) {
            return Ok(());
        }
        let file = self.open(files, libc::O_WRONLY, times)?.fd;
        ftruncate(file, i64::try_from(size).map_err(|_| Errno::EFBIG)?)
    }

    /// Sets times of the host file, if there is one; `None` leaves a time alone.
    pub(super) fn set_times(
        &self,
        files: &OwnedFd,
        atime: Option<Timespec>,
        mtime: Option<Timespec>,
    ) -> Result<()> {
        let keep = TimeSpec::UTIME_OMIT;
        let (atime, mtime) = (atime.map_or(keep, host_time), mtime.map_or(keep, host_time));
        let state = self.state.read().clone();
        match state {
            State::Empty => Ok(()),
            State::Named(serial, _) => utimensat(
                files,
                serial.name().as_str(),
                &atime,
                &mtime,
                UtimensatFlags::NoFollowSymlink,
            ),
            State::Nameless(fd) => utimensat(
                nix::fcntl::AT_FDCWD,
                host_call::proc_fd(fd.as_fd().as_raw_fd()).as_str(),
                &atime,
                &mtime,
                UtimensatFlags::FollowSymlink,
            ),
        }
    }

    /// After the last name has gone: takes the host file's name too, and keeps the file.
    pub(super) fn unname(&self, files: &OwnedFd) {
        let mut state = self.state.write();
        if let State::Named(serial, _) = *state {
            let held = serial.open(files, libc::O_PATH);
            serial.unlink(files);
            *state = match held {
                Ok(fd) => State::Nameless(Arc::new(fd)),
                // No descriptor to be had: those who have it open keep it, by themselves.
                Err(_) => State::Empty,
            };
        }
    }

    /// At the end of the inode.
    pub(super) fn dispose(&mut self, files: &OwnedFd) {
        if let State::Named(serial, _) = *self.state.get_mut() {
            serial.unlink(files);
        }
    }
}

fn host_time(t: Timespec) -> TimeSpec {
    TimeSpec::new(t.sec, i64::from(t.nsec))
}

//! Host files in the store: the contents of regular files, FIFOs, sockets.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{AtFlags, OFlag, RenameFlags};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::UnlinkatFlags;
use parking_lot::RwLock;

use crate::counted::{fstat, fstatat, linkat, mknodat, renameat2, unlinkat, utimensat};
use crate::host_call;
use crate::inode::{BackingId, OpenedFile};
use crate::types::*;
use crate::unix::Binding;
use crate::watch::{Arrival, Departure, Place};

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
        mknodat(files, serial.name().as_str(), kind, mode, 0)?;
        Ok(serial)
    }

    /// Binds a socket to a new node.
    pub(super) fn bind(files: &OwnedFd, binding: &Binding<'_>) -> Result<Serial> {
        let serial = Serial::next();
        let scratch = format!("{}.bind", serial.0);
        match binding.bind_as(files.as_fd(), &scratch, &serial.name()) {
            Err(Errno::EPERM) => {
                // The name that the kernel knows is then Duet's.
                let path = format!("{}/{}", host_call::proc_fd(files.as_raw_fd()), serial.0);
                let addr = UnixAddr::new(path.as_str())?;
                crate::counted::bind(binding.socket.as_raw_fd(), &addr)?;
            }
            done => done?,
        }
        Ok(serial)
    }
}

#[derive(Clone)]
enum State {
    /// Never opened, empty.
    Empty,
    /// In the store by name.
    Named(Serial, BackingId),
    /// In the shadow of a watched directory, under the guest's name.
    Watched(Place, BackingId),
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
                    Err(Errno::ENOENT) if self.has_moved(&state) => (),
                    stat => return Ok(Some(stat?)),
                },
                State::Watched(ref at, _) => {
                    match fstatat(at.dir(), at.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                        Err(Errno::ENOENT) if self.has_moved(&state) => (),
                        stat => return Ok(Some(stat?)),
                    }
                }
            }
        }
    }

    /// Whether the host file is not where it was any more. A name in a shadow changes a moment before
    /// that is noted here.
    fn has_moved(&self, from: &State) -> bool {
        const PATIENCE: u32 = 1000;
        for _ in 0..PATIENCE {
            let same = match (&*self.state.read(), from) {
                (State::Named(a, _), State::Named(b, _)) => a.0 == b.0,
                (State::Watched(a, _), State::Watched(b, _)) => a.is(b),
                _ => false,
            };
            if !same {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Opens the host file. `times` are the access and modification time of the empty file; `None`: those of the
    /// moment.
    pub(super) fn open(
        &self,
        files: &OwnedFd,
        flags: i32,
        times: Option<(Timespec, Timespec)>,
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
                    Err(Errno::ENOENT) if self.has_moved(&state) => (),
                    fd => {
                        return Ok(OpenedFile {
                            fd: fd?,
                            backing: Some(id),
                        });
                    }
                },
                State::Watched(ref at, id) => match open_at(at, flags) {
                    Err(Errno::ENOENT) if self.has_moved(&state) => (),
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
        times: Option<(Timespec, Timespec)>,
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
            if let Some((atime, mtime)) = times {
                crate::counted::futimens(&fd, &host_time(atime), &host_time(mtime))?;
            }
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
        times: Option<(Timespec, Timespec)>,
    ) -> Result<()> {
        if size == 0 && matches!(*self.state.read(), State::Empty) {
            return Ok(());
        }
        let file = self.open(files, libc::O_PATH, times)?.fd;
        let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
        // Not opened to be written: whoever watches it would hear of that.
        crate::counted::truncate(host_call::proc_fd(file.as_raw_fd()).as_str(), size)
    }

    /// Sets times of the host file, if there is one; `None` leaves a time alone.
    pub(super) fn set_times(
        &self,
        files: &OwnedFd,
        atime: Option<SetTime>,
        mtime: Option<SetTime>,
    ) -> Result<()> {
        let time = |t| match t {
            None => TimeSpec::UTIME_OMIT,
            Some(SetTime::Now) => TimeSpec::UTIME_NOW,
            Some(SetTime::At(t)) => host_time(t),
        };
        let (atime, mtime) = (time(atime), time(mtime));
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
            State::Watched(at, _) => utimensat(
                at.dir(),
                at.name(),
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
        let held = match &*state {
            State::Named(serial, _) => {
                let held = serial.open(files, libc::O_PATH);
                serial.unlink(files);
                held
            }
            // The shadow is about to lose the name. Held by another, the file does not hold the shadow.
            State::Watched(at, _) => {
                let serial = Serial::next();
                let (name, no_links) = (serial.name(), AtFlags::empty());
                linkat(at.dir(), at.name(), files, name.as_str(), no_links).and_then(|()| {
                    let held = serial.open(files, libc::O_PATH);
                    serial.unlink(files);
                    held
                })
            }
            State::Empty | State::Nameless(_) => return,
        };
        *state = match held {
            Ok(fd) => State::Nameless(Arc::new(fd)),
            // No descriptor to be had: those who have it open keep it, by themselves.
            Err(_) => State::Empty,
        };
    }

    /// As [`Inode::arrive`](crate::Inode::arrive).
    pub(super) fn arrive(
        &self,
        files: &OwnedFd,
        at: &Place,
        how: Arrival,
        times: Option<(Timespec, Timespec)>,
    ) -> Result<bool> {
        let (dir, name) = (at.dir(), at.name());
        let no_links = AtFlags::empty();
        if how == Arrival::Opened {
            return self.opened_at(files, at);
        }
        let mut state = self.state.write();
        match &*state {
            State::Nameless(_) => return Ok(false),
            State::Named(serial, _) if how == Arrival::Made => {
                linkat(files, serial.name().as_str(), dir, name, no_links)?;
                return Ok(true);
            }
            State::Watched(from, _) if how == Arrival::Made => {
                linkat(from.dir(), from.name(), dir, name, no_links)?;
                return Ok(true);
            }
            // A further link.
            State::Watched(from, _) => {
                let link = Serial::next();
                linkat(
                    from.dir(),
                    from.name(),
                    files,
                    link.name().as_str(),
                    no_links,
                )?;
                move_to(files, link.name().as_str(), dir, name)?;
                // If it was there already, the rename has done nothing.
                if link.stat(files).is_ok() {
                    link.unlink(files);
                }
                return Ok(true);
            }
            State::Named(serial, _) => move_to(files, serial.name().as_str(), dir, name)?,
            State::Empty if how == Arrival::Made => make_file(dir, name)?,
            State::Empty => {
                let serial = Serial::next();
                let (made, no) = (serial.name(), UtimensatFlags::NoFollowSymlink);
                make_file(files, made.as_bytes())?;
                let dated = times.map_or(Ok(()), |(atime, mtime)| {
                    let (atime, mtime) = (host_time(atime), host_time(mtime));
                    utimensat(files, made.as_str(), &atime, &mtime, no)
                });
                dated
                    .and_then(|()| move_to(files, made.as_str(), dir, name))
                    .inspect_err(|_| serial.unlink(files))?;
            }
        }
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        *state = State::Watched(at.clone(), host_call::backing(&stat));
        Ok(true)
    }

    /// Takes the link at this place for the file from now on, if it is one.
    fn opened_at(&self, files: &OwnedFd, at: &Place) -> Result<bool> {
        let elsewhere = |state: &State| match state {
            State::Named(_, id) => Some(*id),
            State::Watched(now, id) => (!now.is(at)).then_some(*id),
            State::Empty | State::Nameless(_) => None,
        };
        if elsewhere(&self.state.read()).is_none() {
            return Ok(false);
        }
        let mut state = self.state.write();
        let Some(id) = elsewhere(&state) else {
            return Ok(false);
        };
        let there = fstatat(at.dir(), at.name(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if host_call::backing(&there) != id {
            return Ok(false);
        }
        if let State::Named(serial, _) = *state {
            serial.unlink(files);
        }
        *state = State::Watched(at.clone(), id);
        Ok(true)
    }

    /// As [`Inode::depart`](crate::Inode::depart).
    pub(super) fn depart(&self, files: &OwnedFd, from: &Place, how: Departure) -> Result<bool> {
        let mut state = self.state.write();
        let State::Watched(at, id) = &*state else {
            return Ok(false);
        };
        if !at.is(from) {
            return Ok(false);
        }
        let (serial, id) = (Serial::next(), *id);
        let (dir, name, new) = (at.dir(), at.name(), serial.name());
        match how {
            Departure::Moved => move_to(dir, name, files, new.as_str())?,
            Departure::Removed | Departure::Replaced => {
                linkat(dir, name, files, new.as_str(), AtFlags::empty())?;
                if how == Departure::Removed {
                    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
                }
            }
        }
        *state = State::Named(serial, id);
        Ok(true)
    }

    /// As [`Inode::relocate`](crate::Inode::relocate).
    pub(super) fn relocate(&self, from: &Place, to: &Place) {
        let mut state = self.state.write();
        if let State::Watched(at, _) = &mut *state
            && at.is(from)
        {
            *at = to.clone();
        }
    }

    /// At the end of the inode.
    pub(super) fn dispose(&mut self, files: &OwnedFd) {
        if let State::Named(serial, _) = *self.state.get_mut() {
            serial.unlink(files);
        }
    }
}

fn open_at(at: &Place, flags: i32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    crate::counted::openat(at.dir(), at.name(), flags, Mode::empty())
}

fn move_to<P: ?Sized + nix::NixPath, Q: ?Sized + nix::NixPath>(
    from: &OwnedFd,
    old: &P,
    to: &OwnedFd,
    new: &Q,
) -> Result<()> {
    renameat2(from, old, to, new, RenameFlags::empty())
}

/// Makes an empty file without opening it.
fn make_file(dir: &OwnedFd, name: &[u8]) -> Result<()> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    mknodat(dir, name, SFlag::S_IFREG, mode, 0)
}

fn host_time(t: Timespec) -> TimeSpec {
    TimeSpec::new(t.sec, i64::from(t.nsec))
}

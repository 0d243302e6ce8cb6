//! Open files and their contents.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use duet_vfs::{Errno, FileType, Location, OpenHow, Opened, Result};
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::{Whence, lseek64};
use parking_lot::RwLock;
use zerocopy::IntoBytes;

use super::abi::*;
use super::args::Args;
use super::io::Segments;
use super::nodes::Content;
use super::{Answer, MAX_WRITE, Server, backing, is_exclusive};

/// Flags of open(2) that concern the host file. The guest's kernel does the rest: it appends at the
/// end that it knows, and passes its own page cache by.
const OPEN_FLAGS: i32 =
    libc::O_ACCMODE | libc::O_TRUNC | libc::O_NOATIME | libc::O_SYNC | libc::O_DSYNC;

/// A file that the guest has open.
pub(super) struct OpenFile {
    node: u64,
    content: Arc<Content>,
    writable: bool,
    /// The host file, and the epoch of `content` that it belongs to.
    host: RwLock<(u64, Arc<OwnedFd>)>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.content.opens.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All of them by their handle.
pub(super) struct OpenFiles {
    by_handle: RwLock<HashMap<u64, Arc<OpenFile>>>,
    last: AtomicU64,
    limit: usize,
}

impl OpenFiles {
    pub(super) fn new(limit: usize) -> OpenFiles {
        OpenFiles {
            by_handle: RwLock::default(),
            last: AtomicU64::new(0),
            limit,
        }
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.by_handle.write());
        drop(all);
    }

    fn insert(&self, file: OpenFile) -> Result<u64> {
        let mut files = self.by_handle.write();
        if files.len() >= self.limit {
            return Err(Errno::ENFILE);
        }
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        files.insert(handle, Arc::new(file));
        Ok(handle)
    }

    fn get(&self, handle: u64) -> Result<Arc<OpenFile>> {
        let files = self.by_handle.read();
        files.get(&handle).cloned().ok_or(Errno::EBADF)
    }

    fn remove(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.by_handle.write().remove(&handle)
    }
}

/// A file offset or length: EINVAL if it is none.
fn offset(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Errno::EINVAL)
}

impl Server {
    /// Opens the regular file at `place`.
    fn open_host(&self, place: &Location, flags: i32, kill_set_ids: bool) -> Result<OwnedFd> {
        if place.kind() != FileType::Regular {
            // The guest's kernel opens all other kinds itself.
            return Err(Errno::EINVAL);
        }
        let creds = if kill_set_ids {
            self.creds_without_fsetid()
        } else {
            self.creds(0, 0)
        };
        let flags = flags & OPEN_FLAGS | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        match self.with(&creds, |cx| self.vfs.open_location(cx, place, flags))? {
            Opened::File(fd) => Ok(fd),
            Opened::Other(_) | Opened::Blocking(..) => Err(Errno::EINVAL),
        }
    }

    fn opened(&self, node: u64, place: &Location, fd: OwnedFd, writable: bool) -> Result<OpenOut> {
        let content = self.nodes.content(node)?;
        content.opened(backing(&fd)?);
        content.opens.fetch_add(1, Ordering::AcqRel);
        let epoch = content.epoch.load(Ordering::Acquire);
        let fh = self.files.insert(OpenFile {
            node,
            content,
            writable,
            host: RwLock::new((epoch, Arc::new(fd))),
        })?;
        Ok(OpenOut {
            fh,
            open_flags: if is_exclusive(place) {
                FOPEN_KEEP_CACHE
            } else {
                0
            },
            padding: 0,
        })
    }

    pub(super) fn open(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let open: OpenIn = args.take()?;
        let flags = open.flags as i32;
        let place = self.place(node)?;
        let fd = self.open_host(&place, flags, open.open_flags & OPEN_KILL_SUIDGID != 0)?;
        if flags & libc::O_TRUNC != 0 {
            self.drop_capability(node, &place)?;
        }
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        Ok(Answer::of(&self.opened(node, &place, fd, writable)?))
    }

    pub(super) fn create(&self, header: &InHeader, args: &mut Args<'_>) -> Result<Answer> {
        let create: CreateIn = args.take()?;
        let name = args.name()?;
        let dir = self.directory(header.nodeid)?;
        let flags = create.flags as i32;
        let mode = libc::S_IFREG | create.mode & 0o7777;
        let made = self.acting_for(header.uid, header.gid, |cx| {
            self.vfs.mknod(cx, &dir, name, mode, 0)
        });
        let exists = match made {
            Ok(()) => false,
            Err(Errno::EEXIST) if flags & libc::O_EXCL == 0 => true,
            Err(e) => return Err(e),
        };
        let place = self.child(&dir, name)?;
        let kill = exists && create.open_flags & OPEN_KILL_SUIDGID != 0;
        let fd = self.open_host(&place, flags, kill)?;
        let entry = self.entry(&dir, Some((header.nodeid, name)), &place)?;
        self.reply_created(entry, &place, fd, flags)
    }

    pub(super) fn tmpfile(&self, header: &InHeader, args: &mut Args<'_>) -> Result<Answer> {
        let create: CreateIn = args.take()?;
        let dir = self.directory(header.nodeid)?;
        let flags = create.flags as i32;
        let how = OpenHow {
            flags: flags & (OPEN_FLAGS & !libc::O_TRUNC | libc::O_EXCL) | libc::O_TMPFILE,
            mode: create.mode & 0o7777,
            lookup: duet_vfs::Lookup::empty(),
        };
        let opened = self.acting_for(header.uid, header.gid, |cx| {
            self.vfs.open(cx, &dir, b".", &how)
        })?;
        let Opened::File(fd) = opened else {
            return Err(Errno::EINVAL);
        };
        let place = self.vfs.locate(backing(&fd)?).ok_or(Errno::ESTALE)?;
        let entry = self.entry(&dir, None, &place)?;
        self.reply_created(entry, &place, fd, flags)
    }

    fn reply_created(
        &self,
        entry: EntryOut,
        place: &Location,
        fd: OwnedFd,
        flags: i32,
    ) -> Result<Answer> {
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        match self.opened(entry.nodeid, place, fd, writable) {
            Ok(open) => Ok(Answer::Bytes([entry.as_bytes(), open.as_bytes()].concat())),
            Err(e) => {
                // The guest will not know that it has looked the node up.
                self.nodes.forget(entry.nodeid, 1);
                Err(e)
            }
        }
    }

    /// The host file behind a handle. One open for reading moves on to the file that an overlay has
    /// put in its place.
    fn host(&self, file: &OpenFile) -> Result<Arc<OwnedFd>> {
        let epoch = file.content.epoch.load(Ordering::Acquire);
        let host = file.host.read();
        if host.0 == epoch || file.writable {
            return Ok(host.1.clone());
        }
        drop(host);
        let place = self.place(file.node)?;
        let fd = Arc::new(self.open_host(&place, libc::O_RDONLY, false)?);
        *file.host.write() = (epoch, fd.clone());
        Ok(fd)
    }

    pub(super) fn read(
        &self,
        node: u64,
        args: &mut Args<'_>,
        reply: &mut Segments<'_>,
    ) -> Result<Answer> {
        let read: ReadIn = args.take()?;
        let file = self.files.get(read.fh)?;
        if file.node != node {
            return Err(Errno::EBADF);
        }
        offset(read.offset)?;
        let size = read.size.min(MAX_WRITE) as usize;
        let room = reply.split_to(size);
        let got = room.fill_from(self.host(&file)?.as_fd(), read.offset)?;
        Ok(Answer::InPlace(got))
    }

    pub(super) fn write(
        &self,
        node: u64,
        write: &WriteIn,
        mut data: Segments<'_>,
    ) -> Result<Answer> {
        let file = self.files.get(write.fh)?;
        if file.node != node || !file.writable {
            return Err(Errno::EBADF);
        }
        if data.len() < write.size as usize || write.size > MAX_WRITE {
            return Err(Errno::EINVAL);
        }
        offset(write.offset)?;
        let kill = write.write_flags & WRITE_KILL_SUIDGID != 0;
        if kill || !file.content.without_capability.load(Ordering::Acquire) {
            let place = self.place(node)?;
            if kill {
                self.clear_set_ids(&place)?;
            }
            self.drop_capability(node, &place)?;
        }
        let data = data.split_to(write.size as usize);
        let size = data.drain_to(self.host(&file)?.as_fd(), write.offset)?;
        Ok(Answer::of(&WriteOut {
            size: size as u32,
            padding: 0,
        }))
    }

    pub(super) fn release(&self, args: &mut Args<'_>) -> Result<Answer> {
        let ReleaseIn { fh, .. } = args.take()?;
        drop(self.files.remove(fh).ok_or(Errno::EBADF)?);
        Ok(Answer::EMPTY)
    }

    pub(super) fn fsync(&self, args: &mut Args<'_>) -> Result<Answer> {
        let FsyncIn {
            fh, fsync_flags, ..
        } = args.take()?;
        let file = self.files.get(fh)?;
        let host = self.host(&file)?;
        if fsync_flags & FSYNC_FDATASYNC != 0 {
            nix::unistd::fdatasync(&*host)?;
        } else {
            nix::unistd::fsync(&*host)?;
        }
        Ok(Answer::EMPTY)
    }

    pub(super) fn fallocate(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let call: FallocateIn = args.take()?;
        let file = self.files.get(call.fh)?;
        if file.node != node || !file.writable {
            return Err(Errno::EBADF);
        }
        let mode = FallocateFlags::from_bits(call.mode as i32).ok_or(Errno::EOPNOTSUPP)?;
        let (at, len) = (offset(call.offset)?, offset(call.length)?);
        self.drop_capability(node, &self.place(node)?)?;
        fallocate(self.host(&file)?.as_fd(), mode, at, len)?;
        Ok(Answer::EMPTY)
    }

    /// `SEEK_DATA` and `SEEK_HOLE`; the guest's kernel does the rest.
    pub(super) fn lseek(&self, args: &mut Args<'_>) -> Result<Answer> {
        let LseekIn {
            fh,
            offset: from,
            whence,
            ..
        } = args.take()?;
        let whence = match whence as i32 {
            libc::SEEK_DATA => Whence::SeekData,
            libc::SEEK_HOLE => Whence::SeekHole,
            _ => return Err(Errno::EINVAL),
        };
        let file = self.files.get(fh)?;
        // The host's file position serves nobody else: contents go by preadv(2) and pwritev(2).
        let found = lseek64(&*self.host(&file)?, offset(from)?, whence)?;
        Ok(Answer::of(&LseekOut {
            offset: found as u64,
        }))
    }

    pub(super) fn copy_file_range(&self, args: &mut Args<'_>) -> Result<Answer> {
        let call: CopyFileRangeIn = args.take()?;
        if call.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let from = self.files.get(call.fh_in)?;
        let to = self.files.get(call.fh_out)?;
        if to.node != call.nodeid_out || !to.writable {
            return Err(Errno::EBADF);
        }
        let (mut from_at, mut to_at) = (offset(call.off_in)?, offset(call.off_out)?);
        self.drop_capability(to.node, &self.place(to.node)?)?;
        // A bounded step: the guest asks again for what is left.
        let len = call.len.min(64 << 20) as usize;
        let (from, to) = (self.host(&from)?, self.host(&to)?);
        let size = copy_file_range(
            from.as_fd(),
            Some(&mut from_at),
            to.as_fd(),
            Some(&mut to_at),
            len,
        )?;
        Ok(Answer::of(&WriteOut {
            size: size as u32,
            padding: 0,
        }))
    }
}

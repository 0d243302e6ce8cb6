//! Listing a host directory.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::inode::HostInode;
use super::meta::NODES;
use super::sys::{self, FdPath};
use crate::inode::{Inode, NoCaller};
use crate::types::*;

/// Bytes read at once: what glibc asks for, so that a guest's call is one of ours.
const BUFFER: usize = 32 * 1024;

/// Streams that one tree keeps open between reads.
const MAX_STREAMS: usize = 64;

/// Offsets below this are cookies as they are; those above (hashes of ext4) lose two bits.
const EXACT: u64 = 1 << 60;

/// `d_ino`, `d_off`, `d_reclen`, `d_type` of `struct linux_dirent64`; the name follows.
const HEADER: usize = 19;

/// An open directory and what has been read of it ahead.
pub(super) struct Stream {
    fd: OwnedFd,
    /// Cookie of the entry at `at`.
    cookie: u64,
    buf: Box<[u8]>,
    at: usize,
    len: usize,
}

/// A host offset as a cookie below 2^62, in the same order.
fn to_cookie(offset: u64) -> u64 {
    if offset < EXACT {
        offset
    } else {
        EXACT + ((offset - EXACT) >> 2)
    }
}

/// The offset for a cookie: of a hash, the first of the four that share it.
fn to_offset(cookie: u64) -> u64 {
    if cookie < EXACT {
        cookie
    } else {
        EXACT + ((cookie - EXACT) << 2)
    }
}

/// One record of the buffer.
struct Record<'a> {
    ino: u64,
    offset: u64,
    len: usize,
    d_type: u8,
    name: &'a [u8],
}

fn parse(buf: &[u8]) -> Option<Record<'_>> {
    let word = |at: usize| Some(u64::from_ne_bytes(buf.get(at..at + 8)?.try_into().ok()?));
    let len = usize::from(u16::from_ne_bytes(buf.get(16..18)?.try_into().ok()?));
    let name = buf.get(HEADER..len)?.split(|b| *b == 0).next()?;
    Some(Record {
        ino: word(0)?,
        offset: word(8)?,
        len,
        d_type: *buf.get(18)?,
        name,
    })
}

impl HostInode {
    /// The stream kept from the last read if it stands at `cookie`, or a new one.
    fn stream_at(&self, cookie: u64) -> Result<Stream> {
        if let Some(kept) = self.stream.lock().take() {
            self.tree.streams.fetch_sub(1, Ordering::Relaxed);
            if cookie != 0 && kept.cookie == cookie {
                return Ok(kept);
            }
        }
        let fd = sys::open_at(self.fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        if cookie != 0 {
            let offset = i64::try_from(to_offset(cookie)).map_err(|_| Errno::EINVAL)?;
            crate::counted::lseek(fd.as_fd(), offset, nix::unistd::Whence::SeekSet)?;
        }
        Ok(Stream {
            fd,
            cookie,
            buf: vec![0; BUFFER].into_boxed_slice(),
            at: 0,
            len: 0,
        })
    }

    /// Keeps `stream` for the next read, unless too many are kept.
    fn keep(&self, stream: Stream) {
        let mut kept = self.stream.lock();
        if kept.is_none() && self.tree.streams.fetch_add(1, Ordering::Relaxed) >= MAX_STREAMS {
            self.tree.streams.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        *kept = Some(stream);
    }

    /// Whether regular files in this directory may be stand-ins of other types.
    pub(super) fn has_nodes(&self) -> bool {
        let options = &self.tree.options;
        if options.read_only && !options.records {
            return false;
        }
        let shared = options.shared;
        let known = self.nodes.load(Ordering::Acquire);
        if known != 0 && !shared {
            return known == 2;
        }
        let path = FdPath::new(self.fd());
        let marked = sys::get_xattr_into(path.full(), NODES, &mut [0; 8]).is_ok();
        self.nodes
            .store(if marked { 2 } else { 1 }, Ordering::Release);
        marked
    }

    /// Marks the directory as one that may hold stand-ins.
    pub(super) fn mark_nodes(&self) {
        if self.has_nodes() {
            return;
        }
        // Where attributes cannot be kept, the mark holds as long as the inode.
        let _ = sys::set_xattr(FdPath::new(self.fd()).full(), NODES, b"1", 0);
        self.nodes.store(2, Ordering::Release);
    }

    fn entry_kind(&self, record: &Record<'_>, nodes: bool) -> Option<FileType> {
        let kind = FileType::from_mode(u32::from(record.d_type) << 12);
        if kind == Some(FileType::Regular) && nodes {
            return self
                .lookup(record.name, &NoCaller)
                .ok()
                .map(|inode| inode.kind());
        }
        kind
    }

    pub(super) fn list(&self, cookie: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        if self.sealed {
            return Ok(());
        }
        let nodes = self.has_nodes();
        let mut stream = self.stream_at(cookie)?;
        loop {
            if stream.at >= stream.len {
                stream.at = 0;
                stream.len = sys::get_dents(stream.fd.as_fd(), &mut stream.buf)?;
                if stream.len == 0 {
                    return Ok(());
                }
            }
            let Some(record) = stream.buf.get(stream.at..stream.len).and_then(parse) else {
                return Err(Errno::EIO);
            };
            let (next, len) = (to_cookie(record.offset), record.len);
            if !matches!(record.name, b"." | b"..") {
                let entry = DirEntry {
                    ino: record.ino,
                    kind: self.entry_kind(&record, nodes),
                    name: record.name.to_vec(),
                    next,
                };
                if !sink(entry) {
                    self.keep(stream);
                    return Ok(());
                }
            }
            stream.at += len;
            stream.cookie = next;
        }
    }
}

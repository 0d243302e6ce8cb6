//! A fixed tree of small read-only files: the unchanging part of `proc` and all of `sys`.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use nix::fcntl::OFlag;

use super::snapshot;
use crate::inode::{Caller, Inode, OpenedFile};
use crate::types::*;

/// Makes the contents of a file at each open.
type Make = Box<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;

/// Opens the host's own file, read-only.
type Live = Box<dyn Fn(OFlag) -> Result<OwnedFd> + Send + Sync>;

/// Where the bytes of a file come from.
pub(crate) enum Content {
    /// Always the same.
    Text(Cow<'static, str>),
    /// Computed at open.
    Make(Make),
    /// The host's file itself, so that a reader that rewinds sees it change.
    Live(Live),
}

impl Content {
    /// Fixed text.
    pub(crate) fn text(text: impl Into<Cow<'static, str>>) -> Content {
        Content::Text(text.into())
    }

    /// Text made at open.
    pub(crate) fn make(f: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Content {
        Content::Make(Box::new(f))
    }

    /// A host file.
    pub(crate) fn live(f: impl Fn(OFlag) -> Result<OwnedFd> + Send + Sync + 'static) -> Content {
        Content::Live(Box::new(f))
    }

    fn open(&self, flags: i32) -> Result<OpenedFile> {
        match self {
            Content::Text(text) => snapshot::open(text.as_bytes(), flags),
            Content::Make(make) => snapshot::open(&make()?, flags),
            Content::Live(open) => open_live(flags, open),
        }
    }
}

/// Opens a host file for reading only, with the harmless ones of `flags`.
pub(crate) fn open_live(
    flags: i32,
    open: impl FnOnce(OFlag) -> Result<OwnedFd>,
) -> Result<OpenedFile> {
    if flags & libc::O_ACCMODE != libc::O_RDONLY {
        return Err(Errno::EACCES);
    }
    let keep = OFlag::from_bits_truncate(flags) & OFlag::O_NONBLOCK;
    Ok(OpenedFile {
        fd: open(OFlag::O_RDONLY | OFlag::O_CLOEXEC | keep)?,
        backing: None,
    })
}

/// What all nodes of one file system share.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    /// Size that a file claims to have (procfs: 0, sysfs: 4096).
    pub(crate) file_size: u64,
    /// `st_blksize`.
    pub(crate) blksize: u32,
    /// All three times.
    pub(crate) time: Timespec,
}

impl Style {
    /// Attributes of a node of user and group 0.
    pub(crate) fn attr(&self, ino: u64, mode: u32, nlink: u32) -> Attr {
        let regular = mode & libc::S_IFMT == libc::S_IFREG;
        Attr {
            dev: 0,
            ino,
            mode,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: if regular { self.file_size } else { 0 },
            blksize: self.blksize,
            blocks: 0,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            btime: None,
        }
    }
}

/// The present, by the host's clock.
pub(crate) fn now() -> Timespec {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timespec {
        sec: since.as_secs() as i64,
        nsec: since.subsec_nanos(),
    }
}

/// A tree under construction. Paths are relative and their directories made as needed.
#[derive(Default)]
pub(crate) struct Tree(BTreeMap<Vec<u8>, Node>);

enum Node {
    Dir(Tree),
    File(u32, Content),
    Link(String),
    Given(u64, Arc<dyn Inode>),
}

impl Tree {
    /// Adds a file with these permission bits.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: Content) {
        self.put(path, Node::File(mode, content));
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link(target.to_owned()));
    }

    /// Adds a directory, empty so far.
    pub(crate) fn dir(&mut self, path: &str) {
        self.put(path, Node::Dir(Tree::default()));
    }

    /// Adds an inode of the caller's own making, whose number is `ino`.
    pub(crate) fn node(&mut self, path: &str, ino: u64, inode: Arc<dyn Inode>) {
        self.put(path, Node::Given(ino, inode));
    }

    fn put(&mut self, path: &str, node: Node) {
        match path.split_once('/') {
            None => {
                self.0.insert(path.as_bytes().to_vec(), node);
            }
            Some((dir, rest)) => {
                let entry = self.0.entry(dir.as_bytes().to_vec());
                if let Node::Dir(tree) = entry.or_insert_with(|| Node::Dir(Tree::default())) {
                    tree.put(rest, node);
                }
            }
        }
    }

    /// Makes the inodes, numbered upwards from `*ino`.
    pub(crate) fn build(self, style: Style, ino: &mut u64) -> Arc<Dir> {
        let own = take(ino);
        let mut nlink = 2;
        let mut entries = Vec::with_capacity(self.0.len());
        for (name, node) in self.0 {
            let (ino, inode): (u64, Arc<dyn Inode>) = match node {
                Node::Dir(tree) => {
                    nlink += 1;
                    let dir = tree.build(style, ino);
                    (dir.ino, dir)
                }
                Node::File(mode, content) => {
                    let ino = take(ino);
                    (
                        ino,
                        Arc::new(PseudoFile {
                            style,
                            ino,
                            mode,
                            content,
                        }),
                    )
                }
                Node::Link(target) => {
                    let ino = take(ino);
                    (
                        ino,
                        Arc::new(Link {
                            style,
                            ino,
                            target: target.into_bytes(),
                        }),
                    )
                }
                Node::Given(ino, inode) => (ino, inode),
            };
            entries.push(Entry { name, ino, inode });
        }
        Arc::new(Dir {
            style,
            ino: own,
            nlink,
            entries,
        })
    }
}

fn take(ino: &mut u64) -> u64 {
    let number = *ino;
    *ino += 1;
    number
}

struct Entry {
    name: Vec<u8>,
    ino: u64,
    inode: Arc<dyn Inode>,
}

/// A directory of a fixed tree.
pub(crate) struct Dir {
    style: Style,
    ino: u64,
    nlink: u32,
    /// Sorted by name; a cookie is an index plus one.
    entries: Vec<Entry>,
}

impl Dir {
    /// The number of entries, which is the greatest cookie.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }
}

impl Inode for Dir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        Ok(self.style.attr(self.ino, libc::S_IFDIR | 0o555, self.nlink))
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        self.entries
            .binary_search_by(|e| e.name.as_slice().cmp(name))
            .ok()
            .and_then(|at| self.entries.get(at))
            .map(|e| e.inode.clone())
            .ok_or(Errno::ENOENT)
    }

    fn read_dir(
        &self,
        cookie: u64,
        _caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        let start = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (index, e) in self.entries.iter().enumerate().skip(start) {
            let entry = DirEntry {
                ino: e.ino,
                kind: Some(e.inode.kind()),
                name: e.name.clone(),
                next: index as u64 + 1,
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// A directory that is made when somebody first looks into it, since that takes long.
pub(crate) struct Later {
    style: Style,
    ino: u64,
    nlink: u32,
    make: Box<dyn Fn() -> Tree + Send + Sync>,
    made: OnceLock<Arc<Dir>>,
}

impl Later {
    /// One with this number and number of links. What is in it is numbered upwards from there.
    pub(crate) fn new(
        style: Style,
        ino: u64,
        nlink: u32,
        make: impl Fn() -> Tree + Send + Sync + 'static,
    ) -> Arc<Later> {
        Arc::new(Later {
            style,
            ino,
            nlink,
            make: Box::new(make),
            made: OnceLock::new(),
        })
    }

    fn made(&self) -> &Dir {
        self.made
            .get_or_init(|| (self.make)().build(self.style, &mut self.ino.clone()))
    }
}

impl Inode for Later {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        Ok(self.style.attr(self.ino, libc::S_IFDIR | 0o555, self.nlink))
    }

    fn lookup(&self, name: &[u8], caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        self.made().lookup(name, caller)
    }

    fn read_dir(
        &self,
        cookie: u64,
        caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        self.made().read_dir(cookie, caller, sink)
    }
}

struct PseudoFile {
    style: Style,
    ino: u64,
    mode: u32,
    content: Content,
}

impl Inode for PseudoFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> Result<Attr> {
        Ok(self.style.attr(self.ino, libc::S_IFREG | self.mode, 1))
    }

    fn open(&self, flags: i32, _caller: &dyn Caller) -> Result<OpenedFile> {
        self.content.open(flags)
    }
}

struct Link {
    style: Style,
    ino: u64,
    target: Vec<u8>,
}

impl Inode for Link {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> Result<Attr> {
        Ok(self.style.attr(self.ino, libc::S_IFLNK | 0o777, 1))
    }

    fn readlink(&self, _caller: &dyn Caller) -> Result<Vec<u8>> {
        Ok(self.target.clone())
    }
}

//! The magic links of `/proc/PID`: `exe`, `cwd`, `root`, `fd/N`, `ns/X`; and `fdinfo/N`.

use std::any::Any;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::maps::{HostText, judge};
use super::task::Task;
use super::{ProcessView, host, shown_path, snapshot};
use crate::inode::{BackingId, Caller, Inode, MagicLink, OpenedFile};
use crate::types::*;
use crate::walk::Location;

/// What stands for a file of the host that was given to the sandbox from outside.
const OUTSIDE: &[u8] = b"/[host]";

/// `exe`, `cwd` or `root`.
pub(super) struct TaskLink {
    task: Task,
    name: &'static str,
}

impl TaskLink {
    pub(super) fn new(task: Task, name: &'static str) -> TaskLink {
        TaskLink { task, name }
    }

    /// The process's state, if `caller` may see it. ENOENT of a process without memory or directories.
    fn view(&self, caller: &dyn Caller) -> Result<ProcessView> {
        let view = self.task.may_read(caller)?.ok_or(Errno::ENOENT)?;
        if self.task.is_zombie(caller) {
            return Err(Errno::ENOENT);
        }
        Ok(view)
    }

    fn target(&self, view: ProcessView) -> Option<Location> {
        match self.name {
            "exe" => view.exe,
            "cwd" => Some(view.cwd),
            _ => Some(view.root),
        }
    }
}

impl Inode for TaskLink {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> Result<Attr> {
        self.task
            .attr(self.task.ino(self.name, 0), libc::S_IFLNK | 0o777, 1)
    }

    fn readlink(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        let view = self.view(caller)?;
        let root = self.task.proc.reader_root(caller, Some(view.clone()));
        let exe_path = if self.name == "exe" {
            view.exe_path.clone()
        } else {
            Vec::new()
        };
        self.target(view)
            .and_then(|location| shown_path(&location, root.as_ref()?))
            .or_else(|| (!exe_path.is_empty()).then_some(exe_path))
            .ok_or(Errno::ENOENT)
    }

    fn magic_link(&self, caller: &dyn Caller) -> Option<Result<MagicLink>> {
        let target = self
            .view(caller)
            .and_then(|view| self.target(view).ok_or(Errno::ENOENT));
        Some(target.map(MagicLink::Location))
    }
}

/// `fd/` or `fdinfo/`.
pub(super) struct FdDir {
    task: Task,
    name: &'static str,
}

impl FdDir {
    pub(super) fn links(task: Task) -> FdDir {
        FdDir { task, name: "fd" }
    }

    pub(super) fn infos(task: Task) -> FdDir {
        FdDir {
            task,
            name: "fdinfo",
        }
    }

    fn is_links(&self) -> bool {
        self.name == "fd"
    }
}

impl Inode for FdDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        let mode = libc::S_IFDIR | if self.is_links() { 0o500 } else { 0o555 };
        self.task.attr(self.task.ino(self.name, 0), mode, 2)
    }

    fn lookup(&self, name: &[u8], caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        let fd = host::parse_number(name).ok_or(Errno::ENOENT)?;
        if self.task.view()?.is_some_and(|view| !view.visible) {
            return Err(Errno::EACCES);
        }
        let task = self.task.clone();
        if self.task.own_descriptor() == Some(fd) {
            return Err(Errno::ENOENT);
        }
        let stat = task
            .host(&format!("fd/{fd}"), host::lstat)
            .map_err(|_| Errno::ENOENT)?;
        if self.is_links() {
            let mode = stat.st_mode & 0o700;
            return Ok(Arc::new(FdLink { task, fd, mode }));
        }
        self.task.may_read(caller)?;
        Ok(Arc::new(FdInfo { task, fd }))
    }

    fn read_dir(
        &self,
        cookie: u64,
        caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        let view = self.task.view()?;
        let visible = view.as_ref().is_none_or(|view| view.visible);
        let own = self.task.own_descriptor();
        if !visible || !self.is_links() {
            self.task.may_read(caller)?;
        }
        let kind = if self.is_links() {
            FileType::Symlink
        } else {
            FileType::Regular
        };
        self.task.host("fd", |dir, path| {
            host::read_numbers(dir, path, cookie, &mut |fd, next| {
                if own == Some(fd) {
                    return true;
                }
                sink(DirEntry {
                    ino: self.task.ino(self.name, fd as u64 + 1),
                    kind: Some(kind),
                    name: fd.to_string().into_bytes(),
                    next,
                })
            })
        })
    }
}

/// The node of the tree that descriptor `fd` of `task` is, and the identity of what backs it.
fn locate(task: &Task, fd: i32) -> Result<Option<Location>> {
    let look = || -> Result<(BackingId, Option<Location>)> {
        let stat = task.host(&format!("fd/{fd}"), host::stat)?;
        let id = BackingId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        };
        Ok((id, task.proc.source.locate_backing(id)))
    };
    // A stand-in of a directory may be used for another one as soon as nobody has it open any more: what does not
    // stay the same may never have been the descriptor's.
    const TRIES: u32 = 100;
    let mut before = look()?;
    for _ in 0..TRIES {
        let now = look()?;
        let same = match (&before.1, &now.1) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                Arc::ptr_eq(&a.dentry, &b.dentry) && Arc::ptr_eq(&a.mount, &b.mount)
            }
            _ => false,
        };
        if same && before.0 == now.0 {
            return Ok(now.1);
        }
        before = now;
    }
    Err(Errno::EAGAIN)
}

/// `fd/N`.
struct FdLink {
    task: Task,
    fd: i32,
    /// Read and write for the accesses that the descriptor has, as Linux shows them.
    mode: u32,
}

impl FdLink {
    fn file(&self) -> String {
        format!("fd/{}", self.fd)
    }

    /// A descriptor from which the walk makes a place outside the tree. For files of the host it
    /// is open for what the guest's own is; the walk grants no more than that.
    fn reopen(&self) -> Result<OwnedFd> {
        let pinned = self.task.host(&self.file(), |dir, path| {
            host::open(dir, path, OFlag::O_PATH)
        })?;
        let stat = crate::counted::fstat(&pinned)?;
        let me = format!("/proc/self/fd/{}", pinned.as_raw_fd());
        let text = crate::counted::readlink(me.as_str())?;
        let own = text.as_bytes().starts_with(b"/memfd:") && stat.st_nlink == 0;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG || own {
            return Ok(pinned);
        }
        // The guest may put another file at its number at any time, so that the access must be
        // learnt together with the identity.
        let theirs = self.task.host(&format!("fdinfo/{}", self.fd), host::read)?;
        let ours = format!("/proc/self/fdinfo/{}", pinned.as_raw_fd());
        let ours = host::read_all(crate::counted::open(
            ours.as_str(),
            OFlag::O_RDONLY,
            Mode::empty(),
        )?)?;
        let (theirs, ours) = (parse_fdinfo(&theirs), parse_fdinfo(&ours));
        let (Some((flags, mount, ino)), Some((_, our_mount, our_ino))) = (theirs, ours) else {
            return Err(Errno::EACCES);
        };
        if (mount, ino) != (our_mount, our_ino) || flags & libc::O_PATH != 0 {
            return Err(Errno::EACCES);
        }
        let flags = OFlag::from_bits_truncate(flags) & (OFlag::O_ACCMODE | OFlag::O_APPEND);
        crate::counted::open(me.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
    }
}

/// `(flags, mnt_id, ino)` of the text of an `fdinfo` file.
fn parse_fdinfo(text: &[u8]) -> Option<(i32, u64, u64)> {
    let field = |key: &[u8], radix| {
        let line = text
            .split(|&b| b == b'\n')
            .find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(std::str::from_utf8(line.trim_ascii()).ok()?, radix).ok()
    };
    let flags = i32::try_from(field(b"flags:", 8)?).ok()?;
    Some((flags, field(b"mnt_id:", 10)?, field(b"ino:", 10)?))
}

impl Inode for FdLink {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> Result<Attr> {
        let ino = self.task.ino("fd", self.fd as u64 + 1);
        let mut attr = self.task.attr(ino, libc::S_IFLNK | self.mode, 1)?;
        attr.size = 64;
        Ok(attr)
    }

    fn readlink(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        let view = self.task.may_read(caller)?;
        if let Some(location) = locate(&self.task, self.fd)? {
            let root = self.task.proc.reader_root(caller, view);
            if let Some(path) = root.and_then(|root| shown_path(&location, &root)) {
                return Ok(path);
            }
        }
        let text = self.task.host(&self.file(), host::read_link)?;
        Ok(match judge(&text) {
            HostText::Harmless => text,
            HostText::Duet | HostText::Path => OUTSIDE.to_vec(),
        })
    }

    fn magic_link(&self, caller: &dyn Caller) -> Option<Result<MagicLink>> {
        let target = self.task.may_read(caller).and_then(|_| {
            Ok(match locate(&self.task, self.fd)? {
                Some(location) => MagicLink::Location(location),
                None => MagicLink::Descriptor(self.reopen()?),
            })
        });
        Some(target)
    }
}

/// `fdinfo/N`, proc_pid_fdinfo(5).
struct FdInfo {
    task: Task,
    fd: i32,
}

impl FdInfo {
    /// The kernel's text, with the mount and inode that the guest knows the file by.
    fn text(&self) -> Result<Vec<u8>> {
        let text = self.task.host(&format!("fdinfo/{}", self.fd), host::read)?;
        let location = locate(&self.task, self.fd)?;
        let ids = location.map(|l| (l.mount.id(), l.attr().map_or(0, |a| a.ino)));
        Ok(rewrite_fdinfo(&text, ids))
    }
}

/// Puts `(mount id, inode)` in the place of the host's, and drops what else names host inodes.
fn rewrite_fdinfo(text: &[u8], ids: Option<(u32, u64)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        // Writing to a Vec cannot fail.
        let _ = match ids {
            Some((mount, _)) if line.starts_with(b"mnt_id:") => writeln!(out, "mnt_id:\t{mount}"),
            Some((_, ino)) if line.starts_with(b"ino:") => writeln!(out, "ino:\t{ino}"),
            _ if line.starts_with(b"inotify ") => {
                // `inotify wd:1 ino:… sdev:… mask:… …`: the kernel's watch is on a host inode.
                let wd = line.split(|&b| b == b' ').nth(1).unwrap_or_default();
                out.write_all(b"inotify ")
                    .and_then(|()| out.write_all(wd))
                    .and_then(|()| {
                        if wd.ends_with(b"\n") {
                            Ok(())
                        } else {
                            out.write_all(b"\n")
                        }
                    })
            }
            _ => out.write_all(line),
        };
    }
    out
}

impl Inode for FdInfo {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> Result<Attr> {
        let ino = self.task.ino("fdinfo", self.fd as u64 + 1);
        self.task.attr(ino, libc::S_IFREG | 0o444, 1)
    }

    fn open(&self, flags: i32, caller: &dyn Caller) -> Result<OpenedFile> {
        self.task.may_read(caller)?;
        snapshot::open(&self.text()?, flags)
    }
}

/// Names below `ns/`, sorted.
const NAMESPACES: &[&str] = &[
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
];

/// `ns/`, namespaces(7).
pub(super) struct NsDir {
    task: Task,
}

impl NsDir {
    pub(super) fn new(task: Task) -> NsDir {
        NsDir { task }
    }
}

impl Inode for NsDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        self.task
            .attr(self.task.ino("ns", 0), libc::S_IFDIR | 0o511, 2)
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        let name = NAMESPACES
            .iter()
            .find(|n| n.as_bytes() == name)
            .ok_or(Errno::ENOENT)?;
        Ok(Arc::new(NsLink {
            task: self.task.clone(),
            name,
        }))
    }

    fn read_dir(
        &self,
        cookie: u64,
        caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        self.task.may_read(caller)?;
        let start = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (index, name) in NAMESPACES.iter().enumerate().skip(start) {
            let entry = DirEntry {
                ino: self.task.ino(name, u64::MAX),
                kind: Some(FileType::Symlink),
                name: name.as_bytes().to_vec(),
                next: index as u64 + 1,
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// `ns/X`: its text tells namespaces apart; it cannot be opened, as setns(2) is not for the guest.
struct NsLink {
    task: Task,
    name: &'static str,
}

impl Inode for NsLink {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> Result<Attr> {
        let ino = self.task.ino(self.name, u64::MAX);
        self.task.attr(ino, libc::S_IFLNK | 0o777, 1)
    }

    fn readlink(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        self.task.may_read(caller)?;
        let text = self
            .task
            .host(&format!("ns/{}", self.name), host::read_link)?;
        match judge(&text) {
            HostText::Harmless => Ok(text),
            HostText::Duet | HostText::Path => Err(Errno::EACCES),
        }
    }

    fn magic_link(&self, _caller: &dyn Caller) -> Option<Result<MagicLink>> {
        Some(Err(Errno::EACCES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_tells_no_host_inode() {
        let host = b"pos:\t5\nflags:\t02\nmnt_id:\t31\nino:\t99\n\
            inotify wd:1 ino:63 sdev:fe00000 mask:2 ignored_mask:0\n";
        assert_eq!(
            rewrite_fdinfo(host, Some((4, 7))),
            b"pos:\t5\nflags:\t02\nmnt_id:\t4\nino:\t7\ninotify wd:1\n"
        );
        assert!(rewrite_fdinfo(host, None).ends_with(b"ino:\t99\ninotify wd:1\n"));
        for odd in [
            &b"inotify "[..],
            b"inotify wd:1\n",
            b"inotify",
            b"ino:",
            b"",
        ] {
            rewrite_fdinfo(odd, None);
        }
    }
}

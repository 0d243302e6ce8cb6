//! `/proc/PID` and `/proc/PID/task/TID` (proc_pid(5)).

use std::any::Any;
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};

use super::links::{FdDir, NsDir, TaskLink};
use super::mounts::Format;
use super::pseudo::{now, open_live};
use super::{INIT_NAME, Proc, ProcessView, host, maps, mounts, snapshot, status};
use crate::inode::{BackingId, Caller, Inode, OpenedFile};
use crate::types::*;

/// One process, or one thread of it, that a node speaks of.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) proc: Arc<Proc>,
    /// Thread-group leader.
    pub(super) pid: i32,
    /// The thread, for nodes below `task/`.
    pub(super) tid: Option<i32>,
    /// [`ProcessView::id`] when the node was looked up; `None`: the sandbox did not know it.
    id: Option<u64>,
    /// When the node was looked up: its times.
    time: Timespec,
}

impl Task {
    /// The process `pid`, ENOENT if there is none. A thread's id finds its process, as on Linux.
    pub(super) fn find(proc: &Arc<Proc>, pid: i32) -> Result<Task> {
        let task = |pid, id| Task {
            proc: proc.clone(),
            pid,
            tid: None,
            id,
            time: now(),
        };
        if let Some(view) = proc.source.process(pid) {
            return Ok(task(pid, Some(view.id)));
        }
        let dir = proc.source.ns_proc();
        let text = host::read(dir, &format!("{pid}/status")).map_err(|_| Errno::ENOENT)?;
        let leader = text
            .split(|&b| b == b'\n')
            .find_map(|line| line.strip_prefix(b"Tgid:\t"))
            .and_then(host::parse_number)
            .ok_or(Errno::ENOENT)?;
        Ok(task(
            leader,
            proc.source.process(leader).map(|view| view.id),
        ))
    }

    /// Thread `tid` of this process.
    fn thread(&self, tid: i32) -> Result<Task> {
        let path = format!("{}/task/{tid}", self.pid);
        host::lstat(self.dir(), &path).map_err(|_| Errno::ENOENT)?;
        Ok(Task {
            tid: Some(tid),
            ..self.clone()
        })
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.proc.source.ns_proc()
    }

    /// What the sandbox knows; `None` of a process that it does not know (a zombie, say). ESRCH if
    /// the process has gone, even if its id is in use again.
    pub(super) fn view(&self) -> Result<Option<ProcessView>> {
        let view = self.proc.source.process(self.pid);
        if view.as_ref().map(|v| v.id) != self.id && self.id.is_some() {
            return Err(Errno::ESRCH);
        }
        Ok(view)
    }

    /// A descriptor of it that is not shown.
    pub(super) fn own_descriptor(&self) -> Option<i32> {
        self.proc.source.own_descriptor(self.pid)
    }

    /// The path of `file` below the sandbox's procfs.
    pub(super) fn host_path(&self, file: &str) -> String {
        match self.tid {
            None => format!("{}/{file}", self.pid),
            Some(tid) => format!("{}/task/{tid}/{file}", self.pid),
        }
    }

    /// Runs `access` on the host's `file` and makes sure that it was this process's.
    pub(super) fn host<T>(
        &self,
        file: &str,
        access: impl FnOnce(BorrowedFd<'_>, &str) -> Result<T>,
    ) -> Result<T> {
        let result = access(self.dir(), &self.host_path(file))?;
        self.view()?;
        Ok(result)
    }

    /// Whether this is the thread that asks.
    fn is(&self, caller: &dyn Caller) -> bool {
        caller.pid() == self.pid && caller.tid() == self.tid.unwrap_or(self.pid)
    }

    /// Whether this is a zombie, which has no memory, directories and namespaces left. The sandbox knows it until
    /// it has been reaped; only the kernel knows when it ended.
    pub(super) fn is_zombie(&self, caller: &dyn Caller) -> bool {
        !self.is(caller)
            && host::read_link(self.dir(), &self.host_path("cwd")) == Err(Errno::ENOENT)
    }

    /// EACCES unless `caller` may look into the process: `ptrace_may_access` with
    /// `PTRACE_MODE_READ_FSCREDS`, ptrace(2), on virtual credentials.
    pub(super) fn may_read(&self, caller: &dyn Caller) -> Result<Option<ProcessView>> {
        let view = self.view()?;
        if view.as_ref().is_some_and(|v| !v.visible) {
            return Err(Errno::EACCES);
        }
        if caller.pid() == 0 || caller.pid() == self.pid {
            return Ok(view);
        }
        let reader = self
            .proc
            .source
            .process(caller.pid())
            .ok_or(Errno::EACCES)?
            .creds;
        let same = view.as_ref().is_some_and(|target| {
            let creds = &target.creds;
            [creds.uid, creds.euid, creds.suid]
                .iter()
                .all(|&u| u == reader.fsuid)
                && [creds.gid, creds.egid, creds.sgid]
                    .iter()
                    .all(|&g| g == reader.fsgid)
                && target.dumpable
                && reader.has(creds.permitted)
        });
        if same || reader.has(Caps::SYS_PTRACE) {
            Ok(view)
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Number of the node `name` (and `fd`, of a descriptor) of this task.
    pub(super) fn ino(&self, name: &str, fd: u64) -> u64 {
        let tid = self.tid.map_or(0, |tid| tid as u64 + 1);
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut mix = |value: u64| {
            hash = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        };
        mix(self.pid as u64);
        mix(tid);
        mix(fd);
        name.bytes().for_each(|b| mix(u64::from(b)));
        // Clear of the fixed tree's small numbers, and short of the sign.
        (hash >> 2) | 1 << 32
    }

    /// Attributes of a node of this process, whose owner is as `task_dump_owner` (fs/proc/base.c)
    /// says.
    pub(super) fn attr(&self, ino: u64, mode: u32, nlink: u32) -> Result<Attr> {
        let mut attr = self.proc.style.attr(ino, mode, nlink);
        (attr.uid, attr.gid) = self.owner(mode)?;
        (attr.atime, attr.mtime, attr.ctime) = (self.time, self.time, self.time);
        Ok(attr)
    }

    /// User and group of a node with this mode.
    pub(super) fn owner(&self, mode: u32) -> Result<(u32, u32)> {
        const OVERFLOW: (u32, u32) = (65534, 65534);
        let Some(view) = self.view()? else {
            return Ok(OVERFLOW);
        };
        let open_dir = mode == libc::S_IFDIR | 0o555;
        let own = view.dumpable || open_dir;
        Ok(if own {
            (view.creds.euid, view.creds.egid)
        } else {
            (0, 0)
        })
    }
}

/// Where the contents of a per-process file come from.
#[derive(Clone, Copy)]
enum Source {
    /// The kernel's file itself.
    Live,
    /// The same, for those only who may trace the process.
    Private,
    /// The same, and whoever may write the file writes the kernel's.
    Writable,
    /// The memory itself, for those who may trace the process.
    Memory,
    Auxv,
    /// Always this.
    Text(&'static str),
    Status,
    Limits,
    Stat,
    Comm,
    Cmdline,
    Maps,
    Mounts(Format),
}

/// What an entry of the directory is.
#[derive(Clone, Copy)]
enum Kind {
    File(Source),
    Link,
    Fds,
    FdInfos,
    Ns,
    Net,
    Tasks,
}

/// Which directories have the entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Both,
    Process,
    Thread,
}

/// An entry of `/proc/PID`.
struct Entry {
    name: &'static str,
    /// Permission bits.
    mode: u32,
    kind: Kind,
    place: In,
}

const fn entry(name: &'static str, mode: u32, kind: Kind) -> Entry {
    Entry {
        name,
        mode,
        kind,
        place: In::Both,
    }
}

const fn file(name: &'static str, mode: u32, source: Source) -> Entry {
    entry(name, mode, Kind::File(source))
}

const IDENTITY_MAP: Source = Source::Text("         0          0 4294967295\n");

/// A cookie is an index into this plus one.
static ENTRIES: &[Entry] = &[
    Entry {
        place: In::Process,
        ..entry("task", 0o555, Kind::Tasks)
    },
    entry("fd", 0o500, Kind::Fds),
    entry("fdinfo", 0o555, Kind::FdInfos),
    entry("ns", 0o511, Kind::Ns),
    entry("net", 0o555, Kind::Net),
    file("auxv", 0o400, Source::Auxv),
    file("cgroup", 0o444, Source::Text("0::/\n")),
    file("children", 0o444, Source::Live).only(In::Thread),
    file("cmdline", 0o444, Source::Cmdline),
    file("comm", 0o644, Source::Comm),
    file("coredump_filter", 0o644, Source::Writable).only(In::Process),
    file("cpuset", 0o444, Source::Text("/\n")),
    entry("cwd", 0o777, Kind::Link),
    file("environ", 0o400, Source::Private),
    entry("exe", 0o777, Kind::Link),
    file("gid_map", 0o644, IDENTITY_MAP),
    file("io", 0o400, Source::Private),
    file("limits", 0o444, Source::Limits),
    file("loginuid", 0o644, Source::Text("4294967295")),
    file("maps", 0o444, Source::Maps),
    file("mem", 0o600, Source::Memory),
    file("mountinfo", 0o444, Source::Mounts(Format::MountInfo)),
    file("mounts", 0o444, Source::Mounts(Format::Mounts)),
    file("mountstats", 0o400, Source::Mounts(Format::MountStats)).only(In::Process),
    file("oom_score", 0o444, Source::Live),
    file("oom_score_adj", 0o644, Source::Writable),
    file("personality", 0o400, Source::Private),
    entry("root", 0o777, Kind::Link),
    file("schedstat", 0o444, Source::Live),
    file("sessionid", 0o444, Source::Text("4294967295")),
    file("setgroups", 0o644, Source::Text("allow\n")).only(In::Process),
    file("smaps", 0o444, Source::Maps),
    file("smaps_rollup", 0o444, Source::Maps).only(In::Process),
    file("stat", 0o444, Source::Stat),
    file("statm", 0o444, Source::Live),
    file("status", 0o444, Source::Status),
    file("uid_map", 0o644, IDENTITY_MAP),
    file("wchan", 0o444, Source::Text("0")),
];

impl Entry {
    const fn only(self, place: In) -> Entry {
        Entry { place, ..self }
    }

    fn applies(&self, task: &Task) -> bool {
        match self.place {
            In::Both => true,
            In::Process => task.tid.is_none(),
            In::Thread => task.tid.is_some(),
        }
    }

    fn file_type(&self) -> FileType {
        match self.kind {
            Kind::File(_) => FileType::Regular,
            Kind::Link => FileType::Symlink,
            _ => FileType::Directory,
        }
    }
}

/// `/proc/PID` or `/proc/PID/task/TID`.
pub(super) struct TaskDir {
    task: Task,
}

impl TaskDir {
    pub(super) fn new(task: Task) -> TaskDir {
        TaskDir { task }
    }

    /// The number that [`Inode::attr`] reports for the directory of `pid`.
    pub(super) fn ino_of(proc: &Arc<Proc>, pid: i32) -> u64 {
        let time = Timespec::default();
        Task {
            proc: proc.clone(),
            pid,
            tid: None,
            id: None,
            time,
        }
        .ino("", 0)
    }
}

const DIR_MODE: u32 = libc::S_IFDIR | 0o555;

impl Inode for TaskDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        self.task.attr(self.task.ino("", 0), DIR_MODE, 7)
    }

    fn owner(&self) -> Result<(u32, u32, u32)> {
        // Open to all: who owns it does not matter to the walk.
        Ok((DIR_MODE, 0, 0))
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        let task = &self.task;
        let entry = ENTRIES
            .iter()
            .find(|e| e.name.as_bytes() == name && e.applies(task))
            .ok_or(Errno::ENOENT)?;
        task.view().map_err(|_| Errno::ENOENT)?;
        let task = task.clone();
        Ok(match entry.kind {
            Kind::File(source) => Arc::new(TaskFile {
                task,
                entry,
                source,
            }),
            Kind::Link => Arc::new(TaskLink::new(task, entry.name)),
            Kind::Fds => Arc::new(FdDir::links(task)),
            Kind::FdInfos => Arc::new(FdDir::infos(task)),
            Kind::Ns => Arc::new(NsDir::new(task)),
            Kind::Net => Arc::new(super::net::NetDir::new(task)),
            Kind::Tasks => Arc::new(Tasks { task }),
        })
    }

    fn read_dir(
        &self,
        cookie: u64,
        _caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        self.task.view().map_err(|_| Errno::ENOENT)?;
        let start = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (index, e) in ENTRIES.iter().enumerate().skip(start) {
            if !e.applies(&self.task) {
                continue;
            }
            let entry = DirEntry {
                ino: self.task.ino(e.name, 0),
                kind: Some(e.file_type()),
                name: e.name.as_bytes().to_vec(),
                next: index as u64 + 1,
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// `/proc/PID/task`.
struct Tasks {
    task: Task,
}

impl Inode for Tasks {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        // Two links and one for each thread; the kernel tells us how many.
        let nlink = self
            .task
            .host("task", host::lstat)
            .map_or(3, |st| st.st_nlink as u32);
        self.task.attr(self.task.ino("task", 0), DIR_MODE, nlink)
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        let tid = host::parse_number(name).ok_or(Errno::ENOENT)?;
        self.task.view().map_err(|_| Errno::ENOENT)?;
        Ok(Arc::new(TaskDir::new(self.task.thread(tid)?)))
    }

    fn read_dir(
        &self,
        cookie: u64,
        _caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        self.task.view().map_err(|_| Errno::ENOENT)?;
        let mut thread = self.task.clone();
        let path = self.task.host_path("task");
        host::read_numbers(self.task.dir(), &path, cookie, &mut |tid, next| {
            thread.tid = Some(tid);
            sink(DirEntry {
                ino: thread.ino("", 0),
                kind: Some(FileType::Directory),
                name: tid.to_string().into_bytes(),
                next,
            })
        })
        .map_err(|_| Errno::ENOENT)
    }
}

/// A file of `/proc/PID`.
struct TaskFile {
    task: Task,
    entry: &'static Entry,
    source: Source,
}

impl TaskFile {
    fn mode(&self) -> u32 {
        libc::S_IFREG | self.entry.mode
    }

    /// The kernel's file, opened for this access.
    fn live(&self, flags: OFlag) -> Result<OwnedFd> {
        self.task
            .host(self.entry.name, |dir, path| host::open(dir, path, flags))
    }

    /// The kernel's text.
    fn text(&self) -> Result<Vec<u8>> {
        self.task.host(self.entry.name, host::read)
    }

    /// Opens the kernel's file for whatever access is asked: harmless to write.
    fn writable(&self, flags: i32) -> Result<OpenedFile> {
        if self.task.view()?.is_some_and(|v| !v.visible) {
            return Err(Errno::EACCES);
        }
        let keep = OFlag::O_ACCMODE | OFlag::O_NONBLOCK;
        let fd = self.live(OFlag::from_bits_truncate(flags) & keep)?;
        Ok(OpenedFile { fd, backing: None })
    }

    fn status(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        let reader = self.task.is(caller);
        let view = self.task.view()?;
        self.task.proc.source.about_to_show_affinities();
        let text = self.text()?;
        let Some(view) = view else {
            let creds = Creds::user(65534, 65534, Arc::from([]));
            return Ok(status::rewrite(
                &text,
                &status::Shown {
                    name: None,
                    creds: &creds,
                    umask: None,
                    no_new_privs: false,
                    seccomp_filters: 0,
                    reader,
                },
            ));
        };
        Ok(status::rewrite(
            &text,
            &status::Shown {
                name: (!view.visible).then_some(INIT_NAME),
                creds: &view.creds,
                umask: Some(view.umask),
                no_new_privs: view.no_new_privs,
                seccomp_filters: view.seccomp_filters,
                reader,
            },
        ))
    }

    fn cmdline(&self, view: &ProcessView) -> Result<Option<Vec<u8>>> {
        if !view.visible {
            return Ok(Some(format!("{INIT_NAME}\0").into_bytes()));
        }
        let Some(prefix) = &view.cmdline_prefix else {
            return Ok(None);
        };
        let text = self.text()?;
        let mut out = prefix.clone();
        if !text.is_empty() && !prefix.ends_with(b"\0") {
            out.push(0);
        }
        let rest = text
            .iter()
            .position(|&b| b == 0)
            .map_or(text.len(), |at| at + 1);
        out.extend_from_slice(text.get(rest..).unwrap_or_default());
        Ok(Some(out))
    }

    fn maps(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        let view = self.task.may_read(caller)?;
        let text = self.text()?;
        let root = self.task.proc.reader_root(caller, view);
        let source = &self.task.proc.source;
        Ok(maps::rewrite(&text, &mut |id, text| {
            let location = source
                .locate_backing(id)
                .or_else(|| source.locate_backing(stat_id(id, text)?))?;
            let path = super::shown_path(&location, root.as_ref()?)?;
            let attr = location.attr().ok();
            Some(maps::Mapped {
                dev: attr.map_or(0, |a| a.dev),
                ino: attr.map_or(0, |a| a.ino),
                path,
            })
        }))
    }
}

/// The identity that stat(2) gives the mapped host file `path`. `maps` shows the device of the file
/// system, which on btrfs and overlayfs is not the `st_dev` of its files.
fn stat_id(mapped: BackingId, path: &[u8]) -> Option<BackingId> {
    let path = OsStr::from_bytes(path);
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
    let stat = crate::counted::fstatat(AT_FDCWD, path, flags).ok()?;
    let differs = stat.st_ino == mapped.ino && stat.st_dev != mapped.dev;
    differs.then_some(BackingId {
        dev: stat.st_dev,
        ino: stat.st_ino,
    })
}

impl Inode for TaskFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> Result<Attr> {
        self.task
            .attr(self.task.ino(self.entry.name, 0), self.mode(), 1)
    }

    fn owner(&self) -> Result<(u32, u32, u32)> {
        let (uid, gid) = self.task.owner(self.mode())?;
        Ok((self.mode(), uid, gid))
    }

    fn open(&self, flags: i32, caller: &dyn Caller) -> Result<OpenedFile> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let init = || Ok::<_, Errno>(self.task.view()?.is_some_and(|v| !v.visible));
        match self.source {
            Source::Writable => self.writable(flags),
            Source::Comm if writes => self.writable(flags),
            Source::Memory => {
                self.task.may_read(caller)?;
                let keep = OFlag::O_ACCMODE | OFlag::O_NONBLOCK;
                let fd = self.live(OFlag::from_bits_truncate(flags) & keep)?;
                Ok(OpenedFile { fd, backing: None })
            }
            // User namespaces are not for the guest to change.
            Source::Text(_) if writes => Err(Errno::EPERM),
            _ if writes => Err(Errno::EACCES),
            Source::Live => open_live(flags, |f| self.live(f)),
            Source::Private => {
                self.task.may_read(caller)?;
                open_live(flags, |f| self.live(f))
            }
            Source::Auxv => match self.task.may_read(caller)?.and_then(|v| v.auxv) {
                Some(auxv) if !self.task.is_zombie(caller) => snapshot::open(&auxv, flags),
                _ => open_live(flags, |f| self.live(f)),
            },
            Source::Text(text) => snapshot::open(text.as_bytes(), flags),
            Source::Status => snapshot::open(&self.status(caller)?, flags),
            Source::Limits => snapshot::open(&status::unlimited_locks(&self.text()?), flags),
            Source::Stat if init()? => {
                snapshot::open(&status::rename_stat(&self.text()?, INIT_NAME), flags)
            }
            Source::Comm if init()? => snapshot::open(format!("{INIT_NAME}\n").as_bytes(), flags),
            Source::Stat | Source::Comm => open_live(flags, |f| self.live(f)),
            Source::Cmdline => match self.task.view()?.map(|v| self.cmdline(&v)) {
                Some(Ok(Some(text))) => snapshot::open(&text, flags),
                Some(Err(e)) => Err(e),
                Some(Ok(None)) | None => open_live(flags, |f| self.live(f)),
            },
            Source::Maps => snapshot::open(&self.maps(caller)?, flags),
            Source::Mounts(format) => {
                // A process on its way out has no mounts to show.
                let view = self.task.view()?.ok_or(Errno::EINVAL)?;
                if self.task.is_zombie(caller) {
                    return Err(Errno::EINVAL);
                }
                if matches!(format, Format::MountStats) {
                    self.task.may_read(caller)?;
                }
                let all = self.task.proc.source.mounts();
                snapshot::open(&mounts::render(format, &all, &view.root), flags)
            }
        }
    }
}

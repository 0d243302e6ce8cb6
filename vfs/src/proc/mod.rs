//! `proc`: process information as proc(5) describes it, for the sandbox's own processes only.
//!
//! The truth comes from a procfs instance of the sandbox's pid namespace, so ids in it are the
//! guest's already. What Duet virtualises (credentials, directories, executables, mounts) comes from
//! the [`ProcessSource`]. A file is either the kernel's own, opened read-only (where its text needs no
//! change, so that a program that keeps it open and rewinds sees news), or a sealed snapshot made at
//! open. No path of the host is ever told: a host file appears as the node that it backs, or as
//! `/[host]` or `/[unknown]`.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::inode::{BackingId, Caller, DentryPolicy, FileSystem, Inode, StatFs};
use crate::mount::MountInfo;
use crate::types::*;
use crate::walk::{Location, PathState};

mod global;
pub(crate) mod host;
mod links;
mod maps;
mod mounts;
mod net;
pub(crate) mod pseudo;
mod snapshot;
mod status;
mod sysctl;
mod task;
#[cfg(test)]
mod tests;

use pseudo::{Dir, Later, Style, now};
use task::{Task, TaskDir};

/// What the guest sees as the name of its pid 1, which is Duet's.
const INIT_NAME: &str = "duet-init";

/// The sandbox, as far as `/proc` shows it.
pub trait ProcessSource: Send + Sync {
    /// The root of a procfs instance of the sandbox's pid namespace. Never handed to the guest.
    fn ns_proc(&self) -> BorrowedFd<'_>;

    /// The virtual state of a process by its id (its thread-group leader's); `None` if the sandbox
    /// does not know it. It should be known until it has been reaped.
    fn process(&self, pid: i32) -> Option<ProcessView>;

    /// Is called before something is read that tells where processes may run.
    fn about_to_show_affinities(&self) {}

    /// A descriptor of a process that is Duet's, and not shown.
    fn own_descriptor(&self, pid: i32) -> Option<i32> {
        let _ = pid;
        None
    }

    /// The mount table.
    fn mounts(&self) -> Vec<MountInfo>;

    /// The node of the tree that a host file backs.
    fn locate_backing(&self, id: BackingId) -> Option<Location>;

    /// The host name, as uname(2) tells.
    fn hostname(&self) -> Vec<u8>;

    /// The NIS domain name, as uname(2) tells.
    fn domainname(&self) -> Vec<u8> {
        b"(none)".to_vec()
    }

    /// The sandbox's limit of memory in bytes, shown as the size of the machine.
    fn memory_limit(&self) -> Option<u64> {
        None
    }

    /// Whether the sandbox uses the host's network namespace, whose other sockets are not for it to see.
    fn shares_host_network(&self) -> bool {
        false
    }
}

/// The virtual state of one process.
#[derive(Clone)]
pub struct ProcessView {
    /// A number that no other process of the sandbox ever has, so that a reused pid is noticed.
    pub id: u64,
    /// Credentials.
    pub creds: Arc<Creds>,
    /// File mode creation mask.
    pub umask: u32,
    /// Root directory.
    pub root: Location,
    /// Working directory.
    pub cwd: Location,
    /// Executable.
    pub exe: Option<Location>,
    /// Its path, shown if `exe` is `None` or has none.
    pub exe_path: Vec<u8>,
    /// What replaces the first argument in `cmdline`: of a `#!` script the interpreter, its argument
    /// and the script, each ended by a NUL.
    pub cmdline_prefix: Option<Vec<u8>>,
    /// The auxiliary vector, if the kernel has another.
    pub auxv: Option<Arc<[u8]>>,
    /// `PR_SET_NO_NEW_PRIVS` as the process itself set it.
    pub no_new_privs: bool,
    /// seccomp(2) filters that the process itself installed.
    pub seccomp_filters: u32,
    /// `PR_GET_DUMPABLE`: false after executing a set-id or unreadable file.
    pub dumpable: bool,
    /// Whether the guest may look into it; false for Duet's own init.
    pub visible: bool,
}

/// What all nodes share.
struct Proc {
    source: Arc<dyn ProcessSource>,
    style: Style,
}

impl Proc {
    /// The root directory that paths are shown relative to: the reader's, or else that of the
    /// process looked at.
    fn reader_root(&self, caller: &dyn Caller, target: Option<ProcessView>) -> Option<Location> {
        self.source
            .process(caller.pid())
            .or(target)
            .map(|view| view.root)
    }
}

/// The path of `location` as `d_path` (fs/d_path.c) tells it to somebody with this root; `None` of
/// what never had a path.
fn shown_path(location: &Location, root: &Location) -> Option<Vec<u8>> {
    if location.dentry.is_deleted() && location.dentry.parent().is_none() {
        return None;
    }
    let (mut path, state) = location.path(root);
    if state == PathState::Deleted {
        path.extend_from_slice(b" (deleted)");
    }
    Some(path)
}

/// The `proc` file system of one sandbox.
pub struct ProcFs {
    root: Arc<Root>,
}

impl ProcFs {
    /// A `/proc` that shows `source`.
    pub fn new(source: Arc<dyn ProcessSource>) -> Arc<ProcFs> {
        let style = Style {
            file_size: 0,
            blksize: 1024,
            time: now(),
        };
        let proc = Arc::new(Proc { source, style });
        let mut tree = global::tree(&proc.source);
        for link in [SelfLink::Process, SelfLink::Thread] {
            tree.node(link.name(), link.ino(), Arc::new(SelfNode { link, style }));
        }
        let source = proc.source.clone();
        // As in the kernel, its directories have one link.
        let sys = Later::new(style, SYS_INO, 1, move || sysctl::tree(&source));
        tree.node("sys", SYS_INO, sys);
        // The kernel's PROC_ROOT_INO.
        let mut ino = 1;
        let fixed = tree.build(style, &mut ino);
        Arc::new(ProcFs {
            root: Arc::new(Root { proc, fixed }),
        })
    }
}

impl FileSystem for ProcFs {
    fn type_name(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs {
            magic: libc::PROC_SUPER_MAGIC,
            bsize: 4096,
            blocks: 0,
            bfree: 0,
            bavail: 0,
            files: 0,
            ffree: 0,
            namelen: 255,
        })
    }

    fn dentry_policy(&self) -> DentryPolicy {
        DentryPolicy::Never
    }
}

/// The number of `/proc/sys`, above those of the rest of the fixed tree.
const SYS_INO: u64 = 1 << 12;

/// Cookies from here on are the kernel's of the directory of processes, plus this.
const PROCESSES: u64 = 1 << 32;

/// `/proc`: the fixed tree, then the processes.
struct Root {
    proc: Arc<Proc>,
    fixed: Arc<Dir>,
}

impl Inode for Root {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        self.fixed.attr()
    }

    fn lookup(&self, name: &[u8], caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        match host::parse_number(name) {
            Some(pid) if pid > 0 => Ok(Arc::new(TaskDir::new(Task::find(&self.proc, pid)?))),
            _ => self.fixed.lookup(name, caller),
        }
    }

    fn read_dir(
        &self,
        cookie: u64,
        caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        let mut full = false;
        if cookie < self.fixed.len() {
            self.fixed.read_dir(cookie, caller, &mut |entry| {
                let taken = sink(entry);
                full |= !taken;
                taken
            })?;
        }
        if full {
            return Ok(());
        }
        let start = cookie.saturating_sub(PROCESSES);
        host::read_numbers(self.proc.source.ns_proc(), ".", start, &mut |pid, next| {
            sink(DirEntry {
                ino: TaskDir::ino_of(&self.proc, pid),
                kind: Some(FileType::Directory),
                name: pid.to_string().into_bytes(),
                next: PROCESSES + next.min(PROCESSES),
            })
        })
    }
}

#[derive(Clone, Copy)]
enum SelfLink {
    /// `/proc/self`
    Process,
    /// `/proc/thread-self`
    Thread,
}

impl SelfLink {
    fn name(self) -> &'static str {
        match self {
            SelfLink::Process => "self",
            SelfLink::Thread => "thread-self",
        }
    }

    fn ino(self) -> u64 {
        // The kernel's place for them: right above all others (fs/proc/self.c).
        match self {
            SelfLink::Process => 0xffff_fff0,
            SelfLink::Thread => 0xffff_fff1,
        }
    }
}

/// `/proc/self` or `/proc/thread-self`.
struct SelfNode {
    link: SelfLink,
    style: Style,
}

impl Inode for SelfNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> Result<Attr> {
        Ok(self.style.attr(self.link.ino(), libc::S_IFLNK | 0o777, 1))
    }

    fn readlink(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        let (pid, tid) = (caller.pid(), caller.tid());
        if pid <= 0 {
            return Err(Errno::ENOENT);
        }
        let text = match self.link {
            SelfLink::Process => pid.to_string(),
            SelfLink::Thread => format!("{pid}/task/{tid}"),
        };
        Ok(text.into_bytes())
    }
}

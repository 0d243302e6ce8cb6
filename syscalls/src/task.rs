//! One intercepted call in the hands of its handler: the caller, its state, its arguments.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use duet_intercept::{Call, agent, mem};
use duet_vfs::account::{self, Place, Step, host};
use duet_vfs::counted::{fstat, read_text};
use duet_vfs::inode::{BackingId, Caller};
use duet_vfs::types::{Creds, Errno, Result};
use duet_vfs::walk::{Context, Location, Lookup};
use nix::sys::stat::FileStat;
use parking_lot::Mutex;

use crate::kernel::Kernel;
use crate::process::{self, Process, State};

/// Longest path with its NUL.
const PATH_MAX: usize = 4096;

/// How a handler ends a call.
pub enum Reply {
    /// It returns this value.
    Value(i64),
    /// The caller gets this descriptor, and its number as the result. Nobody else holds it when the caller goes on:
    /// the end of a FIFO, a lock (flock(2)), an event of its close (inotify(7)) may hang on that.
    Descriptor {
        /// The descriptor.
        fd: OwnedFd,
        /// Whether it is closed by `execve`.
        cloexec: bool,
    },
    /// The kernel runs the call as it stands.
    Run,
    /// A signal that waits for the caller interrupts it.
    Interrupt,
    /// It has been answered, or will be by another thread.
    Deferred,
}

impl Reply {
    /// The call succeeded and has nothing to say.
    pub const DONE: Reply = Reply::Value(0);
}

/// A call and its caller.
#[derive(Clone)]
pub struct Task {
    /// The sandbox.
    pub kernel: Arc<Kernel>,
    /// The calling process.
    pub process: Arc<Process>,
    /// Its state when it called.
    pub state: Arc<State>,
    /// The call.
    pub call: Call,
    /// What stands for the caller's memory, of a call that an agent has handed over.
    pub staged: Option<Arc<Staged>>,
}

/// What an agent has read of its caller's memory, and is to write there.
pub struct Staged {
    /// Arguments that point to strings, and these.
    strings: [Option<(usize, Vec<u8>)>; 2],
    /// An argument that points to other bytes, and these.
    bytes: Option<(usize, Vec<u8>)>,
    /// Where a result goes.
    at: Option<u64>,
    /// Bytes that it may have.
    room: usize,
    /// It; `None` once the handler has asked for what is not here.
    out: Mutex<Option<Vec<u8>>>,
}

impl Staged {
    /// `strings` and `bytes`: the argument that points to each, and itself; a result of `room` bytes at most goes to
    /// `at`.
    pub fn new(
        strings: [Option<(usize, Vec<u8>)>; 2],
        bytes: Option<(usize, Vec<u8>)>,
        at: Option<u64>,
        room: usize,
    ) -> Staged {
        Staged {
            strings,
            bytes,
            at,
            room,
            out: Mutex::new(Some(Vec::new())),
        }
    }

    /// What goes to the caller's memory; `None` if the call cannot be served from here.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.out.lock().take()
    }

    fn string(&self, arg: usize, max: usize, too_long: Errno) -> Result<Vec<u8>> {
        let mut strings = self.strings.iter().flatten();
        match strings.find(|(i, _)| *i == arg) {
            Some((_, string)) if string.len() < max => Ok(string.clone()),
            Some(_) => Err(too_long),
            None => self.give_up(),
        }
    }

    /// What is at `addr`, to which one of `args` points.
    fn read(&self, args: &[u64; 6], addr: u64, len: usize) -> Result<&[u8]> {
        match &self.bytes {
            Some((i, bytes)) if args.get(*i) == Some(&addr) && bytes.len() == len => Ok(bytes),
            _ => self.give_up(),
        }
    }

    fn write(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        match &mut *self.out.lock() {
            Some(out) if self.at == Some(addr) && bytes.len() <= self.room => {
                *out = bytes.to_vec();
                return Ok(());
            }
            _ => (),
        }
        self.give_up()
    }

    fn give_up<T>(&self) -> Result<T> {
        *self.out.lock() = None;
        Err(Errno::EFAULT)
    }
}

/// A descriptor of the caller.
pub struct Descriptor {
    /// A copy: the same open file description.
    pub fd: OwnedFd,
    /// What the host says of it.
    pub stat: FileStat,
    /// The node of the tree it stands for; `None` for pipes, sockets, terminals and the like, and for
    /// what the caller of Duet handed in.
    pub location: Option<Location>,
}

impl Task {
    /// Argument `i` as the register holds it.
    pub fn arg(&self, i: usize) -> u64 {
        self.call.args.get(i).copied().unwrap_or(0)
    }

    /// Argument `i` as an `int`.
    pub fn int(&self, i: usize) -> i32 {
        self.arg(i) as i32
    }

    /// Argument `i` as an `unsigned int`.
    pub fn uint(&self, i: usize) -> u32 {
        self.arg(i) as u32
    }

    /// The path that argument `i` points to. Not empty unless the call allows it; that is for the walk.
    pub fn path(&self, i: usize) -> Result<Vec<u8>> {
        self.string(i, PATH_MAX, Errno::ENAMETOOLONG)
    }

    /// The string that argument `i` points to, at most `max` bytes with its NUL.
    pub fn string(&self, i: usize, max: usize, too_long: Errno) -> Result<Vec<u8>> {
        if let Some(staged) = &self.staged {
            // Nothing is mapped there: that takes a privilege of the kernel's.
            return match self.arg(i) {
                0 => Err(Errno::EFAULT),
                _ => staged.string(i, max, too_long),
            };
        }
        let s = host("process_vm_readv", || {
            mem::read_string(self.call.tid, self.arg(i), max, too_long)
        })?;
        self.confirm()?;
        Ok(s)
    }

    /// `len` bytes at `addr`. The caller of this bounds `len`.
    pub fn read(&self, addr: u64, len: usize) -> Result<Vec<u8>> {
        if let Some(staged) = &self.staged {
            return staged.read(&self.call.args, addr, len).map(<[u8]>::to_vec);
        }
        let mut buf = vec![0; len];
        host("process_vm_readv", || {
            mem::read(self.call.tid, addr, &mut buf)
        })?;
        self.confirm()?;
        Ok(buf)
    }

    /// `N` bytes at `addr`.
    pub fn read_array<const N: usize>(&self, addr: u64) -> Result<[u8; N]> {
        if let Some(staged) = &self.staged {
            let bytes = staged.read(&self.call.args, addr, N)?;
            return bytes.try_into().map_err(|_| Errno::EFAULT);
        }
        let mut buf = [0; N];
        host("process_vm_readv", || {
            mem::read(self.call.tid, addr, &mut buf)
        })?;
        self.confirm()?;
        Ok(buf)
    }

    /// Writes `bytes` at `addr`.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        if let Some(staged) = &self.staged {
            return staged.write(addr, bytes);
        }
        self.confirm()?;
        host("process_vm_writev", || {
            mem::write(self.call.tid, addr, bytes)
        })
    }

    /// Writes two pieces at their addresses. For calls that are notified.
    pub fn write_both(&self, pieces: [(u64, &[u8]); 2]) -> Result<()> {
        self.confirm()?;
        host("process_vm_writev", || {
            mem::write_pieces(self.call.tid, pieces)
        })
    }

    /// Whether what was read is the caller's: its thread id may have passed to somebody else.
    fn confirm(&self) -> Result<()> {
        if self.kernel.engine.is_live(&self.call) {
            Ok(())
        } else {
            Err(Errno::ESRCH)
        }
    }

    /// What the VFS must know of the caller.
    pub fn cx(&self) -> Context<'_> {
        Context {
            root: &self.state.root,
            cwd: &self.state.cwd,
            creds: &self.state.creds,
            umask: self.state.umask,
            caller: self,
        }
    }

    /// The directory that a path argument starts at. An absolute path never looks at `dirfd`.
    pub fn base(&self, dirfd: i32, path: &[u8]) -> Result<Location> {
        if dirfd == libc::AT_FDCWD || path.first() == Some(&b'/') {
            return Ok(self.state.cwd.clone());
        }
        self.descriptor(dirfd)?.location.ok_or(Errno::ENOTDIR)
    }

    /// A copy of the caller's descriptor `fd`: the same open file description. `EBADF` for one that is Duet's.
    pub fn copy_of(&self, fd: i32) -> Result<OwnedFd> {
        if fd >= agent::LEAST_DESCRIPTOR && self.process.agent_descriptor() == Some(fd) {
            return Err(Errno::EBADF);
        }
        self.process.descriptor(fd, self.call.tid)
    }

    /// The caller's descriptor `fd`.
    pub fn descriptor(&self, fd: i32) -> Result<Descriptor> {
        let copy = self.copy_of(fd)?;
        let stat = fstat(copy.as_fd())?;
        let id = BackingId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        };
        let vfs = &self.kernel.vfs;
        let location = vfs.locate(id).or_else(|| self.locate_terminal(id, &stat));
        account::note(|| Step::Descriptor {
            fd,
            place: location.as_ref().map(|l| Place::of(l, &self.state.root)),
        });
        Ok(Descriptor {
            fd: copy,
            stat,
            location,
        })
    }

    /// The node of a terminal that the guest opened by its master (`TIOCGPTPEER`), unseen.
    fn locate_terminal(&self, id: BackingId, stat: &FileStat) -> Option<Location> {
        let major = libc::major(stat.st_rdev);
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || !(136..144).contains(&major) {
            return None;
        }
        let number = (major - 136) * 256 + libc::minor(stat.st_rdev);
        let vfs = &self.kernel.vfs;
        let (root, creds) = (vfs.root(), Creds::root());
        let cx = Context {
            root: &root,
            cwd: &root,
            creds: &creds,
            ..self.cx()
        };
        let path = format!("/dev/pts/{number}");
        let node = vfs
            .resolve(&cx, &root, path.as_bytes(), Lookup::FOLLOW)
            .ok()?;
        let host = fstat(node.inode().host_path().ok()?).ok()?;
        if (host.st_dev, host.st_ino) != (id.dev, id.ino) {
            return None;
        }
        vfs.adopt(id, &node);
        Some(node)
    }

    /// The node of the caller's descriptor `fd`; `EBADF` if it is none of the tree's.
    pub fn located(&self, fd: i32) -> Result<Location> {
        self.descriptor(fd)?.location.ok_or(Errno::EBADF)
    }

    /// Changes the state of the calling process.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        let differ = || self.kernel.engine.differ();
        self.kernel.processes.change(&self.process, change, differ);
    }

    /// The calling process comes to differ in what it may do from those that it was forked with.
    pub(crate) fn differ(&self) {
        self.kernel.processes.differ();
        self.kernel.engine.differ();
    }
}

impl Caller for Task {
    fn pid(&self) -> i32 {
        self.process.guest_pid()
    }

    fn terminal(&self) -> Option<u64> {
        process::controlling_terminal(self.call.tid)
    }

    fn has_open(&self, id: BackingId) -> bool {
        self.kernel.processes.has_open(id)
    }

    fn tid(&self) -> i32 {
        if self.call.tid.0 == self.process.host_pid() {
            return self.pid();
        }
        let status = read_text(format!("/proc/{}/status", self.call.tid.0));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
        let last = line.and_then(|l| l.split_ascii_whitespace().next_back());
        last.and_then(|n| n.parse().ok())
            .unwrap_or_else(|| self.pid())
    }
}

//! The virtual state of guest processes, and the table that finds it by thread id.
//!
//! The kernel keeps the processes; this keeps what Duet virtualises of them: root, working directory,
//! umask, credentials and executable. Forking is not intercepted. A process is entered when it first
//! makes an intercepted call, and finds its state by the number it has inherited ([`states`]).
//!
//! # Lock order
//!
//! `ProcessTable::inner`, then `Process::pending_exec`, then `Process::state`, then `ProcessTable::states`. None is held over a call
//! to the VFS. `ProcessTable::differences` may be locked with any of them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use duet_intercept::{Tid, agent};
use duet_vfs::BackingId;
use duet_vfs::account::host;
use duet_vfs::counted::{read_file, read_text};
use duet_vfs::types::{Creds, Errno, Result};
use duet_vfs::walk::Location;
use duet_vfs::watch::watched_in;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::agents::Accelerated;
use crate::peers::{Peer, Peers};
use crate::pidns::PidNamespace;
use crate::states::{self, States};

/// The program a process runs.
#[derive(Clone)]
pub struct Program {
    /// The executable (for a script, its interpreter).
    pub location: Location,
    /// For a `#!` script: what stands in `/proc/PID/cmdline` in place of the first argument, each
    /// string with its NUL.
    pub cmdline_prefix: Option<Vec<u8>>,
    /// The auxiliary vector, `/proc/PID/auxv`, where the kernel knows that of the stub.
    pub auxv: Option<Arc<[u8]>>,
}

/// Virtual state, replaced as a whole when it changes, and shared by `fork`.
#[derive(Clone)]
pub struct State {
    /// Root directory.
    pub root: Location,
    /// Working directory.
    pub cwd: Location,
    /// File mode creation mask.
    pub umask: u32,
    /// Credentials.
    pub creds: Arc<Creds>,
    /// What it runs; `None` before the first `execve`.
    pub program: Option<Program>,
    /// Its number, given by the process table.
    pub number: u64,
    /// `PR_SET_KEEPCAPS`.
    pub keep_caps: bool,
    /// `PR_SET_NO_NEW_PRIVS` as the guest set it.
    pub no_new_privs: bool,
}

/// An `execve` whose new image has not reported yet.
pub struct PendingExec {
    /// The thread that called.
    pub tid: Tid,
    /// State to take on when it does.
    pub state: State,
    /// What the stub is to do.
    pub launch: crate::handlers::exec::Launch,
    /// If the kernel loads the program itself, the copy that it is given, and what the caller held in
    /// its place.
    pub native: Option<Native>,
}

/// A program that the kernel loads; see [`images`](crate::images).
pub struct Native {
    /// The copy.
    pub copy: BackingId,
    /// What the caller held in its place.
    pub held: Option<Held>,
}

/// A descriptor of a process that a copy has taken the place of for the time of an execveat(2).
pub struct Held {
    /// Its number.
    pub number: RawFd,
    /// What it was.
    pub fd: OwnedFd,
    /// Whether it is closed by `execve`.
    pub closes: bool,
    /// The copy.
    pub copy: BackingId,
}

/// One guest process (thread group).
pub struct Process {
    tgid: i32,
    serial: u64,
    pidfd: OwnedFd,
    guest_pid: OnceLock<i32>,
    /// The sandbox's, where the kernel tells its numbers.
    namespace: Option<Arc<PidNamespace>>,
    state: Mutex<Arc<State>>,
    /// The `execve` under way.
    pub pending_exec: Mutex<Option<PendingExec>>,
    /// Whether the kernel does that.
    loads_natively: AtomicBool,
    /// See [`Held`].
    held: Mutex<Option<Held>>,
    /// Whether there is any: it is asked for in each call.
    holds: AtomicBool,
    /// Whether it has an agent. Locked for a moment only, and nothing else with it.
    pub accelerated: Mutex<Accelerated>,
}

impl Process {
    /// Thread-group id in the supervisor's pid namespace.
    pub fn host_pid(&self) -> i32 {
        self.tgid
    }

    /// A number that no other process of the sandbox has or had.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// A pidfd of it.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Thread-group id in the sandbox's pid namespace; 0 if it is gone.
    pub fn guest_pid(&self) -> i32 {
        *self.guest_pid.get_or_init(|| {
            if let Some(namespace) = &self.namespace {
                return namespace.inner(self.tgid).unwrap_or(0);
            }
            let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
            read_proc(&path, |text| innermost_pid(&String::from_utf8_lossy(text))).unwrap_or(0)
        })
    }

    /// Forgets an `execve` that `tid` has come back from: the kernel has refused it.
    pub fn forget_failed_exec(&self, tid: Tid) {
        let failed = self.pending_exec.lock().take_if(|p| p.tid == tid);
        let Some(native) = failed.and_then(|p| p.native) else {
            return;
        };
        self.loads_natively.store(false, Ordering::Release);
        self.hold(native.held);
        // The new state's number is there already.
        self.restamp();
    }

    /// If the kernel has loaded a program, takes on the state after that `execve`: nobody tells of it.
    pub fn notice_exec(&self) {
        if self.loads_natively.load(Ordering::Acquire) {
            self.settle();
        }
    }

    /// The host's file that it executes.
    pub fn running(&self) -> Result<BackingId> {
        let stat = host("stat", || {
            nix::sys::stat::stat(format!("/proc/{}/exe", self.tgid).as_str())
        })?;
        Ok(BackingId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }

    fn settle(&self) {
        let mut pending = self.pending_exec.lock();
        let copy = pending.as_ref().and_then(|p| p.native.as_ref());
        let (Some(copy), Ok(running)) = (copy.map(|n| n.copy), self.running()) else {
            return;
        };
        if running != copy {
            return;
        }
        if let Some(done) = pending.take() {
            self.loads_natively.store(false, Ordering::Release);
            *self.accelerated.lock() = Accelerated::default();
            *self.state.lock() = Arc::new(done.state);
            self.hold(done.native.and_then(|n| n.held));
            self.restamp();
        }
    }

    fn restamp(&self) {
        if let Err(e) = states::stamp(self.tgid, self.state.lock().number) {
            log::debug!("process {} is gone: {e}", self.tgid);
        }
    }

    fn hold(&self, held: Option<Held>) {
        let mut place = self.held.lock();
        self.holds.store(held.is_some(), Ordering::Release);
        *place = held;
    }

    /// What the process is to hold again, once.
    pub fn take_held(&self) -> Option<Held> {
        if !self.holds.load(Ordering::Acquire) {
            return None;
        }
        let mut place = self.held.lock();
        self.holds.store(false, Ordering::Release);
        place.take()
    }

    /// Its `RLIMIT_FSIZE` in bytes.
    pub fn file_size_limit(&self) -> Result<u64> {
        let mut limit = libc::rlimit64 {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let new = std::ptr::null();
        // SAFETY: nothing is set, and `limit` is ours.
        let n = host("prlimit64", || unsafe {
            libc::prlimit64(self.tgid, libc::RLIMIT_FSIZE, new, &mut limit)
        });
        Errno::result(n).map(|_| limit.rlim_cur)
    }

    /// Sends it a signal from outside the sandbox.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        let pidfd = self.pidfd.as_raw_fd();
        // SAFETY: integers and a null pointer.
        let n = host("pidfd_send_signal", || unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, info, 0)
        });
        Errno::result(n).map(drop)
    }

    /// The number of the descriptor that it has for an agent, its own or that of a process it was forked from.
    pub fn agent_descriptor(&self) -> Option<RawFd> {
        agent::in_process(Tid(self.tgid), self.pidfd())
    }

    /// Whether it has not been waited for yet, if it has ended.
    fn exists(&self) -> bool {
        self.signal(0) != Err(Errno::ESRCH)
    }

    /// Whether it has not ended yet. It may be known for a moment after.
    pub(crate) fn is_alive(&self) -> bool {
        let mut p = libc::pollfd {
            fd: self.pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, and the count says so.
        host("poll", || unsafe { libc::poll(&mut p, 1, 0) == 0 })
    }

    /// The present state.
    pub fn state(&self) -> Arc<State> {
        self.notice_exec();
        self.state.lock().clone()
    }

    /// A copy of the caller's descriptor `fd`: the same open file description.
    pub fn descriptor(&self, fd: RawFd, caller: Tid) -> Result<OwnedFd> {
        match get_descriptor(&self.pidfd, fd) {
            // A leader that has left has no table any more; its threads have.
            Err(e @ (Errno::EBADF | Errno::ESRCH)) if caller.0 != self.tgid => {
                let thread = open_pidfd(caller.0, PIDFD_THREAD).map_err(|_| e)?;
                get_descriptor(&thread, fd)
            }
            other => other,
        }
    }
}

/// The last number of the `NSpid:` line of a `status` or `fdinfo` file; 0 if there is none.
fn innermost_pid(text: &str) -> i32 {
    let line = text.lines().find_map(|l| l.strip_prefix("NSpid:"));
    let last = line.and_then(|l| l.split_ascii_whitespace().next_back());
    last.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The number of an entry that is not a thread-group leader is trusted this long: far less than it
/// takes to use up the numbers and give it to somebody else.
const THREAD_TRUST: Duration = Duration::from_millis(100);

struct Entry {
    process: Arc<Process>,
    /// When the thread was last known to belong to the process; `None` for the leader, whose end
    /// the pidfd tells.
    checked: Option<Instant>,
}

impl Entry {
    /// Whether the thread surely belongs to the process.
    fn is_trusted(&self, now: Instant) -> bool {
        self.checked.is_none_or(|c| now - c < THREAD_TRUST)
    }
}

#[derive(Default)]
struct Inner {
    threads: HashMap<i32, Entry>,
    /// How many of `threads` there may be before those that may have ended are left out.
    threads_sweep_at: usize,
    /// Processes that have ended: `/proc` shows them until they are waited for, of which nobody tells.
    ended: Vec<Arc<Process>>,
    /// How many of `ended` there may be before those that were waited for are looked for again.
    sweep_at: usize,
}

impl Inner {
    /// Enters a thread that is no leader. Nobody tells of its end: those that are not known to be there any
    /// more go when there are many of them.
    fn enter_thread(&mut self, tid: i32, entry: Entry) {
        if self.threads.len() >= self.threads_sweep_at {
            const LEAST: usize = 256;
            let now = Instant::now();
            self.threads.retain(|_, e| e.is_trusted(now));
            self.threads_sweep_at = 2 * self.threads.len() + LEAST;
        }
        self.threads.insert(tid, entry);
    }
}

/// All guest processes that have made an intercepted call.
pub struct ProcessTable {
    inner: Mutex<Inner>,
    deaths: Epoll,
    /// The sandbox's init, in the supervisor's numbers.
    init: AtomicI32,
    states: Mutex<States>,
    /// The program that the first process is about to run.
    first_launch: Mutex<Option<PendingExec>>,
    next_serial: AtomicU64,
    /// A procfs of the sandbox's pid namespace.
    proc: OnceLock<OwnedFd>,
    /// That namespace, where the kernel tells its numbers.
    namespace: OnceLock<Arc<PidNamespace>>,
    /// Those that have ended are noted here.
    peers: Arc<Mutex<Peers>>,
    /// How often processes have come to differ in what they may do from those they were forked with.
    differences: RwLock<u64>,
}

/// Hands the first 4 KiB of a `/proc` file to `parse`: such a file gives all it has in one read.
fn read_proc<T>(path: &str, parse: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let mut buf = [0; 4096];
    let read = || fs::File::open(path)?.read(&mut buf);
    let n = host("read a file", read).map_err(|_| Errno::ESRCH)?;
    Ok(parse(buf.get(..n).unwrap_or_default()))
}

/// Who traces a thread, in the supervisor's numbers: a process of the sandbox or of the host.
pub fn tracer_of(tid: Tid) -> Option<i32> {
    number_in_status(tid, "TracerPid:").filter(|&t| t != 0)
}

/// The parent of a thread's process, in the supervisor's numbers.
pub fn parent_of(tid: Tid) -> Option<i32> {
    number_in_status(tid, "PPid:")
}

fn number_in_status(tid: Tid, name: &str) -> Option<i32> {
    let find = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().parse().ok())
    };
    read_proc(&format!("/proc/{}/status", tid.0), find).ok()?
}

/// Device number of a thread's controlling terminal, as the host has it; `None` without one.
pub fn controlling_terminal(tid: Tid) -> Option<u64> {
    let text = read_file(format!("/proc/{}/stat", tid.0)).ok()?;
    // The second field is a name in brackets that may hold anything.
    let close = text.iter().rposition(|&b| b == b')')?;
    let rest = String::from_utf8_lossy(text.get(close + 1..)?);
    // Field 7, counted from 1; the first here is field 3.
    let terminal = rest.split_ascii_whitespace().nth(4)?.parse().ok()?;
    Some(terminal).filter(|&t| t != 0)
}

/// Children of a thread, in the host's numbers; none if it is gone.
pub(crate) fn children_of(tgid: i32, tid: i32) -> Vec<i32> {
    let text = read_text(format!("/proc/{tgid}/task/{tid}/children"));
    let text = text.unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|c| c.parse().ok())
        .collect()
}

/// The paths of what a directory of `/proc` lists; none if the process is gone, `ENOSPC` if it may not be
/// looked at.
fn entries(dir: &str) -> Result<Vec<String>> {
    match host("read a directory", || fs::read_dir(dir)) {
        Ok(list) => {
            let names = list.flatten();
            let path = |e: fs::DirEntry| e.path().to_str().map(String::from);
            Ok(names.filter_map(path).collect())
        }
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        Err(_) => Err(Errno::ENOSPC),
    }
}

fn is_gone(e: &std::io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn thread_group(tid: i32) -> Result<i32> {
    let text = read_text(format!("/proc/{tid}/status")).map_err(|_| Errno::ESRCH)?;
    let line = text.lines().find_map(|l| l.strip_prefix("Tgid:"));
    line.and_then(|l| l.trim().parse().ok()).ok_or(Errno::ESRCH)
}

impl ProcessTable {
    /// An empty table; `initial` is the state of the first process, which is to run `first`.
    pub fn new(initial: State, first: PendingExec) -> Result<ProcessTable> {
        let initial = State {
            number: states::FIRST,
            ..initial
        };
        Ok(ProcessTable {
            first_launch: Mutex::new(Some(first)),
            next_serial: AtomicU64::new(1),
            proc: OnceLock::new(),
            namespace: OnceLock::new(),
            peers: Arc::default(),
            inner: Mutex::default(),
            deaths: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            init: AtomicI32::new(0),
            states: Mutex::new(States::new(Arc::new(initial))),
            differences: RwLock::default(),
        })
    }

    /// What is known of the processes that have ended.
    pub fn peers(&self) -> Arc<Mutex<Peers>> {
        self.peers.clone()
    }

    /// Says which process is the sandbox's init.
    pub fn set_init(&self, pid: i32) {
        self.init.store(pid, Ordering::Relaxed);
        let namespace = PidNamespace::of(pid);
        if let Ok(namespace) = namespace.and_then(|n| n.inner(pid).map(|_| n)) {
            self.namespace.get_or_init(|| Arc::new(namespace));
        }
    }

    /// Gives the table a procfs of the sandbox's pid namespace.
    pub fn set_proc(&self, proc: OwnedFd) {
        if self.proc.set(proc).is_err() {
            log::error!("the process table got a second procfs");
        }
    }

    /// Whether `pid`, in the supervisor's numbers, is the sandbox's init.
    pub fn is_init(&self, pid: i32) -> bool {
        self.init.load(Ordering::Relaxed) == pid
    }

    /// The process of a thread, given by its id in the sandbox's numbers; not of init.
    pub fn by_guest_tid(&self, tid: i32) -> Option<Arc<Process>> {
        if let Some(process) = self.by_guest_pid(tid) {
            return Some(process);
        }
        let proc = self.proc.get()?.as_raw_fd();
        let status = format!("/proc/self/fd/{proc}/{tid}/status");
        let leader = read_proc(&status, |text| {
            let text = String::from_utf8_lossy(text);
            let line = text.lines().find_map(|l| l.strip_prefix("Tgid:"));
            line.and_then(|l| l.trim().parse().ok())
        });
        self.by_guest_pid(leader.ok().flatten()?)
    }

    /// The process of a thread that makes a call.
    pub fn of_thread(&self, tid: Tid) -> Result<Arc<Process>> {
        let now = Instant::now();
        if let Some(e) = self.inner.lock().threads.get(&tid.0)
            && e.is_trusted(now)
        {
            return Ok(e.process.clone());
        }
        self.enter(tid.0)
    }

    /// The process with this id in the supervisor's numbers, if it is known.
    pub fn by_host_pid(&self, pid: i32) -> Option<Arc<Process>> {
        let inner = self.inner.lock();
        inner
            .threads
            .get(&pid)
            .filter(|e| e.checked.is_none())
            .map(|e| e.process.clone())
    }

    /// The process with this id in the sandbox's numbers, until it has been waited for.
    pub fn by_guest_pid(&self, pid: i32) -> Option<Arc<Process>> {
        if let Some(namespace) = self.namespace.get() {
            let outer = namespace.outer(pid).ok().filter(|&p| !self.is_init(p))?;
            let process = self.known_or_entered(outer)?;
            return Some(process).filter(|p| p.guest_pid() == pid);
        }
        let is = |p: &Arc<Process>| p.guest_pid() == pid && p.exists();
        let ended = || self.inner.lock().ended.clone().into_iter();
        let known = self.all().into_iter().chain(ended()).find(is);
        known.or_else(|| self.enter_all().into_iter().find(is))
    }

    /// A process of the sandbox that has not been waited for, by the supervisor's number; not init.
    fn known_or_entered(&self, pid: i32) -> Option<Arc<Process>> {
        let ended = || {
            let inner = self.inner.lock();
            inner
                .ended
                .iter()
                .find(|p| p.tgid == pid && p.exists())
                .cloned()
        };
        self.by_host_pid(pid)
            .filter(|p| p.exists())
            .or_else(ended)
            .or_else(|| self.enter_child(pid))
    }

    /// Enters every process of the sandbox that has made no call yet; returns those.
    fn enter_all(&self) -> Vec<Arc<Process>> {
        const MOST: usize = 1 << 16;
        let mut queue = vec![self.init.load(Ordering::Relaxed)];
        let mut entered = Vec::new();
        let mut at = 0;
        while let Some(&pid) = queue.get(at) {
            at += 1;
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            let tasks = tasks.into_iter().flatten().flatten();
            for tid in tasks.filter_map(|t| t.file_name().to_str()?.parse().ok()) {
                let children = children_of(pid, tid);
                entered.extend(children.iter().filter_map(|&c| self.enter_child(c)));
                queue.extend(children);
            }
            if queue.len() > MOST {
                log::warn!("the sandbox has too many processes to look at each");
                break;
            }
        }
        entered
    }

    /// Every process of the sandbox, also those that have made no intercepted call yet.
    pub fn everyone(&self) -> Vec<Arc<Process>> {
        self.enter_all();
        self.all()
    }

    /// The host inodes that the descriptors of any process watch, inotify(7). `ENOSPC` if not all can be
    /// looked at. One that is on its way over a socket, and that nobody has open, is not seen.
    pub fn watched(&self) -> Result<HashSet<BackingId>> {
        let mut watched = HashSet::new();
        for process in self.everyone() {
            let tasks = entries(&format!("/proc/{}/task", process.tgid))?;
            for task in tasks {
                for fd in entries(&format!("{task}/fd"))? {
                    let link = fs::read_link(&fd).unwrap_or_default();
                    if link.as_os_str() != "anon_inode:inotify" {
                        continue;
                    }
                    match read_text(fd.replace("/fd/", "/fdinfo/")) {
                        Ok(info) => watched.extend(watched_in(&info)),
                        Err(e) if is_gone(&e) => (),
                        Err(_) => return Err(Errno::ENOSPC),
                    }
                }
            }
        }
        Ok(watched)
    }

    /// The state that the first process started with.
    pub fn initial_state(&self) -> Option<Arc<State>> {
        self.states.lock().get(states::FIRST)
    }

    /// Whether a living process runs this file.
    pub fn is_running(&self, file: &Location) -> bool {
        // Most files that are written to are no programs; that is known without a look around.
        if file
            .inode()
            .owner()
            .is_ok_and(|(mode, ..)| mode & 0o111 == 0)
        {
            return false;
        }
        let is = |program: Option<&Program>| {
            program.is_some_and(|p| Arc::ptr_eq(p.location.inode(), file.inode()))
        };
        // The kernel has done its part of an `execve` before the stub reports.
        let about_to = |p: &Process| {
            let pending = p.pending_exec.lock();
            is(pending.as_ref().and_then(|e| e.state.program.as_ref()))
        };
        let runs = |p: &Process| is(p.state().program.as_ref()) || about_to(p);
        self.all().iter().any(|p| runs(p) && p.is_alive())
    }

    /// Every known process.
    pub fn all(&self) -> Vec<Arc<Process>> {
        let inner = self.inner.lock();
        inner
            .threads
            .values()
            .filter(|e| e.checked.is_none())
            .map(|e| e.process.clone())
            .collect()
    }

    fn enter(&self, tid: i32) -> Result<Arc<Process>> {
        let pidfd = match open_pidfd(tid, 0) {
            Ok(fd) => fd,
            // Not a thread-group leader (EINVAL, and ENOENT of late).
            Err(Errno::EINVAL | Errno::ENOENT) => {
                let leader = thread_group(tid)?;
                let process = match self.by_host_pid(leader) {
                    Some(p) => p,
                    None => self.enter_leader(leader, open_pidfd(leader, 0)?)?,
                };
                let entry = Entry {
                    process: process.clone(),
                    checked: Some(Instant::now()),
                };
                self.inner.lock().enter_thread(tid, entry);
                return Ok(process);
            }
            Err(e) => return Err(e),
        };
        self.enter_leader(tid, pidfd)
    }

    /// Enters a process by its leader, which may have left already.
    fn enter_leader(&self, tid: i32, pidfd: OwnedFd) -> Result<Arc<Process>> {
        let state = self.inherited(tid)?;
        // The number has passed to a new process.
        self.peers.lock().remove(tid);
        let process = Arc::new(Process {
            tgid: tid,
            serial: self.next_serial.fetch_add(1, Ordering::Relaxed),
            pidfd,
            guest_pid: OnceLock::new(),
            namespace: self.namespace.get().cloned(),
            state: Mutex::new(state),
            pending_exec: Mutex::new(None),
            loads_natively: AtomicBool::new(false),
            held: Mutex::default(),
            holds: AtomicBool::new(false),
            accelerated: Mutex::default(),
        });
        {
            let mut inner = self.inner.lock();
            if let Some(e) = inner.threads.get(&tid).filter(|e| e.checked.is_none()) {
                return Ok(e.process.clone());
            }
            inner.threads.insert(
                tid,
                Entry {
                    process: process.clone(),
                    checked: None,
                },
            );
        }
        self.deaths.add(
            &process.pidfd,
            EpollEvent::new(EpollFlags::EPOLLIN, tid as u64),
        )?;
        Ok(process)
    }

    fn inherited(&self, pid: i32) -> Result<Arc<State>> {
        let number = states::stamp_of(pid)?;
        let state = self.states.lock().get(number);
        state.ok_or_else(|| {
            log::error!("process {pid} has inherited state {number}, which is not known");
            Errno::EPERM
        })
    }

    /// Changes the state of `process`, after `differ` if it comes to differ from others.
    pub fn change(
        &self,
        process: &Process,
        change: impl FnOnce(&mut State),
        differ: impl FnOnce(),
    ) {
        let mut state = process.state.lock();
        let mut new = State::clone(&state);
        change(&mut new);
        if new.creds != state.creds || !new.root.same(&state.root) {
            self.differ();
            differ();
        }
        self.install(process, &mut state, new);
        drop(state);
        self.forget_unused_states();
    }

    /// A process comes to differ in what it may do from those it was forked with, which may share descriptors
    /// with it.
    pub(crate) fn differ(&self) {
        *self.differences.write() += 1;
    }

    /// How often that has been so. It is not while this is held, which nothing is to wait with.
    pub(crate) fn differences(&self) -> RwLockReadGuard<'_, u64> {
        self.differences.read()
    }

    /// Announces an `execve` that the kernel does. What the process forks from now on is taken to be
    /// forked after it.
    pub fn announce_exec(&self, process: &Process, mut pending: PendingExec) {
        let state = self.states.lock().add(pending.state);
        pending.state = State::clone(&state);
        *process.pending_exec.lock() = Some(pending);
        process.loads_natively.store(true, Ordering::Release);
        if let Err(e) = states::stamp(process.tgid, state.number) {
            log::debug!("process {} is gone: {e}", process.tgid);
        }
        self.forget_unused_states();
    }

    /// After an `execve`.
    pub fn replace_state(&self, process: &Process, new: State) {
        *process.accelerated.lock() = Accelerated::default();
        let mut state = process.state.lock();
        self.install(process, &mut state, new);
        drop(state);
        self.forget_unused_states();
    }

    fn install(&self, process: &Process, state: &mut Arc<State>, new: State) {
        *state = self.states.lock().add(new);
        if let Err(e) = states::stamp(process.tgid, state.number) {
            log::debug!("process {} is gone: {e}", process.tgid);
        }
    }

    fn forget_unused_states(&self) {
        if !self.states.lock().are_crowded() {
            return;
        }
        // Whoever is unknown may hold any number.
        self.enter_all();
        let mut in_use = HashSet::new();
        for process in self.all() {
            // What the kernel is about to load it with is inherited by its number already.
            in_use.extend(process.pending_exec.lock().as_ref().map(|p| p.state.number));
            in_use.insert(process.state().number);
        }
        let forgotten = self.states.lock().keep(&in_use);
        // It may hold the last reference to a directory.
        drop(forgotten);
    }

    /// What the first process is to run; once.
    pub fn take_first_launch(&self) -> Option<PendingExec> {
        self.first_launch.lock().take()
    }

    /// Enters a child that is not known yet, and returns it.
    fn enter_child(&self, child: i32) -> Option<Arc<Process>> {
        let has_ended = |p: &Arc<Process>| p.tgid == child && p.exists();
        if self.by_host_pid(child).is_some() || self.inner.lock().ended.iter().any(has_ended) {
            return None;
        }
        self.enter(child)
            .inspect_err(|e| log::debug!("process {child} ended before it was entered: {e}"))
            .ok()
    }

    /// Waits for the end of processes and forgets them, for ever. For a thread of its own.
    pub fn watch_deaths(&self) {
        // Where many end, several at a time: each that wakes this thread is held up.
        const PAUSE: Duration = Duration::from_millis(2);
        let mut events = [EpollEvent::empty(); 64];
        loop {
            match self.deaths.wait(&mut events, EpollTimeout::NONE) {
                Ok(n) => {
                    events
                        .iter()
                        .take(n)
                        .for_each(|e| self.bury(e.data() as i32));
                    std::thread::sleep(PAUSE);
                }
                Err(Errno::EINTR) => (),
                Err(e) => return log::error!("waiting for the end of processes: {e}"),
            }
        }
    }

    fn bury(&self, tgid: i32) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.threads.remove(&tgid) else {
            return;
        };
        let process = entry.process;
        *process.accelerated.lock() = Accelerated::Never;
        if let Err(e) = self.deaths.delete(&process.pidfd) {
            log::debug!("process {tgid} was not watched: {e}");
        }
        inner
            .threads
            .retain(|_, e| !Arc::ptr_eq(&e.process, &process));
        inner.ended.push(process.clone());
        if inner.ended.len() > inner.sweep_at {
            const LEAST: usize = 16;
            inner.ended.retain(|p| p.exists());
            inner.sweep_at = 2 * inner.ended.len() + LEAST;
        }
        drop(inner);
        let creds = process.state().creds.clone();
        let peer = Peer {
            // If nobody asked in time, nobody can any more.
            pid: process.guest_pid.get().copied().unwrap_or(0),
            connects: None,
            uid: creds.euid,
            gid: creds.egid,
        };
        self.peers.lock().insert(tgid, peer);
    }
}

/// `PIDFD_THREAD` (Linux 6.9): of one thread.
const PIDFD_THREAD: i32 = libc::O_EXCL;

fn open_pidfd(pid: i32, flags: i32) -> Result<OwnedFd> {
    // SAFETY: plain integers; the kernel checks them.
    owned(host("pidfd_open", || unsafe {
        libc::syscall(libc::SYS_pidfd_open, pid, flags)
    }))
}

pub(crate) fn get_descriptor(pidfd: &OwnedFd, fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: plain integers; the kernel checks them.
    owned(host("pidfd_getfd", || unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0)
    }))
}

/// The descriptor that a system call has returned.
fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let n = Errno::result(result)?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(n as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_pid_is_the_last() {
        assert_eq!(innermost_pid("Pid:\t7\nNSpid:\t7\t3\t2\n"), 2);
        assert_eq!(innermost_pid("Pid:\t7\n"), 0);
    }
}

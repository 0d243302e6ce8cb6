//! The table of processes, which finds one by the id of a thread that makes a call.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use duet_intercept::Tid;
use duet_vfs::BackingId;
use duet_vfs::counted::read_text;
use duet_vfs::types::{Errno, Result};
use duet_vfs::walk::Location;
use duet_vfs::watch::watched_in;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::status::{children_of, entries, is_gone, read_proc, thread_group};
use super::{PendingExec, Process, Program, State, open_pidfd};
use crate::agents::Accelerated;
use crate::peers::{Peer, Peers};
use crate::pidns::PidNamespace;
use crate::states::{self, States};

/// The number of an entry that is not a thread-group leader is trusted this long: far less than it
/// takes to use up the numbers and give it to somebody else.
const THREAD_TRUST: Duration = Duration::from_millis(100);

thread_local! {
    /// The process whose call this thread serves. It is there until it is answered.
    static SERVED: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// Serves a call of `process`, which asks about itself more than about any other.
pub(crate) fn serving<T>(process: &Arc<Process>, serve: impl FnOnce() -> T) -> T {
    struct Restored(Option<Arc<Process>>);
    impl Drop for Restored {
        fn drop(&mut self) {
            SERVED.replace(self.0.take());
        }
    }
    let _before = Restored(SERVED.replace(Some(process.clone())));
    serve()
}

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
        let served = SERVED.with_borrow(|p| p.clone().filter(|p| p.guest_pid() == pid));
        if served.is_some() {
            return served;
        }
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

    /// Whether any process has this host file open; true if not all can be looked at.
    pub fn has_open(&self, id: BackingId) -> bool {
        let look = || -> Result<bool> {
            for process in self.everyone() {
                for task in entries(&format!("/proc/{}/task", process.tgid))? {
                    for fd in entries(&format!("{task}/fd"))? {
                        let is = |file: fs::Metadata| (file.dev(), file.ino()) == (id.dev, id.ino);
                        if fs::metadata(&fd).is_ok_and(is) {
                            return Ok(true);
                        }
                    }
                }
            }
            Ok(false)
        };
        look().unwrap_or(true)
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
            executing: Mutex::new(None),
            loads_natively: AtomicBool::new(false),
            held: Mutex::default(),
            holds: AtomicBool::new(false),
            accelerated: Mutex::default(),
            owed: Mutex::default(),
            executions: AtomicU64::new(0),
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
        process.loses_agent();
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

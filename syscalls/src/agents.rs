//! Calls that come from agents in the guests ([`duet_intercept::agent`]): which processes get one, and who
//! looks for what they ask.
//!
//! A process whose first thread keeps making calls of the kind that an agent can hand over (`roles`) gets one
//! while it is the only thread. A thread of the supervisor, the *lookout*, answers what agents ask. It
//! looks without a pause, which costs a processor, so it does so only while calls keep coming: it is woken by
//! a call that an agent has not handed over, stops a moment after the last call, and is woken the less
//! the less it had to do.
//!
//! A call that changes something is made once: what says that a call comes the other way is said before anything has
//! been done ([`channel`] has the protocol). Where the descriptor of a file that has been made cannot be sent, the
//! process is owed it, and gets it as the answer to the same call as a notification.
//!
//! Not for every process: one that is traced, or has a filter of its own (seccomp(2)), has its calls
//! seen by somebody else, and an agent would hide them.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use duet_intercept::agent::{Agent, Other, Request, Roles, Site, channel, comes_from_site};
use duet_intercept::{ARCH_X86_64, Answer, Call, Tid};
use duet_vfs::haste::in_haste;
use parking_lot::{Condvar, Mutex};

use crate::handlers;
use crate::kernel::Kernel;
use crate::process::{Process, children_of, parent_of};
use crate::table::{self, Verdict};
use crate::task::{Reply, Staged, Task};

/// Calls after which a process gets an agent.
const BUSY: u32 = 64;
/// Processes that have one, at most.
const MOST: usize = 64;
/// How long the lookout looks after the last call.
const WINDOW: Duration = Duration::from_micros(100);
/// Looks between two glances at the clock.
const LOOKS: u32 = 64;
/// Calls in one go that were worth it.
const WORTH_IT: u64 = 4;
/// How often it is not woken, at most, after it was not worth it.
const MOST_SKIPPED: u32 = 256;

/// A call that an agent can hand over: which argument is what to it.
struct HandedOver {
    name: &'static str,
    roles: Roles,
}

/// A call that changes nothing: it may be made twice.
const fn looks(name: &'static str, path: Option<u8>, out: Option<u8>) -> HandedOver {
    let roles = Roles {
        path,
        out,
        other: None,
        descriptor: false,
        changes: false,
    };
    HandedOver { name, roles }
}

/// A call that changes something.
const fn changes(name: &'static str, path: Option<u8>, other: Option<(u8, Other)>) -> HandedOver {
    let roles = Roles {
        path,
        out: None,
        other,
        descriptor: false,
        changes: true,
    };
    HandedOver { name, roles }
}

/// A call that gives a descriptor; without flags, it makes or cuts a file.
const fn opens(name: &'static str, path: u8, flags: Option<u8>) -> HandedOver {
    let (other, changes) = match flags {
        Some(arg) => (Some((arg, Other::Flags)), false),
        None => (None, true),
    };
    let roles = Roles {
        path: Some(path),
        out: None,
        other,
        descriptor: true,
        changes,
    };
    HandedOver { name, roles }
}

/// What an agent can hand over. An answer that is neither a number nor a descriptor is given before anything has
/// been changed.
const HANDED_OVER: &[HandedOver] = &[
    looks("stat", Some(0), Some(1)),
    looks("lstat", Some(0), Some(1)),
    looks("fstat", None, Some(1)),
    looks("newfstatat", Some(1), Some(2)),
    looks("statx", Some(1), Some(4)),
    looks("statfs", Some(0), Some(1)),
    looks("fstatfs", None, Some(1)),
    looks("access", Some(0), None),
    looks("faccessat", Some(1), None),
    looks("faccessat2", Some(1), None),
    looks("readlink", Some(0), Some(1)),
    looks("readlinkat", Some(1), Some(2)),
    looks("getdents64", None, Some(1)),
    looks("getcwd", None, Some(0)),
    looks("uname", None, Some(0)),
    looks("getuid", None, None),
    looks("geteuid", None, None),
    looks("getgid", None, None),
    looks("getegid", None, None),
    opens("open", 0, Some(1)),
    opens("openat", 1, Some(2)),
    opens("creat", 0, None),
    changes("mkdir", Some(0), None),
    changes("mkdirat", Some(1), None),
    changes("rmdir", Some(0), None),
    changes("unlink", Some(0), None),
    changes("unlinkat", Some(1), None),
    changes("rename", Some(0), Some((1, Other::String))),
    changes("renameat", Some(1), Some((3, Other::String))),
    changes("renameat2", Some(1), Some((3, Other::String))),
    changes("link", Some(0), Some((1, Other::String))),
    changes("linkat", Some(1), Some((3, Other::String))),
    changes("symlink", Some(0), Some((1, Other::String))),
    changes("symlinkat", Some(0), Some((2, Other::String))),
    changes("mknod", Some(0), None),
    changes("mknodat", Some(1), None),
    changes("chmod", Some(0), None),
    changes("fchmod", None, None),
    changes("fchmodat", Some(1), None),
    changes("chown", Some(0), None),
    changes("lchown", Some(0), None),
    changes("fchown", None, None),
    changes("fchownat", Some(1), None),
    changes("utimes", Some(0), Some((1, Other::Times))),
    changes("utimensat", Some(1), Some((2, Other::Times))),
    changes("truncate", Some(0), None),
    changes("chdir", Some(0), None),
    changes("fchdir", None, None),
    changes("umask", None, None),
];

/// The flags of a file that a call opens; `None` if it opens none.
fn open_flags(roles: Roles, args: &[u64; 6]) -> Option<i32> {
    let flags = match roles.other {
        Some((arg, Other::Flags)) => args.get(usize::from(arg)).map(|&a| a as i32),
        _ => Some(libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC),
    };
    flags.filter(|_| roles.descriptor)
}

/// The roles of a call's arguments; `None` if agents do not hand it over.
fn roles(nr: u32) -> Option<Roles> {
    static BY_NUMBER: OnceLock<Vec<Option<Roles>>> = OnceLock::new();
    let by_number = BY_NUMBER.get_or_init(|| {
        let mut all = vec![None; 512];
        for call in HANDED_OVER {
            let row = table::by_name(call.name);
            if let Some(slot) = row.and_then(|r| all.get_mut(r.nr as usize)) {
                *slot = Some(call.roles);
            }
        }
        all
    });
    by_number.get(nr as usize).copied().flatten()
}

/// What a process has. Set anew before its state is, when it executes a program.
pub enum Accelerated {
    /// No agent; so many calls that one could have handed over.
    Calls(u32),
    /// None yet, but this one is on its way.
    Coming(Arc<Agent>),
    /// This one.
    By(Arc<Agent>),
    /// None, and it gets none.
    Never,
}

impl Default for Accelerated {
    fn default() -> Accelerated {
        Accelerated::Calls(0)
    }
}

/// How a call was served.
enum Served {
    /// Its result, and what goes to the caller's memory.
    Value(i64, Vec<u8>),
    /// The caller gets this descriptor, which `execve` closes or not; if that has changed something, it is owed it.
    Descriptor(OwnedFd, bool, Option<Debt>),
    /// Not at all, as all that give a descriptor from now on.
    Alone,
}

/// A call that has been made, and whose descriptor its caller does not have.
struct Debt {
    nr: u32,
    args: [u64; 6],
    /// [`Process::executions`] then.
    executions: u64,
}

/// What a process gets when it makes a call again that its agent has handed over.
pub(crate) struct Owed {
    debt: Debt,
    fd: OwnedFd,
    cloexec: bool,
}

/// A process, and its agent.
type Pair = (Arc<Process>, Arc<Agent>);

/// The agents of a sandbox.
#[derive(Default)]
pub struct Agents {
    list: Mutex<Vec<(Weak<Process>, Arc<Agent>)>>,
    /// Counts changes of the list.
    changes: AtomicU64,
    /// Set when no process is to have one any more.
    closed: AtomicBool,
    wanted: Mutex<bool>,
    wake: Condvar,
    looks: AtomicBool,
    /// How often the lookout is not to be woken.
    skip: AtomicU32,
    /// Held while an agent is brought: one at a time, as that may take long if the guest wants it to.
    bringing: Mutex<()>,
    /// Calls that were answered so.
    served: AtomicU64,
}

impl Agents {
    /// How many calls came by agents.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// From now on all calls go the other way.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let list = std::mem::take(&mut *self.list.lock());
        list.iter().for_each(|(_, a)| a.channel().listen(false));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The process has no agent any more, and gets none.
    pub fn retire(&self, process: &Process) {
        let had = std::mem::replace(&mut *process.accelerated.lock(), Accelerated::Never);
        let Accelerated::By(agent) = had else {
            return;
        };
        self.list.lock().retain(|(_, a)| !Arc::ptr_eq(a, &agent));
        self.changes.fetch_add(1, Ordering::Release);
        agent.channel().listen(false);
    }

    fn add(&self, process: &Arc<Process>, agent: Arc<Agent>) {
        let mut list = self.list.lock();
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        list.push((Arc::downgrade(process), agent));
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn has_room(&self) -> bool {
        let mut list = self.list.lock();
        if list.len() >= MOST {
            list.retain(is_used);
        }
        list.len() < MOST
    }

    /// A call could have been handed over.
    fn want(&self) {
        if self.looks.load(Ordering::Relaxed) {
            return;
        }
        let down = |n: u32| n.checked_sub(1);
        let relaxed = Ordering::Relaxed;
        if self.skip.fetch_update(relaxed, relaxed, down).is_ok() {
            return;
        }
        *self.wanted.lock() = true;
        self.wake.notify_one();
    }

    /// Answers what agents ask, for ever. For a thread of its own.
    pub fn look_out(&self, kernel: &Arc<Kernel>) {
        let mut penalty = 0;
        loop {
            let mut wanted = self.wanted.lock();
            while !*wanted {
                self.wake.wait(&mut wanted);
            }
            *wanted = false;
            drop(wanted);
            self.looks.store(true, Ordering::Relaxed);
            let served = self.look(kernel);
            self.looks.store(false, Ordering::Relaxed);
            penalty = match served {
                WORTH_IT.. => 0,
                _ => (penalty * 2 + 1).min(MOST_SKIPPED),
            };
            self.skip.store(penalty, Ordering::Relaxed);
        }
    }

    /// Looks until no calls come any more. Returns how many came.
    fn look(&self, kernel: &Arc<Kernel>) -> u64 {
        let (mut list, mut seen) = self.listening();
        let (mut served, mut last) = (0, Instant::now());
        'look: loop {
            for _ in 0..LOOKS {
                let mut any = false;
                for (process, agent) in &list {
                    if let Some(request) = agent.channel().take() {
                        answer(kernel, process, agent, request);
                        any = true;
                        served += 1;
                    }
                }
                if any {
                    last = Instant::now();
                } else {
                    std::hint::spin_loop();
                }
            }
            if last.elapsed() > WINDOW {
                break 'look;
            }
            if self.changes.load(Ordering::Acquire) != seen {
                (list, seen) = self.listening();
            }
        }
        for (_, agent) in &list {
            agent.channel().listen(false);
        }
        self.served.fetch_add(served, Ordering::Relaxed);
        served
    }

    /// All agents in use, who are told that somebody looks.
    fn listening(&self) -> (Vec<Pair>, u64) {
        let mut list = self.list.lock();
        let seen = self.changes.load(Ordering::Acquire);
        list.retain(is_used);
        let all = list
            .iter()
            .filter_map(|(p, a)| Some((p.upgrade()?, a.clone())));
        let all: Vec<_> = all.collect();
        all.iter().for_each(|(_, a)| a.channel().listen(true));
        (all, seen)
    }
}

fn is_used((process, agent): &(Weak<Process>, Arc<Agent>)) -> bool {
    let process = process.upgrade();
    process.is_some_and(|p| has(&p, agent) && p.is_alive())
}

/// Whether this is the agent of the process.
fn has(process: &Process, agent: &Arc<Agent>) -> bool {
    matches!(&*process.accelerated.lock(), Accelerated::By(a) if Arc::ptr_eq(a, agent))
}

/// Answers what `agent` asks for `process`.
fn answer(kernel: &Arc<Kernel>, process: &Arc<Process>, agent: &Arc<Agent>, request: Request) {
    let channel = agent.channel();
    let serve = AssertUnwindSafe(|| serve(kernel, process, agent, request));
    match catch_unwind(serve) {
        Ok(Some(Served::Value(result, out))) => channel.answer(result, &out),
        Ok(Some(Served::Descriptor(fd, cloexec, debt))) => {
            let differences = kernel.processes.differences();
            let sent = agent.send(&fd, *differences);
            drop(differences);
            match (sent, debt) {
                (Some(tag), _) => {
                    // The caller is to hold it alone when it goes on (flock(2)).
                    drop(fd);
                    channel.pass(tag, cloexec);
                }
                (None, Some(debt)) => {
                    *process.owed.lock() = Some(Owed { debt, fd, cloexec });
                    channel.owe();
                }
                (None, None) => {
                    drop(fd);
                    channel.decline();
                }
            }
        }
        Ok(Some(Served::Alone)) => channel.give_up_socket(),
        Ok(None) => channel.decline(),
        Err(_) => {
            log::error!("a call of an agent could not be served");
            channel.decline();
        }
    }
}

/// Serves a call as [`crate::dispatch`] does. `None` if it has to come the other way.
fn serve(
    kernel: &Arc<Kernel>,
    process: &Arc<Process>,
    agent: &Arc<Agent>,
    r: Request,
) -> Option<Served> {
    // In this order: with another program, which may have other privileges, it has another agent or none. Others
    // may share the memory that this one speaks by, and speak on.
    let executions = process.executions();
    let state = process.state();
    if !has(process, agent) {
        return None;
    }
    let roles = roles(r.nr)?;
    let size = |i: usize| r.args.get(i).copied().unwrap_or(u64::MAX);
    // The entries that it gives are gone from the stream: they have to fit.
    if i64::from(r.nr) == libc::SYS_getdents64 && size(2) > channel::OUT_ROOM as u64 {
        return None;
    }
    if table::verdict(ARCH_X86_64, r.nr, &r.args) != Verdict::Emulated {
        return None;
    }
    let mut changes = roles.changes;
    if let Some(flags) = open_flags(roles, &r.args) {
        // Which number a descriptor gets, only the caller knows: who watches is to hear of it.
        let is_watched = kernel.engine.watches_agents();
        if is_watched || !agent.passes(*kernel.processes.differences()) {
            return Some(Served::Alone);
        }
        if flags & libc::O_TMPFILE & !libc::O_DIRECTORY != 0 {
            return None;
        }
        changes |= flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    }
    // Whoever waits for its end is not to see it change anything after that.
    if changes && !process.is_alive() {
        return None;
    }
    let debt = changes.then_some(Debt {
        nr: r.nr,
        args: r.args,
        executions,
    });
    let handler = handlers::of(r.nr)?;
    let at = roles.out.and_then(|i| r.args.get(usize::from(i)).copied());
    let path = roles.path.map(|i| (usize::from(i), r.path));
    let (mut other, mut times) = (None, None);
    match roles.other {
        Some((i, Other::String)) => other = Some((i.into(), agent.channel().other_string())),
        Some((i, Other::Times)) => times = Some((i.into(), agent.channel().times().to_vec())),
        Some((_, Other::Flags)) | None => (),
    }
    let staged = Staged::new([path, other], times, at, channel::OUT_ROOM);
    let call = Call {
        id: NUMBERED_HERE | NEXT.fetch_add(1, Ordering::Relaxed),
        tid: Tid(process.host_pid()),
        arch: ARCH_X86_64,
        nr: r.nr,
        args: r.args,
        ip: 0,
    };
    let task = Task {
        kernel: kernel.clone(),
        process: process.clone(),
        state,
        call,
        staged: Some(Arc::new(staged)),
    };
    let is_watched = kernel.engine.watches_agents();
    if is_watched {
        kernel.engine.agent_asks(&call);
    }
    // All agents wait meanwhile, and this one's thread with its signals blocked.
    let reply = in_haste(|| handler(&task));
    let out = task.staged.as_ref().and_then(|s| s.take());
    let served = out.zip(reply).and_then(|(out, reply)| match reply {
        Ok(Reply::Value(v)) => Some(Served::Value(v, out)),
        Err(e) => Some(Served::Value(-i64::from(e as i32), out)),
        Ok(Reply::Descriptor { fd, cloexec }) => Some(Served::Descriptor(fd, cloexec, debt)),
        Ok(_) => None,
    });
    if is_watched {
        let answer = match &served {
            Some(Served::Value(value, out)) => {
                let out = at.map(|at| (at, out.as_slice()));
                Some((*value, out.filter(|(_, bytes)| !bytes.is_empty())))
            }
            _ => None,
        };
        kernel.engine.agent_is_answered(&call, answer);
    }
    if served.is_some() {
        kernel.counters.count(r.nr, Verdict::Emulated);
    }
    served
}

/// Calls that agents ask for are numbered here, those of engines below this.
const NUMBERED_HERE: u64 = 1 << 63;
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What a call has come to already that comes as a notification.
pub(crate) fn take_owed(task: &Task) -> Option<Reply> {
    let (call, process) = (&task.call, &task.process);
    if call.tid.0 != process.host_pid() || !roles(call.nr)?.descriptor {
        return None;
    }
    // Nothing else comes before it from a thread that keeps to the protocol.
    let Owed { debt, fd, cloexec } = process.owed.lock().take()?;
    let of_this = (debt.nr, debt.args, debt.executions);
    let is_this = of_this == (call.nr, call.args, process.executions());
    is_this.then_some(Reply::Descriptor { fd, cloexec })
}

/// Before a call is answered that came as a notification: brings its process an agent, or sends its site
/// there, where that is worth it. True if the call has been answered.
pub(crate) fn answered(task: &Task, answer: Answer) -> bool {
    let (kernel, call, process) = (&task.kernel, &task.call, &task.process);
    let agents = match &kernel.agents {
        Some(agents) if !agents.closed.load(Ordering::Relaxed) => agents,
        _ => return false,
    };
    let Some(roles) = roles(call.nr).filter(|_| call.tid.0 == process.host_pid()) else {
        return false;
    };
    let mut accelerated = process.accelerated.lock();
    match &mut *accelerated {
        Accelerated::Never | Accelerated::Coming(_) => false,
        Accelerated::Calls(n) if *n < BUSY => {
            *n += 1;
            false
        }
        Accelerated::Calls(n) => {
            *n = 0;
            drop(accelerated);
            let can = comes_from_site(call) && is_alone(kernel, process) && agents.has_room();
            can && bring(agents, task, answer)
        }
        Accelerated::By(agent) => {
            let agent = agent.clone();
            drop(accelerated);
            send_site(agents, task, &agent, roles);
            false
        }
    }
}

/// Before a call is answered with a descriptor: sends its site to the agent that its process has. True if the process
/// may be brought one, which takes an answer that is a number ([`answered`]).
pub(crate) fn gives_descriptor(task: &Task) -> bool {
    let (call, process) = (&task.call, &task.process);
    let agents = match &task.kernel.agents {
        Some(agents) if !agents.closed.load(Ordering::Relaxed) => agents,
        _ => return false,
    };
    let Some(roles) = roles(call.nr).filter(|_| call.tid.0 == process.host_pid()) else {
        return false;
    };
    let agent = match &mut *process.accelerated.lock() {
        Accelerated::By(agent) => agent.clone(),
        Accelerated::Calls(n) => {
            *n += 1;
            return *n > BUSY;
        }
        _ => return false,
    };
    send_site(agents, task, &agent, roles);
    false
}

/// Has the site of a call go to the agent of its process, and the lookout look, unless the site cannot.
fn send_site(agents: &Agents, task: &Task, agent: &Agent, roles: Roles) {
    let (kernel, call, process) = (&task.kernel, &task.call, &task.process);
    let waits = || kernel.engine.is_live(call);
    match agent.redirect(call, roles, waits, || is_alone(kernel, process)) {
        Ok(Site::Redirected | Site::New) => agents.want(),
        Ok(Site::Other) => (),
        Err(e) => log::debug!("process {}: its sites stay: {e}", process.host_pid()),
    }
}

/// Whether nobody else runs in the memory of the process: other threads of its own, a parent that waits for it to
/// execute a program, or a child.
fn is_alone(kernel: &Kernel, process: &Process) -> bool {
    let pid = process.host_pid();
    // One link for itself, one for its parent, and one for each thread.
    let tasks = fs::metadata(format!("/proc/{pid}/task"));
    if !tasks.is_ok_and(|m| m.st_nlink() == 3) {
        return false;
    }
    let parent = parent_of(Tid(pid));
    let alien =
        |other: i32| kernel.processes.is_init(other) || shares_memory(pid, other) == Some(false);
    parent.is_some_and(alien) && children_of(pid, pid).into_iter().all(alien)
}

/// Whether two processes share their memory; `None` if that cannot be told.
fn shares_memory(one: i32, other: i32) -> Option<bool> {
    /// `KCMP_VM` of kcmp(2).
    const VM: i32 = 1;
    // SAFETY: integers.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, VM, 0, 0) };
    (order >= 0).then_some(order == 0)
}

/// The filter that the caller installs is to see all its calls: also those that it makes in the memory of another.
pub(crate) fn filters(task: &Task) {
    task.differ();
    let Some(agents) = &task.kernel.agents else {
        return;
    };
    let pid = task.process.host_pid();
    agents.retire(&task.process);
    let parent = parent_of(Tid(pid)).filter(|&p| shares_memory(pid, p) == Some(true));
    if let Some(parent) = parent.and_then(|p| task.kernel.processes.by_host_pid(p)) {
        agents.retire(&parent);
    }
}

/// Answers a call and brings the caller's process an agent. False if the call has not been answered.
fn bring(agents: &Agents, task: &Task, answer: Answer) -> bool {
    let (kernel, process) = (&task.kernel, &task.process);
    let Some(_one) = agents.bringing.try_lock() else {
        return false;
    };
    if has_own_filter(process) {
        *process.accelerated.lock() = Accelerated::Never;
        return false;
    }
    let differences = *kernel.processes.differences();
    let agent = match Agent::new(differences) {
        Ok(agent) => Arc::new(agent),
        Err(e) => {
            log::debug!("no agent for process {}: {e}", process.host_pid());
            return false;
        }
    };
    *process.accelerated.lock() = Accelerated::Coming(agent.clone());
    let owner = process.guest_pid();
    let brought = kernel
        .engine
        .answer_with_agent(&task.call, answer, &agent, owner);
    if let Err(e) = brought {
        log::debug!("no agent for process {}: {e}", process.host_pid());
    }
    // It runs already: it may have executed a program, or installed a filter.
    let mut accelerated = process.accelerated.lock();
    if matches!(&*accelerated, Accelerated::Coming(a) if Arc::ptr_eq(a, &agent)) {
        if brought.is_err() {
            *accelerated = Accelerated::Never;
            return true;
        }
        *accelerated = Accelerated::By(agent.clone());
        drop(accelerated);
        agents.add(process, agent);
    }
    true
}

/// Whether the guest has installed a filter in the process or one that it descends from.
fn has_own_filter(process: &Process) -> bool {
    fn filters(pid: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("Seccomp_filters:"));
        line.and_then(|l| l.trim().parse().ok())
    }
    // Duet's own is one more than the supervisor has.
    let of_all = filters("self").map(|n| n + 1);
    let of_process = filters(&process.host_pid().to_string());
    of_process.is_none() || of_process != of_all
}

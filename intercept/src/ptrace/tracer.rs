//! What the tracing thread does: stops of guest threads, and the requests that let them go on.

use std::collections::HashMap;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::hold::{Holds, Runs};
use super::{Shared, TRACE_DATA};
use crate::observer::{ERESTARTSYS, ended};
use crate::{
    ARCH_X86_64, Answer, Call, Ended, Errno, Executed, Observer, Replacement, Result, Tid, mem,
    signals,
};

/// Length of the `syscall` instruction.
pub(super) const SYSCALL_LEN: u64 = 2;

/// A number that no call has: the kernel skips the call, and restarts nothing.
pub(super) const NO_CALL: u64 = u64::MAX;

const ORIG_RAX: usize = offset_of!(user_regs_struct, orig_rax);
const RAX: usize = offset_of!(user_regs_struct, rax);

/// A guest thread.
pub(super) struct Task {
    /// Its process.
    pub(super) tgid: i32,
    pub(super) state: State,
}

/// What a thread is about.
pub(super) enum State {
    /// Nothing of the engine's.
    Free,
    /// It waits in a call that was yielded.
    Called(Called),
    /// It runs a call whose result is of interest.
    Native(Call),
    /// It is to be interrupted: the call is skipped, and at its exit made to look so.
    Interrupted(Call),
    /// It performs another call in place of its own.
    Replaced {
        call: Call,
        /// What it does.
        by: Replacement,
        /// Its registers in its own call.
        saved: Box<user_regs_struct>,
        /// What is done if it executes a program so.
        executed: Executed,
    },
}

/// A thread that waits for its answer.
pub(super) struct Called {
    pub(super) call: Call,
    /// If it has performed calls for the engine already: its registers from before. It is at the exit
    /// of the last one then, else at the entry of its own.
    pub(super) saved: Option<Box<user_regs_struct>>,
    /// Its signal mask, if that was replaced.
    pub(super) mask: Option<u64>,
    /// It was to stop with its process meanwhile.
    pub(super) stop_later: bool,
}

/// What the engine has in a guest process.
#[derive(Clone, Default)]
pub(super) struct Process {
    /// Address of its page.
    pub(super) page: Option<u64>,
    pub(super) socket: Option<Socket>,
}

/// By which a process receives descriptors. Forked children share it, as long as none of them may do less than
/// another ([`Engine::differ`](crate::Engine::differ)): they could take what is meant for each other.
#[derive(Clone)]
pub(super) struct Socket {
    /// The supervisor's end.
    pub(super) ours: Arc<OwnedFd>,
    /// The guest's number for its end.
    pub(super) theirs: i32,
    /// Which file that is: device and inode.
    pub(super) id: (u64, u64),
    /// How often processes had come to differ when it was made.
    pub(super) differences: u64,
}

/// All guest threads, in the hands of the thread that traces them.
pub(super) struct Tracer {
    pub(super) tasks: HashMap<i32, Task>,
    pub(super) processes: HashMap<i32, Process>,
    observer: Option<Arc<dyn Observer>>,
    pub(super) shared: Arc<Shared>,
    next_id: u64,
    /// Of calls that guests make for the engine.
    pub(super) mark: u32,
    /// Counts messages with descriptors.
    pub(super) messages: u64,
    pub(super) holds: Holds,
    early: Vec<Early>,
}

/// A new thread that has stopped before its parent has told of it, and whose affinity hangs on that.
struct Early {
    tid: i32,
    /// With what it has stopped.
    status: i32,
    tgid: i32,
    /// The parent of its process.
    parent: Option<i32>,
}

/// Waits for a traced thread, or for any (-1).
pub(super) fn wait(tid: i32) -> Result<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is ours. Only this thread's tracees and children are waited for.
    let n = unsafe { libc::waitpid(tid, &mut status, libc::__WALL | libc::__WNOTHREAD) };
    Errno::result(n).map(|n| (n, status))
}

/// Lets a thread go on, to its next stop at a call if `to_call`.
pub(super) fn resume(tid: i32, to_call: bool, signal: i32) -> Result<()> {
    let request = if to_call {
        libc::PTRACE_SYSCALL
    } else {
        libc::PTRACE_CONT
    };
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: neither request has pointers; the signal is a number. Real-time signals have no `Signal`.
    let n = unsafe { libc::ptrace(request, tid, nothing, i64::from(signal)) };
    Errno::result(n).map(drop)
}

/// Which kind of stop at a call this is, and its details.
pub(super) enum Stop {
    /// The filter asks.
    Filter { call: Call, data: u32 },
    /// At the entry.
    Entry { arch: u32, nr: u32 },
    /// At the exit, with the result.
    Exit(i64),
    /// None.
    Other,
}

pub(super) fn stop_at(tid: i32) -> Result<Stop> {
    // `nix` asks for no byte of it.
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>() as *mut libc::c_void;
    let request = libc::PTRACE_GET_SYSCALL_INFO;
    // SAFETY: `info` has the size that is announced.
    Errno::result(unsafe { libc::ptrace(request, tid, size, info.as_mut_ptr()) })?;
    // SAFETY: all zeros, or what the kernel has written over them.
    let info = unsafe { info.assume_init() };
    // SAFETY: `op` says which member of the union the kernel has filled.
    unsafe {
        Ok(match info.op {
            libc::PTRACE_SYSCALL_INFO_SECCOMP => Stop::Filter {
                call: Call {
                    id: 0,
                    tid: Tid(tid),
                    arch: info.arch,
                    nr: info.u.seccomp.nr as u32,
                    args: info.u.seccomp.args,
                    ip: info.instruction_pointer,
                },
                data: info.u.seccomp.ret_data,
            },
            libc::PTRACE_SYSCALL_INFO_ENTRY => Stop::Entry {
                arch: info.arch,
                nr: info.u.entry.nr as u32,
            },
            libc::PTRACE_SYSCALL_INFO_EXIT => Stop::Exit(info.u.exit.sval),
            _ => Stop::Other,
        })
    }
}

fn poke(tid: i32, offset: usize, value: u64) -> Result<()> {
    let at = offset as *mut libc::c_void;
    ptrace::write_user(Pid::from_raw(tid), at, value as i64)
}

/// The process of a thread, and the parent of that.
fn family(tid: i32) -> (i32, Option<i32>) {
    let text = mem::read_proc(&format!("/proc/{tid}/status")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let field = |name: &str| -> Option<i32> {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    (field("Tgid:").unwrap_or(tid), field("PPid:"))
}

/// Whether a thread is the leader of its process.
fn leads(tid: i32) -> bool {
    // SAFETY: integers; no signal is sent.
    let n = unsafe { libc::syscall(libc::SYS_tgkill, tid, tid, 0) };
    // It may not be for us to send it signals.
    !matches!(Errno::result(n), Err(Errno::ESRCH))
}

/// Puts a call's number and arguments into registers.
pub(super) fn set_args(regs: &mut user_regs_struct, args: [u64; 6]) {
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
}

impl Tracer {
    pub(super) fn new(
        observer: Option<Arc<dyn Observer>>,
        shared: Arc<Shared>,
        mark: u32,
    ) -> Tracer {
        Tracer {
            tasks: HashMap::new(),
            processes: HashMap::new(),
            observer,
            holds: Holds::new(shared.clone()),
            early: Vec::new(),
            shared,
            next_id: 1,
            mark,
            messages: 0,
        }
    }

    pub(super) fn add_first(&mut self, pid: i32) {
        self.add(pid, pid, None);
    }

    /// Enters a thread, and its process, which has what its parent has, if that is given.
    fn add(&mut self, tid: i32, tgid: i32, parent: Option<i32>) {
        let state = State::Free;
        self.tasks.insert(tid, Task { tgid, state });
        if self.processes.contains_key(&tgid) {
            return;
        }
        // A copy of its parent's memory has the page too, and a copy of its descriptors the socket. The parent is
        // still in its fork: it cannot have executed anything meanwhile.
        let parent = parent.and_then(|p| self.processes.get(&p));
        let process = parent.cloned().unwrap_or_default();
        if let Some(socket) = &process.socket {
            let number = socket.theirs;
            self.shared.sockets.lock().insert(tgid, number);
        }
        self.processes.insert(tgid, process);
    }

    /// Enters a thread that is seen for the first time, by itself or as what another has made.
    fn adopt(&mut self, tid: i32) {
        if self.tasks.contains_key(&tid) {
            return;
        }
        let (tgid, parent) = family(tid);
        self.add(tid, tgid, parent);
    }

    /// Enters what `parent` has made.
    fn adopt_from(&mut self, tid: i32, parent: i32) {
        if self.tasks.contains_key(&tid) {
            return;
        }
        let Some(group) = self.tasks.get(&parent).map(|t| t.tgid) else {
            return self.adopt(tid);
        };
        let tgid = if leads(tid) { tid } else { group };
        self.add(tid, tgid, Some(group));
    }

    /// Goes on with children that were there before their parent said so: `tid` has made them, unless it says
    /// more.
    fn settle_early(&mut self, tid: i32) {
        let Some(group) = self.tasks.get(&tid).map(|t| t.tgid) else {
            return;
        };
        let of_group = |e: &mut Early| e.tgid == group || e.parent == Some(group);
        let settled: Vec<Early> = self.early.extract_if(.., of_group).collect();
        for child in settled {
            self.holds.made(child.tid, tid);
            self.adopt_from(child.tid, tid);
            self.event(child.tid, child.status);
        }
    }

    /// One report of the kernel's. A call, if it is one to serve.
    pub(super) fn event(&mut self, tid: i32, status: i32) -> Option<Call> {
        if self.observer.is_some() {
            mem::attend(Tid(tid));
        }
        if !libc::WIFSTOPPED(status) {
            self.end(tid, status);
            return None;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if !self.tasks.contains_key(&tid) {
            if self.holds.may_have_inherited(tid) {
                let (tgid, parent) = family(tid);
                self.early.push(Early {
                    tid,
                    status,
                    tgid,
                    parent,
                });
                return None;
            }
            self.adopt(tid);
        }
        self.holds.stopped(tid);
        let forks = matches!(
            event,
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE
        );
        if !(forks || self.early.is_empty()) {
            self.settle_early(tid);
        }
        match event {
            libc::PTRACE_EVENT_SECCOMP => return self.filter_stop(tid),
            _ if forks => self.forked(tid),
            libc::PTRACE_EVENT_EXEC => self.executed(tid),
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => {
                if let Some(o) = &self.observer {
                    o.stopped(Tid(tid), signal);
                }
                self.note(tid, listen(tid));
                return None;
            }
            0 if signal == libc::SIGTRAP | 0x80 => self.call_stop(tid),
            0 => {
                if let Some(o) = &self.observer
                    && let Ok(info) = ptrace::getsiginfo(Pid::from_raw(tid))
                {
                    o.signal(Tid(tid), &info);
                }
                self.go_on(tid, signal);
                return None;
            }
            _ => (),
        }
        self.go_on(tid, 0);
        None
    }

    /// Lets a thread go on as its state asks for.
    fn go_on(&mut self, tid: i32, signal: i32) {
        let state = self.tasks.get(&tid).map(|t| &t.state);
        let to_call = matches!(
            state,
            Some(State::Native(_) | State::Interrupted(_) | State::Replaced { .. })
        );
        let runs = if to_call { Runs::Call } else { Runs::Program };
        self.holds.runs(tid, runs);
        self.note(tid, resume(tid, to_call, signal));
    }

    /// A thread that is gone will be reported so; anything else is a fault.
    fn note(&self, tid: i32, result: Result<()>) {
        if let Err(e) = result
            && e != Errno::ESRCH
        {
            log::error!("tracing thread {tid}: {e}");
        }
    }

    pub(super) fn end(&mut self, tid: i32, status: i32) {
        self.shared.waiting.lock().remove(&tid);
        self.settle_early(tid);
        self.early.retain(|e| e.tid != tid);
        self.holds.ended(tid);
        let Some(task) = self.tasks.remove(&tid) else {
            return;
        };
        if task.tgid == tid {
            self.processes.remove(&tid);
            self.shared.sockets.lock().remove(&tid);
        }
        if let Some(o) = &self.observer {
            o.ended(Tid(tid), status);
        }
    }

    fn forked(&mut self, tid: i32) {
        let Ok(child) = ptrace::getevent(Pid::from_raw(tid)) else {
            return;
        };
        let child = child as i32;
        self.holds.made(child, tid);
        self.adopt_from(child, tid);
        if let Some(o) = &self.observer {
            o.started(Tid(tid), Tid(child));
        }
        let early = self.early.iter().position(|e| e.tid == child);
        if let Some(at) = early {
            let child = self.early.swap_remove(at);
            self.event(child.tid, child.status);
        }
    }

    /// The thread has its process's id now, whatever it had.
    fn executed(&mut self, tid: i32) {
        let former = ptrace::getevent(Pid::from_raw(tid)).map_or(tid, |n| n as i32);
        if former != tid
            && let Some(task) = self.tasks.remove(&former)
        {
            self.holds.renamed(former, tid);
            self.shared.waiting.lock().remove(&tid);
            self.tasks.insert(tid, task);
        }
        if let Some(process) = self.processes.get_mut(&tid) {
            *process = Process::default();
        }
        self.shared.sockets.lock().remove(&tid);
        if let Some(o) = &self.observer {
            o.executed(Tid(tid), Tid(former));
        }
        // The exit of the call has nothing to tell.
        let replaced = self.tasks.get_mut(&tid).and_then(|task| {
            let is_replaced = matches!(task.state, State::Replaced { .. });
            is_replaced.then(|| std::mem::replace(&mut task.state, State::Free))
        });
        if let Some(State::Replaced { call, executed, .. }) = replaced {
            executed();
            let call = Call {
                tid: Tid(tid),
                ..call
            };
            self.tell_left(&call, Ended::Answered(0));
        }
    }

    /// The filter asks about a call.
    fn filter_stop(&mut self, tid: i32) -> Option<Call> {
        let (mut call, data) = match stop_at(tid) {
            Ok(Stop::Filter { call, data }) => (call, data),
            Ok(_) => {
                self.go_on(tid, 0);
                return None;
            }
            Err(e) => {
                self.note(tid, Err(e));
                return None;
            }
        };
        let task = self.tasks.get_mut(&tid)?;
        if let State::Replaced { by, .. } = &task.state
            && (call.arch, call.nr, call.args) == (ARCH_X86_64, by.nr, by.args)
        {
            self.go_on(tid, 0);
            return None;
        }
        if data != TRACE_DATA {
            // A filter of the guest's own, which has no tracer (seccomp(2)).
            let refused = skip(tid, -i64::from(Errno::ENOSYS as i32));
            task.state = State::Free;
            self.note(tid, refused);
            self.go_on(tid, 0);
            return None;
        }
        if concerns_affinities(&call) {
            self.holds.let_all_go();
        }
        call.id = self.next_id;
        self.next_id += 1;
        let called = State::Called(Called {
            call,
            saved: None,
            mask: None,
            stop_later: false,
        });
        let before = std::mem::replace(&mut task.state, called);
        self.shared.waiting.lock().insert(tid, call.id);
        if let Some(o) = &self.observer {
            if let State::Native(lost) = before {
                o.left(&lost, Ended::Unknown);
            }
            o.entered(&call);
        }
        Some(call)
    }

    /// Entry or exit of a call. Afterwards the thread goes on by its state.
    fn call_stop(&mut self, tid: i32) {
        let Ok(Stop::Exit(result)) = stop_at(tid) else {
            return;
        };
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let pid = Pid::from_raw(tid);
        let told = match std::mem::replace(&mut task.state, State::Free) {
            State::Native(call) => Some((call, Ended::Ran(result))),
            State::Interrupted(call) => {
                let interrupted = -i64::from(ERESTARTSYS);
                let set = poke(tid, ORIG_RAX, call.nr.into())
                    .and_then(|()| poke(tid, RAX, interrupted as u64));
                self.note(tid, set);
                Some((call, Ended::Answered(interrupted)))
            }
            State::Replaced {
                call, mut saved, ..
            } => {
                saved.rax = result as u64;
                saved.orig_rax = NO_CALL;
                self.note(tid, ptrace::setregs(pid, *saved));
                Some((call, Ended::Answered(result)))
            }
            State::Free => None,
            // It is stopped in there, and cannot come here.
            called @ State::Called(_) => {
                task.state = called;
                None
            }
        };
        if let Some(o) = &self.observer
            && let Some((call, how)) = told
        {
            o.left(&call, how);
        }
    }

    /// Takes the call that is to be answered out of the thread's state.
    fn take(&mut self, call: &Call) -> Result<Called> {
        let task = self.tasks.get_mut(&call.tid.0).ok_or(Errno::ESRCH)?;
        match std::mem::replace(&mut task.state, State::Free) {
            State::Called(called) if called.call.id == call.id => {
                self.shared.waiting.lock().remove(&call.tid.0);
                Ok(called)
            }
            other => {
                task.state = other;
                Err(Errno::ESRCH)
            }
        }
    }

    fn set_state(&mut self, tid: i32, state: State) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.state = state;
        }
    }

    pub(super) fn answer(&mut self, call: &Call, answer: Answer) -> Result<()> {
        let called = self.take(call)?;
        let tid = call.tid.0;
        if let (Answer::Run, Some(_)) = (answer, &called.saved) {
            let by = Replacement {
                nr: call.nr,
                args: call.args,
            };
            return self.replace(called, by, Box::new(|| ()));
        }
        let how = ended(answer);
        match (how, called.saved) {
            (Ended::Answered(value), Some(mut regs)) => {
                regs.rax = value as u64;
                let restart = answer == Answer::Interrupt;
                regs.orig_rax = if restart { call.nr.into() } else { NO_CALL };
                ptrace::setregs(Pid::from_raw(tid), *regs)?;
                restore_mask(tid, called.mask)?;
                self.tell_left(call, how);
            }
            (Ended::Answered(_), None) if answer == Answer::Interrupt => {
                poke(tid, ORIG_RAX, NO_CALL)?;
                self.set_state(tid, State::Interrupted(*call));
            }
            (Ended::Answered(value), None) => {
                skip(tid, value)?;
                self.tell_left(call, how);
            }
            (Ended::Ran(_) | Ended::Unknown, _) => match &self.observer {
                Some(o) if o.wants_result(call) => self.set_state(tid, State::Native(*call)),
                Some(o) => o.left(call, how),
                None => (),
            },
        }
        let to_call = self
            .tasks
            .get(&tid)
            .is_some_and(|t| !matches!(t.state, State::Free));
        let runs = if to_call || answer == Answer::Run {
            Runs::Call
        } else {
            Runs::Program
        };
        self.holds.runs(tid, runs);
        resume(tid, to_call, 0)?;
        stop_if(tid, called.stop_later)
    }

    fn tell_left(&self, call: &Call, how: Ended) {
        if let Some(o) = &self.observer {
            o.left(call, how);
        }
    }

    pub(super) fn execute_instead(
        &mut self,
        call: &Call,
        by: Replacement,
        executed: Executed,
    ) -> Result<()> {
        let called = self.take(call)?;
        self.replace(called, by, executed)
    }

    fn replace(&mut self, called: Called, by: Replacement, executed: Executed) -> Result<()> {
        let call = called.call;
        let (tid, pid) = (call.tid.0, Pid::from_raw(call.tid.0));
        let saved = match called.saved {
            None => {
                let saved = ptrace::getregs(pid)?;
                let mut regs = saved;
                regs.orig_rax = by.nr.into();
                set_args(&mut regs, by.args);
                ptrace::setregs(pid, regs)?;
                Box::new(saved)
            }
            Some(saved) => {
                ptrace::setregs(pid, again(&saved, by))?;
                saved
            }
        };
        restore_mask(tid, called.mask)?;
        let state = State::Replaced {
            call,
            by,
            saved,
            executed,
        };
        self.set_state(tid, state);
        self.holds.runs(tid, Runs::Call);
        resume(tid, true, 0)?;
        stop_if(tid, called.stop_later)
    }
}

/// Calls that look at where threads may run, or change it.
fn concerns_affinities(call: &Call) -> bool {
    crate::ptrace::ON_AFFINITIES.contains(&i64::from(call.nr))
}

/// Registers of a thread at the exit of a call, with which it makes a call by the same instruction.
pub(super) fn again(saved: &user_regs_struct, by: Replacement) -> user_regs_struct {
    let mut regs = *saved;
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
    regs.rax = by.nr.into();
    regs.orig_rax = NO_CALL;
    set_args(&mut regs, by.args);
    regs
}

/// Has the kernel skip the call at whose entry the thread is, with this result.
fn skip(tid: i32, result: i64) -> Result<()> {
    poke(tid, ORIG_RAX, NO_CALL)?;
    poke(tid, RAX, result as u64)
}

fn listen(tid: i32) -> Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::ptrace(libc::PTRACE_LISTEN, tid, nothing, nothing) }).map(drop)
}

/// A thread that went on while its process stopped takes part in that now.
fn stop_if(tid: i32, later: bool) -> Result<()> {
    if later {
        ptrace::interrupt(Pid::from_raw(tid))
    } else {
        Ok(())
    }
}

fn restore_mask(tid: i32, mask: Option<u64>) -> Result<()> {
    mask.map_or(Ok(()), |mask| signals::restore(Pid::from_raw(tid), mask))
}

/// Ends a process that does not do what it was made to.
pub(super) fn kill(tgid: i32) {
    if let Err(e) = nix::sys::signal::kill(Pid::from_raw(tgid), Signal::SIGKILL) {
        log::debug!("process {tgid}: {e}");
    }
}

//! The engine for hosts without user notification, and for traces of all calls: ptrace(2).
//!
//! The filter answers intercepted calls with `SECCOMP_RET_TRACE`, so native calls stay native, and an
//! intercepted one costs a single stop: at its entry it is either let go, or skipped with its result in
//! place. Where an [`Observer`] wants results, a native call stops at its exit too.
//!
//! One thread, which called [`Ptrace::attach`], makes all requests, as the kernel demands. It is meant to
//! serve the calls that it receives from [`Engine::next`] itself; whoever answers from another thread
//! hands the request to it and waits. The guest dies with that thread (`PTRACE_O_EXITKILL`).
//!
//! # Descriptors
//!
//! Without `ADDFD`, the caller is made to receive the descriptor itself: in place of its call it performs
//! `recvmsg` on a datagram socket whose other end the supervisor holds. A process gets a socket at its first
//! need, at a high number, and shares it with the children that it forks, until any process of the sandbox comes to
//! differ in what it may do ([`Engine::differ`]): so that none can take what is meant for one that may do more. Whether the number is still that socket is checked each time; a guest that
//! closes it, or puts something else there, gets another. The message is laid out in a page that the
//! guest is made to map. Guests that tamper with either harm themselves only.
//!
//! # Processors
//!
//! Threads that keep stopping are held on the processor of the tracing thread (`hold.rs`). The calls
//! [`ON_AFFINITIES`] have to be intercepted for that, and [`Engine::let_go`] be called before anything else tells a
//! guest where threads may run.
//!
//! # Current limits
//!
//! - A process has one descriptor and one page more than natively.
//! - A guest that rewrites the `syscall` instruction at which it waits can hold up the tracing thread,
//!   and so its own sandbox, until that is ended from outside.
//! - vsyscalls (the legacy page of the kernel's) have no exit stop; their results are not known.

mod hold;
mod remote;
mod tracer;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, gettid};
use parking_lot::{Condvar, Mutex};

use crate::{Answer, Call, Engine, Errno, Executed, Observer, Replacement, Result};
use tracer::Tracer;

/// What a filter for this engine answers for intercepted calls.
pub const ACTION: u32 = libc::SECCOMP_RET_TRACE | TRACE_DATA;

/// Native calls that the engine has to see nevertheless: where guest threads may run, it changes for moments.
pub const ON_AFFINITIES: [libc::c_long; 2] =
    [libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity];

/// Tells Duet's filter from one of the guest's own.
const TRACE_DATA: u32 = 0x4475;

/// How long a request to the tracing thread waits before that is woken once more: its wait begins just
/// when the signal has come, now and then.
const NUDGE: Duration = Duration::from_millis(1);

/// A request to the tracing thread.
type Request = Box<dyn FnOnce(&mut Tracer) + Send>;

/// What other threads may look at.
#[derive(Default)]
struct Shared {
    /// The call that each thread waits in, by thread id.
    waiting: Mutex<HashMap<i32, u64>>,
    /// The descriptor that each process has for the engine.
    sockets: Mutex<HashMap<i32, RawFd>>,
    /// How often processes have come to differ in what they may do.
    differences: AtomicU64,
    ticks: Ticks,
    /// No guest is left.
    over: AtomicBool,
}

/// What has the tracing thread look after threads that are held, and do not stop.
#[derive(Default)]
struct Ticks {
    /// Whether there are any.
    wanted: Mutex<bool>,
    change: Condvar,
    /// Counts stops.
    stops: AtomicU64,
    /// The tracing thread waits for one.
    waits: AtomicBool,
    /// It is to look.
    due: AtomicBool,
}

impl Ticks {
    fn want(&self, wanted: bool) {
        *self.wanted.lock() = wanted;
        if wanted {
            self.change.notify_one();
        }
    }
}

impl Shared {
    /// Ticks while threads are held. For a thread of its own.
    fn tick(&self, owner: i32) {
        let mut seen = 0;
        loop {
            let mut wanted = self.ticks.wanted.lock();
            while !*wanted {
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                self.ticks.change.wait(&mut wanted);
            }
            drop(wanted);
            std::thread::sleep(hold::TICK);
            let stops = self.ticks.stops.load(Ordering::Relaxed);
            // One that has stops to see to looks at its clock itself.
            if stops == seen && self.ticks.waits.load(Ordering::Acquire) {
                self.ticks.due.store(true, Ordering::Release);
                if let Err(e) = interrupt(owner) {
                    log::debug!("the tracing thread is gone: {e}");
                    return;
                }
            }
            seen = stops;
        }
    }
}

/// The calling thread's id, which is asked for in each call.
fn own_tid() -> i32 {
    thread_local! {
        static OWN: i32 = gettid().as_raw();
    }
    OWN.with(|own| *own)
}

/// Interrupts what the thread waits for.
fn interrupt(owner: i32) -> Result<()> {
    let (group, urgent) = (std::process::id(), libc::SIGURG);
    // SAFETY: integers; the thread is one of ours or none.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, group, owner, urgent) };
    Errno::result(sent).map(drop)
}

/// The engine.
pub struct Ptrace {
    /// The tracing thread's id.
    owner: OnceLock<i32>,
    /// Touched by the tracing thread alone.
    tracer: Mutex<Tracer>,
    requests: Mutex<VecDeque<Request>>,
    shared: Arc<Shared>,
}

impl Drop for Ptrace {
    fn drop(&mut self) {
        self.end();
    }
}

impl Ptrace {
    /// An engine without a guest. `SIGURG` must have a handler, without `SA_RESTART`. `mark`: of calls that
    /// guests make for the engine ([`crate::marked`]).
    pub fn new(observer: Option<Arc<dyn Observer>>, mark: u32) -> Ptrace {
        let shared = Arc::new(Shared::default());
        Ptrace {
            owner: OnceLock::new(),
            tracer: Mutex::new(Tracer::new(observer, shared.clone(), mark)),
            requests: Mutex::default(),
            shared,
        }
    }

    /// No guest is left.
    fn end(&self) {
        self.shared.over.store(true, Ordering::Release);
        let _held = self.shared.ticks.wanted.lock();
        self.shared.ticks.change.notify_one();
    }

    /// Starts to trace `pid`, which must not have installed the filter yet. The calling thread becomes
    /// the one that traces; `EBUSY` if another does already.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let me = own_tid();
        if *self.owner.get_or_init(|| me) != me {
            return Err(Errno::EBUSY);
        }
        let mut interrupt = SigSet::empty();
        interrupt.add(Signal::SIGURG);
        interrupt.thread_unblock()?;
        let options = Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(Pid::from_raw(pid), options)?;
        self.tracer.lock().add_first(pid);
        let shared = self.shared.clone();
        let ticks = crate::spawn("duet-ticks", move || shared.tick(me));
        if let Err(e) = ticks {
            log::warn!("starting a thread: {e}; threads stay where they are held for longer");
        }
        Ok(())
    }

    /// Has the tracing thread do `work`, and waits for it.
    fn request<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tracer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let owner = *self.owner.get().ok_or(Errno::ESRCH)?;
        if owner == own_tid() {
            return work(&mut self.tracer.lock());
        }
        let (done, wait) = sync_channel(1);
        self.requests.lock().push_back(Box::new(move |tracer| {
            if done.send(work(tracer)).is_err() {
                log::debug!("nobody waits for the answer of a request");
            }
        }));
        loop {
            if self.shared.over.load(Ordering::Acquire) {
                self.requests.lock().clear();
            }
            interrupt(owner)?;
            match wait.recv_timeout(NUDGE) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return Err(Errno::ESRCH),
            }
        }
    }
}

impl Engine for Ptrace {
    /// `EPERM` for all but the tracing thread.
    fn next(&self) -> Result<Option<Call>> {
        if self.owner.get() != Some(&own_tid()) {
            return Err(Errno::EPERM);
        }
        let mut tracer = self.tracer.lock();
        loop {
            loop {
                let request = self.requests.lock().pop_front();
                match request {
                    Some(request) => {
                        // Another thread has served the call.
                        crate::mem::forget();
                        request(&mut tracer);
                    }
                    None => break,
                }
            }
            let ticks = &self.shared.ticks;
            ticks.waits.store(true, Ordering::Release);
            let stop = tracer::wait(-1);
            ticks.waits.store(false, Ordering::Release);
            match stop {
                Ok((tid, status)) => {
                    if let Some(call) = tracer.event(tid, status) {
                        return Ok(Some(call));
                    }
                }
                Err(Errno::EINTR) => {
                    if ticks.due.swap(false, Ordering::AcqRel) {
                        tracer.holds.tick();
                    }
                }
                Err(Errno::ECHILD) => {
                    self.end();
                    self.requests.lock().clear();
                    return Ok(None);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn answer(&self, call: &Call, answer: Answer) -> Result<()> {
        let call = *call;
        self.request(move |t| t.answer(&call, answer))
    }

    fn inject(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        at: Option<RawFd>,
        cloexec: bool,
    ) -> Result<RawFd> {
        // The caller keeps it open until the request is done.
        let (call, fd) = (*call, fd.as_raw_fd());
        self.request(move |t| t.inject(&call, fd, at, cloexec))
    }

    fn inject_pair(&self, call: &Call, fds: [BorrowedFd<'_>; 2]) -> Result<[RawFd; 2]> {
        let (call, fds) = (*call, fds.map(|fd| fd.as_raw_fd()));
        self.request(move |t| t.inject_pair(&call, fds))
    }

    fn answer_with_descriptor(&self, call: &Call, fd: OwnedFd, cloexec: bool) -> Result<RawFd> {
        let call = *call;
        self.request(move |t| {
            let number = t.inject(&call, fd.as_raw_fd(), None, cloexec)?;
            drop(fd);
            t.answer(&call, Answer::Value(number.into()))
                .map(|()| number)
        })
    }

    fn execute_instead(
        &self,
        call: &Call,
        replacement: Replacement,
        executed: Executed,
    ) -> Result<()> {
        let call = *call;
        self.request(move |t| t.execute_instead(&call, replacement, executed))
    }

    fn is_live(&self, call: &Call) -> bool {
        // The kernel gives a thread's number to nobody else before its tracer has heard of its end.
        self.shared.waiting.lock().get(&call.tid.0) == Some(&call.id)
    }

    fn leaves_tracing(&self) -> bool {
        // A thread has one tracer.
        false
    }

    fn let_go(&self) {
        let done = self.request(|t| {
            t.holds.let_all_go();
            Ok(())
        });
        if let Err(e) = done {
            log::debug!("nobody is held any more: {e}");
        }
    }

    fn differ(&self) {
        self.shared.differences.fetch_add(1, Ordering::SeqCst);
    }

    fn own_descriptor(&self, pid: i32) -> Option<RawFd> {
        self.shared.sockets.lock().get(&pid).copied()
    }
}

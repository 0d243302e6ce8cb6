//! The threads that serve calls.
//!
//! Threads that wait at the engine are *leaders*, others *followers*. As a rule one leads: of several
//! that wait, the kernel wakes every one for each call, which doubles and triples its cost. A leader
//! serves what it receives itself, without a hand-over. Two things call for another:
//!
//! - A call keeps the leader for longer than a tick (a large copy-up, a slow disk). A watcher deposes
//!   it, and it becomes a follower when it is done. So no call waits long behind another. The watcher
//!   sleeps while no calls come.
//! - Calls come faster than one leader serves them: it then receives the next without having to wait.
//!   More lead, as many as there are processors, until that is over. This is for speed, and for
//!   signals: until a call is received, a signal may end it with EINTR (seccomp_unotify(2)).

use std::collections::VecDeque;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use duet_intercept::ptrace::Ptrace;
use duet_intercept::{Call, Engine, Tid};
use duet_syscalls::dispatch;
use duet_syscalls::kernel::Kernel;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// How long a call may keep a leader, at least; at most twice that.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the watcher goes to sleep.
const IDLE_TICKS: u32 = 20;
/// Threads that serve calls, at most. More slow calls than that at once wait for one another.
const MAX_WORKERS: usize = 64;
/// Leaders at most.
const MAX_LEADERS: usize = 8;
/// A call that is received sooner than this was there already.
const NO_WAIT: Duration = Duration::from_nanos(1500);
/// How long more than one leads after calls had to wait.
const CROWDED: Duration = Duration::from_millis(20);

struct Crew {
    kernel: Arc<Kernel>,
    start: Instant,
    max_leaders: usize,
    /// Leaders, vacancies included.
    leaders: AtomicUsize,
    /// Until when more than one is to lead, in microseconds from `start`.
    crowded_until: AtomicU64,
    /// Counts calls, for the watcher to notice that none come.
    calls: AtomicU64,
    /// Whether the watcher sleeps.
    asleep: AtomicBool,
    watcher: Mutex<()>,
    wake_watcher: Condvar,
    followers: Mutex<Followers>,
    promote: Condvar,
    /// Set when no guest is left.
    over: AtomicBool,
}

#[derive(Default)]
struct Followers {
    workers: Vec<Arc<Worker>>,
    /// Of them, those that wait to lead.
    idle: usize,
    /// How many of the idle are to lead.
    vacant: usize,
}

#[derive(Default)]
struct Worker {
    /// The number of the call that it serves as a leader; 0 while it waits, or leads no more.
    serving: AtomicU64,
}

/// Starts serving.
pub fn start(kernel: Arc<Kernel>) -> Result<()> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let crew = Arc::new(Crew {
        kernel,
        start: Instant::now(),
        max_leaders: processors.min(MAX_LEADERS),
        leaders: AtomicUsize::new(0),
        crowded_until: AtomicU64::new(0),
        calls: AtomicU64::new(0),
        asleep: AtomicBool::new(false),
        watcher: Mutex::new(()),
        wake_watcher: Condvar::new(),
        followers: Mutex::default(),
        promote: Condvar::new(),
        over: AtomicBool::new(false),
    });
    crew.add_leader()?;
    spawn("duet-watcher", move || crew.watch()).map(drop)
}

/// Starts a named thread.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    duet_intercept::spawn(name, body).map_err(|e| Error::Failed(format!("starting a thread: {e}")))
}

impl Crew {
    /// Lets one more thread lead.
    fn add_leader(self: &Arc<Crew>) -> Result<()> {
        let mut f = self.followers.lock();
        let nobody = f.idle <= f.vacant;
        if nobody && f.workers.len() >= MAX_WORKERS {
            return Ok(());
        }
        self.leaders.fetch_add(1, Ordering::AcqRel);
        f.vacant += 1;
        if !nobody {
            drop(f);
            self.promote.notify_one();
            return Ok(());
        }
        let worker = Arc::new(Worker::default());
        f.workers.push(worker.clone());
        drop(f);
        let crew = self.clone();
        spawn("duet-worker", move || {
            while crew.wait_to_lead() {
                crew.lead(&worker);
            }
        })
        .map(drop)
    }

    /// False when no guest is left.
    fn wait_to_lead(&self) -> bool {
        let mut f = self.followers.lock();
        f.idle += 1;
        while f.vacant == 0 && !self.over.load(Ordering::Relaxed) {
            self.promote.wait(&mut f);
        }
        f.vacant = f.vacant.saturating_sub(1);
        f.idle -= 1;
        !self.over.load(Ordering::Relaxed)
    }

    fn lead(self: &Arc<Crew>, worker: &Worker) {
        let (mut before, mut last) = (Instant::now(), Tid(0));
        loop {
            let call = match self.kernel.engine.next() {
                Ok(Some(call)) => call,
                Ok(None) => return self.end(),
                Err(e) => {
                    log::error!("waiting for calls: {e}");
                    return self.end();
                }
            };
            let number = self.calls.fetch_add(1, Ordering::AcqRel) + 1;
            worker.serving.store(number, Ordering::Release);
            if self.asleep.load(Ordering::SeqCst) {
                let _held = self.watcher.lock();
                self.wake_watcher.notify_one();
            }
            // The caller that was just answered may well be back already: that is no crowd.
            if call.tid != last && before.elapsed() < NO_WAIT {
                self.crowded();
            }
            last = call.tid;
            dispatch::handle(&self.kernel, call);
            if worker.serving.swap(0, Ordering::AcqRel) != number || self.retires() {
                return;
            }
            before = Instant::now();
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn crowded(self: &Arc<Crew>) {
        let until = self.now() + CROWDED.as_micros() as u64;
        self.crowded_until.store(until, Ordering::Relaxed);
        if self.leaders.load(Ordering::Acquire) < self.max_leaders
            && let Err(e) = self.add_leader()
        {
            log::warn!("{e}; calls may wait for one another");
        }
    }

    /// Whether the calling leader is one too many, and has stepped down.
    fn retires(&self) -> bool {
        if self.leaders.load(Ordering::Acquire) <= 1
            || self.now() < self.crowded_until.load(Ordering::Relaxed)
        {
            return false;
        }
        let down = |n: usize| (n > 1).then(|| n - 1);
        let changed = self
            .leaders
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, down);
        changed.is_ok()
    }

    /// No guest is left: all stop.
    fn end(&self) {
        let _held = self.followers.lock();
        self.over.store(true, Ordering::Relaxed);
        self.promote.notify_all();
    }

    fn watch(self: &Arc<Crew>) {
        let mut seen: Vec<u64> = Vec::new();
        let (mut last, mut idle) = (0, 0);
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            let workers = self.followers.lock().workers.clone();
            seen.resize(workers.len(), 0);
            for (worker, seen) in workers.iter().zip(&mut seen) {
                let serving = worker.serving.load(Ordering::Acquire);
                if serving != 0 && serving == *seen {
                    self.depose(worker, serving);
                }
                *seen = serving;
            }
            let calls = self.calls.load(Ordering::Acquire);
            let busy = seen.iter().any(|&s| s != 0);
            idle = if calls == last && !busy { idle + 1 } else { 0 };
            last = calls;
            if idle > IDLE_TICKS {
                self.sleep(calls);
                idle = 0;
            }
        }
    }

    /// Lets another thread lead while `worker` serves call `serving`.
    fn depose(self: &Arc<Crew>, worker: &Worker, serving: u64) {
        let f = self.followers.lock();
        let replaceable = f.idle > f.vacant || f.workers.len() < MAX_WORKERS;
        drop(f);
        let deposed = replaceable && {
            let (ok, not) = (Ordering::AcqRel, Ordering::Acquire);
            worker.serving.compare_exchange(serving, 0, ok, not).is_ok()
        };
        if !deposed {
            return;
        }
        if self.leaders.fetch_sub(1, Ordering::AcqRel) == 1
            && let Err(e) = self.add_leader()
        {
            log::error!("{e}; nobody serves calls until a slow one ends");
        }
    }

    fn sleep(&self, calls: u64) {
        let mut held = self.watcher.lock();
        self.asleep.store(true, Ordering::SeqCst);
        if self.calls.load(Ordering::SeqCst) == calls {
            self.wake_watcher.wait(&mut held);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

// ---- the engine that traces ----

/// Threads that serve slow calls of a traced sandbox, at most.
const MAX_SLOW: usize = 16;

/// Serves the calls of an engine that has one thread: that thread serves most of them itself, without a
/// hand-over, and gives those that may take long to others. Returns when `pid` is traced; the thread ends
/// when it has heard of the end of the last one.
pub fn start_tracing(
    kernel: Arc<Kernel>,
    engine: Arc<Ptrace>,
    pid: i32,
    release: OwnedFd,
) -> Result<JoinHandle<()>> {
    let (attached, wait) = sync_channel(1);
    let slow = Arc::new(SlowCalls::default());
    let thread = spawn("duet-tracer", move || {
        let result = engine.attach(pid);
        let traces = result.is_ok();
        drop(release);
        if attached.send(result).is_err() || !traces {
            return;
        }
        loop {
            match engine.next() {
                Ok(Some(call)) if may_be_slow(&call) => slow.serve(&kernel, call),
                Ok(Some(call)) => dispatch::handle(&kernel, call),
                Ok(None) => break,
                Err(e) => {
                    log::error!("waiting for calls: {e}");
                    break;
                }
            }
        }
        slow.end();
    })?;
    match wait.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(e)) => Err(Error::step(
            "tracing the program (is ptrace allowed? see /proc/sys/kernel/yama/ptrace_scope)",
            e,
        )),
        Err(_) => Err(Error::Failed("the tracing thread ended".into())),
    }
}

/// Calls that can make the supervisor copy a whole file up.
fn may_be_slow(call: &Call) -> bool {
    let flags = |i: usize| call.args.get(i).map_or(0, |&a| a as i32);
    let writes = |f: i32| f & libc::O_ACCMODE != libc::O_RDONLY && f & libc::O_EXCL == 0;
    match i64::from(call.nr) {
        libc::SYS_open => writes(flags(1)),
        libc::SYS_openat => writes(flags(2)),
        libc::SYS_openat2
        | libc::SYS_creat
        | libc::SYS_truncate
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_chmod
        | libc::SYS_fchmodat
        | libc::SYS_chown
        | libc::SYS_lchown
        | libc::SYS_fchownat
        | libc::SYS_utimensat
        | libc::SYS_setxattr
        | libc::SYS_lsetxattr
        | libc::SYS_removexattr
        | libc::SYS_lremovexattr => true,
        _ => false,
    }
}

/// Calls that wait for a thread, and the threads.
#[derive(Default)]
struct SlowCalls {
    queue: Mutex<SlowQueue>,
    news: Condvar,
}

#[derive(Default)]
struct SlowQueue {
    calls: VecDeque<Call>,
    threads: usize,
    idle: usize,
    over: bool,
}

impl SlowCalls {
    fn serve(self: &Arc<SlowCalls>, kernel: &Arc<Kernel>, call: Call) {
        let mut q = self.queue.lock();
        q.calls.push_back(call);
        let more = q.idle < q.calls.len() && q.threads < MAX_SLOW;
        q.threads += usize::from(more);
        drop(q);
        self.news.notify_one();
        if !more {
            return;
        }
        let (slow, kernel_of_thread) = (self.clone(), kernel.clone());
        let spawned = spawn("duet-slow", move || slow.work(&kernel_of_thread));
        if let Err(e) = spawned {
            let mut q = self.queue.lock();
            q.threads -= 1;
            // Without any thread the caller serves it, however long that takes.
            let own = if q.threads == 0 {
                q.calls.pop_back()
            } else {
                None
            };
            drop(q);
            log::warn!("{e}; calls may wait for one another");
            own.into_iter().for_each(|c| dispatch::handle(kernel, c));
        }
    }

    fn work(&self, kernel: &Arc<Kernel>) {
        loop {
            let mut q = self.queue.lock();
            q.idle += 1;
            while q.calls.is_empty() && !q.over {
                self.news.wait(&mut q);
            }
            q.idle -= 1;
            let Some(call) = q.calls.pop_front() else {
                return;
            };
            drop(q);
            dispatch::handle(kernel, call);
        }
    }

    fn end(&self) {
        self.queue.lock().over = true;
        self.news.notify_all();
    }
}

//! Calls that may block: they wait on a thread of their own, so that no worker is held up, and a
//! signal to the caller ends the wait as it would in the kernel (signal(7)).

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use duet_vfs::account;
use duet_vfs::types::{Errno, Result};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use parking_lot::{Condvar, Mutex};

use crate::dispatch;
use crate::task::{Reply, Task};

/// How a blocking step ended.
pub enum Blocked {
    /// With this result.
    Ended(Result<Reply>),
    /// It was interrupted and may be tried again.
    Interrupted,
}

/// Threads that may wait at once; a guest that wants more gets `EAGAIN`.
const MAX_WAITING: usize = 1024;

/// How often waiting callers are asked for signals, at most.
const POLL: Duration = Duration::from_millis(5);

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Installs the signal that interrupts a waiting thread of the supervisor: a handler that does
/// nothing, without `SA_RESTART`, so that the host call returns `EINTR`.
pub fn install_interrupt() -> Result<()> {
    extern "C" fn ignore(_: i32) {}
    let action = SigAction::new(
        SigHandler::Handler(ignore),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGURG, &action) }.map(drop)
}

/// Sleeps, within a step of [`elsewhere`]: `EINTR` if that is interrupted.
pub fn pause(time: Duration) -> Result<()> {
    let time = libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: a time, and nothing is written.
    Errno::result(unsafe { libc::nanosleep(&time, std::ptr::null_mut()) }).map(drop)
}

/// Runs `step` until it ends on another thread, and answers the call there.
pub fn elsewhere(t: &Task, step: impl Fn(&Task) -> Blocked + Send + 'static) -> Result<Reply> {
    if WAITING.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        return Err(Errno::EAGAIN);
    }
    let task = t.clone();
    let account = account::take();
    let spawned = duet_intercept::spawn("duet-wait", move || {
        account.into_iter().for_each(account::resume);
        wait_and_answer(&task, &step);
        WAITING.fetch_sub(1, Ordering::Relaxed);
    });
    match spawned {
        Ok(_) => Ok(Reply::Deferred),
        Err(_) => {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            Err(Errno::EAGAIN)
        }
    }
}

/// A call that waits, and the thread of the supervisor that waits for it.
struct Waiting {
    task: Task,
    thread: Pthread,
}

/// The calls that wait, by a number of their own. A thread takes its entry out before it ends.
#[derive(Default)]
struct Watched {
    calls: HashMap<u64, Waiting>,
    next: u64,
    has_watcher: bool,
}

static WATCHED: LazyLock<Mutex<Watched>> = LazyLock::new(Mutex::default);
static NEWS: Condvar = Condvar::new();

/// Has the caller of a call that this thread waits for looked after; the number of the entry.
fn register(task: &Task) -> u64 {
    let mut w = WATCHED.lock();
    let number = w.next;
    w.next += 1;
    let waiting = Waiting {
        task: task.clone(),
        thread: pthread_self(),
    };
    w.calls.insert(number, waiting);
    if !w.has_watcher {
        match duet_intercept::spawn("duet-signals", watch) {
            Ok(_) => w.has_watcher = true,
            Err(e) => log::warn!("waiting calls cannot be interrupted: {e}"),
        }
    }
    NEWS.notify_one();
    number
}

fn wait_and_answer(task: &Task, step: &dyn Fn(&Task) -> Blocked) {
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGURG);
    if let Err(e) = interrupt.thread_unblock() {
        log::warn!("this wait cannot be interrupted: {e}");
    }
    let number = register(task);
    let mut shared = 0;
    let result = loop {
        match step(task) {
            Blocked::Ended(result) => break result,
            Blocked::Interrupted if !task.kernel.engine.is_live(&task.call) => {
                break Err(Errno::ESRCH);
            }
            Blocked::Interrupted => match pending(task) {
                Pending::ForCaller => break Ok(Reply::Interrupt),
                Pending::Shared => {
                    shared += 1;
                    if shared > SHARED_POLLS {
                        break Err(Errno::EINTR);
                    }
                }
                Pending::None => shared = 0,
            },
        }
    };
    let entry = WATCHED.lock().calls.remove(&number);
    drop(entry);
    dispatch::finish(task, result);
}

/// Looks for signals to all callers that wait, for ever, but not most of the time.
fn watch() {
    loop {
        let calls: Vec<(u64, Task)> = {
            let mut w = WATCHED.lock();
            while w.calls.is_empty() {
                NEWS.wait(&mut w);
            }
            w.calls.iter().map(|(n, c)| (*n, c.task.clone())).collect()
        };
        let start = Instant::now();
        for (number, task) in calls {
            if task.kernel.engine.is_live(&task.call) && pending(&task) == Pending::None {
                continue;
            }
            if let Some(c) = WATCHED.lock().calls.get(&number)
                && let Err(e) = pthread_kill(c.thread, Signal::SIGURG)
            {
                log::debug!("a waiting thread could not be interrupted: {e}");
            }
        }
        thread::sleep(POLL.max(start.elapsed() * 4));
    }
}

/// A signal that is neither blocked nor ignored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pending {
    None,
    /// It is the caller that will take it.
    ForCaller,
    /// Any thread of the process may take it; if another does, this wait goes on.
    Shared,
}

/// How often a shared signal is found before it is taken to be the caller's after all.
const SHARED_POLLS: u32 = 10;

fn pending(task: &Task) -> Pending {
    let text = std::fs::read_to_string(format!("/proc/{}/status", task.call.tid.0));
    let text = text.unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .map(str::trim)
    };
    let mask = |name: &str| {
        let hex = field(name).and_then(|h| u64::from_str_radix(h, 16).ok());
        hex.unwrap_or(0)
    };
    let stopped = mask("SigBlk:") | mask("SigIgn:");
    let alone = field("Threads:") == Some("1");
    if mask("SigPnd:") & !stopped != 0 || (alone && mask("ShdPnd:") & !stopped != 0) {
        Pending::ForCaller
    } else if mask("ShdPnd:") & !stopped != 0 {
        Pending::Shared
    } else {
        Pending::None
    }
}

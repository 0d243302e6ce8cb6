//! Calls that may block: they wait on a thread of their own, so that no worker is held up, and a
//! signal to the caller ends the wait as it would in the kernel (signal(7)).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use duet_vfs::types::{Errno, Result};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

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

/// How often a waiting caller is asked for signals.
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

/// Runs `step` until it ends on another thread, and answers the call there.
pub fn elsewhere(t: &Task, step: impl Fn(&Task) -> Blocked + Send + 'static) -> Result<Reply> {
    if WAITING.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        return Err(Errno::EAGAIN);
    }
    let task = t.clone();
    let spawned = thread::Builder::new()
        .name("duet-wait".into())
        .spawn(move || {
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

fn wait_and_answer(task: &Task, step: &dyn Fn(&Task) -> Blocked) {
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGURG);
    if let Err(e) = interrupt.thread_unblock() {
        log::warn!("this wait cannot be interrupted: {e}");
    }
    let ended = Arc::new(AtomicBool::new(false));
    let waiter = pthread_self();
    let watcher = {
        let (ended, task) = (ended.clone(), task.clone());
        thread::Builder::new()
            .name("duet-signals".into())
            .spawn(move || interrupt_on_signal(&task, waiter, &ended))
    };
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
    ended.store(true, Ordering::Release);
    // The watcher must be gone before this thread is: it holds its name.
    if let Ok(w) = watcher
        && w.join().is_err()
    {
        log::error!("a signal watcher panicked");
    }
    dispatch::finish(task, result);
}

fn interrupt_on_signal(task: &Task, waiter: Pthread, ended: &AtomicBool) {
    while !ended.load(Ordering::Acquire) {
        thread::park_timeout(POLL);
        let gone = !task.kernel.engine.is_live(&task.call);
        if (gone || pending(task) != Pending::None)
            && !ended.load(Ordering::Acquire)
            && let Err(e) = pthread_kill(waiter, Signal::SIGURG)
        {
            return log::debug!("a waiting thread could not be interrupted: {e}");
        }
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

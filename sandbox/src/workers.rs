//! The threads that serve calls.
//!
//! One thread at a time, the *leader*, waits at the engine: of several that wait, the kernel wakes
//! every one for each call, which triples its cost. The leader serves what it receives itself. If a
//! call keeps it longer than a tick (a large copy-up, a slow disk), a watcher lets the next thread
//! lead, and the deposed one becomes a follower when it is done. So no call waits long behind another,
//! and a fast one costs no hand-over. The watcher sleeps while no calls come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use duet_syscalls::dispatch;
use duet_syscalls::kernel::Kernel;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// How long a call may keep the leader, at least; at most twice that.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the watcher goes to sleep.
const IDLE_TICKS: u32 = 20;
/// Threads that serve calls, at most. More slow calls than that at once wait for one another.
const MAX_WORKERS: usize = 64;

struct Crew {
    kernel: Arc<Kernel>,
    /// Which leader leads: a worker leads as long as this is the number it was given.
    leader: AtomicU64,
    /// The number of the call that the leader serves, 0 while it waits.
    serving: AtomicU64,
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
    /// Threads in all.
    workers: usize,
    /// Of them, those that wait to lead.
    idle: usize,
    /// Set when one of the idle is to lead.
    vacant: bool,
}

/// Starts serving.
pub fn start(kernel: Arc<Kernel>) -> Result<()> {
    let crew = Arc::new(Crew {
        kernel,
        leader: AtomicU64::new(0),
        serving: AtomicU64::new(0),
        asleep: AtomicBool::new(false),
        watcher: Mutex::new(()),
        wake_watcher: Condvar::new(),
        followers: Mutex::new(Followers {
            vacant: true,
            ..Followers::default()
        }),
        promote: Condvar::new(),
        over: AtomicBool::new(false),
    });
    crew.add_worker()?;
    spawn("duet-watcher", move || crew.watch())
}

/// Starts a named thread.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.into()).spawn(body);
    spawned
        .map(drop)
        .map_err(|e| Error::Failed(format!("starting a thread: {e}")))
}

impl Crew {
    fn add_worker(self: &Arc<Crew>) -> Result<()> {
        self.followers.lock().workers += 1;
        let crew = self.clone();
        let spawned = spawn("duet-worker", move || {
            while !crew.over.load(Ordering::Relaxed) {
                let number = crew.wait_to_lead();
                crew.lead(number);
            }
        });
        if spawned.is_err() {
            self.followers.lock().workers -= 1;
        }
        spawned
    }

    fn wait_to_lead(&self) -> u64 {
        let mut f = self.followers.lock();
        f.idle += 1;
        while !f.vacant {
            self.promote.wait(&mut f);
        }
        f.vacant = false;
        f.idle -= 1;
        self.leader.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn lead(&self, number: u64) {
        let mut calls = number << 32;
        while self.leader.load(Ordering::Acquire) == number {
            let call = match self.kernel.engine.next() {
                Ok(Some(call)) => call,
                Ok(None) => return self.end(),
                Err(e) => {
                    log::error!("waiting for calls: {e}");
                    return self.end();
                }
            };
            calls += 1;
            self.serving.store(calls, Ordering::Release);
            if self.asleep.load(Ordering::Acquire) {
                let _held = self.watcher.lock();
                self.wake_watcher.notify_one();
            }
            dispatch::handle(&self.kernel, call);
            if self.leader.load(Ordering::Acquire) == number {
                self.serving.store(0, Ordering::Release);
            }
        }
    }

    /// No guest is left: all stop.
    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.followers.lock().vacant = true;
        self.promote.notify_all();
    }

    fn watch(self: &Arc<Crew>) {
        let (mut last, mut idle) = (0, 0);
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            let now = self.serving.load(Ordering::Acquire);
            if now != 0 && now == last {
                self.depose(now);
            }
            idle = if now == last { idle + 1 } else { 0 };
            last = now;
            if idle > IDLE_TICKS && now == 0 {
                self.sleep();
                idle = 0;
            }
        }
    }

    /// Lets another thread lead while the leader serves call `serving`.
    fn depose(self: &Arc<Crew>, serving: u64) {
        let mut f = self.followers.lock();
        if f.vacant {
            return;
        }
        let nobody = f.idle == 0;
        if nobody && f.workers >= MAX_WORKERS {
            return;
        }
        if self
            .serving
            .compare_exchange(serving, 0, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return;
        }
        // From here on the old leader leads no more, whatever it finds in `serving`.
        self.leader.fetch_add(1, Ordering::AcqRel);
        f.vacant = true;
        drop(f);
        self.promote.notify_one();
        if nobody && let Err(e) = self.add_worker() {
            log::warn!("{e}; calls may wait for slow ones");
        }
    }

    fn sleep(&self) {
        let mut held = self.watcher.lock();
        self.asleep.store(true, Ordering::SeqCst);
        if self.serving.load(Ordering::SeqCst) == 0 {
            self.wake_watcher.wait(&mut held);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

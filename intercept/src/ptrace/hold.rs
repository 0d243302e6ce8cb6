//! Where guest threads run while they keep stopping.
//!
//! A stop wakes the tracing thread, and letting the thread go on wakes that. The kernel looks for an idle
//! processor each time, so that both go back and forth between two: an interprocessor interrupt and an idle
//! state left for each wake-up, 50 µs a stop on a virtual machine, where a switch on one processor takes less
//! than 5. So a thread that stops time and again is *held* on the processor of the tracing thread, by the
//! affinity of both.
//!
//! That must cost no guest the use of several processors. A thread is held when it alone has stopped for some
//! times, and its program runs shortly each time. It is let go when it computes, the sooner if others stop
//! meanwhile, when it has not stopped for a while, and all are now and then, so that the kernel can find a better
//! place.
//!
//! A guest does not get to see it: before a call about affinities, or where `/proc` tells of them, all are let
//! go. A child is held with its parent, whose affinity it inherits, and let go to what that had.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libc::cpu_set_t;

use super::Shared;
use crate::Tid;
use crate::placement;

/// Stops of one thread in a row after which it is held.
const STREAK: u32 = 3;
/// A thread that computes for longer than this between two calls does not gain from being held.
const COMPUTES: Duration = Duration::from_micros(300);
/// The same while others stop, who would wait for it.
const COMPUTES_BESIDE: Duration = Duration::from_micros(50);
/// How often held threads are looked at.
pub(super) const TICK: Duration = Duration::from_millis(2);
/// How long a call may take, at least, before its caller is let go.
const LONG_CALL: Duration = Duration::from_millis(20);
/// How often all are let go, so that the kernel can place them anew.
const PLACED_ANEW: Duration = Duration::from_millis(100);
/// How long nobody is held after affinities were asked for.
const LOOKED_AT: Duration = Duration::from_millis(1);

/// What a thread does when it is let run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    /// Its program, up to its next call.
    Program,
    /// A call, which may wait for something.
    Call,
}

/// A thread that is held on a processor.
struct Held {
    cpu: usize,
    /// The affinity to go back to.
    own: cpu_set_t,
}

/// What is known of a guest thread.
struct Thread {
    held: Option<Held>,
    /// When it was last let run, and what for.
    since: Instant,
    runs: Runs,
    /// How many stops there had been by then.
    stops: u64,
    /// How long its program ran between its last two calls.
    ran: Duration,
    /// It cannot be held.
    fixed: bool,
}

/// The guest threads of a sandbox, in the hands of the tracing thread.
pub(super) struct Holds {
    threads: HashMap<i32, Thread>,
    held: usize,
    /// Who stopped last, and how often in a row.
    streak: (i32, u32),
    stops: u64,
    now: Instant,
    ticked: Instant,
    placed: Instant,
    not_before: Instant,
    /// Where threads are held, or were last.
    last: Option<usize>,
    shared: Arc<Shared>,
    enabled: bool,
}

impl Holds {
    pub(super) fn new(shared: Arc<Shared>) -> Holds {
        let now = Instant::now();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Holds {
            threads: HashMap::new(),
            held: 0,
            streak: (0, 0),
            stops: 0,
            now,
            ticked: now,
            placed: now,
            not_before: now,
            last: None,
            shared,
            enabled: processors > 1,
        }
    }

    /// A thread has stopped.
    pub(super) fn stopped(&mut self, tid: i32) {
        if !self.enabled {
            return;
        }
        self.now = Instant::now();
        self.stops += 1;
        self.shared.ticks.stops.store(self.stops, Ordering::Relaxed);
        self.streak = match self.streak {
            (last, n) if last == tid => (tid, n.saturating_add(1)),
            _ => (tid, 1),
        };
        if let Some(t) = self.threads.get_mut(&tid)
            && t.runs == Runs::Program
        {
            t.ran = self.now.saturating_duration_since(t.since);
            let alone = self.stops == t.stops + 1;
            if t.ran > if alone { COMPUTES } else { COMPUTES_BESIDE } {
                self.let_go(tid);
            }
        }
        if self.held > 0 && self.now.saturating_duration_since(self.ticked) >= TICK {
            self.tick();
        }
    }

    /// A thread is about to be let run.
    pub(super) fn runs(&mut self, tid: i32, runs: Runs) {
        if !self.enabled {
            return;
        }
        let (now, stops) = (self.now, self.stops);
        let thread = self.threads.entry(tid).or_insert(Thread {
            held: None,
            since: now,
            runs,
            stops,
            ran: Duration::MAX,
            fixed: false,
        });
        (thread.runs, thread.stops) = (runs, stops);
        let again = self.streak.0 == tid && self.streak.1 >= STREAK && thread.ran < COMPUTES;
        let wanted = thread.held.is_some() || again && !thread.fixed && now >= self.not_before;
        if wanted {
            self.hold(tid);
        }
        // What came before has taken its time.
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.since = Instant::now();
        }
    }

    /// Holds a thread where the tracing thread is.
    fn hold(&mut self, tid: i32) {
        let Some(thread) = self.threads.get_mut(&tid) else {
            return;
        };
        let here = placement::stay();
        match (&mut thread.held, here) {
            (Some(held), Some(cpu)) if held.cpu == cpu => return,
            (Some(held), Some(cpu)) => {
                if placement::move_to(Tid(tid), &held.own, cpu).is_some() {
                    held.cpu = cpu;
                    self.last = Some(cpu);
                    return;
                }
            }
            (None, Some(cpu)) => {
                let held = placement::affinity(Tid(tid)).ok().and_then(|own| {
                    placement::move_to(Tid(tid), &own, cpu)?;
                    Some(Held { cpu, own })
                });
                thread.fixed = held.is_none();
                if let Some(held) = held {
                    self.last = Some(cpu);
                    thread.held = Some(held);
                    self.count(1);
                    return;
                }
            }
            (_, None) => (),
        }
        self.let_go(tid);
    }

    fn count(&mut self, change: isize) {
        self.held = self.held.saturating_add_signed(change);
        match (self.held, change) {
            (0, _) => {
                self.shared.ticks.want(false);
                placement::release();
            }
            (1, 1) => {
                (self.ticked, self.placed) = (self.now, self.now);
                self.shared.ticks.want(true);
            }
            _ => (),
        }
    }

    /// A thread has the affinity again that it had.
    fn let_go(&mut self, tid: i32) {
        let held = self.threads.get_mut(&tid).and_then(|t| t.held.take());
        if let Some(held) = held {
            placement::move_back(Tid(tid), &held.own, held.cpu);
            self.count(-1);
        }
    }

    fn let_go_if(&mut self, which: impl Fn(&Thread) -> bool) {
        let which = |(&tid, t): (&i32, &Thread)| (t.held.is_some() && which(t)).then_some(tid);
        let all: Vec<i32> = self.threads.iter().filter_map(which).collect();
        all.into_iter().for_each(|tid| self.let_go(tid));
    }

    /// Affinities are about to be looked at, or changed.
    pub(super) fn let_all_go(&mut self) {
        if self.held > 0 {
            self.let_go_if(|_| true);
        }
        self.not_before = Instant::now() + LOOKED_AT;
        self.threads.values_mut().for_each(|t| t.fixed = false);
    }

    /// Looks after threads that do not stop.
    pub(super) fn tick(&mut self) {
        self.now = Instant::now();
        self.ticked = self.now;
        let now = self.now;
        if now.saturating_duration_since(self.placed) >= PLACED_ANEW {
            self.placed = now;
            return self.let_go_if(|_| true);
        }
        self.let_go_if(|t| {
            let patience = match t.runs {
                Runs::Program => TICK,
                Runs::Call => LONG_CALL,
            };
            now.saturating_duration_since(t.since) >= patience
        });
    }

    /// Whether a new thread may be held, by what it has inherited.
    pub(super) fn may_have_inherited(&self, tid: i32) -> bool {
        self.last.is_some_and(|cpu| placement::is_on(Tid(tid), cpu))
    }

    /// `parent` has made a thread.
    pub(super) fn made(&mut self, tid: i32, parent: i32) {
        // Nobody has been held who could have passed it on.
        let Some(cpu) = self.last else {
            return;
        };
        let held = self.threads.get(&parent).and_then(|t| t.held.as_ref());
        // It may have been let go meanwhile.
        let own = held.map_or_else(|| placement::affinity(Tid(parent)), |h| Ok(h.own));
        let Ok(own) = own else {
            return;
        };
        if placement::is_only(&own, cpu) || !placement::is_on(Tid(tid), cpu) {
            return;
        }
        let (since, stops) = (self.now, self.stops);
        self.threads.insert(
            tid,
            Thread {
                held: Some(Held { cpu, own }),
                since,
                runs: Runs::Program,
                stops,
                ran: Duration::MAX,
                fixed: false,
            },
        );
        self.count(1);
    }

    /// A thread has another's number after an `execve`.
    pub(super) fn renamed(&mut self, former: i32, tid: i32) {
        self.ended(tid);
        if let Some(thread) = self.threads.remove(&former) {
            self.threads.insert(tid, thread);
        }
    }

    pub(super) fn ended(&mut self, tid: i32) {
        if self.threads.remove(&tid).is_some_and(|t| t.held.is_some()) {
            self.count(-1);
        }
    }
}

//! Where caller and supervisor run while a descriptor is injected.
//!
//! `SECCOMP_IOCTL_NOTIF_ADDFD` wakes the caller to receive the descriptor, and the caller then wakes the
//! supervisor. Neither wake-up carries the hint that keeps both on one processor
//! (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` is for calls and answers alone), so where another processor is
//! idle each goes there: two interprocessor interrupts and two idle states left, 15 to 30 µs on a virtual
//! machine. Holding both threads on the supervisor's processor by their affinity for that moment costs
//! about 4 µs. Where the other processors are busy the scheduler keeps both together by itself, so
//! injections are timed, and threads held only after one was slow.
//!
//! A caller is held for the exchange alone, for it can see its affinity. The supervisor's thread stays
//! held as long as it serves one caller that has descriptors injected call after call.

use std::cell::Cell;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libc::cpu_set_t;

use crate::{Errno, Result, Tid};

/// An injection that takes longer went by way of another processor.
const SLOW: Duration = Duration::from_micros(8);
/// How many injections are held after a slow one, before one is let free to see whether it is still slow.
const HELD: u32 = 500;
/// How many calls without an injection a thread stays held.
const PATIENCE: u32 = 4;

thread_local! {
    static HOLD: Cell<Hold> = const { Cell::new(Hold::Free) };
}

/// Whether the calling thread is held.
#[derive(Clone, Copy)]
enum Hold {
    Free,
    Held {
        /// Where.
        cpu: usize,
        /// The affinity to go back to.
        own: cpu_set_t,
        /// For whom.
        caller: Tid,
        /// How many more of its calls may pass without an injection.
        patience: u32,
    },
}

/// Decides, by how long injections take, whether threads are held.
#[derive(Default)]
pub(crate) struct Placement {
    left: AtomicU32,
}

impl Placement {
    /// Performs `exchange` with `caller`, which waits for it. It must not let the caller go on: that could see its
    /// affinity, or pass it on to a new thread.
    pub(crate) fn exchange<T>(&self, caller: Tid, exchange: impl FnOnce() -> T) -> T {
        let count_down = |n: u32| n.checked_sub(1);
        let relaxed = Ordering::Relaxed;
        if self.left.fetch_update(relaxed, relaxed, count_down).is_ok() {
            let held = Caller::hold(caller);
            let done = exchange();
            drop(held);
            return done;
        }
        let start = Instant::now();
        let done = exchange();
        if start.elapsed() > SLOW {
            self.left.store(HELD, Ordering::Relaxed);
        }
        done
    }
}

/// Lets the calling thread go after an injection that none is likely to follow: the next call comes from another
/// process or after a while, and from wherever that runs.
pub(crate) fn let_go() {
    release();
}

/// Lets the calling thread go, unless `caller` is the one it is held for, and makes good use of it.
pub(crate) fn received_from(caller: Tid) {
    HOLD.with(|hold| {
        let Hold::Held {
            cpu,
            own,
            caller: last,
            patience,
        } = hold.get()
        else {
            return;
        };
        match patience.checked_sub(1) {
            Some(patience) if last == caller => hold.set(Hold::Held {
                cpu,
                own,
                caller,
                patience,
            }),
            _ => release(),
        }
    });
}

/// Starts a named thread, which may run wherever the supervisor may: the calling thread is let go first, for
/// it would inherit its affinity.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    release();
    thread::Builder::new().name(name.into()).spawn(body)
}

/// Lets the calling thread go, if it is held.
pub(crate) fn release() {
    HOLD.with(|hold| {
        if let Hold::Held { own, .. } = hold.replace(Hold::Free) {
            // It was possible before.
            let _ = set_affinity(Tid(0), &own);
        }
    });
}

/// Holds the calling thread where it is. Returns where.
fn hold_here(caller: Tid) -> Option<usize> {
    HOLD.with(|hold| {
        let (cpu, own) = match hold.get() {
            Hold::Held { cpu, own, .. } => (cpu, own),
            Hold::Free => {
                let own = affinity(Tid(0)).ok()?;
                // SAFETY: no arguments.
                let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
                set_affinity(Tid(0), &only(cpu)?).ok()?;
                (cpu, own)
            }
        };
        hold.set(Hold::Held {
            cpu,
            own,
            caller,
            patience: PATIENCE,
        });
        Some(cpu)
    })
}

/// Holds the calling thread where it is, until it is let go with [`release`] or starts a thread. Returns where.
pub(crate) fn stay() -> Option<usize> {
    if let Hold::Held { cpu, .. } = HOLD.get() {
        return Some(cpu);
    }
    hold_here(Tid(0))
}

/// Holds `tid`, whose affinity is `own`, on `cpu`. `None` if that cannot be done or makes no difference.
pub(crate) fn move_to(tid: Tid, own: &cpu_set_t, cpu: usize) -> Option<()> {
    // SAFETY: `only` has checked that `cpu` is within a set, and sets are plain data.
    let here =
        only(cpu).filter(|_| unsafe { libc::CPU_COUNT(own) > 1 && libc::CPU_ISSET(cpu, own) })?;
    set_affinity(tid, &here).ok()
}

/// Lets `tid`, which was held on `cpu`, go to `own`, unless somebody else has moved it.
pub(crate) fn move_back(tid: Tid, own: &cpu_set_t, cpu: usize) {
    if is_on(tid, cpu) {
        // It may be gone.
        let _ = set_affinity(tid, own);
    }
}

/// Whether `tid` may run on `cpu` alone.
pub(crate) fn is_on(tid: Tid, cpu: usize) -> bool {
    affinity(tid).is_ok_and(|set| is_only(&set, cpu))
}

/// Whether `set` is `cpu` alone.
pub(crate) fn is_only(set: &cpu_set_t, cpu: usize) -> bool {
    // SAFETY: sets are plain data.
    only(cpu).is_some_and(|only| unsafe { libc::CPU_EQUAL(&only, set) })
}

/// A caller held on one processor; dropped, it has the affinity that it had.
struct Caller {
    tid: Tid,
    affinity: cpu_set_t,
}

impl Caller {
    /// Holds `tid`, and the calling thread with it. `None` if that cannot be done or makes no difference.
    fn hold(tid: Tid) -> Option<Caller> {
        let affinity = affinity(tid).ok()?;
        // SAFETY: sets are plain data.
        if unsafe { libc::CPU_COUNT(&affinity) } < 2 {
            return None;
        }
        let cpu = hold_here(tid)?;
        // SAFETY: `only` has checked that `cpu` is within a set.
        let here = only(cpu).filter(|_| unsafe { libc::CPU_ISSET(cpu, &affinity) })?;
        set_affinity(tid, &here).ok()?;
        Some(Caller { tid, affinity })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // It may be gone.
        let _ = set_affinity(self.tid, &self.affinity);
    }
}

/// The set of `cpu` alone.
fn only(cpu: usize) -> Option<cpu_set_t> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return None;
    }
    // SAFETY: all-zero is the empty set, and `cpu` is within it.
    unsafe {
        let mut set: cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        Some(set)
    }
}

/// The processors that `tid` (0: the calling thread) may run on. `EINVAL` on hosts of more than 1,024.
pub(crate) fn affinity(tid: Tid) -> Result<cpu_set_t> {
    // SAFETY: a set is plain data, and as large as said.
    unsafe {
        let mut set: cpu_set_t = mem::zeroed();
        Errno::result(libc::sched_getaffinity(tid.0, size_of_val(&set), &mut set))?;
        Ok(set)
    }
}

fn set_affinity(tid: Tid, set: &cpu_set_t) -> Result<()> {
    // SAFETY: a set is plain data, and as large as said.
    let n = unsafe { libc::sched_setaffinity(tid.0, size_of_val(set), set) };
    Errno::result(n).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many processors the calling thread may run on.
    fn breadth() -> i32 {
        // SAFETY: a set is plain data.
        unsafe { libc::CPU_COUNT(&affinity(Tid(0)).unwrap()) }
    }

    #[test]
    fn a_new_thread_is_not_held_with_the_one_that_starts_it() {
        let all = breadth();
        hold_here(Tid(1)).unwrap();
        assert_eq!(breadth(), 1);
        assert_eq!(spawn("free", breadth).unwrap().join().unwrap(), all);
        hold_here(Tid(1)).unwrap();
        (0..=PATIENCE).for_each(|_| received_from(Tid(1)));
        assert_eq!(breadth(), all);
    }
}

//! Which state a process that was never seen has inherited.
//!
//! Forking is not intercepted, so a process inherits its virtual state the way it inherits everything
//! else: from the kernel. The soft limit `RLIMIT_LOCKS`, to which Linux has given no meaning since 2.4,
//! holds the number of the process's [`State`]. It is copied by `fork` in all its forms at that very
//! moment, kept by `execve`, shared by threads, and hidden from the guest, whose own calls about that
//! limit are answered by Duet and change nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use duet_vfs::account::host;
use duet_vfs::types::{Errno, Result};

use crate::process::State;

/// The limit that holds the number.
pub const STAMP: libc::__rlimit_resource_t = libc::RLIMIT_LOCKS;

/// The number of the state of the first process; init sets it before the first call.
pub const FIRST: u64 = 1;

/// Numbers given out last that are kept whoever has them, for so long: of processes that fork just now.
const RECENT: u64 = 1024;
const FORKING: Duration = Duration::from_secs(1);

/// At how many, at least, it is time to look which are in use. Each keeps a working directory, and so the
/// directories above that, be they removed or not.
const CROWD: usize = 256;

/// All states that some process may have.
pub struct States {
    /// Each with the time at which it was made.
    by_number: HashMap<u64, (Arc<State>, Instant)>,
    next: u64,
    /// At how many it is time to look which are in use.
    crowded: usize,
}

impl States {
    /// With the first process's state.
    pub fn new(first: Arc<State>) -> States {
        States {
            by_number: HashMap::from([(FIRST, (first, Instant::now()))]),
            next: FIRST + 1,
            crowded: CROWD,
        }
    }

    /// Gives a new state its number.
    pub fn add(&mut self, mut state: State) -> Arc<State> {
        state.number = self.next;
        self.next += 1;
        let state = Arc::new(state);
        let made = (state.clone(), Instant::now());
        self.by_number.insert(state.number, made);
        state
    }

    /// The state with this number.
    pub fn get(&self, number: u64) -> Option<Arc<State>> {
        self.by_number.get(&number).map(|(state, _)| state.clone())
    }

    /// Whether there are so many that [`States::keep`] should be called.
    pub fn are_crowded(&self) -> bool {
        self.by_number.len() >= self.crowded
    }

    /// Forgets all but these, and the latest. Returns what is forgotten, to be dropped without a lock.
    #[must_use]
    pub fn keep(&mut self, in_use: &HashSet<u64>) -> Vec<Arc<State>> {
        let first = self.next.saturating_sub(RECENT);
        let recent = |n, made: &Instant| n >= first && made.elapsed() < FORKING;
        let forgotten = self
            .by_number
            .extract_if(|n, (_, made)| *n != FIRST && !in_use.contains(n) && !recent(*n, made));
        let forgotten = forgotten.map(|(_, (state, _))| state).collect();
        self.crowded = (self.by_number.len() * 2).max(CROWD);
        forgotten
    }
}

/// Marks a process, by the id of any of its threads in the supervisor's numbers.
pub fn stamp(pid: i32, number: u64) -> Result<()> {
    let new = libc::rlimit64 {
        rlim_cur: number,
        rlim_max: libc::RLIM64_INFINITY,
    };
    // SAFETY: `new` is ours, and nothing is asked for.
    let n = host("prlimit64", || unsafe {
        libc::prlimit64(pid, STAMP, &new, std::ptr::null_mut())
    });
    Errno::result(n).map(drop)
}

/// Reads a process's mark.
pub fn stamp_of(pid: i32) -> Result<u64> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: nothing is set, and `old` is ours.
    let n = host("prlimit64", || unsafe {
        libc::prlimit64(pid, STAMP, std::ptr::null(), &mut old)
    });
    Errno::result(n)?;
    Ok(old.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_inherits_the_stamp() {
        let mut child = std::process::Command::new("sleep");
        // SAFETY: one system call.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut child, || Ok(stamp(0, 77)?));
        }
        let mut child = child.arg("5").spawn().unwrap();
        assert_eq!(stamp_of(child.id() as i32), Ok(77));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! Who may be looking into whom at this moment: ptrace(2) and its like are checked by Duet and then run by
//! the kernel, and between the two a target could execute a set-id program.
//!
//! As `cred_guard_mutex` does in the kernel, this keeps the two apart: a look is noted before it is checked,
//! and an `execve` that gains something is announced, so that later looks are checked against what the
//! process is to become, and waits for those noted before.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use duet_intercept::Tid;
use parking_lot::Mutex;

use crate::process::may_be_in;

/// Entries at which those of threads that look no more are left out.
const MANY: usize = 1024;

/// Threads that were allowed a look, each with the serial number of the process that it looks into.
#[derive(Default)]
pub struct Lookers {
    targets: Mutex<HashMap<i32, u64>>,
}

impl Lookers {
    /// `looker` is about to look into the process with this serial number.
    pub fn begin(&self, looker: Tid, target: u64) {
        let mut targets = self.targets.lock();
        if targets.len() >= MANY {
            targets.retain(|&tid, _| may_look(tid));
        }
        targets.insert(looker.0, target);
    }

    /// `looker` does not.
    pub fn end(&self, looker: Tid) {
        self.targets.lock().remove(&looker.0);
    }

    /// Waits until nobody looks into `target` who was allowed to before the call, `patience` at most. Whether
    /// nobody does.
    pub fn are_done(&self, target: u64, patience: Duration) -> bool {
        const PAUSE: Duration = Duration::from_millis(1);
        let start = Instant::now();
        loop {
            let left = {
                let mut targets = self.targets.lock();
                targets.retain(|&tid, t| *t != target || may_look(tid));
                targets.values().any(|&t| t == target)
            };
            if !left || start.elapsed() >= patience {
                return !left;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether a thread may be in one of the calls.
fn may_look(tid: i32) -> bool {
    const CALLS: [libc::c_long; 3] = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
    ];
    may_be_in(&format!("/proc/{tid}"), &CALLS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn those_who_run_are_waited_for() {
        let (over, lookers) = (AtomicBool::new(false), Lookers::default());
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(100));
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(nix::unistd::gettid().as_raw()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let spins = Tid(receiver.recv().unwrap());
            lookers.begin(spins, 1);
            assert!(lookers.are_done(2, short));
            assert!(!lookers.are_done(1, short));
            lookers.end(spins);
            assert!(lookers.are_done(1, short));
            lookers.begin(spins, 1);
            over.store(true, Ordering::Relaxed);
            assert!(lookers.are_done(1, long));
        });
    }

    #[test]
    fn those_who_wait_in_another_call_are_done() {
        let mut sleeps = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let lookers = Lookers::default();
        lookers.begin(Tid(sleeps.id() as i32), 1);
        assert!(lookers.are_done(1, Duration::from_secs(50)));
        sleeps.kill().unwrap();
        sleeps.wait().unwrap();
    }
}

//! What all handlers share: the tree, the processes, the counters, the rules of this sandbox.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use duet_intercept::Engine;
use duet_vfs::walk::Vfs;
use parking_lot::Mutex;

use crate::process::ProcessTable;
use crate::sockets::SocketNames;

/// Which network the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A loopback device of its own.
    None,
    /// The host's.
    Host,
}

/// What only the sandbox's init may do, inside the namespaces.
pub trait Privileged: Send + Sync {
    /// `sethostname(2)`; `domain` selects `setdomainname(2)`.
    fn set_name(&self, name: &[u8], which: NameKind) -> duet_vfs::types::Result<()>;
}

/// Which of the two names of the UTS namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// The host name.
    Host,
    /// The NIS domain name.
    Domain,
}

/// Calls seen so far, by number.
pub struct Counters {
    by_number: Box<[Count]>,
    unknown: AtomicU64,
    foreign: AtomicU64,
}

/// One call's count.
#[derive(Default)]
pub struct Count {
    calls: AtomicU64,
    refused: AtomicU64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            by_number: (0..512).map(|_| Count::default()).collect(),
            unknown: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts one call.
    pub fn count(&self, nr: u32, refused: bool) {
        let Some(c) = self.by_number.get(nr as usize) else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        c.calls.fetch_add(1, Ordering::Relaxed);
        if refused {
            c.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a call by another entry than `syscall` with a 64-bit number (`int 0x80`, x32).
    pub fn count_foreign(&self) {
        self.foreign.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls by another entry.
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// `(number, calls, refused)` of every call that was made.
    pub fn counts(&self) -> Vec<(u32, u64, u64)> {
        let all = self.by_number.iter().enumerate().map(|(nr, c)| {
            (nr as u32, c.calls.load(Ordering::Relaxed), c.refused.load(Ordering::Relaxed))
        });
        all.filter(|&(_, calls, _)| calls > 0).collect()
    }

    /// Calls with a number that no system call has.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }
}

/// One sandbox, as its handlers see it.
pub struct Kernel {
    /// Brings the calls.
    pub engine: Arc<dyn Engine>,
    /// The tree.
    pub vfs: Arc<Vfs>,
    /// The processes.
    pub processes: Arc<ProcessTable>,
    /// What was called.
    pub counters: Counters,
    /// The network.
    pub network: Network,
    /// The start-up stub, a sealed memfd.
    pub stub: OwnedFd,
    /// Marks an `execve` that Duet itself has the guest make.
    pub exec_cookie: u64,
    /// The init.
    pub privileged: Box<dyn Privileged>,
    /// Names of Unix sockets.
    pub sockets: Mutex<SocketNames>,
}

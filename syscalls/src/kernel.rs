//! What all handlers share: the tree, the processes, the counters, the rules of this sandbox.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use duet_intercept::Engine;
use duet_vfs::tmp::TmpFs;
use duet_vfs::{BackingId, FileSystem, Vfs};
use parking_lot::Mutex;

use crate::agents::Agents;
use crate::images::Images;
use crate::lookers::Lookers;
use crate::peers::Peers;
use crate::process::ProcessTable;
use crate::sockets::SocketNames;
use crate::table::{self, Verdict};

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
    by_number: Box<[Slots]>,
    unknown: AtomicU64,
    foreign: AtomicU64,
}

#[derive(Default)]
struct Slots {
    native: AtomicU64,
    emulated: AtomicU64,
    refused: AtomicU64,
}

/// How often one call was made, by what became of it. Calls that the filter lets through unseen are
/// not among the native ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Run by the kernel.
    pub native: u64,
    /// Served by a handler, whatever it answered.
    pub emulated: u64,
    /// Refused by the table.
    pub refused: u64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            by_number: (0..512).map(|_| Slots::default()).collect(),
            unknown: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts one call.
    pub fn count(&self, nr: u32, verdict: Verdict) {
        let known = table::lookup(nr).and_then(|_| self.by_number.get(nr as usize));
        let slot = match (known, verdict) {
            (None, _) => &self.unknown,
            (Some(s), Verdict::Native) => &s.native,
            (Some(s), Verdict::Emulated) => &s.emulated,
            (Some(s), Verdict::Refused(_)) => &s.refused,
        };
        slot.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call by another entry than `syscall` with a 64-bit number (`int 0x80`, x32).
    pub fn count_foreign(&self) {
        self.foreign.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls by another entry.
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Calls with a number that no system call has.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Every call that was made, by number.
    pub fn counts(&self) -> Vec<(u32, Counts)> {
        let read = |s: &Slots| Counts {
            native: s.native.load(Ordering::Relaxed),
            emulated: s.emulated.load(Ordering::Relaxed),
            refused: s.refused.load(Ordering::Relaxed),
        };
        let all = self
            .by_number
            .iter()
            .enumerate()
            .map(|(nr, s)| (nr as u32, read(s)));
        all.filter(|(_, c)| *c != Counts::default()).collect()
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
    /// When the first program was about to run its first instruction.
    pub started: OnceLock<Instant>,
    /// File systems of which there is one instance, by type, for mount(2).
    pub singletons: HashMap<Vec<u8>, Arc<dyn FileSystem>>,
    /// What the guest mounts as tmpfs is made beside this one.
    pub tmpfs: Arc<TmpFs>,
    /// Calls that come without a notification, where they may.
    pub agents: Option<Agents>,
    /// Whether the guest has ever watched a file (inotify(7)).
    pub watches: AtomicBool,
    /// Whether the guest has ever traced a process (ptrace(2)).
    pub traces: AtomicBool,
    /// Who may be about to look into another process.
    pub lookers: Lookers,
    /// Where the kernel finds what it is to load itself.
    pub images: Images,
    /// Bytes of memory that the sandbox is held to.
    pub memory_limit: Option<u64>,
    /// The start-up stub, a sealed memfd.
    pub stub: OwnedFd,
    /// Which file that is.
    pub stub_id: BackingId,
    /// Marks an `execve` that Duet itself has the guest make.
    pub exec_cookie: u64,
    /// Marks native calls that Duet itself has the guest make, so that nobody is told of them
    /// ([`duet_intercept::marked`]); 0 where nobody is told of native calls anyway.
    pub mark: u32,
    /// The init.
    pub privileged: Box<dyn Privileged>,
    /// Who made connections between Unix sockets. Not locked together with the process table.
    pub peers: Arc<Mutex<Peers>>,
    /// Names of Unix sockets.
    pub sockets: Mutex<SocketNames>,
}

//! What a machine's processors did: exits by reason, and the time in guest and monitor.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Why a processor came out of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A port of a device of the monitor.
    Port,
    /// Memory-mapped registers of a device of the monitor.
    Mmio,
    /// A signal, or nothing that concerns the monitor.
    Interrupted,
    /// Anything else.
    Other,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Exit; 4] = [Exit::Port, Exit::Mmio, Exit::Interrupted, Exit::Other];

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Exit::Port => "port",
            Exit::Mmio => "mmio",
            Exit::Interrupted => "interrupted",
            Exit::Other => "other",
        }
    }
}

/// Counters of one machine, added to by all its processors.
#[derive(Debug, Default)]
pub struct Stats {
    exits: [AtomicU64; Exit::ALL.len()],
    guest: AtomicU64,
    monitor: AtomicU64,
}

impl Stats {
    /// One turn: so long in KVM (the guest, and what the kernel does for it), so long here before.
    pub fn turn(&self, exit: Exit, guest: Duration, monitor: Duration) {
        if let Some(counter) = self.exits.get(exit as usize) {
            counter.fetch_add(1, Relaxed);
        }
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.guest.fetch_add(nanos(guest), Relaxed);
        self.monitor.fetch_add(nanos(monitor), Relaxed);
    }

    /// How often a processor came out for this reason.
    pub fn exits(&self, exit: Exit) -> u64 {
        let counter = self.exits.get(exit as usize);
        counter.map_or(0, |c| c.load(Relaxed))
    }

    /// Time of all processors in KVM, which runs the guest and its interrupt controllers.
    pub fn guest_time(&self) -> Duration {
        Duration::from_nanos(self.guest.load(Relaxed))
    }

    /// Time of all processors in the monitor's own code.
    pub fn monitor_time(&self) -> Duration {
        Duration::from_nanos(self.monitor.load(Relaxed))
    }
}

//! Processor time and memory, as getrusage(2) counts them.

use nix::sys::resource::{Usage as Counted, UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What the copy of a process may have resident beyond what that had, in bytes.
const COPY: u64 = 2 << 20;

/// What processes used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode, in microseconds.
    pub user: u64,
    /// Processor time in the kernel, in microseconds.
    pub system: u64,
    /// Most memory that any one process had resident, in bytes; 0 if that is not known.
    pub peak: u64,
}

impl Usage {
    /// What the caller's children have used that were waited for, and theirs.
    pub fn of_children() -> nix::Result<Usage> {
        let own = Usage::from(getrusage(UsageWho::RUSAGE_SELF)?);
        let mut all = Usage::from(getrusage(UsageWho::RUSAGE_CHILDREN)?);
        // A process begins as a copy of its parent, and that counts as its own.
        if all.peak <= own.peak.saturating_add(COPY) {
            all.peak = 0;
        }
        Ok(all)
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        [self.user, self.system, self.peak]
            .map(u64::to_le_bytes)
            .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Usage> {
        let mut numbers = bytes
            .chunks(8)
            .map(|b| Some(u64::from_le_bytes(b.try_into().ok()?)));
        let mut number = || numbers.next().flatten();
        Some(Usage {
            user: number()?,
            system: number()?,
            peak: number()?,
        })
    }
}

impl From<Counted> for Usage {
    fn from(counted: Counted) -> Usage {
        Usage {
            user: micros(counted.user_time()),
            system: micros(counted.system_time()),
            // KiB, says getrusage(2).
            peak: u64::try_from(counted.max_rss())
                .unwrap_or(0)
                .saturating_mul(1024),
        }
    }
}

fn micros(time: TimeVal) -> u64 {
    let whole = time.tv_sec().saturating_mul(1_000_000);
    u64::try_from(whole.saturating_add(time.tv_usec())).unwrap_or(0)
}

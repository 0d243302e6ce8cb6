//! What `duet run --figures FILE` tells of the inside of a run, as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Processor time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// System calls, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Run by the kernel.
    pub native: u64,
    /// Answered by Duet.
    pub emulated: u64,
    /// Answered with an error.
    pub refused: u64,
}

/// What was seen from inside. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// When the program was about to run its first instruction.
    pub started: Option<u64>,
    /// When its end was heard of.
    pub ended: Option<u64>,
    /// What the program and its descendants used.
    pub guest: Option<Cpu>,
    /// Processor time that a machine used while the program ran in it, in microseconds.
    pub machine: Option<u64>,
    /// Most memory that any one of them had resident, in bytes.
    pub guest_peak: Option<u64>,
    /// Calls, if all were counted.
    pub calls: Option<Calls>,
    /// Exits of a virtual machine to its monitor, by reason, if the monitor can tell.
    pub exits: Option<BTreeMap<String, u64>>,
    /// Which monitor ran the machine.
    pub monitor: Option<String>,
    /// Files that the mode needed beside the programs it runs: a kernel and its modules.
    pub files: Vec<PathBuf>,
}

impl Inside {
    /// Writes it.
    ///
    /// # Errors
    /// The file's.
    pub fn write(&self, to: &Path) -> std::io::Result<()> {
        std::fs::write(to, serde_json::to_vec(self)?)
    }

    /// Reads it; `None` if the run has not come so far as to write it.
    pub fn read(from: &Path) -> Option<Inside> {
        let text = std::fs::read(from).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|e| log::warn!("{}: {e}", from.display()))
            .ok()
    }
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
pub fn now() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    // The clock is always there.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let whole = t.tv_sec().saturating_mul(1_000_000_000);
        u64::try_from(whole.saturating_add(t.tv_nsec())).unwrap_or(0)
    })
}

/// That instant on the clock of [`now`].
pub fn monotonic(at: std::time::Instant) -> u64 {
    let ago = at.elapsed();
    now().saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))
}

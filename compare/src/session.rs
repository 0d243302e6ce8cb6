//! Many runs in turn: warm-up, timed runs, observed runs, each mode once a round.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::agree::{Digests, Kept};
use crate::child::{Run, Runner, Stopped};
use crate::modes::{Candidate, Mode};
use crate::processes;
use crate::spawn::Purpose;
use crate::stage::{self, Stage};
use crate::subject::Subject;
use crate::{Error, Result};

/// How often, and by what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `duet` program.
    pub duet: PathBuf,
    /// Timed runs of each mode.
    pub runs: u32,
    /// Runs before them whose figures are dropped.
    pub warmups: u32,
    /// Runs after them that are looked at.
    pub observed: u32,
    /// Time for one run.
    pub timeout: Option<Duration>,
    /// Outputs that are kept of each mode, of those that differ from one another; of all there are digests.
    pub kept: usize,
    /// A mode with a run that took longer is not run again.
    pub patience: Option<Duration>,
    /// Where the runs take place; by default where temporary files are.
    pub place: Option<PathBuf>,
}

/// As many outputs as it takes to show a difference: those of a mode that varies may be known from the
/// reference.
pub const KEPT: usize = 4;

/// The runs of one mode.
#[derive(Clone, Debug)]
pub struct Column {
    /// The mode.
    pub mode: Mode,
    /// Why there are no runs.
    pub missing: Option<String>,
    /// Timed runs.
    pub timed: Vec<Run>,
    /// Observed runs.
    pub observed: Vec<Run>,
    /// What they did, as far as it is kept.
    pub kept: Kept,
}

/// All runs.
#[derive(Clone, Debug)]
pub struct Columns {
    /// In the order in which the modes were asked for.
    pub columns: Vec<Column>,
    /// The signal that ended it early.
    pub interrupted: Option<i32>,
}

/// Is told how far it has come.
pub trait Progress {
    /// This run is about to start; it is number `done` of `all`.
    fn begins(&mut self, mode: Mode, what: &str, done: u64, all: u64);
    /// There is nothing more to come.
    fn over(&mut self) {}
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn begins(&mut self, _: Mode, _: &str, _: u64, _: u64) {}
}

/// Signals that end a comparison.
const ENDING: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// Signals that end a comparison, blocked and readable. The calling process keeps them blocked.
///
/// # Errors
/// See signalfd(2).
pub fn watch_signals() -> Result<SignalFd> {
    let mask: SigSet = ENDING.into_iter().collect();
    let failed = |e| Error::step("watching signals", e);
    mask.thread_block().map_err(failed)?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// Whether a signal of [`watch_signals`] has come, and which.
pub fn pending(signals: &SignalFd) -> Option<i32> {
    signals
        .read_signal()
        .ok()
        .flatten()
        .map(|s| s.ssi_signo as i32)
}

/// Whether a signal of [`watch_signals`] waits to be read. It goes on waiting.
pub fn is_interrupted() -> bool {
    // SAFETY: all-zero is a valid set, to be filled.
    let waiting = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut set);
        SigSet::from_sigset_t_unchecked(set)
    };
    ENDING.iter().any(|s| waiting.contains(*s))
}

/// Runs the subject in each mode in turn, and the next round begins with another mode, so that none is
/// always the first. A mode that cannot be started is missing from then on.
///
/// # Errors
/// Comparing itself fails. That no mode can be run is no failure.
pub fn compare(
    subject: &Subject,
    candidates: &[Candidate],
    settings: &Settings,
    signals: &SignalFd,
    progress: &mut dyn Progress,
) -> Result<Columns> {
    processes::adopt_orphans().map_err(|e| Error::step("adopting orphans", e))?;
    let mut columns: Vec<Column> = candidates
        .iter()
        .map(|c| Column {
            mode: c.mode,
            missing: c.missing.clone().or_else(|| match c.mode {
                Mode::Native => stage::native_missing(subject),
                _ => None,
            }),
            timed: Vec::new(),
            observed: Vec::new(),
            kept: Kept::new(settings.kept),
        })
        .collect();
    let can = |c: &Column| c.missing.is_none();
    let native = columns.iter().any(|c| c.mode == Mode::Native && can(c));
    let mut stage = Stage::new(subject, native, settings.place.as_deref())?;
    let runner = Runner {
        subject,
        duet: settings.duet.clone(),
        timeout: settings.timeout,
        signals,
    };
    let rounds = [
        ("warm-up", settings.warmups),
        ("run", settings.runs),
        ("observed run", settings.observed),
    ];
    let present = columns.iter().filter(|c| can(c)).count() as u64;
    let all = present * rounds.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
    let mut done = 0;
    let mut interrupted = None;
    'all: for (what, count) in rounds {
        for round in 0..count {
            for i in 0..columns.len() {
                let at = (i + round as usize) % columns.len();
                let Some(column) = columns.get_mut(at).filter(|c| c.missing.is_none()) else {
                    continue;
                };
                let slow = |p: Duration| column.runs().any(|r| Duration::from_nanos(r.total) > p);
                if settings.patience.is_some_and(slow) {
                    done += 1;
                    continue;
                }
                let text = format!("{what} {} of {count}", round + 1);
                progress.begins(column.mode, &text, done, all);
                done += 1;
                let purpose = match what {
                    "observed run" => Purpose::Observed,
                    _ => Purpose::Timed,
                };
                match runner.run(column.mode, purpose, &mut stage) {
                    Ok(_) if what == "warm-up" => (),
                    Ok((run, output)) => {
                        column.kept.add(&run.did, output);
                        match purpose {
                            Purpose::Observed => column.observed.push(run),
                            Purpose::Timed => column.timed.push(run),
                        }
                    }
                    Err(Stopped::Interrupted(signal)) => {
                        interrupted = Some(signal);
                        break 'all;
                    }
                    Err(Stopped::Failed(e)) => column.missing = Some(e.to_string()),
                }
            }
        }
    }
    progress.over();
    Ok(Columns {
        columns,
        interrupted,
    })
}

impl Column {
    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.timed.iter().chain(&self.observed)
    }

    /// What all of them did.
    pub fn did(&self) -> Vec<Digests> {
        self.runs().map(|r| r.did).collect()
    }
}

//! One run: from its start to the end of its last process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use duet_vm::host::pidfd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signalfd::SignalFd;

use crate::Error;
use crate::agree::{Digests, Output};
use crate::files::{Content, Files, Gather};
use crate::inside::{Calls, Cpu, Inside, now};
use crate::modes::Mode;
use crate::processes;
use crate::session;
use crate::spawn::{Purpose, spawn};
use crate::stage::Stage;
use crate::subject::Subject;

/// Bytes of each stream that are kept, for showing what differs.
const HEAD: usize = 1 << 20;
/// How long a run that is to end may take to do so by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Least time between two looks at the processes of an observed run.
const LOOK: u64 = 2_000_000;
/// A look may take one part in so many of the time.
const SHARE: u64 = 10;

/// What the copy of a process may have resident beyond what that had, in bytes.
const COPY: u64 = 2 << 20;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this status; 128+N if signal N killed it, as all modes say it.
    Exited(u8),
    /// It took longer than it was given, and was killed.
    TimedOut,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Status::Exited(n @ 129..=192) => write!(f, "{n} (signal {})", n - 128),
            Status::Exited(n) => write!(f, "{n}"),
            Status::TimedOut => write!(f, "killed: its time was up"),
        }
    }
}

/// Memory in bytes, the most that was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of the program and its descendants.
    pub guest: u64,
    /// Of what stands between them and the host.
    pub between: u64,
}

/// What came of one run. Times are in nanoseconds since its start.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended.
    pub status: Status,
    /// What it did, for comparing.
    pub did: Digests,
    /// When the program was about to run its first instruction.
    pub started: Option<u64>,
    /// When its first output came.
    pub first_output: Option<u64>,
    /// When the program had ended.
    pub ended: Option<u64>,
    /// When all was over.
    pub total: u64,
    /// Processor time of all that was waited for.
    pub cpu: Cpu,
    /// Of that, the program's and its descendants'.
    pub guest: Option<Cpu>,
    /// Of that, what stands between.
    pub between: Option<Cpu>,
    /// Memory, if it was looked at.
    pub memory: Option<Memory>,
    /// Calls, if they were counted.
    pub calls: Option<Calls>,
    /// Exits of a machine by reason, if its monitor can tell.
    pub exits: Option<BTreeMap<String, u64>>,
    /// Which monitor.
    pub monitor: Option<String>,
    /// Bytes read and written by calls of all processes.
    pub moved: Option<(u64, u64)>,
    /// Bytes of the files that the mode needs for itself, if they were looked for.
    pub disk: Option<u64>,
}

/// What made a run end before its time.
#[derive(Debug)]
pub enum Stopped {
    /// A signal to Duet.
    Interrupted(i32),
    /// Comparing failed.
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(e: Error) -> Stopped {
        Stopped::Failed(e)
    }
}

/// What runs have in common.
pub struct Runner<'a> {
    /// What is run.
    pub subject: &'a Subject,
    /// The `duet` program.
    pub duet: PathBuf,
    /// Time for one run.
    pub timeout: Option<Duration>,
    /// Signals that end all, blocked.
    pub signals: &'a SignalFd,
}

impl Runner<'_> {
    /// Runs it once, from an equal start. Nothing is left running, whatever happens.
    ///
    /// # Errors
    /// A signal came, or the mode cannot be started.
    pub fn run(
        &self,
        mode: Mode,
        purpose: Purpose,
        stage: &mut Stage,
    ) -> std::result::Result<(Run, Output), Stopped> {
        stage.refresh(self.subject)?;
        if mode == Mode::Native {
            stage.mount(self.subject)?;
        }
        let run = self.run_prepared(mode, purpose, stage);
        if run.is_err() {
            processes::ask_to_end(GRACE);
        }
        processes::end_all();
        stage.unmount()?;
        let (mut run, mut output) = run?;
        output.files = stage.written()?;
        run.did = Digests::of(run.status, &output);
        // One that came while the files were looked at.
        match session::pending(self.signals) {
            Some(signal) => Err(Stopped::Interrupted(signal)),
            None => Ok((run, output)),
        }
    }

    fn run_prepared(
        &self,
        mode: Mode,
        purpose: Purpose,
        stage: &Stage,
    ) -> std::result::Result<(Run, Output), Stopped> {
        let before = processes::bytes_moved();
        let began = now();
        let mut child = spawn(self.subject, mode, purpose, &self.duet, stage)?;
        let executed = now();
        let mut watch = Watch {
            looks: (purpose == Purpose::Observed)
                .then(|| Looks::new(child.id(), mode, stage.path())),
            first_output: None,
            deadline: self.timeout.map(|t| began.saturating_add(nanos(t))),
        };
        let (streams, timed_out) = self.attend(&mut child, &mut watch)?;
        let over = now();
        let (status, total, peak) =
            wait(&child).map_err(|e| Error::step("waiting for a run", e))?;
        let [stdout, stderr] = self.drain(&mut child, streams)?;
        // Those that it left behind count too.
        processes::end_all();
        let moved = before.zip(processes::bytes_moved());
        let moved = moved.map(|(b, a)| (a.0.saturating_sub(b.0), a.1.saturating_sub(b.1)));
        let inside = match mode {
            Mode::Native => Inside {
                started: Some(executed),
                ended: Some(over),
                guest: Some(total),
                guest_peak: peak,
                ..Inside::default()
            },
            Mode::Peer(_) | Mode::Trace | Mode::Fast => Inside::default(),
            _ => Inside::read(&stage.inside()).unwrap_or_default(),
        };
        let since = |at: u64| at.saturating_sub(began);
        let (guest, between) = match (inside.guest, mode) {
            (Some(guest), Mode::Vm) => {
                let guest = at_most(guest, inside.machine);
                (Some(guest), Some(around_machine(total, guest)))
            }
            (Some(guest), _) => (Some(guest), Some(less(total, guest))),
            (None, _) => (None, None),
        };
        let (mut memory, mut disk) = (None, None);
        if let Some(looks) = watch.looks {
            disk = Some(looks.disk(&inside.files));
            let mut seen = looks.most;
            let peak = inside.guest_peak.unwrap_or(0);
            // What was between two looks; and from outside, all of a machine's memory is the monitor's.
            seen.guest = seen.guest.max(peak);
            if mode == Mode::Vm {
                seen.between = seen.between.saturating_sub(peak);
            }
            memory = Some(seen);
        }
        let code = match status {
            s if libc::WIFSIGNALED(s) => 128u8.saturating_add(libc::WTERMSIG(s) as u8),
            s => libc::WEXITSTATUS(s) as u8,
        };
        let status = match timed_out {
            true => Status::TimedOut,
            false => Status::Exited(code),
        };
        let output = Output {
            stdout,
            stderr,
            files: Files::default(),
        };
        let run = Run {
            status,
            did: Digests::of(status, &output),
            started: inside.started.map(since),
            first_output: watch.first_output.map(since),
            ended: inside.ended.map(since),
            total: since(over),
            cpu: total,
            guest,
            between,
            memory,
            calls: inside.calls,
            exits: inside.exits,
            monitor: inside.monitor,
            moved,
            disk,
        };
        Ok((run, output))
    }

    /// Reads the run's streams until it ends, or its time is up.
    fn attend(
        &self,
        child: &mut Child,
        watch: &mut Watch,
    ) -> std::result::Result<([Gather; 2], bool), Stopped> {
        let failed = |e: Errno| Error::step("watching a run", e);
        let ended = pidfd(child.id()).map_err(failed)?;
        let mut streams = [Gather::new(HEAD), Gather::new(HEAD)];
        let mut open = [true, true];
        for fd in [
            child.stdout.as_ref().map(AsFd::as_fd),
            child.stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        }
        let mut late = false;
        loop {
            let at = now();
            if let Some(looks) = &mut watch.looks {
                looks.look_if_due(at);
            }
            if watch.deadline.is_some_and(|d| d <= at) {
                if late {
                    processes::end_descendants();
                    watch.deadline = None;
                } else {
                    processes::ask_children();
                    watch.deadline = Some(at.saturating_add(nanos(GRACE)));
                }
                late = true;
            }
            let (Some(out), Some(err)) = (&mut child.stdout, &mut child.stderr) else {
                return Err(Error::Failed("a run has no streams".into()).into());
            };
            let mut fds = vec![
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            if open[0] {
                fds.push(PollFd::new(out.as_fd(), PollFlags::POLLIN));
            }
            if open[1] {
                fds.push(PollFd::new(err.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, watch.patience(at)) {
                Ok(_) | Err(Errno::EINTR) => (),
                Err(e) => return Err(failed(e).into()),
            }
            let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(false)).collect();
            drop(fds);
            let ready = |i: usize| ready.get(i).copied().unwrap_or(false);
            if ready(1)
                && let Some(signal) = self.signals.read_signal().map_err(failed)?
            {
                return Err(Stopped::Interrupted(signal.ssi_signo as i32));
            }
            let second = 2 + usize::from(open[0]);
            let has = [open[0] && ready(2), open[1] && ready(second)];
            if has != [false, false] {
                watch.first_output.get_or_insert_with(now);
            }
            let sources: [&mut dyn Read; 2] = [out, err];
            for (i, from) in sources.into_iter().enumerate() {
                if let (Some(true), Some(stream)) = (has.get(i), streams.get_mut(i))
                    && take(from, stream).map_err(|e| Error::step("reading a run's output", e))?
                    && let Some(open) = open.get_mut(i)
                {
                    *open = false;
                }
            }
            if ready(0) {
                return Ok((streams, late));
            }
        }
    }

    /// What is still in the pipes once the run has ended. Descendants that go on are no part of it.
    fn drain(
        &self,
        child: &mut Child,
        streams: [Gather; 2],
    ) -> std::result::Result<[Content; 2], Stopped> {
        let [mut out, mut err] = streams;
        let failed = |e| Error::step("reading a run's output", e);
        if let Some(from) = &mut child.stdout {
            take(from, &mut out).map_err(failed)?;
        }
        if let Some(from) = &mut child.stderr {
            take(from, &mut err).map_err(failed)?;
        }
        Ok([out.finish(), err.finish()])
    }
}

struct Watch {
    looks: Option<Looks>,
    first_output: Option<u64>,
    deadline: Option<u64>,
}

impl Watch {
    /// How long nothing needs to be done.
    fn patience(&self, at: u64) -> PollTimeout {
        let look = self.looks.as_ref().map(|l| l.due);
        let Some(next) = look.into_iter().chain(self.deadline).min() else {
            return PollTimeout::NONE;
        };
        let millis = next.saturating_sub(at).div_ceil(1_000_000);
        PollTimeout::try_from(millis.min(60_000)).unwrap_or(PollTimeout::MAX)
    }
}

/// Looks at the processes of a run from time to time.
struct Looks {
    top: u32,
    mode: Mode,
    /// The program that the mode consists of.
    between: Option<(u64, u64)>,
    due: u64,
    count: u32,
    most: Memory,
    files: BTreeSet<PathBuf>,
    stage: PathBuf,
}

impl Looks {
    fn new(top: u32, mode: Mode, stage: &Path) -> Looks {
        Looks {
            top,
            mode,
            between: processes::program_of(top),
            due: 0,
            count: 0,
            most: Memory::default(),
            files: BTreeSet::new(),
            stage: stage.to_owned(),
        }
    }

    fn look_if_due(&mut self, at: u64) {
        if at < self.due {
            return;
        }
        let mut seen = Memory::default();
        self.count += 1;
        for pid in std::iter::once(self.top).chain(processes::descendants(self.top)) {
            let Some(bytes) = processes::resident(pid) else {
                continue;
            };
            if !self.is_between(pid) {
                seen.guest += bytes;
                continue;
            }
            seen.between += bytes;
            // What is loaded later is seen later, ever more rarely.
            if self.count.is_power_of_two() {
                processes::mapped(pid, &self.stage, &mut self.files);
            }
        }
        self.most.guest = self.most.guest.max(seen.guest);
        self.most.between = self.most.between.max(seen.between);
        let end = now();
        self.due = end + LOOK.max(end.saturating_sub(at).saturating_mul(SHARE));
    }

    fn is_between(&self, pid: u32) -> bool {
        match self.mode {
            Mode::Native => false,
            Mode::Vm => true,
            _ => {
                let program = processes::program_of(pid);
                // A layer's guests run from a file without a name; what serves it has one.
                program == self.between || is_helper(pid)
            }
        }
    }

    /// Bytes of the files that were mapped by what stands between, and of these.
    fn disk(&self, more: &[PathBuf]) -> u64 {
        let all: BTreeSet<&PathBuf> = self.files.iter().chain(more).collect();
        let sizes = all.into_iter().filter_map(|f| f.metadata().ok());
        sizes.map(|m| m.len()).sum()
    }
}

/// Whether it connects a layer's network.
fn is_helper(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n.trim() == "slirp4netns")
}

/// Reads what there is. True: the stream has ended.
fn take(from: &mut dyn Read, into: &mut Gather) -> std::io::Result<bool> {
    let mut buffer = [0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => into.add(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

/// Reaps it. The time is that of the process and of all that it waited for; the memory is the most that
/// one of them had resident, in bytes, if that is known.
fn wait(child: &Child) -> nix::Result<(i32, Cpu, Option<u64>)> {
    let mut status = 0;
    // SAFETY: plain integers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        let pid = child.id() as libc::pid_t;
        // SAFETY: both are ours. Nobody else waits for this child.
        let n = unsafe { libc::wait4(pid, &mut status, 0, &mut used) };
        match Errno::result(n) {
            Err(Errno::EINTR) => (),
            Err(e) => return Err(e),
            Ok(_) => break,
        }
    }
    let micros = |t: libc::timeval| {
        let whole = t.tv_sec.saturating_mul(1_000_000).saturating_add(t.tv_usec);
        u64::try_from(whole).unwrap_or(0)
    };
    let cpu = Cpu {
        user: micros(used.ru_utime),
        system: micros(used.ru_stime),
    };
    // In KiB. It began as a copy of this process, which counts.
    let bytes = |used: libc::c_long| u64::try_from(used).unwrap_or(0).saturating_mul(1024);
    let own = getrusage(UsageWho::RUSAGE_SELF).map_or(u64::MAX, |own| bytes(own.max_rss()));
    let least = own.saturating_add(COPY);
    let peak = Some(bytes(used.ru_maxrss)).filter(|peak| *peak > least);
    Ok((status, cpu, peak))
}

fn less(total: Cpu, part: Cpu) -> Cpu {
    Cpu {
        user: total.user.saturating_sub(part.user),
        system: total.system.saturating_sub(part.system),
    }
}

/// What the guest's kernel counted, but no more than the machine used meanwhile: a guest does not know when
/// its processor is not run.
fn at_most(guest: Cpu, machine: Option<u64>) -> Cpu {
    let all = guest.user.saturating_add(guest.system);
    let Some(machine) = machine.filter(|m| *m < all) else {
        return guest;
    };
    // In proportion.
    let part = |n: u64| {
        let scaled = u128::from(n) * u128::from(machine) / u128::from(all.max(1));
        u64::try_from(scaled).unwrap_or(machine)
    };
    Cpu {
        user: part(guest.user),
        system: part(guest.system),
    }
}

/// What a machine cost beside the program in it: all that the guest does is time in user mode outside.
fn around_machine(total: Cpu, guest: Cpu) -> Cpu {
    let inside = Cpu {
        user: guest.user.saturating_add(guest.system),
        system: 0,
    };
    less(total, inside)
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_have_used_more_than_its_machine() {
        let cpu = |user, system| Cpu { user, system };
        assert_eq!(at_most(cpu(600, 200), Some(400)), cpu(300, 100));
        assert_eq!(at_most(cpu(600, 200), Some(900)), cpu(600, 200));
        assert_eq!(at_most(cpu(600, 200), None), cpu(600, 200));
        assert_eq!(at_most(cpu(0, 0), Some(0)), cpu(0, 0));
        let huge = at_most(cpu(u64::MAX, u64::MAX), Some(u64::MAX - 1));
        assert!(huge.user < u64::MAX);
        assert_eq!(around_machine(cpu(900, 50), cpu(300, 100)), cpu(500, 50));
    }
}

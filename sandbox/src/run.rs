//! One run: from the options to the exit status.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use duet_intercept::ptrace::Ptrace;
use duet_intercept::seccomp::Seccomp;
use duet_intercept::{self as intercept, Observed, Observer};
use duet_loader::stub::stub_elf;
use duet_syscalls::images::Images;
use duet_syscalls::kernel::{Counters, Kernel};
use duet_syscalls::process::ProcessTable;
use duet_syscalls::table::{self, Disposition, Row, Rule, filter};
use duet_vfs::{BackingId, Errno};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction, sigprocmask,
};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid};

use crate::channel::{Channel, Message};
use crate::config::{Config, Engine, Messages, Network, Seen};
use crate::error::{Error, Result};
use crate::init::OwnNetwork;
use crate::limits::Groups;
use crate::look::Look;
use crate::names::{Names, Setter};
use crate::program::{bare_program, context, first_program, program_path};
use crate::requests::Requests;
use crate::source::Source;
use crate::terminal::Terminal;
use crate::tree::Interfaces;
use crate::usage::Usage;
use crate::usernet::UserNetwork;
use crate::{init, landlock, namespaces, tree, workers};

/// How a run ended.
pub struct Outcome {
    /// The program's own status, or 128+N if signal N killed it.
    pub exit_code: u8,
    /// The kernel-side view for reports.
    pub kernel: Arc<Kernel>,
    /// Calls that read and calls that write, as the kernel counted them for all processes that have been
    /// waited for (`/proc/PID/io`); `None` if it does not.
    pub transfers: Option<(u64, u64)>,
    /// When that was heard of.
    pub ended: Instant,
    /// What the program and its descendants used, as far as they were waited for.
    pub used: Usage,
}

impl Outcome {
    /// What was called.
    pub fn counters(&self) -> &Counters {
        &self.kernel.counters
    }

    /// When the program was about to run its first instruction.
    pub fn started(&self) -> Option<Instant> {
        self.kernel.started.get().copied()
    }
}

/// Runs the program to its end. The calling process must have a single thread; it keeps its signals
/// blocked afterwards. `observer` is told of the calls that are seen ([`Config::seen`]).
pub fn run(config: &Config, observer: Option<Arc<dyn Observer>>) -> Result<Outcome> {
    let program = bare_program(config)?;
    let mut terminal = Terminal::open();
    let old_mask = block_signals()?;
    namespaces::bound_allocator();
    let (soft, hard) = namespaces::raise_descriptor_limit()?;
    let (ours, theirs) = Channel::pair().map_err(|e| Error::step("making a socket pair", e))?;
    let stub = namespaces::sealed_memfd(c"duet-stub", stub_elf())?;
    let secrets = Secrets {
        exec_cookie: random()?,
        // Calls of Duet's own are nobody's business where native ones are looked at.
        mark: match config.seen {
            Seen::Intercepted => 0,
            Seen::With(_) | Seen::All => random()? as u32 | 1,
        },
    };
    let filter = build_filter(config, secrets);
    let argv: Vec<CString> = std::iter::once(&config.program)
        .chain(&config.args)
        .cloned()
        .collect();
    let own_network = config.network != Network::Host;
    let scoped = !own_network && landlock::available();
    if !own_network && !scoped {
        log::warn!(
            "--network host: this kernel cannot keep the program from the host's abstract Unix \
             sockets (Landlock of Linux 6.12)"
        );
    }

    // What connects it to the host's looks for it in init from the start. Otherwise init makes it while the
    // kernel and the supervisor are busy with other things.
    let network = match config.network {
        Network::Host => OwnNetwork::No,
        Network::User(_) => OwnNetwork::Made,
        Network::None => OwnNetwork::ToBeMade,
    };
    let Some(child) = namespaces::fork_into_new(network == OwnNetwork::Made)? else {
        drop(ours);
        init::main(
            &init::Plan {
                hostname: config.hostname.as_bytes(),
                network,
                scope_abstract_sockets: scoped,
                argv: &argv,
                envp: &config.env,
                filter: &filter,
                stub: stub.as_fd(),
                exec_cookie: secrets.exec_cookie,
                mask: old_mask,
                terminal: terminal.as_ref().map(Terminal::descriptor),
                descriptor_limit: (soft, hard),
                engine: config.engine,
            },
            &theirs,
        )
    };
    drop(theirs);
    let mut init = Init {
        pid: child,
        channel: Arc::new(ours),
        ended: false,
        used: Usage::default(),
        groups: None,
        network: None,
        mask: old_mask,
    };
    let outcome = supervise(
        config,
        &mut init,
        program,
        stub,
        secrets,
        terminal.as_mut(),
        observer,
    );
    if let Some(t) = &mut terminal {
        t.take_back();
        // As a shell does for its jobs.
        if outcome.as_ref().is_ok_and(|o| o.exit_code > 128) {
            t.restore_modes();
        }
    }
    outcome
}

/// What tells calls of Duet's own from the guest's, which is never shown it.
#[derive(Clone, Copy)]
struct Secrets {
    /// [`Kernel::exec_cookie`]
    exec_cookie: u64,
    /// [`Kernel::mark`]
    mark: u32,
}

/// The sandbox's init, killed when this goes away before it has ended.
struct Init {
    pid: Pid,
    channel: Arc<Channel>,
    ended: bool,
    /// What its children used.
    used: Usage,
    /// What limits it and its children. Goes last: a group with processes cannot be removed.
    groups: Option<Groups>,
    /// What connects its network to the host's.
    network: Option<UserNetwork>,
    /// The signal mask that Duet was started with.
    mask: SigSet,
}

impl Drop for Init {
    fn drop(&mut self) {
        if !self.ended
            && let Err(e) = kill(self.pid, Signal::SIGKILL)
        {
            log::debug!("init is gone: {e}");
        }
        init::reap_quietly(self.pid);
    }
}

impl Init {
    /// Waits for one kind of message.
    fn expect(&self, wanted: &Message) -> Result<Vec<OwnedFd>> {
        match self.channel.receive() {
            Ok(Some((m, fds))) if m == *wanted => Ok(fds),
            Ok(Some((Message::Failed(text), _))) => Err(Error::Failed(text)),
            Ok(Some((m, _))) => Err(Error::Failed(format!("init said {m:?} out of turn"))),
            Ok(None) => Err(Error::Failed(
                "init ended while the sandbox was set up".into(),
            )),
            Err(e) => Err(Error::step("listening to init", e)),
        }
    }

    fn tell(&self, message: &Message) -> Result<()> {
        self.channel
            .send(message, &[])
            .map_err(|e| Error::step("speaking to init", e))
    }
}

fn supervise(
    config: &Config,
    init: &mut Init,
    program: Option<(Vec<u8>, File)>,
    stub: OwnedFd,
    secrets: Secrets,
    terminal: Option<&mut Terminal>,
    observer: Option<Arc<dyn Observer>>,
) -> Result<Outcome> {
    init.groups = Some(Groups::limit(&config.limits, init.pid));
    // One that the clock cannot reach is none.
    let timeout = config.limits.timeout;
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    namespaces::write_id_maps(init.pid)?;
    if let Network::User(ports) = &config.network {
        init.network = Some(UserNetwork::start(init.pid, ports, init.mask)?);
    }
    init.tell(&Message::Mapped)?;
    let mut mounts = init.expect(&Message::Mounts)?.into_iter();
    let (Some(tmpfs), Some(proc), Some(images)) = (mounts.next(), mounts.next(), mounts.next())
    else {
        return Err(Error::Failed("init handed over no mounts".into()));
    };
    let images = Images::new(images, namespaces::own_ids(), stub_elf())
        .map_err(|e| Error::step("preparing for programs that the kernel loads", e))?;
    let tmpfs = if nix::unistd::geteuid().is_root() {
        init::store_mount().map_err(|e| Error::step("mounting a tmpfs", e))?
    } else {
        tmpfs
    };
    let names = Arc::new(Names::new(&config.hostname));
    let proc_of_table = proc.try_clone();
    let proc_of_table =
        proc_of_table.map_err(|e| Error::Failed(format!("duplicating a descriptor: {e}")))?;
    let shares_network = config.network == Network::Host;
    let source = Arc::new(Source::new(
        proc,
        names.clone(),
        shares_network,
        config.limits.memory,
    ));
    let vfs = tree::build(config, &tmpfs, program, Interfaces::Duet(source.clone()))?;
    source.set_vfs(&vfs);
    let singletons = tree::singletons(&vfs);
    let tmpfs = tree::guest_tmpfs(&vfs)?;
    let (initial, first) = first_program(config, &vfs)?;
    let path = program_path(config, &vfs, &context(&initial))?;
    init.tell(&Message::Start)?;
    let processes =
        ProcessTable::new(initial, first).map_err(|e| Error::step("making a process table", e))?;
    let processes = Arc::new(processes);
    processes.set_init(init.pid.as_raw());
    processes.set_proc(proc_of_table);
    source.set_processes(processes.clone());
    duet_syscalls::wait::install_interrupt().map_err(|e| Error::step("preparing signals", e))?;
    let requests = Arc::new(Requests::new(init.channel.clone()));
    let watching = observer.clone();
    let brought = match config.engine {
        Engine::Seccomp => Brought::notified(init, observer)?,
        Engine::Ptrace => Brought::traced(init, observer, secrets.mark)?,
    };
    let stub_stat =
        nix::sys::stat::fstat(&stub).map_err(|e| Error::step("looking at the stub", e))?;
    source.set_engine(brought.engine());
    // Somebody looks for what they ask on a processor of its own; who sees native calls is not to see theirs; and
    // no account is kept of what is done for them.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let may_have_agents = config.accelerated
        && !sees_calls_of_agents(&config.seen)
        && !duet_vfs::account::kept()
        && brought.engine().has_agents()
        && processors > 1;
    let kernel = Arc::new(Kernel {
        engine: brought.engine(),
        vfs,
        processes: processes.clone(),
        counters: Counters::default(),
        started: Default::default(),
        singletons,
        tmpfs,
        agents: may_have_agents.then(Default::default),
        watches: Default::default(),
        traces: Default::default(),
        lookers: Default::default(),
        images,
        memory_limit: config.limits.memory,
        stub_id: BackingId {
            dev: stub_stat.st_dev,
            ino: stub_stat.st_ino,
        },
        stub,
        exec_cookie: secrets.exec_cookie,
        mark: secrets.mark,
        privileged: Box::new(Setter {
            names,
            requests: requests.clone(),
        }),
        peers: processes.peers(),
        sockets: Default::default(),
    });
    if let Some(observer) = watching {
        let look = Look::new(kernel.clone());
        observer.begins(Arc::new(look), &path);
    }
    workers::spawn("duet-deaths", move || processes.watch_deaths())?;
    let tracing = match brought {
        Brought::Notified(_) => {
            workers::start(kernel.clone())?;
            if kernel.agents.is_some() {
                let kernel = kernel.clone();
                workers::spawn("duet-lookout", move || {
                    if let Some(agents) = &kernel.agents {
                        agents.look_out(&kernel);
                    }
                })?;
            }
            None
        }
        Brought::Traced {
            engine,
            pid,
            release,
        } => Some(workers::start_tracing(
            kernel.clone(),
            engine,
            pid,
            release,
        )?),
    };
    let end = attend(init, &requests, terminal, deadline)?;
    let ended = Instant::now();
    if let Some(agents) = &kernel.agents {
        log::info!("{} calls came by agents", agents.served());
    }
    let exit_code = match end {
        End::Status(status) => {
            // An observer is to hear of all ends.
            if tracing.is_some_and(|thread| thread.join().is_err()) {
                log::error!("the tracing thread failed");
            }
            exit_code(status)
        }
        End::TimedOut => TIMED_OUT,
    };
    Ok(Outcome {
        exit_code,
        kernel,
        transfers: transfers(init.pid),
        ended,
        used: init.used,
    })
}

/// The engine, with what the guest gave for it.
enum Brought {
    Notified(Arc<dyn intercept::Engine>),
    Traced {
        engine: Arc<Ptrace>,
        /// The first process, in the supervisor's numbers.
        pid: i32,
        /// Closed once that is traced.
        release: OwnedFd,
    },
}

impl Brought {
    fn notified(init: &Init, observer: Option<Arc<dyn Observer>>) -> Result<Brought> {
        let listener = init.expect(&Message::Listener)?.into_iter().next();
        let listener =
            listener.ok_or_else(|| Error::Failed("init handed over no listener".into()))?;
        let engine = Seccomp::new(listener);
        Ok(Brought::Notified(match observer {
            Some(o) => Arc::new(Observed::new(engine, o)),
            None => Arc::new(engine),
        }))
    }

    fn traced(init: &Init, observer: Option<Arc<dyn Observer>>, mark: u32) -> Result<Brought> {
        let mut handed = init.expect(&Message::Traceable)?.into_iter();
        let (Some(pidfd), Some(release)) = (handed.next(), handed.next()) else {
            return Err(Error::Failed("init handed over no process".into()));
        };
        let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let info = std::fs::read_to_string(path).unwrap_or_default();
        let pid = info.lines().find_map(|l| l.strip_prefix("Pid:"));
        let pid = pid.and_then(|p| p.trim().parse().ok()).filter(|&p| p > 0);
        let pid = pid.ok_or_else(|| Error::Failed("the program ended before it started".into()))?;
        Ok(Brought::Traced {
            engine: Arc::new(Ptrace::new(observer, mark)),
            pid,
            release,
        })
    }

    fn engine(&self) -> Arc<dyn intercept::Engine> {
        match self {
            Brought::Notified(engine) => engine.clone(),
            Brought::Traced { engine, .. } => engine.clone(),
        }
    }
}

/// What init and those that it has waited for, and so on, have read and written.
fn transfers(init: Pid) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{init}/io")).ok()?;
    let count = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))?
            .trim()
            .parse()
            .ok()
    };
    Some((count("syscr:")?, count("syscw:")?))
}

/// What timeout(1) exits with when the time is up.
const TIMED_OUT: u8 = 124;

fn exit_code(status: i32) -> u8 {
    if libc::WIFSIGNALED(status) {
        128u8.saturating_add(libc::WTERMSIG(status) as u8)
    } else {
        libc::WEXITSTATUS(status) as u8
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the buffer has the length that is announced.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    Errno::result(n).map_err(|e| Error::step("drawing a random number", e))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Whether calls that a program makes for its agent would be seen.
fn sees_calls_of_agents(seen: &Seen) -> bool {
    match seen {
        Seen::Intercepted => false,
        Seen::With(numbers) => {
            let mut own = intercept::agent::OWN_CALLS.iter();
            own.any(|&nr| numbers.contains(&(nr as u32)))
        }
        Seen::All => true,
    }
}

fn build_filter(config: &Config, secrets: Secrets) -> Vec<libc::sock_filter> {
    let ask = match config.engine {
        Engine::Seccomp => libc::SECCOMP_RET_USER_NOTIF,
        Engine::Ptrace => intercept::ptrace::ACTION,
    };
    let params = filter::FilterParams {
        exec_cookie: secrets.exec_cookie,
        ask,
    };
    // One message is let through: that which hands over the listener, without which nobody would answer.
    const HAND_OVER: Disposition = Disposition::When(
        Rule::In(0, &[("the channel", init::CHANNEL_FD as u32)]),
        &Disposition::Native,
        &Disposition::Emulated,
    );
    let of_engine = |row: &&Row| {
        let needed = intercept::ptrace::ON_AFFINITIES;
        config.engine == Engine::Ptrace && needed.contains(&i64::from(row.nr))
    };
    let seen = |row: &&Row| match &config.seen {
        Seen::Intercepted => false,
        Seen::With(numbers) => numbers.contains(&row.nr),
        Seen::All => true,
    };
    let native_messages = config.messages == Messages::Native;
    let rows: Vec<Row> = table::rows()
        .iter()
        .map(|row| match i64::from(row.nr) {
            libc::SYS_sendmsg | libc::SYS_sendmmsg if native_messages && !seen(&row) => Row {
                disposition: Disposition::Native,
                ..*row
            },
            libc::SYS_sendmsg => Row {
                disposition: HAND_OVER,
                ..*row
            },
            _ if of_engine(&row) => Row {
                disposition: Disposition::Emulated,
                ..*row
            },
            _ if !seen(&row) => *row,
            // Duet's own are told by the cookie.
            libc::SYS_execveat => *row,
            _ => Row {
                disposition: match &row.disposition {
                    // Duet's own are native where the guest's would be.
                    own @ (Disposition::Native | Disposition::When(..)) => Disposition::When(
                        Rule::Marked(intercept::MARKED, secrets.mark),
                        own,
                        &Disposition::Emulated,
                    ),
                    _ => Disposition::Emulated,
                },
                ..*row
            },
        })
        .collect();
    filter::program(&rows, params)
}

/// Signals that end a process which makes a mistake: never blocked.
const FAULTS: [Signal; 5] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
];

/// Blocks what is read through a descriptor; returns the mask of before.
fn block_signals() -> Result<SigSet> {
    let mut mask = SigSet::all();
    FAULTS.into_iter().for_each(|s| mask.remove(s));
    // Nobody is to be told of guests that stop for a moment in `execve`; of init's end the channel
    // tells.
    let quiet = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: the default action.
    unsafe { sigaction(Signal::SIGCHLD, &quiet) }
        .map_err(|e| Error::step("blocking signals", e))?;
    let mut old = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), Some(&mut old))
        .map_err(|e| Error::step("blocking signals", e))?;
    Ok(old)
}

// ---- the program ----

/// How the program came to its end.
enum End {
    /// By itself, with this wait status.
    Status(i32),
    /// It was killed when its time was up.
    TimedOut,
}

/// Milliseconds until then, rounded up, as poll(2) takes them.
fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_micros().div_ceil(1000);
    // A longer wait is done in parts.
    PollTimeout::try_from(millis.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
}

fn attend(
    init: &mut Init,
    requests: &Requests,
    mut terminal: Option<&mut Terminal>,
    deadline: Option<Instant>,
) -> Result<End> {
    let mut mask = SigSet::all();
    FAULTS.into_iter().for_each(|s| mask.remove(s));
    // Interrupts waiting threads, nothing else.
    mask.remove(Signal::SIGURG);
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|e| Error::step("watching signals", e))?;
    loop {
        let mut fds = [
            PollFd::new(init.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, until(deadline)) {
            // The end of init, which is not noted as ended, is the end of all.
            Ok(0) if deadline.is_some_and(|d| d <= Instant::now()) => {
                log::warn!("the time is up; all processes are killed");
                return Ok(End::TimedOut);
            }
            Ok(_) | Err(Errno::EINTR) => (),
            Err(e) => return Err(Error::step("waiting", e)),
        }
        let ready = |i: usize| fds.get(i).and_then(PollFd::any).unwrap_or(false);
        let (message, signal) = (ready(0), ready(1));
        while signal
            && let Some(info) = signals
                .read_signal()
                .map_err(|e| Error::step("watching signals", e))?
        {
            forward(info.ssi_signo as i32, requests, terminal.as_deref_mut());
        }
        if !message {
            continue;
        }
        match init
            .channel
            .receive()
            .map_err(|e| Error::step("listening to init", e))?
        {
            Some((Message::Used(usage), _)) => init.used = usage,
            Some((Message::Ended(status), _)) => {
                init.ended = true;
                if terminal.is_some() && libc::WIFSIGNALED(status) {
                    tell_own_group(libc::WTERMSIG(status));
                }
                return Ok(End::Status(status));
            }
            Some((Message::Stopped(signal), _)) => stop(signal, terminal.as_deref_mut()),
            Some((Message::Done(errno), _)) => requests.answered(errno),
            Some((Message::Failed(text), _)) => return Err(Error::Failed(text)),
            Some((m, _)) => log::warn!("init said {m:?} out of turn"),
            None => return Err(Error::Failed("the sandbox was killed".into())),
        }
    }
}

/// Passes a signal that was sent to Duet on to the program.
fn forward(signal: i32, requests: &Requests, terminal: Option<&mut Terminal>) {
    match signal {
        libc::SIGCHLD | libc::SIGPIPE | libc::SIGTTOU | libc::SIGTTIN => (),
        // The terminal tells its foreground group, which is the guest's.
        libc::SIGWINCH if terminal.is_some() => (),
        libc::SIGCONT => {
            if let Some(t) = terminal {
                t.hand_over();
            }
            requests.tell(&Message::SignalGroup(signal));
        }
        libc::SIGTSTP => requests.tell(&Message::SignalGroup(signal)),
        _ => requests.tell(&Message::Signal(signal)),
    }
}

/// The program has stopped: so does Duet, for the caller's shell to see.
fn stop(signal: i32, terminal: Option<&mut Terminal>) {
    log::debug!("the program was stopped by signal {signal}");
    let whom = match terminal {
        Some(t) => {
            t.take_back();
            // The caller's whole job, as the terminal would have.
            Pid::from_raw(0)
        }
        None => getpid(),
    };
    if let Err(e) = kill(whom, Signal::SIGSTOP) {
        log::warn!("cannot stop: {e}");
    }
}

/// Ctrl-C reached the guest's group alone; the rest of the caller's job is to hear of it too.
fn tell_own_group(signal: i32) {
    if (signal == libc::SIGINT || signal == libc::SIGQUIT)
        && let Ok(s) = Signal::try_from(signal)
        && let Err(e) = kill(Pid::from_raw(0), s)
    {
        log::debug!("own process group: {e}");
    }
}

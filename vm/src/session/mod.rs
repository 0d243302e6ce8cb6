//! One run in a machine: from a program and its tree to the exit status.
//!
//! Each stream has a thread; so have the control port, the signals, and the end of the machine. All of
//! them tell the one loop here (`events`), which alone decides. Nothing that the guest says or fails
//! to say can keep that loop from hearing of a signal, of the time limit, or of the machine's end.

mod console;
mod events;
mod streams;
mod terminal;
mod timings;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duet_vfs::Vfs;
use duet_vm_protocol::{
    CONTROL, FromGuest, FromHost, STDERR, STDIN, STDOUT, Start, Used, VERSION, WindowSize, send,
};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::host::{self, TscSample};
use crate::kernel::{self, Kernel};
use crate::machine::{Choice, End, Init, Machine, Port, ROOT_TAG, Running, Work};
use crate::passt::{self, Forward};
use crate::{init_tree, initramfs, monitor, qemu};
use console::Console;
use events::{Event, Events};
use streams::{Input, Output};
use terminal::Raw;
pub use timings::Timings;

/// What to run, on what.
pub struct Run {
    /// The program and its world. Root tag, time, and what concerns terminals are filled in here.
    pub start: Start,
    /// The kernel.
    pub kernel: Kernel,
    /// The tree.
    pub root: Arc<Vfs>,
    /// Memory in bytes.
    pub memory: u64,
    /// Which monitor runs it.
    pub monitor: Choice,
    /// Virtual processors; `None`: as many as the monitor runs well.
    pub cpus: Option<u32>,
    /// More for the kernel's command line.
    pub append: String,
    /// Show the kernel's messages on standard error.
    pub console: bool,
    /// Time after which the machine is stopped.
    pub timeout: Option<Duration>,
    /// Ports of the host that lead to the guest's, where it has a network.
    pub forwards: Vec<Forward>,
    /// When the command began, for the timings.
    pub began: Instant,
}

/// How it went.
pub struct Outcome {
    /// The program's own status; 128+N if signal N killed it; 124 if its time was up.
    pub exit_code: u8,
    /// How long each phase took.
    pub timings: Timings,
    /// What the program and its descendants used, as the guest says.
    pub used: Option<Used>,
    /// Processor time of this process and the monitor's while the program ran.
    pub processor: Option<Duration>,
    /// What it took to run the machine, if the monitor counts it.
    pub work: Option<Work>,
    /// Which monitor ran the machine.
    pub monitor: String,
    /// The kernel's files on the host: the image and its modules.
    pub kernel_files: Vec<PathBuf>,
}

/// What timeout(1) exits with when the time is up.
const TIMED_OUT: u8 = 124;
/// How long the guest's kernel may take to start the agent: many times what it takes on a busy host.
const BOOT: Duration = Duration::from_secs(60);
/// How long a message to the guest may take to be accepted. It is read at once by an agent that works.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the program to its end. The calling process keeps its signals blocked afterwards.
pub fn run(run: Run) -> Result<Outcome> {
    let mut timings = Timings::new(run.began);
    // One that the clock cannot reach is none.
    let deadline = run.timeout.and_then(|t| Instant::now().checked_add(t));
    let tsc = TscSample::take();
    // Before signals are blocked: it would inherit that.
    let network = match run.start.network {
        true => Some(passt::start(&run.forwards)?),
        false => None,
    };
    let signals = host::block_signals().map_err(|e| Error::step("blocking signals", e))?;
    let has_network = network.is_some();
    let (init, chosen) = std::thread::scope(|scope| {
        let chosen = scope.spawn(|| choose(run.monitor));
        let init = init_for(&run.kernel, &run.root, has_network);
        // It does not panic; if it did, QEMU would do.
        (init, chosen.join().unwrap_or(Ok(Choice::Qemu)))
    });
    let (init, chosen) = (init?, chosen?);
    timings.mark(match init {
        Init::Initramfs(_) => "initramfs written",
        Init::Tree(_) => "tree of init made",
    });
    let pair = || UnixStream::pair().map_err(|e| Error::io("making a socket pair", &e));
    let mut ports = Vec::new();
    let mut port = |name| -> Result<UnixStream> {
        let (ours, stream) = pair()?;
        ports.push(Port { name, stream });
        Ok(ours)
    };
    let (control, stdin) = (port(CONTROL)?, port(STDIN)?);
    let (stdout, stderr) = (port(STDOUT)?, port(STDERR)?);
    let (serial, machines_serial) = pair()?;
    // KVM tells the guest the rate of its counter.
    let tsc = (chosen != Choice::Duet).then_some(tsc);
    let cpus = run.cpus.unwrap_or_else(|| usual_cpus(chosen));
    let modules = run.kernel.modules.iter().map(|(_, path)| path.clone());
    let kernel_files = std::iter::once(run.kernel.image.clone())
        .chain(modules)
        .collect();
    let machine = Machine {
        kernel: run.kernel.open()?,
        kernel_name: run.kernel.image.display().to_string(),
        command_line: command_line(&run, tsc.as_ref()),
        init,
        cpus,
        memory: run.memory.next_multiple_of(2 << 20),
        root: run.root.clone(),
        ports,
        serial: machines_serial,
        network,
    };
    let machine: Box<dyn Running> = match chosen {
        Choice::Duet => Box::new(monitor::start(machine)?),
        _ => Box::new(qemu::start(machine)?),
    };
    let monitor = machine.describe();
    log::info!(
        "{monitor} runs {} with {cpus} processor(s)",
        run.kernel.name
    );
    timings.mark("monitor started");
    let events = Events::new();
    let console = Console::collect(serial, run.console)?;
    events.watch_end(machine.ended())?;
    events.watch_signals(signals)?;
    let control_reader = control
        .try_clone()
        .map_err(|e| Error::io("sharing a socket", &e))?;
    events.watch_control(control_reader)?;
    control
        .set_write_timeout(Some(PATIENCE))
        .map_err(|e| Error::io("setting up a socket", &e))?;
    let mut session = Session {
        start: run.start,
        machine,
        control,
        console,
        events,
        timings,
        deadline,
        boot_deadline: Instant::now() + BOOT,
        raw: None,
        phase: Phase::Boots,
        open_outputs: 0,
        used: None,
        processor_before: None,
        processor: None,
    };
    let outputs = [(stdout, 1), (stderr, 2)].map(|(s, fd)| Output::start(s, fd, &session.events));
    let [stdout, stderr] = outputs;
    let (_stdout, _stderr) = (stdout?, stderr?);
    session.open_outputs = 2;
    let exit_code = session.attend(stdin)?;
    session.timings.mark("machine stopped");
    Ok(Outcome {
        exit_code,
        timings: session.timings,
        used: session.used,
        processor: session.processor,
        work: session.machine.work(),
        monitor,
        kernel_files,
    })
}

/// What the kernel is to start init from.
pub(crate) fn init_for(kernel: &Kernel, root: &Vfs, network: bool) -> Result<Init> {
    match kernel.init {
        kernel::image::Init::Initramfs => initramfs::build(kernel, network).map(Init::Initramfs),
        kernel::image::Init::Root => init_tree::build(root.store())
            .map(Init::Tree)
            .map_err(|e| Error::step("making a tree for init", e)),
    }
}

/// Which monitor it is to be, by what was asked for and what this host can.
fn choose(wanted: Choice) -> Result<Choice> {
    if wanted == Choice::Qemu {
        return Ok(wanted);
    }
    match (monitor::probe::run(), wanted) {
        (Ok(()), _) => Ok(Choice::Duet),
        (Err(e), Choice::Duet) => Err(Error::Failed(format!("{e}; --monitor qemu works without"))),
        (Err(e), _) => {
            log::info!("QEMU is used, as {e}");
            Ok(Choice::Qemu)
        }
    }
}

/// Processors of a machine for which none are asked: a translator gains little by a second one, which costs
/// start-up.
fn usual_cpus(monitor: Choice) -> u32 {
    const MOST: u32 = 4;
    if monitor != Choice::Duet {
        return 1;
    }
    let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(host).map_or(MOST, |n| n.min(MOST))
}

/// The kernel's command line: quick to start, quiet, and gone at once when the guest fails.
pub(crate) fn command_line(run: &Run, tsc: Option<&TscSample>) -> String {
    let mut line = match run.kernel.init {
        kernel::image::Init::Initramfs => String::from("console=ttyS0 8250.nr_uarts=1"),
        kernel::image::Init::Root => format!(
            "console=hvc0 root={} rootfstype=virtiofs init=/init",
            init_tree::TAG
        ),
    };
    line += match (run.console, run.kernel.init) {
        (false, _) => " quiet",
        (true, kernel::image::Init::Initramfs) => " earlyprintk=ttyS0",
        (true, kernel::image::Init::Root) => "",
    };
    // No hardware to look for beyond what is announced; no waiting for grace periods during start-up;
    // no work whose only end is to find faults of the kernel.
    line += " panic=-1 reboot=t random.trust_cpu=on rcupdate.rcu_expedited=1 cryptomgr.notests \
             no_timer_check tsc=reliable audit=0 apparmor=0 raid=noautodetect";
    // Where it is translated: the guest reads the host's counter, but on a busy host it finds its rate by no
    // timer; and with one processor the kernel would take the prefixes of all its locked instructions away,
    // which costs a tenth of a second and gains nothing.
    if let Some(tsc) = tsc {
        line += &format!(" noreplace-smp tsc_early_khz={}", tsc.khz());
    }
    if !run.append.is_empty() {
        line.push(' ');
        line += &run.append;
    }
    line
}

/// How far the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The kernel starts.
    Boots,
    /// The agent has been told what to run.
    Told,
    /// The program runs.
    Runs,
    /// The program has ended with this wait status.
    Ended(i32),
}

struct Session {
    start: Start,
    machine: Box<dyn Running>,
    control: UnixStream,
    console: Console,
    events: Events,
    timings: Timings,
    deadline: Option<Instant>,
    boot_deadline: Instant,
    raw: Option<Raw>,
    phase: Phase,
    /// Streams to the host that have not come to their end.
    open_outputs: u32,
    used: Option<Used>,
    /// Processor time until the program started, and while it ran.
    processor_before: Option<Duration>,
    processor: Option<Duration>,
}

impl Session {
    fn attend(&mut self, stdin: UnixStream) -> Result<u8> {
        let mut stdin = Some(stdin);
        let mut input = None;
        loop {
            if let (Phase::Ended(status), 0) = (self.phase, self.open_outputs) {
                self.machine.stop();
                self.machine.wait()?;
                return Ok(exit_code(status));
            }
            let boot = (self.phase == Phase::Boots).then_some(self.boot_deadline);
            let Some(event) = self
                .events
                .next(self.deadline.into_iter().chain(boot).min())
            else {
                self.machine.stop();
                if self.deadline.is_some_and(|d| d <= Instant::now()) {
                    log::warn!("the time is up; the machine is stopped");
                    return Ok(TIMED_OUT);
                }
                return Err(Error::Failed(format!(
                    "the guest's kernel has not started the agent within {} s{}",
                    BOOT.as_secs(),
                    self.console.last()
                )));
            };
            match event {
                Event::Guest(FromGuest::Started) if self.phase == Phase::Told => {
                    self.phase = Phase::Runs;
                    self.timings.mark("program started");
                    self.processor_before = self.processor_so_far();
                    self.raw = self.start.terminal[0].then(Raw::enter).flatten();
                    if let Some(stream) = stdin.take() {
                        input = Some(Input::start(stream)?);
                    }
                }
                Event::Guest(message) => self.hear(message)?,
                Event::Silent(why) => {
                    if !matches!(self.phase, Phase::Ended(_)) {
                        log::debug!("the control port: {why}");
                    }
                }
                Event::FirstOutput => self.timings.mark("first output"),
                Event::OutputClosed(fd) => self.tell(&FromHost::Closed(fd)),
                Event::OutputEnded => self.open_outputs = self.open_outputs.saturating_sub(1),
                Event::Signal(n) => {
                    if let Some(code) = self.signal(n) {
                        return Ok(code);
                    }
                }
                Event::MachineEnded => {
                    let end = self.machine.wait()?;
                    self.hear_the_last()?;
                    if !matches!(self.phase, Phase::Ended(_)) {
                        return Err(self.early_end(end));
                    }
                    // What came of its output is still to be written, however slow the reader.
                }
            }
            if matches!(self.phase, Phase::Ended(_)) {
                drop(input.take());
                self.raw = None;
            }
        }
    }

    /// Processor time of this process and the monitor's.
    fn processor_so_far(&self) -> Option<Duration> {
        host::cpu_time(self.machine.process()).ok()
    }

    fn hear(&mut self, message: FromGuest) -> Result<()> {
        let out_of_turn = |m: &FromGuest, phase: Phase| {
            Error::Failed(format!(
                "the guest said {m:?} out of turn ({phase:?}); the machine is stopped"
            ))
        };
        match (message, self.phase) {
            (FromGuest::Hello { version }, Phase::Boots) if version == VERSION => {
                self.timings.mark("agent started");
                self.begin()
            }
            (FromGuest::Hello { version }, Phase::Boots) => Err(Error::Failed(format!(
                "the agent in the guest speaks version {version}, and this is {VERSION}"
            ))),
            (FromGuest::CannotExecute(errno), Phase::Told) => Err(self.cannot_execute(errno)),
            (FromGuest::Stopped(signal), Phase::Runs) => {
                self.stop_too(signal);
                Ok(())
            }
            (FromGuest::Used(used), Phase::Runs) => {
                self.used = Some(used);
                let so_far = self.processor_so_far();
                let during = |(now, before): (Duration, Duration)| now.checked_sub(before);
                self.processor = so_far.zip(self.processor_before).and_then(during);
                Ok(())
            }
            (FromGuest::Ended(status), Phase::Runs) => {
                self.phase = Phase::Ended(status);
                self.timings.mark("program ended");
                Ok(())
            }
            (FromGuest::Failed(text), Phase::Boots | Phase::Told | Phase::Runs) => {
                Err(Error::Failed(format!(
                    "inside the guest: {}{}",
                    printable(&text),
                    self.console.last()
                )))
            }
            (message, phase) => Err(out_of_turn(&message, phase)),
        }
    }

    /// Says what to run.
    fn begin(&mut self) -> Result<()> {
        self.start.root_tag = ROOT_TAG.into();
        self.start.terminal = terminal::which();
        self.start.window = terminal::window().unwrap_or_default();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.start.time = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let message = FromHost::Start(Box::new(self.start.clone()));
        send(&mut self.control, &message).map_err(|e| Error::io("speaking to the guest", &e))?;
        self.phase = Phase::Told;
        Ok(())
    }

    fn cannot_execute(&self, errno: i32) -> Error {
        let program = String::from_utf8_lossy(&self.start.program).into_owned();
        let errno = Errno::from_raw(errno);
        let reason = format!("the guest's kernel cannot run it: {}", errno.desc());
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Error::NotFound { program, reason },
            _ => Error::CannotRun { program, reason },
        }
    }

    /// Tells the guest something that it can do without.
    fn tell(&mut self, message: &FromHost) {
        if let Err(e) = send(&mut self.control, message) {
            log::debug!("the guest does not hear {message:?}: {e}");
        }
    }

    /// A signal to Duet. `Some`: it ends the run with this status.
    fn signal(&mut self, n: i32) -> Option<u8> {
        match (n, self.phase) {
            (libc::SIGWINCH, Phase::Runs) => {
                if let Some(size) = terminal::window() {
                    self.tell(&FromHost::Window(size));
                }
            }
            (libc::SIGWINCH | libc::SIGCHLD | libc::SIGPIPE, _) => (),
            (libc::SIGTTOU | libc::SIGTTIN | libc::SIGURG, _) => (),
            (libc::SIGCONT, Phase::Runs) => {
                if self.start.terminal[0] {
                    self.raw = Raw::enter();
                }
                self.tell(&FromHost::SignalGroup(n));
            }
            (libc::SIGTSTP, Phase::Runs) => self.tell(&FromHost::SignalGroup(n)),
            (libc::SIGCONT | libc::SIGTSTP, _) => (),
            (_, Phase::Runs) => self.tell(&FromHost::Signal(n)),
            // Nobody is there to take it.
            _ => {
                self.raw = None;
                self.machine.stop();
                return Some(128u8.saturating_add(u8::try_from(n).unwrap_or(u8::MAX)));
            }
        }
        None
    }

    /// The program has stopped: so does Duet, for the caller's shell to see.
    fn stop_too(&mut self, signal: i32) {
        log::debug!("the program was stopped by signal {signal}");
        self.raw = None;
        if let Err(e) = nix::sys::signal::kill(nix::unistd::getpid(), Signal::SIGSTOP) {
            log::warn!("cannot stop: {e}");
        }
    }

    /// What the guest said before its machine ended may still be on its way.
    fn hear_the_last(&mut self) -> Result<()> {
        while let Some(event) = self.events.pending() {
            match event {
                Event::Guest(FromGuest::Ended(status)) => self.phase = Phase::Ended(status),
                Event::Guest(m @ (FromGuest::CannotExecute(_) | FromGuest::Failed(_))) => {
                    self.hear(m)?;
                }
                Event::OutputEnded => self.open_outputs = self.open_outputs.saturating_sub(1),
                _ => (),
            }
        }
        Ok(())
    }

    /// The machine has ended without the program's end having been heard of.
    fn early_end(&mut self, end: End) -> Error {
        let why = match end {
            End::Failed(text) => text,
            End::PoweredOff => "the guest's kernel gave up, or was told to power off".into(),
            End::Stopped => "it was stopped".into(),
        };
        let when = match self.phase {
            Phase::Boots => "while its kernel started",
            _ => "before the program did",
        };
        let last = self.console.last();
        Error::Failed(format!("the machine ended {when}: {why}{last}"))
    }
}

fn exit_code(status: i32) -> u8 {
    match libc::WIFSIGNALED(status) {
        true => 128u8.saturating_add(libc::WTERMSIG(status) as u8),
        false => libc::WEXITSTATUS(status) as u8,
    }
}

/// What a guest says, without anything that would steer the caller's terminal.
fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() && c != '\n' { '?' } else { c };
    text.chars().map(plain).collect()
}

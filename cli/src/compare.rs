//! `duet compare`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum, value_parser};
use duet_compare::modes::{Candidate, Mode};
use duet_compare::report::Report;
use duet_compare::session::{self, Progress, Settings, Silent};
use duet_compare::subject::{Subject, Tree, Volume};
use duet_compare::{html, suite, svg, text};
use duet_sandbox::doctor::{self, Verdict};
use indicatif::{ProgressBar, ProgressStyle};

use crate::run;

/// Options of `duet compare`.
#[derive(Args)]
#[group(id = "compare-options")]
pub struct Options {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    world: World,
    /// Print one JSON object instead of tables (docs/compare.md says what is in it)
    #[arg(long)]
    json: bool,
    /// Write charts to a file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a page with charts, tables and differences to a file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Run every program of a directory, without arguments, once in each mode, and show which behave alike
    #[arg(long, value_name = "DIR", conflicts_with_all = ["command", "svg", "html", "runs", "warmup", "observed"])]
    suite: Option<PathBuf>,
    /// With --suite: print the table in Markdown
    #[arg(long, requires = "suite", conflicts_with = "json")]
    markdown: bool,
    /// The program and its arguments
    #[arg(
        required_unless_present = "suite",
        trailing_var_arg = true,
        value_name = "PROG"
    )]
    command: Vec<OsString>,
}

/// How often, and in which modes.
#[derive(Args)]
pub struct How {
    /// Modes, the first one that runs and `native` before all being what the others are held against
    #[arg(long, value_name = "MODE,...", value_delimiter = ',', value_parser = Mode::parse,
          default_value = "native,layer:seccomp,layer:ptrace,vm")]
    modes: Vec<Mode>,
    /// Timed runs of each mode; they take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Runs before them that do not count
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(..=100_000))]
    warmup: u32,
    /// Runs after them, in which calls are counted and memory is looked at, and no time is taken
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(..=100_000))]
    observed: u32,
    /// End a run that takes longer: seconds, or a time like 1m30s
    #[arg(long, value_name = "TIME", value_parser = run::parse_time)]
    timeout: Option<Duration>,
    /// Kernel of the VM, by its name in `duet kernel list` or as a file
    #[arg(long, value_name = "NAME|FILE")]
    kernel: Option<String>,
    /// Memory of the VM, as in `duet run`
    #[arg(long, value_name = "SIZE")]
    vm_memory: Option<String>,
    /// Processors of the VM
    #[arg(long, value_name = "N")]
    vm_cpus: Option<String>,
}

/// What the program sees. Every run starts from equal copies.
#[derive(Args)]
pub struct World {
    /// Directory that is the program's tree; each run gets a fresh copy
    #[arg(long, value_name = "DIR", conflicts_with = "host_root")]
    rootfs: Option<PathBuf>,
    /// The host's tree. In Duet's modes what is written to it is thrown away; natively it is not
    #[arg(long)]
    host_root: bool,
    /// What the working directory holds at the start of each run; by default nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["rootfs", "workdir"])]
    dir: Option<PathBuf>,
    /// Standard input of each run
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Show a file or directory of the host in the tree; unless it is read-only, a fresh copy
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]", value_parser = run::parse_volume)]
    volumes: Vec<duet_sandbox::Volume>,
    /// Set an environment variable, or with NAME alone take it from the caller
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Pass the caller's whole environment
    #[arg(long)]
    env_host: bool,
    /// Working directory in the tree, instead of a fresh one
    #[arg(short, long, value_name = "DIR", value_parser = run::parse_absolute)]
    workdir: Option<OsString>,
    /// User, and group, to be inside (numbers); by default the caller's
    #[arg(short, long, value_name = "UID[:GID]", value_parser = run::parse_user)]
    user: Option<(u32, u32)>,
    /// Host name in Duet's modes; by default the host's
    #[arg(long, value_name = "NAME", value_parser = run::parse_hostname)]
    hostname: Option<String>,
    /// Network in Duet's modes; natively it is always the host's
    #[arg(long, value_enum, default_value_t = Network::None)]
    network: Network,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// A loopback device of its own
    None,
    /// The host's; the VM has none such
    Host,
    /// One of its own, connected to the host's
    User,
}

impl World {
    fn subject(&self, command: &[OsString], how: &How) -> Result<Subject> {
        let tree = match &self.rootfs {
            Some(dir) => Tree::Directory(dir.clone()),
            None if self.host_root => Tree::Host,
            None => Tree::Bare,
        };
        for (option, path) in [
            ("--rootfs", &self.rootfs),
            ("--dir", &self.dir),
            ("--input", &self.input),
        ] {
            if let Some(path) = path {
                let found = path.metadata();
                let found = found.with_context(|| format!("{option} {}", path.display()))?;
                if option != "--input" && !found.is_dir() {
                    bail!("{option} {}: is not a directory", path.display());
                }
            }
        }
        let own = nix::unistd::geteuid().as_raw();
        let own = (own, nix::unistd::getegid().as_raw());
        let user = self.user.unwrap_or(own);
        let hostname = match &self.hostname {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        let mut options: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| options.extend([name.into(), value]);
        if run::parse_hostname(&hostname).is_ok() {
            add("--hostname", hostname.into());
        }
        let network = self.network.to_possible_value();
        if let Some(network) = network {
            add("--network", network.get_name().into());
        }
        let mut machine_options: Vec<OsString> = Vec::new();
        for (name, value) in [
            ("--kernel", &how.kernel),
            ("--memory", &how.vm_memory),
            ("--cpus", &how.vm_cpus),
        ] {
            if let Some(value) = value {
                machine_options.extend([name.into(), value.into()]);
            }
        }
        let volume = |v: &duet_sandbox::Volume| Volume {
            source: v.source.clone(),
            target: path_of(&v.target),
            read_only: v.read_only,
        };
        let mut subject = Subject {
            command: command.to_vec(),
            tree,
            dir: self.dir.clone(),
            workdir: self.workdir.as_ref().map(PathBuf::from),
            volumes: self.volumes.iter().map(volume).collect(),
            env: run::variables(&self.env, self.env_host, user.0)?,
            user,
            input: self.input.clone(),
            options,
            machine_options,
        };
        subject.settle()?;
        Ok(subject)
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned()
}

impl How {
    /// The modes that were asked for, and why some cannot be had.
    fn candidates(&self, network: Network) -> Vec<Candidate> {
        let mut all = candidates(self.modes.iter().copied(), self.kernel.as_deref());
        if let Some(vm) = all.iter_mut().find(|c| c.mode == Mode::Vm)
            && network == Network::Host
        {
            vm.missing = Some("a VM cannot have --network host".into());
        }
        all
    }

    fn settings(&self) -> Result<Settings> {
        Ok(Settings {
            duet: std::env::current_exe().context("finding this program")?,
            runs: self.runs,
            warmups: self.warmup,
            observed: self.observed,
            timeout: self.timeout,
            kept: session::KEPT,
            patience: None,
            place: None,
        })
    }
}

/// Each mode once, and why some cannot be had.
pub fn candidates(modes: impl Iterator<Item = Mode>, kernel: Option<&str>) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    for mode in modes {
        if all.iter().all(|c| c.mode != mode) {
            let missing = missing(mode, kernel);
            all.push(Candidate { mode, missing });
        }
    }
    all
}

/// Why a mode cannot be had on this host.
fn missing(mode: Mode, kernel: Option<&str>) -> Option<String> {
    match mode {
        Mode::Native => None,
        Mode::Seccomp | Mode::Ptrace | Mode::Trace | Mode::Fast => {
            let notified = |name: &str| name.contains("user notification");
            let by_ptrace = matches!(mode, Mode::Ptrace | Mode::Trace);
            let mut absent = doctor::checks()
                .into_iter()
                .filter(|c| c.verdict == Verdict::Missing && !(by_ptrace && notified(c.name)));
            absent
                .next()
                .map(|c| format!("no {}: {}", c.name, c.advice))
        }
        Mode::Vm => match duet_vm::kernel::find(kernel) {
            Err(e) => Some(e.to_string()),
            Ok(_) if duet_vm::qemu::is_installed() => None,
            Ok(_) => duet_vm::monitor::probe::run()
                .err()
                .map(|e| format!("{e}, and QEMU is not installed (Debian: qemu-system-x86)")),
        },
        Mode::Peer(peer) => peer.program().is_none().then(|| "is not installed".into()),
    }
}

/// A bar on a terminal, which moves between runs only.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn begins(&mut self, mode: Mode, what: &str, done: u64, all: u64) {
        if self.0.is_finished() {
            self.0.reset();
        }
        self.0.set_length(all);
        self.0.set_position(done);
        self.0.set_message(format!("{} {what}", mode.name()));
        self.0.tick();
    }

    fn over(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar, where somebody looks.
pub fn progress() -> Box<dyn Progress> {
    if !std::io::stderr().is_terminal() {
        return Box::new(Silent);
    }
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} [{elapsed}]") {
        bar.set_style(style);
    }
    Box::new(Bar(bar))
}

/// Runs every program of a directory.
fn all_of(dir: &Path, options: &Options) -> Result<u8> {
    let programs = suite::programs(dir)?;
    let subject = options.world.subject(&["-".into()], &options.how)?;
    let settings = Settings {
        runs: 1,
        warmups: 0,
        observed: 0,
        ..options.how.settings()?
    };
    let candidates = options.how.candidates(options.world.network);
    let signals = session::watch_signals()?;
    let mut progress = progress();
    let (matrix, signal) = suite::run(
        &programs,
        &subject,
        &candidates,
        &settings,
        &signals,
        &mut *progress,
    )?;
    let shown = match (options.json, options.markdown) {
        (true, _) => serde_json::to_string(&matrix)? + "\n",
        (_, true) => matrix.markdown(),
        _ => matrix.text(),
    };
    print(&shown)?;
    match interrupted(signal) {
        Some(status) => Ok(status),
        None if matrix.reference.is_none() => bail!("no mode could be run"),
        None => Ok(u8::from(!matrix.agrees())),
    }
}

/// What a command exits with that this signal has ended.
pub fn interrupted(signal: Option<i32>) -> Option<u8> {
    signal.map(|n| 128u8.saturating_add(u8::try_from(n).unwrap_or(0)))
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    if let Some(dir) = &options.suite {
        return all_of(dir, options);
    }
    let subject = options.world.subject(&options.command, &options.how)?;
    let settings = options.how.settings()?;
    let candidates = options.how.candidates(options.world.network);
    let signals = session::watch_signals()?;
    let columns = session::compare(&subject, &candidates, &settings, &signals, &mut *progress())?;
    let report = Report::new(&subject, &settings, &columns, env!("CARGO_PKG_VERSION"));
    for (path, content) in [
        (&options.svg, svg::picture as fn(&Report) -> String),
        (&options.html, html::page),
    ] {
        if let Some(path) = path {
            std::fs::write(path, content(&report)).with_context(|| path.display().to_string())?;
        }
    }
    let shown = match options.json {
        true => serde_json::to_string(&report)? + "\n",
        false => text::report(&report),
    };
    print(&shown)?;
    Ok(match interrupted(columns.interrupted) {
        Some(code) => code,
        None if report.reference.is_none() => bail!("no mode could be run"),
        None if report.agrees() => 0,
        None => 1,
    })
}

/// Prints to standard output; that nobody reads it to its end is no failure.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("standard output"),
        _ => Ok(()),
    }
}

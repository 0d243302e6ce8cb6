//! The `duet` command: options, messages and exit codes. It has no logic of its own.
//!
//! Exit codes: the program's own; 128+N if signal N killed it; 125 if Duet fails, 126 if the program
//! cannot be run, 127 if there is none.

mod bench;
mod compare;
mod demo;
mod doctor;
mod kernel;
mod manual;
mod report;
mod run;
mod syscalls;
mod trace;

use std::process::ExitCode;

use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Runs a Linux program in a compatibility layer of its own.
#[derive(Parser)]
#[command(name = "duet", version, max_term_width = 100)]
#[command(after_help = "Examples:
  duet run ./prog arg             run a static program in an empty tree
  duet run --rootfs tree sh       a shell in a tree; what it writes is thrown away
  duet run --host-root ls /       any installed program, on the host's tree, read-only
  duet trace --host-root ls /     every call of it, as strace shows them
  duet compare --host-root -- ls -lR /etc
                                  what it takes natively, in the layer and in a VM
  duet syscalls openat            what Duet does with a system call
  duet doctor                     what this host offers, and what to enable")]
struct Cli {
    /// Say more: once for what Duet does, twice for details, three times for each call
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

enum Command {
    Run(Box<run::Run>),
    Trace(Box<trace::Options>),
    Compare(Box<compare::Options>),
    Bench(bench::Options),
    Syscalls(syscalls::Options),
    Kernel(kernel::Options),
    Doctor(doctor::Options),
    Demo,
    Manual,
    Completions(manual::Options),
}

/// A command whose options are made only if it is the one that is asked for: those of all take longer than some
/// programs run.
macro_rules! command {
    ($name:literal, $about:literal) => {
        clap::Command::new($name).about($about)
    };
    ($name:literal, $about:literal, $options:ty) => {
        command!($name, $about, $options, |command| command)
    };
    ($name:literal, $about:literal, $options:ty, $change:expr) => {
        command!($name, $about).defer(|c| $change(<$options>::augment_args(c).about($about)))
    };
}

impl Subcommand for Command {
    fn augment_subcommands(cli: clap::Command) -> clap::Command {
        cli.subcommand_required(true)
            .arg_required_else_help(true)
            .subcommands([
                command!("run", "Run a program in a sandbox", run::Run),
                // With strace's letters where it has its options.
                command!(
                    "trace",
                    "Run a program in the layer and show every system call, as strace does",
                    trace::Options,
                    |trace: clap::Command| trace.mut_arg("env", |env| env.short('E'))
                ),
                command!(
                    "compare",
                    "Run a program natively, in the layer and in a VM, and show what each costs and where they differ",
                    compare::Options
                ),
                command!(
                    "bench",
                    "Measure calls, files, processes, memory, network and whole programs in each mode",
                    bench::Options
                ),
                command!(
                    "syscalls",
                    "Show what Duet does with each system call, or explain one",
                    syscalls::Options
                ),
                command!("kernel", "Get, add and list kernels for --mode vm", kernel::Options),
                command!(
                    "doctor",
                    "Check what this host offers, and say what to enable",
                    doctor::Options
                ),
                command!(
                    "demo",
                    "Run a built-in program and show which of its calls were native and which emulated"
                ),
                command!("manual", "Print a manual page, for man(1)").hide(true),
                command!(
                    "completions",
                    "Print a script that lets a shell complete duet's options",
                    manual::Options
                )
                .hide(true),
            ])
    }

    fn augment_subcommands_for_update(cli: clap::Command) -> clap::Command {
        Self::augment_subcommands(cli)
    }

    fn has_subcommand(name: &str) -> bool {
        let all = Self::augment_subcommands(clap::Command::default());
        all.find_subcommand(name).is_some()
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, mut options) = matches.remove_subcommand().ok_or_else(missing)?;
        let options = &mut options;
        Ok(match name.as_str() {
            "run" => Command::Run(FromArgMatches::from_arg_matches_mut(options)?),
            "trace" => Command::Trace(FromArgMatches::from_arg_matches_mut(options)?),
            "compare" => Command::Compare(FromArgMatches::from_arg_matches_mut(options)?),
            "bench" => Command::Bench(FromArgMatches::from_arg_matches_mut(options)?),
            "syscalls" => Command::Syscalls(FromArgMatches::from_arg_matches_mut(options)?),
            "kernel" => Command::Kernel(FromArgMatches::from_arg_matches_mut(options)?),
            "doctor" => Command::Doctor(FromArgMatches::from_arg_matches_mut(options)?),
            "demo" => Command::Demo,
            "manual" => Command::Manual,
            "completions" => Command::Completions(FromArgMatches::from_arg_matches_mut(options)?),
            _ => return Err(missing()),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What Duet's own failure exits with.
const FAILURE: u8 = 125;

fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches();
    let cli = match parsed.and_then(|mut m| Cli::from_arg_matches_mut(&mut m)) {
        Ok(cli) => cli,
        Err(e) => {
            if let Err(e) = e.print() {
                eprintln!("duet: {e}");
            }
            return ExitCode::from(if e.use_stderr() { FAILURE } else { 0 });
        }
    };
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => log::LevelFilter::Error,
        (_, 0) => log::LevelFilter::Warn,
        (_, 1) => log::LevelFilter::Info,
        (_, 2) => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format_timestamp(None)
        .init();
    let result = match cli.command {
        Command::Run(options) => run::main(&options),
        Command::Trace(options) => trace::main(&options),
        Command::Compare(options) => compare::main(&options),
        Command::Bench(options) => bench::main(&options),
        Command::Syscalls(options) => syscalls::main(&options),
        Command::Kernel(options) => kernel::main(&options),
        Command::Doctor(options) => doctor::main(&options),
        Command::Demo => demo::main(),
        Command::Manual => manual::manual(Cli::command()),
        Command::Completions(options) => manual::completions(&options, Cli::command()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("duet: {e:#}");
            let code = e
                .downcast_ref()
                .map_or(FAILURE, duet_sandbox::Error::exit_code);
            ExitCode::from(code)
        }
    }
}

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

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

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

#[derive(Subcommand)]
enum Command {
    /// Run a program in a sandbox
    Run(Box<run::Run>),
    /// Run a program in the layer and show every system call, as strace does
    Trace(Box<trace::Options>),
    /// Run a program natively, in the layer and in a VM, and show what each costs and where they differ
    Compare(Box<compare::Options>),
    /// Measure calls, files, processes, memory, network and whole programs in each mode
    Bench(bench::Options),
    /// Show what Duet does with each system call, or explain one
    Syscalls(syscalls::Options),
    /// Get, add and list kernels for --mode vm
    Kernel(kernel::Options),
    /// Check what this host offers, and say what to enable
    Doctor(doctor::Options),
    /// Run a built-in program and show which of its calls were native and which emulated
    Demo,
    /// Print a manual page, for man(1)
    #[command(hide = true)]
    Manual,
    /// Print a script that lets a shell complete duet's options
    #[command(hide = true)]
    Completions(manual::Options),
}

/// What Duet's own failure exits with.
const FAILURE: u8 = 125;

/// The command line. `duet trace` has strace's letters where it has its options.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("trace", |trace| trace.mut_arg("env", |env| env.short('E')))
}

fn main() -> ExitCode {
    let parsed = command().try_get_matches();
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
        Command::Manual => manual::manual(command()),
        Command::Completions(options) => manual::completions(&options, command()),
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

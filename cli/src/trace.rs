//! `duet trace`.

use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args, ValueEnum};
use duet_sandbox::{Engine, Seen};
use duet_syscalls::table;
use duet_trace::counts::Order;
use duet_trace::filter::{Filter, Status};
use duet_trace::format::{Clock, Style};
use duet_trace::output::Output;
use duet_trace::recorder::{Form, Naming, Recorder, Settings, Show};
use duet_trace::summary::{self, Summary};

use crate::run;

/// Options of `duet trace`.
#[derive(Args)]
#[group(id = "trace-options")]
#[command(after_help = "\
What is shown (-e, or the option in brackets; lists may begin with ! for all others):
  -e trace=LIST    calls (--trace): names, /REGEX, or sets: %file, %desc, %process, %network,
                   %memory, %signal, %ipc, %creds, %clock, %stat, %pure; also without trace=
  -e status=LIST   calls by their end (--status): successful, failed, unfinished, unavailable
  -e path=GLOB     calls that name such a path, or a descriptor of one (-P for one path)
  -e signal=LIST   signals (--signal)
  -e quiet=exit    no lines for ends of processes
Letters that differ from strace's are those of duet run: -p, -u, -v, -w, -m; -E sets a variable.
Children are always followed. docs/trace.md describes --json and --fast.

Examples:
  duet trace --host-root -e trace=%file -e status=failed cat /etc/passwd /none
  duet trace --host-root -c find /usr/share
  duet trace --host-root --explain -e trace=openat cat /etc/mtab
  duet trace --host-root --summary html=page.html make
  duet trace --host-root -ff -o calls sh -c 'ls | wc'")]
pub struct Options {
    /// Show these only: [trace=|status=|path=|signal=|quiet=]VALUES, as below; may be repeated
    #[arg(short = 'e', long = "expr", value_name = "EXPR")]
    expressions: Vec<String>,
    /// Show these calls only
    #[arg(long, value_name = "LIST")]
    trace: Option<String>,
    /// Show calls that end so only
    #[arg(long, value_name = "LIST")]
    status: Option<String>,
    /// Show these signals only
    #[arg(long, value_name = "LIST")]
    signal: Option<String>,
    /// Show calls that name this path only; may be repeated
    #[arg(short = 'P', long = "trace-path", value_name = "PATH")]
    paths: Vec<String>,
    /// Show calls that succeed only
    #[arg(short = 'z', long, conflicts_with_all = ["failed_only", "status"])]
    successful_only: bool,
    /// Show calls that fail only
    #[arg(short = 'Z', long, conflicts_with = "status")]
    failed_only: bool,
    /// Write to a file instead of standard error; with %p in its name, to one for each thread
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep what is in the file
    #[arg(short = 'A', long, requires = "output")]
    output_append_mode: bool,
    /// Children are followed anyway; -ff with -o writes a file for each thread
    #[arg(short, action = ArgAction::Count)]
    follow: u8,
    /// Count calls, errors and time, and show the table alone
    #[arg(short = 'c', long)]
    counts_only: bool,
    /// The same, and each call too
    #[arg(short = 'C', long, conflicts_with = "counts_only")]
    counts: bool,
    /// Order of that table
    #[arg(short = 'S', long, value_enum, value_name = "COLUMN", default_value_t = SortBy::Time)]
    sort_by: SortBy,
    /// The time of day on each line; -tt with microseconds, -ttt in seconds since 1970
    #[arg(short = 't', action = ArgAction::Count)]
    timestamps: u8,
    /// The time since the line before
    #[arg(short, long)]
    relative_timestamps: bool,
    /// How long each call took
    #[arg(short = 'T', long)]
    syscall_times: bool,
    /// The paths of descriptors; -yy also the addresses of sockets and the numbers of devices
    #[arg(short = 'y', action = ArgAction::Count)]
    decode_fds: u8,
    /// Bytes of a string that are shown
    #[arg(short, long, value_name = "N", default_value_t = 32)]
    string_limit: usize,
    /// Show structures and arrays whole (strace's -v)
    #[arg(long)]
    no_abbrev: bool,
    /// The column of results
    #[arg(short = 'a', long, value_name = "N", default_value_t = 40)]
    columns: u16,
    /// Below each call, what became of it: by whom it was answered, where its path led, what was asked of
    /// the host, and why it failed
    #[arg(long)]
    explain: bool,
    /// At the end, sum the run up: text, json, or html, to standard error or a file; may be repeated. Calls
    /// are then shown only where -o or -C says so
    #[arg(long, value_name = "FORM[=FILE]", value_parser = Page::parse)]
    summary: Vec<Page>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    color: Color,
    /// Do not stop the program: show the calls that come to Duet anyway, and native ones named by -e trace
    #[arg(long)]
    fast: bool,
    #[command(flatten)]
    run: run::Options,
}

/// A summary's form, and where it goes.
#[derive(Clone)]
struct Page {
    form: PageForm,
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PageForm {
    Text,
    Json,
    Html,
}

impl Page {
    fn parse(text: &str) -> Result<Page, String> {
        let (form, file) = match text.split_once('=') {
            Some((_, "")) => return Err("the file's name is missing behind =".into()),
            Some((form, file)) => (form, Some(PathBuf::from(file))),
            None => (text, None),
        };
        let form = match form {
            "text" => PageForm::Text,
            "json" => PageForm::Json,
            "html" if file.is_none() => {
                return Err("a page is for a file: html=FILE".into());
            }
            "html" => PageForm::Html,
            _ => return Err("there are text, json and html=FILE".into()),
        };
        Ok(Page { form, file })
    }

    fn write(&self, summary: &Summary) -> Result<()> {
        let text = match self.form {
            PageForm::Text => summary::text::page(summary),
            PageForm::Json => summary.json()?,
            PageForm::Html => summary::html::page(summary),
        };
        match &self.file {
            Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string()),
            None => stderr()
                .write_all(text.as_bytes())
                .context("standard error"),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum SortBy {
    Time,
    Calls,
    Errors,
    Name,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal
    Auto,
    Always,
    Never,
}

fn filter(options: &Options) -> Result<Filter> {
    let mut filter = Filter::default();
    let mut add = |option: &str, text: &str| {
        let added = filter.add(text);
        added.map_err(|e| anyhow::anyhow!("{option} {text}: {e}"))
    };
    for expression in &options.expressions {
        add("-e", expression)?;
    }
    let named = [
        ("trace", &options.trace),
        ("status", &options.status),
        ("signal", &options.signal),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            let prefix = format!("{name}=");
            let value = value.strip_prefix(&prefix).unwrap_or(value);
            add(&format!("--{name}"), &format!("{prefix}{value}"))?;
        }
    }
    for path in &options.paths {
        filter
            .add_path(path)
            .map_err(|e| anyhow::anyhow!("-P {path}: {e}"))?;
    }
    if options.successful_only {
        filter.only(Status::Successful);
    }
    if options.failed_only {
        filter.only(Status::Failed);
    }
    Ok(filter)
}

fn output(options: &Options) -> Result<Output> {
    let Some(path) = &options.output else {
        return Ok(Output::Stream(Box::new(stderr())));
    };
    if options.follow > 1 {
        return Ok(Output::separate(path, options.output_append_mode));
    }
    let file = Output::file(path, options.output_append_mode);
    file.with_context(|| path.display().to_string())
}

fn form(options: &Options) -> Form {
    if options.json {
        return Form::Json;
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let terminal = options.output.is_none() && stderr().is_terminal() && !plain;
    Form::Text(Style {
        clock: match options.timestamps {
            0 => Clock::None,
            1 => Clock::Seconds,
            2 => Clock::Micros,
            _ => Clock::Epoch,
        },
        relative: options.relative_timestamps,
        durations: options.syscall_times,
        column: options.columns.into(),
        color: options.color == Color::Always || options.color == Color::Auto && terminal,
    })
}

fn show(options: &Options) -> Show {
    let order = match options.sort_by {
        SortBy::Time => Order::Time,
        SortBy::Calls => Order::Calls,
        SortBy::Errors => Order::Errors,
        SortBy::Name => Order::Name,
    };
    match (options.counts_only, options.counts) {
        (true, _) => Show::Counts(order),
        (_, true) => Show::Both(order),
        _ if !options.summary.is_empty() && options.output.is_none() => Show::Nothing,
        _ => Show::Calls,
    }
}

/// Native calls that are brought with `--fast` whatever is asked for: they are rare, and tell of processes.
const PROCESSES: [&str; 6] = ["clone", "clone3", "fork", "vfork", "exit", "exit_group"];

fn seen(filter: &Filter, fast: bool) -> Seen {
    let always = PROCESSES
        .iter()
        .filter_map(|name| table::by_name(name))
        .map(|row| row.nr);
    match (filter.numbers(), fast) {
        (None, false) => Seen::All,
        (Some(numbers), false) => Seen::With(numbers),
        (None, true) => Seen::With(always.collect()),
        (Some(numbers), true) => Seen::With(numbers.into_iter().chain(always).collect()),
    }
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    run::check_layer(&options.run)?;
    if options.follow > 1 && options.output.is_none() {
        bail!("-ff writes a file for each thread; name them with -o FILE");
    }
    let filter = filter(options)?;
    let mut config = run::config(&options.run)?;
    config.engine = if options.fast {
        Engine::Seccomp
    } else {
        Engine::Ptrace
    };
    config.seen = seen(&filter, options.fast);
    let args = std::iter::once(&config.program).chain(&config.args);
    let settings = Settings {
        filter,
        limit: options.string_limit.min(1 << 20),
        full: options.no_abbrev,
        naming: match options.decode_fds {
            0 => Naming::Numbers,
            1 => Naming::Paths,
            _ => Naming::Details,
        },
        form: form(options),
        show: show(options),
        explain: options.explain,
        summary: !options.summary.is_empty(),
        fast: options.fast,
        first: args.map(|a| a.as_bytes().to_vec()).collect(),
        variables: config.env.iter().map(|v| v.as_bytes().to_vec()).collect(),
    };
    let sums_up = !options.summary.is_empty();
    if options.explain || sums_up {
        duet_vfs::account::keep();
    }
    let recorder = Recorder::new(output(options)?, settings);
    let outcome = duet_sandbox::run(&config, Some(recorder.clone()))?;
    recorder
        .finish(outcome.transfers)
        .context("writing the trace")?;
    if let Some(summary) = recorder.summary() {
        for page in &options.summary {
            page.write(&summary).context("writing the summary")?;
        }
    }
    Ok(outcome.exit_code)
}

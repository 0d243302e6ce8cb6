//! A built-in set of measurements: what calls, files, processes, memory, a network and whole programs cost
//! in each mode, and under other programs of this kind.
//!
//! One static program, built from `benches/abibench.c` together with this crate, is run through
//! [`session::compare`]: it measures its own operations and prints nanoseconds. Starting and ending it is
//! measured from outside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signalfd::SignalFd;
use serde::{Deserialize, Serialize};

use crate::child::{Run, Status};
use crate::figures::Unit;
use crate::modes::Candidate;
use crate::report::Host;
use crate::session::{self, Progress, Settings};
use crate::stats::Summary;
use crate::subject::{Subject, Tree};
use crate::{Error, Result, text};

/// The measuring program.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/abibench"));

/// Names the form of the stored results and its version.
pub const SCHEMA: &str = "duet-bench/1";

/// What is measured: group, name as the program prints it, name for people.
const ROWS: [(&str, &str, &str); 28] = [
    ("calls", "getppid", "getppid"),
    ("calls", "clock_gettime_vdso", "clock_gettime, by the vDSO"),
    ("calls", "clock_gettime_syscall", "clock_gettime, as a call"),
    ("calls", "epoll_wait_ready", "epoll_wait, ready"),
    ("calls", "poll_ready", "poll, ready"),
    ("calls", "signal_self", "signal to itself"),
    ("files", "stat", "stat, four components"),
    ("files", "stat_missing", "stat, missing"),
    ("files", "open_close", "open and close"),
    ("files", "pread_4k", "pread 4 KiB"),
    ("files", "pwrite_4k", "pwrite 4 KiB"),
    ("files", "read_seq_1m", "read 1 MiB in 64 KiB"),
    ("files", "readdir_1000", "readdir, 1,000 entries"),
    ("files", "create_unlink", "create and unlink"),
    ("files", "rename", "rename"),
    ("processes", "fork_wait", "fork and wait"),
    ("processes", "fork_exec_wait", "fork, exec and wait"),
    ("processes", "thread_create_join", "thread, made and joined"),
    ("processes", "futex_threads", "futex round trip"),
    ("processes", "pipe_processes", "pipe round trip, processes"),
    ("processes", "pipe_threads", "pipe round trip, threads"),
    (
        "memory",
        "mmap_touch_munmap_16",
        "mmap, touch and unmap 16 pages",
    ),
    (
        "network",
        "tcp_loopback_threads",
        "TCP round trip, loopback",
    ),
    ("network", "socketpair_threads", "socket pair round trip"),
    ("whole programs", "whole_cpu", "a program that computes"),
    (
        "whole programs",
        "whole_files",
        "one that works on 1,000 files",
    ),
    (
        "whole programs",
        "whole_forks",
        "one that starts 150 others",
    ),
    (
        "whole programs",
        EMPTY,
        "one that does nothing, start to end",
    ),
];

/// The row that is measured from outside.
const EMPTY: &str = "whole_empty";

/// A column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The mode.
    pub mode: String,
    /// Why it was not run.
    pub missing: Option<String>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What kind of thing it is.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Seconds an operation, by mode; without those where it failed.
    pub values: BTreeMap<String, Summary>,
}

/// All results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of Duet.
    pub duet: String,
    /// The machine.
    pub host: Host,
    /// When it was measured, in seconds since the epoch.
    pub taken: u64,
    /// Runs in each mode.
    pub runs: u32,
    /// Seconds that each measurement took within a run.
    pub seconds: f64,
    /// Whether it was ended before all runs were made.
    pub interrupted: bool,
    /// The modes.
    pub columns: Vec<Column>,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// Runs the set.
///
/// # Errors
/// Comparing itself fails.
pub fn run(
    candidates: &[Candidate],
    settings: &Settings,
    seconds: f64,
    version: &str,
    signals: &SignalFd,
    progress: &mut dyn Progress,
) -> Result<(Results, Option<i32>)> {
    let place = tempfile::Builder::new()
        .prefix("duet-bench-")
        .tempdir()
        .map_err(|e| Error::step("making a directory", e))?;
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755))
        .map_err(|e| Error::on(place.path(), e))?;
    let program = place.path().join("abibench");
    write_program(&program).map_err(|e| Error::on(&program, e))?;
    let mut results = Results {
        schema: SCHEMA.into(),
        duet: version.into(),
        host: Host::here(),
        taken: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_secs()),
        runs: settings.runs,
        seconds,
        interrupted: false,
        columns: candidates
            .iter()
            .map(|c| Column {
                mode: c.mode.name().into(),
                missing: c.missing.clone(),
            })
            .collect(),
        rows: Vec::new(),
    };
    let mut samples: BTreeMap<(String, &str), Vec<f64>> = BTreeMap::new();
    let mut candidates = candidates.to_vec();
    let mut interrupted = None;
    let duration = seconds.to_string();
    for arguments in [&["--exit"][..], &["-w", "."], &["-d", &duration, "."]] {
        let subject = subject(&program, arguments);
        let columns = session::compare(&subject, &candidates, settings, signals, progress)?;
        for column in &columns.columns {
            for run in &column.timed {
                let mode = column.mode.name();
                match arguments {
                    ["--exit"] => {
                        if run.status == Status::Exited(0) {
                            let value = run.total as f64 / 1e9;
                            samples.entry((EMPTY.into(), mode)).or_default().push(value);
                        }
                    }
                    _ => {
                        for (name, nanos) in printed(column, run) {
                            samples.entry((name, mode)).or_default().push(nanos / 1e9);
                        }
                    }
                }
            }
            let failure = column.missing.clone().or_else(|| failure(column));
            let candidate = candidates.iter_mut().find(|c| c.mode == column.mode);
            let result = results
                .columns
                .iter_mut()
                .find(|c| c.mode == column.mode.name());
            if let (Some(candidate), Some(result), Some(why)) = (candidate, result, failure) {
                // It is not asked again.
                candidate.missing.get_or_insert_with(|| why.clone());
                result.missing.get_or_insert(why);
            }
        }
        interrupted = columns.interrupted;
        if interrupted.is_some() {
            break;
        }
    }
    results.interrupted = interrupted.is_some();
    results.rows = rows(&samples);
    Ok((results, interrupted))
}

fn write_program(path: &Path) -> std::io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(path)?;
    file.write_all(PROGRAM)
}

fn subject(program: &Path, arguments: &[&str]) -> Subject {
    let words = arguments.iter().map(OsString::from);
    let ids = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    Subject {
        command: std::iter::once(program.into()).chain(words).collect(),
        tree: Tree::Bare,
        dir: None,
        workdir: None,
        volumes: Vec::new(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        user: ids,
        input: None,
        options: Vec::new(),
        machine_options: Vec::new(),
    }
}

/// `name nanoseconds` on each line; what failed says so instead.
fn printed(column: &session::Column, run: &Run) -> Vec<(String, f64)> {
    let bytes = column.kept.stdout(&run.did).map_or(&[][..], |c| &c.head);
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        let known = ROWS.iter().any(|(_, n, _)| *n == name);
        let value = value.trim().parse::<f64>().ok();
        value
            .filter(|v| known && v.is_finite() && *v >= 0.0)
            .map(|v| (name.to_owned(), v))
    };
    text.lines().filter_map(line).collect()
}

/// Why a mode gives nothing, if all its runs failed.
fn failure(column: &session::Column) -> Option<String> {
    let last = column.timed.last()?;
    let failed = |r: &Run| r.status != Status::Exited(0) && printed(column, r).is_empty();
    if !column.timed.iter().all(failed) {
        return None;
    }
    let said = column.kept.stderr(&last.did).map_or(&[][..], |c| &c.head);
    let said = String::from_utf8_lossy(said);
    let line = said
        .lines()
        .last()
        .unwrap_or("")
        .chars()
        .filter(|c| !c.is_control());
    let line: String = line.take(200).collect();
    Some(format!(
        "{} failed with status {}: {line}",
        column.mode.name(),
        last.status
    ))
}

fn rows(samples: &BTreeMap<(String, &str), Vec<f64>>) -> Vec<Row> {
    let all = ROWS.iter().map(|(group, name, title)| Row {
        group: (*group).into(),
        name: (*name).into(),
        title: (*title).into(),
        values: samples
            .iter()
            .filter(|((of, _), _)| of == name)
            .filter_map(|((_, mode), all)| {
                Some(((*mode).to_owned(), Summary::of(all.iter().copied())?))
            })
            .collect(),
    });
    all.filter(|r| !r.values.is_empty()).collect()
}

impl Results {
    /// Reads stored results.
    ///
    /// # Errors
    /// The file's, or what is in it are no results of this form.
    pub fn read(path: &Path) -> Result<Results> {
        let text = fs::read(path).map_err(|e| Error::on(path, e))?;
        let results: Results = serde_json::from_slice(&text)
            .map_err(|e| Error::on(path, format!("no results of duet bench: {e}")))?;
        match results.schema == SCHEMA {
            true => Ok(results),
            false => Err(Error::on(
                path,
                format!("has the form {:?}, and this is {SCHEMA}", results.schema),
            )),
        }
    }

    /// The columns that have values.
    pub fn measured(&self) -> Vec<&str> {
        let has = |c: &&Column| self.rows.iter().any(|r| r.values.contains_key(&c.mode));
        self.columns
            .iter()
            .filter(has)
            .map(|c| c.mode.as_str())
            .collect()
    }

    /// The header and rows of a table: the first column that has values as it is, the others with their
    /// ratio to it.
    fn cells(&self) -> (Vec<String>, Vec<(String, Vec<String>)>) {
        let columns = self.measured();
        let base = columns.first().copied().unwrap_or_default();
        let row = |r: &Row| {
            let cells = columns.iter().map(|c| {
                let Some(value) = r.values.get(*c) else {
                    return "-".to_owned();
                };
                let shown = Unit::Seconds.show(value.median);
                match r.values.get(base).filter(|b| *c != base && b.median > 0.0) {
                    Some(b) => format!("{shown} ({})", ratio(value.median / b.median)),
                    None => shown,
                }
            });
            (
                r.group.clone(),
                std::iter::once(r.title.clone()).chain(cells).collect(),
            )
        };
        let header = std::iter::once(String::new());
        let header = header
            .chain(columns.iter().map(|c| (*c).to_owned()))
            .collect();
        (header, self.rows.iter().map(row).collect())
    }

    /// For people.
    pub fn text(&self) -> String {
        let (header, rows) = self.cells();
        let width = header.len();
        let mut lines = Vec::new();
        let mut group = String::new();
        for (of, cells) in rows {
            if of != group {
                let mut title = vec![String::new(); width];
                if let Some(first) = title.first_mut() {
                    *first = of.to_uppercase();
                }
                lines.push(title);
                group = of;
            }
            lines.push(cells);
        }
        let mut out = format!(
            "time of one operation, median of {} runs, and in brackets its ratio to the first column\n",
            self.runs
        );
        if self.interrupted {
            out += "INTERRUPTED: what was measured so far\n";
        }
        out += &format!("\n{}\n", text::plain_table(header, lines));
        for column in &self.columns {
            if let Some(why) = &column.missing {
                out += &format!("{} is missing: {why}\n", column.mode);
            }
        }
        out
    }

    /// For a page of documentation.
    pub fn markdown(&self) -> String {
        let (header, rows) = self.cells();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut out = format!(
            "{}, {} processors, Linux {}; medians of {} runs.\n\n",
            self.host.processor, self.host.processors, self.host.kernel, self.runs
        );
        out += &line(&header);
        out += &format!("|---|{}\n", "--:|".repeat(header.len().saturating_sub(1)));
        for (_, cells) in rows {
            out += &line(&cells);
        }
        out
    }
}

/// `1.04×`, `11×`.
fn ratio(n: f64) -> String {
    match n {
        n if n >= 9.95 => format!("{n:.0}×"),
        n if n >= 1.995 => format!("{n:.1}×"),
        n => format!("{n:.2}×"),
    }
}

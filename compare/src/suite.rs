//! Many programs, one verdict each: which of them behave in every mode as they do natively.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signalfd::SignalFd;
use serde::{Deserialize, Serialize};

use crate::agree::Verdict;
use crate::modes::Candidate;
use crate::report::{Difference, Host, Report};
use crate::session::{self, Progress, Settings};
use crate::subject::Subject;
use crate::{Error, Result, text};

/// Names the form of the JSON and its version.
pub const SCHEMA: &str = "duet-suite/1";

/// One program in one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Aspects that are not the same, by name.
    pub odd: BTreeMap<String, Verdict>,
    /// How they differ.
    pub differences: Vec<Difference>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub program: String,
    /// By mode; without those that did not run.
    pub modes: BTreeMap<String, Cell>,
}

/// All programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// [`SCHEMA`].
    pub schema: String,
    /// The machine.
    pub host: Host,
    /// The mode that the others are held against.
    pub reference: Option<String>,
    /// The other modes, in order.
    pub modes: Vec<String>,
    /// Modes that did not run, with the reason.
    pub missing: BTreeMap<String, String>,
    /// Whether it was ended before all programs were run.
    pub interrupted: bool,
    /// The programs.
    pub lines: Vec<Line>,
}

/// The executable files of a directory, by name.
///
/// # Errors
/// It cannot be read, or has none.
pub fn programs(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|e| Error::on(dir, e))?;
    let paths = entries.flatten().map(|e| e.path());
    let executable = |p: &PathBuf| {
        let found = p.metadata();
        found.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    let mut all: Vec<PathBuf> = paths.filter(executable).collect();
    all.sort();
    match all.is_empty() {
        true => Err(Error::on(
            dir,
            "has no programs, which are executable files",
        )),
        false => Ok(all),
    }
}

/// Runs each program in each mode. `like`: what each is to see; its command is replaced.
///
/// # Errors
/// Comparing itself fails.
pub fn run(
    programs: &[PathBuf],
    like: &Subject,
    candidates: &[Candidate],
    settings: &Settings,
    signals: &SignalFd,
    progress: &mut dyn Progress,
) -> Result<(Matrix, Option<i32>)> {
    let mut matrix = Matrix {
        schema: SCHEMA.into(),
        host: Host::here(),
        reference: None,
        modes: Vec::new(),
        missing: BTreeMap::new(),
        interrupted: false,
        lines: Vec::new(),
    };
    for program in programs {
        let mut subject = like.clone();
        subject.command = vec![program.into()];
        subject.settle()?;
        let mut columns = session::compare(&subject, candidates, settings, signals, progress)?;
        let mut report = Report::new(&subject, settings, &columns, "");
        if !report.agrees() && columns.interrupted.is_none() {
            // Does it do the same twice by itself?
            let reference = |c: &&Candidate| Some(c.mode.name()) == report.reference.as_deref();
            let again: Vec<Candidate> = candidates.iter().filter(reference).cloned().collect();
            let more = session::compare(&subject, &again, settings, signals, progress)?;
            columns.interrupted = more.interrupted;
            for column in more.columns {
                let known = columns.columns.iter_mut().find(|c| c.mode == column.mode);
                if let Some(known) = known {
                    // What its first run did is kept already.
                    known.timed.extend(column.timed);
                }
            }
            report = Report::new(&subject, settings, &columns, "");
        }
        if let Some(signal) = columns.interrupted {
            matrix.interrupted = true;
            return Ok((matrix, Some(signal)));
        }
        matrix.add(program, &report);
    }
    Ok((matrix, None))
}

impl Matrix {
    fn add(&mut self, program: &Path, report: &Report) {
        if self.reference.is_none() {
            self.reference.clone_from(&report.reference);
        }
        let mut line = Line {
            program: program
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            modes: BTreeMap::new(),
        };
        for mode in &report.modes {
            if let Some(why) = &mode.missing {
                self.missing.insert(mode.mode.clone(), why.clone());
            }
            if mode.agreement.is_empty() {
                continue;
            }
            if !self.modes.contains(&mode.mode) {
                self.modes.push(mode.mode.clone());
            }
            let odd = mode.agreement.iter().filter(|(_, v)| **v != Verdict::Same);
            let cell = Cell {
                odd: odd.map(|(a, v)| (a.clone(), *v)).collect(),
                differences: mode.differences.clone(),
            };
            line.modes.insert(mode.mode.clone(), cell);
        }
        self.lines.push(line);
    }

    /// Whether all behave as in the reference.
    pub fn agrees(&self) -> bool {
        let mut cells = self.lines.iter().flat_map(|l| l.modes.values());
        cells.all(|c| !c.odd.values().any(|v| *v == Verdict::Differs))
    }

    /// The header and rows of a table.
    fn cells(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = std::iter::once("program".into())
            .chain(self.modes.clone())
            .collect();
        let row = |line: &Line| {
            let cells = self
                .modes
                .iter()
                .map(|m| line.modes.get(m).map_or("not run".into(), word));
            std::iter::once(text::plain(&line.program))
                .chain(cells)
                .collect()
        };
        (header, self.lines.iter().map(row).collect())
    }

    /// For people, with the differences.
    pub fn text(&self) -> String {
        let (header, rows) = self.cells();
        let reference = self.reference.as_deref().unwrap_or("nothing");
        let mut out = format!(
            "behaviour against {reference}\n\n{}\n\n",
            text::plain_table(header, rows)
        );
        for line in &self.lines {
            for (mode, cell) in &line.modes {
                for d in &cell.differences {
                    let program = text::plain(&line.program);
                    out += &format!("{program} in {mode}: {}\n", d.aspect.name());
                    let lines = d.diff.lines().map(|l| format!("    {l}\n"));
                    out += &lines.collect::<String>();
                }
            }
        }
        for (mode, why) in &self.missing {
            out += &format!("{mode} is missing: {}\n", text::plain(why));
        }
        if self.interrupted {
            out += "interrupted: the programs behind these were not run\n";
        }
        for mode in &self.modes {
            let of = self.lines.iter().filter_map(|l| l.modes.get(mode));
            let (mut all, mut same) = (0, 0);
            for cell in of {
                all += 1;
                same += usize::from(cell.odd.is_empty());
            }
            out += &format!("{mode}: {same} of {all} as {reference}\n");
        }
        out
    }

    /// For a page of documentation.
    pub fn markdown(&self) -> String {
        let (header, rows) = self.cells();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut out = line(&header);
        out += &format!("|{}\n", "---|".repeat(header.len()));
        out.extend(rows.iter().map(|r| line(r)));
        out
    }
}

fn word(cell: &Cell) -> String {
    let with = |wanted: Verdict| {
        let all = cell.odd.iter().filter(|(_, v)| **v == wanted);
        all.map(|(a, _)| a.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (differs, unsettled) = (with(Verdict::Differs), with(Verdict::Unsettled));
    match (differs.is_empty(), unsettled.is_empty()) {
        (false, _) => format!("differs: {differs}"),
        (true, false) => format!("from run to run: {unsettled}"),
        (true, true) => "same".into(),
    }
}

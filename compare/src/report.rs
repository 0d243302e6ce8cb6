//! What a comparison found, as it is shown and as it is written for machines.
//!
//! The JSON form is [`Report`] as it stands here, described in docs/compare.md. A change that readers
//! would notice changes [`SCHEMA`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agree::{self, Aspect, Side, Verdict};
use crate::child::Run;
use crate::figures::{self, Unit};
use crate::modes::Mode;
use crate::session::{Column, Columns, Settings};
use crate::stats::Summary;
use crate::subject::{Subject, Tree};

/// Names the form of the JSON and its version.
pub const SCHEMA: &str = "duet-compare/1";

/// The machine that it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Release of its kernel.
    pub kernel: String,
    /// Name of its processor.
    pub processor: String,
    /// Processors that could be used.
    pub processors: usize,
}

/// One figure of one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Its unit.
    pub unit: Unit,
    /// Median and spread.
    #[serde(flatten)]
    pub summary: Summary,
}

/// One way in which a mode differs from the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// In what.
    pub aspect: Aspect,
    /// Lines that begin with `-` for the reference and with `+` for the mode.
    pub diff: String,
}

/// One mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeReport {
    /// Its name.
    pub mode: String,
    /// Why it was not run, or not to the end.
    pub missing: Option<String>,
    /// Timed runs.
    pub runs: usize,
    /// Whether it behaved as the reference did; absent for the reference itself and for what was not run.
    pub agreement: BTreeMap<String, Verdict>,
    /// How it differs.
    pub differences: Vec<Difference>,
    /// Figures by name.
    pub figures: BTreeMap<String, Value>,
    /// Exits of the machine by reason; `None` where nothing counts them.
    pub exits: Option<BTreeMap<String, Summary>>,
    /// Which monitor ran the machine.
    pub monitor: Option<String>,
}

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of Duet.
    pub duet: String,
    /// The machine.
    pub host: Host,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `bare`, `host` or `directory`.
    pub tree: String,
    /// Warm-up runs of each mode.
    pub warmups: u32,
    /// Timed runs of each mode that were asked for.
    pub runs: u32,
    /// Observed runs of each mode that were asked for.
    pub observed: u32,
    /// Whether it was ended before all runs were made.
    pub interrupted: bool,
    /// The mode that the others are held against.
    pub reference: Option<String>,
    /// The modes.
    pub modes: Vec<ModeReport>,
    /// What it comes to, in two sentences.
    pub reading: [String; 2],
}

impl Host {
    /// This one.
    pub fn here() -> Host {
        let kernel = nix::sys::utsname::uname();
        let kernel = kernel.map(|u| u.release().to_string_lossy().into_owned());
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpuinfo.lines().find(|l| l.starts_with("model name"));
        let name = name
            .and_then(|l| l.split_once(':'))
            .map(|(_, n)| n.trim().to_owned());
        Host {
            kernel: kernel.unwrap_or_default(),
            processor: name.unwrap_or_else(|| "unknown".into()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Report {
    /// Of these runs.
    pub fn new(subject: &Subject, settings: &Settings, columns: &Columns, version: &str) -> Report {
        let ran = |c: &&Column| !c.timed.is_empty() || !c.observed.is_empty();
        let native = columns
            .columns
            .iter()
            .find(|c| c.mode == Mode::Native && ran(c));
        let reference = native.or_else(|| columns.columns.iter().find(ran));
        let did = reference.map(Column::did).unwrap_or_default();
        let expected = reference.map(|c| Side {
            name: c.mode.name(),
            runs: &did,
            kept: &c.kept,
        });
        let name = expected.map(|e| e.name);
        let modes = columns.columns.iter().map(|c| {
            let against = expected.filter(|e| e.name != c.mode.name());
            mode_report(c, against)
        });
        let modes: Vec<ModeReport> = modes.collect();
        let text = |s: &std::ffi::OsString| s.to_string_lossy().into_owned();
        let mut report = Report {
            schema: SCHEMA.into(),
            duet: version.into(),
            host: Host::here(),
            command: subject.command.iter().map(text).collect(),
            tree: match subject.tree {
                Tree::Bare => "bare",
                Tree::Host => "host",
                Tree::Directory(_) => "directory",
            }
            .into(),
            warmups: settings.warmups,
            runs: settings.runs,
            observed: settings.observed,
            interrupted: columns.interrupted.is_some(),
            reference: name.map(str::to_owned),
            modes,
            reading: Default::default(),
        };
        report.reading = [report.read_cost(), report.read_agreement()];
        report
    }

    /// The median of a figure of a mode.
    pub fn median(&self, mode: &str, figure: &str) -> Option<f64> {
        let mode = self.modes.iter().find(|m| m.mode == mode)?;
        mode.figures.get(figure).map(|v| v.summary.median)
    }

    /// Whether every mode that ran behaved as the reference did.
    pub fn agrees(&self) -> bool {
        self.modes.iter().all(|m| {
            let fine = |v: &Verdict| matches!(v, Verdict::Same | Verdict::Varies);
            m.agreement.values().all(fine)
        })
    }

    /// What the modes cost, in one sentence.
    fn read_cost(&self) -> String {
        let Some(reference) = &self.reference else {
            return "No mode could be run here.".into();
        };
        let Some(base) = self.median(reference, "total") else {
            return format!("There are no timed runs of {reference} to hold the others against.");
        };
        let mut parts = Vec::new();
        for mode in self.modes.iter().filter(|m| m.mode != *reference) {
            let Some(total) = self.median(&mode.mode, "total") else {
                continue;
            };
            let mut part = format!("{} {}", mode.mode, times(total, base));
            let start = self.median(&mode.mode, "start");
            if let Some(start) = start.filter(|s| s / total > 0.25) {
                part += &format!(
                    " ({} of its {} before the first instruction)",
                    Unit::Seconds.show(start),
                    Unit::Seconds.show(total)
                );
            }
            parts.push(part);
        }
        let base = Unit::Seconds.show(base);
        match parts.is_empty() {
            true => {
                format!("{reference} took {base}, and there is no other mode to hold against it.")
            }
            false => format!(
                "Beside {reference}, which took {base}, the whole run took with {}.",
                list(&parts)
            ),
        }
    }

    /// Whether they behave alike, in one sentence.
    fn read_agreement(&self) -> String {
        let Some(reference) = &self.reference else {
            return "Nothing can be said about how they behave.".into();
        };
        let others = || self.modes.iter().filter(|m| !m.agreement.is_empty());
        let with = |wanted: fn(&Verdict) -> bool| {
            let found = others().flat_map(move |m| {
                let odd = m.agreement.iter().filter(move |(_, v)| wanted(v));
                odd.map(|(aspect, _)| format!("{} in {aspect}", m.mode))
            });
            found.collect::<Vec<_>>()
        };
        let differing = with(|v| *v == Verdict::Differs);
        let unsettled = with(|v| matches!(v, Verdict::Varies | Verdict::Unsettled));
        if others().next().is_none() {
            return format!(
                "With {reference} alone there is nothing to compare its behaviour with."
            );
        }
        if !differing.is_empty() {
            return format!("Not all behave as {reference} does: {}.", list(&differing));
        }
        if !unsettled.is_empty() {
            return format!(
                "The program does not do the same twice under {reference} itself, so nothing can be said \
                 of {}.",
                list(&unsettled)
            );
        }
        format!(
            "All end with the same status, print the same and write the same files as under {reference}."
        )
    }
}

/// That many times as long, in words.
fn times(value: f64, base: f64) -> String {
    let ratio = value / base.max(f64::MIN_POSITIVE);
    match ratio {
        r if r >= 9.95 => format!("{r:.0} times as long"),
        r if !(0.95..1.05).contains(&r) => format!("{r:.1} times as long"),
        _ => "as long".into(),
    }
}

fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

fn mode_report(column: &Column, reference: Option<Side>) -> ModeReport {
    let runs = column.did();
    let side = Side {
        name: column.mode.name(),
        runs: &runs,
        kept: &column.kept,
    };
    let mut agreement = BTreeMap::new();
    let mut differences = Vec::new();
    if let Some(expected) = reference.filter(|_| !runs.is_empty()) {
        for aspect in Aspect::ALL {
            agreement.insert(
                aspect.name().to_owned(),
                agree::verdict(aspect, expected.runs, &runs),
            );
            let diff = agree::difference(aspect, expected, side);
            differences.extend(diff.map(|diff| Difference { aspect, diff }));
        }
    }
    let mut values = BTreeMap::new();
    let kinds = [
        (&figures::TIMED[..], &column.timed),
        (&figures::OBSERVED[..], &column.observed),
    ];
    for (figures, runs) in kinds {
        for figure in figures {
            if let Some(summary) = Summary::of(runs.iter().filter_map(figure.of)) {
                let unit = figure.unit;
                values.insert(figure.id.to_owned(), Value { unit, summary });
            }
        }
    }
    ModeReport {
        mode: side.name.into(),
        missing: column.missing.clone(),
        runs: column.timed.len(),
        agreement,
        differences,
        figures: values,
        exits: exits(&column.timed),
        monitor: column.runs().find_map(|r| r.monitor.clone()),
    }
}

fn exits(runs: &[Run]) -> Option<BTreeMap<String, Summary>> {
    let counted: Vec<_> = runs.iter().filter_map(|r| r.exits.as_ref()).collect();
    let reasons: std::collections::BTreeSet<_> = counted.iter().flat_map(|e| e.keys()).collect();
    let all = reasons.into_iter().filter_map(|reason| {
        let counts = counted
            .iter()
            .map(|e| e.get(reason).map_or(0.0, |n| *n as f64));
        Some((reason.clone(), Summary::of(counts)?))
    });
    (!counted.is_empty()).then(|| all.collect())
}

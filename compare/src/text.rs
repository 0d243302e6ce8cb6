//! A comparison as a table for a terminal.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use duet_trace::summary::svg::steers;

use crate::agree::Verdict;
use crate::figures;
use crate::modes::Mode;
use crate::report::{ModeReport, Report, Value};

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    let ran: Vec<&ModeReport> = report
        .modes
        .iter()
        .filter(|m| !m.figures.is_empty())
        .collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", plain(&report.command.join(" ")));
    let _ = writeln!(
        out,
        "median ± half the distance between quartiles; runs of each mode: {} timed, {} observed, {} to warm up",
        report.runs, report.observed, report.warmups
    );
    if report.interrupted {
        let _ = writeln!(out, "INTERRUPTED: what was measured so far");
    }
    out.push('\n');
    if !ran.is_empty() {
        let _ = writeln!(out, "{}\n", figures_table(&ran));
    }
    if ran.len() > 1 {
        let _ = writeln!(out, "{}\n", agreement_table(report, &ran));
    }
    for mode in &ran {
        if let Some(exits) = &mode.exits {
            let all = exits
                .iter()
                .map(|(reason, n)| format!("{reason} {:.0}", n.median));
            let all: Vec<_> = all.collect();
            let _ = writeln!(out, "exits of {}: {}", mode.mode, all.join(", "));
        } else if mode.mode == Mode::Vm.name() {
            let monitor = mode.monitor.as_deref().unwrap_or("the monitor");
            let _ = writeln!(out, "exits of {}: not to be had from {monitor}", mode.mode);
        }
    }
    for mode in &report.modes {
        if let Some(why) = &mode.missing {
            let _ = writeln!(out, "{} is missing: {}", mode.mode, plain(why));
        }
    }
    for mode in &ran {
        for difference in &mode.differences {
            let _ = writeln!(out, "\n{}: {}", mode.mode, difference.aspect.name());
            for line in difference.diff.lines() {
                let _ = writeln!(out, "    {line}");
            }
        }
    }
    let _ = writeln!(out, "\n{}\n{}", report.reading[0], report.reading[1]);
    out
}

/// On one line, without what would steer a terminal.
pub fn plain(text: &str) -> String {
    let plain = |c| if steers(c) { '\u{fffd}' } else { c };
    text.chars().map(plain).collect()
}

/// A table without lines, whose first column is text and whose others are numbers.
pub fn plain_table(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let text = table.to_string();
    let lines = text
        .lines()
        .map(|l| l.trim_end().strip_prefix(' ').unwrap_or(l.trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}

/// `12.3 ms ± 0.4 ms`; the spread where there is one.
pub fn value(value: &Value) -> String {
    let median = value.unit.show(value.summary.median);
    let spread = value.summary.spread();
    match value.summary.n > 1 && spread > 0.0 {
        true => format!("{median} ± {}", value.unit.show(spread)),
        false => median,
    }
}

fn figures_table(ran: &[&ModeReport]) -> String {
    let names = ran.iter().map(|m| m.mode.clone());
    let header = std::iter::once(String::new()).chain(names).collect();
    let mut rows = Vec::new();
    for figure in figures::all() {
        let values: Vec<_> = ran.iter().map(|m| m.figures.get(figure.id)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let cells = values
            .into_iter()
            .map(|v| v.map_or_else(|| "-".into(), value));
        rows.push(
            std::iter::once(figure.title.to_owned())
                .chain(cells)
                .collect(),
        );
    }
    plain_table(header, rows)
}

/// A verdict in a word or two.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Same => "the same",
        Verdict::Varies => "varies natively too",
        Verdict::Differs => "DIFFERS",
        Verdict::Unsettled => "differs from run to run",
    }
}

fn agreement_table(report: &Report, ran: &[&ModeReport]) -> String {
    let others: Vec<_> = ran.iter().filter(|m| !m.agreement.is_empty()).collect();
    let reference = report.reference.as_deref().unwrap_or("-");
    let header = std::iter::once(format!("against {reference}"));
    let header = header
        .chain(others.iter().map(|m| m.mode.clone()))
        .collect();
    let rows = crate::agree::Aspect::ALL.iter().map(|aspect| {
        let cells = others.iter().map(|m| {
            let found = m.agreement.get(aspect.name());
            found.map_or("-", |v| verdict(*v)).to_owned()
        });
        std::iter::once(aspect.name().to_owned())
            .chain(cells)
            .collect()
    });
    plain_table(header, rows.collect())
}

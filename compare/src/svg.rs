//! A comparison as charts: one panel a question, one bar a mode.
//!
//! The colours follow the reader's scheme, light or dark. A bar is the sum of medians of its parts; the line
//! at its end reaches from the lower to the upper quartile of the whole.

use std::fmt::Write;

use duet_trace::summary::svg::escape;

use crate::figures::Unit;
use crate::report::{ModeReport, Report};

/// Width of the picture, and where its bars begin and how long the longest is.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 130.0;
const LONGEST: f64 = 560.0;
/// Heights: of a bar with the room below it, of a bar, of a panel's title and legend.
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const HEAD: f64 = 54.0;

/// Colours and type, for a picture alone or within a page.
pub const STYLE: &str = "\
.chart { --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --back: #ffffff;
  --c0: #2f6fbb; --c1: #c8781e; --c2: #2a8a6a; --c3: #8a63b8; }
@media (prefers-color-scheme: dark) {
  .chart { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --back: #0d1117;
    --c0: #5b9be6; --c1: #e0a050; --c2: #4fb892; --c3: #b394dd; }
}
.chart text { font: 13px system-ui, \"DejaVu Sans\", sans-serif; fill: var(--ink); }
.chart .title { font-weight: 600; font-size: 14px; }
.chart .soft { fill: var(--soft); font-size: 12px; }
.chart .axis { stroke: var(--line); }
.chart .whisker { stroke: var(--ink); stroke-width: 1.5; }
.chart .back { fill: var(--back); }
.chart .c0 { fill: var(--c0); } .chart .c1 { fill: var(--c1); }
.chart .c2 { fill: var(--c2); } .chart .c3 { fill: var(--c3); }
";

/// What one panel shows.
struct Panel {
    title: &'static str,
    unit: Unit,
    /// Figures, and what they are called in the legend.
    parts: &'static [(&'static str, &'static str)],
    /// The figure whose quartiles are shown, if it is the sum of the parts.
    whole: Option<&'static str>,
}

const PANELS: [Panel; 6] = [
    Panel {
        title: "Time",
        unit: Unit::Seconds,
        parts: &[
            ("start", "to the first instruction"),
            ("run", "the program"),
            ("stop", "from its end to the end of all"),
        ],
        whole: Some("total"),
    },
    Panel {
        title: "Processor time",
        unit: Unit::Seconds,
        parts: &[
            ("cpu_guest_user", "program, user"),
            ("cpu_guest_system", "program, system"),
            ("cpu_mode_user", "mode, user"),
            ("cpu_mode_system", "mode, system"),
        ],
        whole: None,
    },
    Panel {
        title: "Peak memory",
        unit: Unit::Bytes,
        parts: &[("memory_guest", "program"), ("memory_mode", "mode")],
        whole: None,
    },
    Panel {
        title: "System calls",
        unit: Unit::Count,
        parts: &[
            ("calls_native", "native"),
            ("calls_emulated", "emulated"),
            ("calls_refused", "refused"),
        ],
        whole: None,
    },
    Panel {
        title: "Bytes moved by calls of all processes",
        unit: Unit::Bytes,
        parts: &[("read", "read"), ("written", "written")],
        whole: None,
    },
    Panel {
        title: "Disk space of the mode's own files",
        unit: Unit::Bytes,
        parts: &[(
            "disk",
            "files that its own programs map, kernel and modules",
        )],
        whole: Some("disk"),
    },
];

/// The charts as a picture of its own.
pub fn picture(report: &Report) -> String {
    let (body, height) = panels(report);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        escape(&report.command.join(" "))
    );
    out += &body;
    out += "</svg>\n";
    out
}

/// The charts as a part of a page that has [`STYLE`].
pub fn inline(report: &Report) -> String {
    let (body, height) = panels(report);
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"charts\">\n{body}</svg>\n"
    )
}

fn panels(report: &Report) -> (String, f64) {
    let mut out = String::new();
    let mut top = 16.0;
    // Writing to a string cannot fail.
    let command = shorten(&report.command.join(" "), 100);
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"16\" y=\"{}\">{}</text>",
        top + 12.0,
        escape(&command)
    );
    let soft = format!(
        "medians of {} runs, with quartiles; {}, Linux {}",
        report.runs, report.host.processor, report.host.kernel
    );
    let _ = writeln!(
        out,
        "<text class=\"soft\" x=\"16\" y=\"{}\">{}</text>",
        top + 30.0,
        escape(&soft)
    );
    top += 48.0;
    for panel in &PANELS {
        let rows: Vec<(&ModeReport, Vec<f64>)> = report
            .modes
            .iter()
            .filter_map(|m| {
                let has = panel
                    .parts
                    .iter()
                    .any(|(id, _)| m.figures.contains_key(*id));
                let of = |id: &str| m.figures.get(id).map_or(0.0, |v| v.summary.median);
                has.then(|| (m, panel.parts.iter().map(|(id, _)| of(id)).collect()))
            })
            .collect();
        let longest = rows
            .iter()
            .map(|(_, parts)| parts.iter().sum())
            .fold(0.0, f64::max);
        if rows.is_empty() || longest <= 0.0 {
            continue;
        }
        top = draw(&mut out, panel, &rows, longest, top);
    }
    (out, top)
}

fn draw(
    out: &mut String,
    panel: &Panel,
    rows: &[(&ModeReport, Vec<f64>)],
    longest: f64,
    top: f64,
) -> f64 {
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"16\" y=\"{}\">{}</text>",
        top + 16.0,
        panel.title
    );
    let mut x = LEFT;
    for (i, (_, name)) in panel.parts.iter().enumerate() {
        let y = top + 36.0;
        let _ = writeln!(
            out,
            "<rect class=\"c{i}\" x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\"/>\
             <text class=\"soft\" x=\"{}\" y=\"{y}\">{name}</text>",
            y - 9.0,
            x + 15.0
        );
        x += 42.0 + 6.2 * name.chars().count() as f64;
    }
    let mut y = top + HEAD;
    let bottom = y + ROW * rows.len() as f64;
    let _ = writeln!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{LEFT}\" y1=\"{}\" y2=\"{}\"/>",
        y - 5.0,
        bottom - 3.0
    );
    for (mode, parts) in rows {
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 12.5,
            escape(&mode.mode)
        );
        let scale = |v: f64| LONGEST * v / longest;
        let mut x = LEFT;
        for (i, part) in parts.iter().enumerate() {
            let width = scale(*part);
            if width > 0.0 {
                let _ = writeln!(
                    out,
                    "<rect class=\"c{i}\" x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{BAR}\"/>"
                );
            }
            x += width;
        }
        let whole = panel.whole.and_then(|id| mode.figures.get(id));
        let mut end = x;
        if let Some(v) = whole.filter(|v| v.summary.n > 1) {
            let limit = |v: f64| LEFT + scale(v).min(LONGEST * 1.04);
            let (from, to) = (limit(v.summary.q1), limit(v.summary.q3));
            let middle = y + BAR / 2.0;
            let _ = writeln!(
                out,
                "<line class=\"whisker\" x1=\"{from:.2}\" x2=\"{to:.2}\" y1=\"{middle}\" y2=\"{middle}\"/>"
            );
            end = end.max(to);
        }
        let total = whole.map_or_else(|| parts.iter().sum(), |v| v.summary.median);
        let _ = writeln!(
            out,
            "<text x=\"{:.2}\" y=\"{}\">{}</text>",
            end + 8.0,
            y + 12.5,
            panel.unit.show(total)
        );
        y += ROW;
    }
    bottom + 14.0
}

/// At most so many characters.
fn shorten(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            escape("a<b & \"c\"\u{1b}>"),
            "a&lt;b &amp; &quot;c&quot;\u{fffd}&gt;"
        );
        assert_eq!(shorten("abc", 2), "ab…");
    }
}

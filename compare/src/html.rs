//! A comparison as one page, which needs nothing beside itself.

use std::fmt::Write;

use duet_trace::summary::svg::escape;

use crate::agree::{Aspect, Verdict};
use crate::figures;
use crate::modes::Mode;
use crate::report::{ModeReport, Report};
use crate::svg;
use crate::text;

const STYLE: &str = "\
:root { color-scheme: light dark; --page: #ffffff; --text: #1f2328; --dim: #59636e; --rule: #d1d9e0;
  --good: #1a7f37; --bad: #b42318; --code: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --text: #e6edf3; --dim: #9198a1; --rule: #3d444d;
    --good: #3fb950; --bad: #f47067; --code: #161b22; }
}
body { background: var(--page); color: var(--text); margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  font: 16px/1.5 system-ui, \"DejaVu Sans\", sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
h1 code { font-size: 1rem; }
code, pre { background: var(--code); font-family: ui-monospace, \"DejaVu Sans Mono\", monospace; }
code { padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { padding: .7rem 1rem; overflow-x: auto; font-size: .85rem; border: 1px solid var(--rule); }
.reading { font-size: 1.05rem; } .dim { color: var(--dim); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.same { color: var(--good); } .differs { color: var(--bad); font-weight: 600; }
del, ins { text-decoration: none; } del { color: var(--bad); } ins { color: var(--good); }
svg.chart { width: 100%; height: auto; }
";

/// The page.
pub fn page(report: &Report) -> String {
    let command = escape(&report.command.join(" "));
    let ran: Vec<&ModeReport> = report
        .modes
        .iter()
        .filter(|m| !m.figures.is_empty())
        .collect();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>duet compare: {command}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n\
         <h1><code>{command}</code></h1>\n",
        svg::STYLE
    );
    // Writing to a string cannot fail.
    if report.interrupted {
        let _ = writeln!(
            out,
            "<p class=\"differs\">Interrupted: what was measured so far.</p>"
        );
    }
    let [cost, agreement] = &report.reading;
    let _ = writeln!(
        out,
        "<p class=\"reading\">{} {}</p>",
        escape(cost),
        escape(agreement)
    );
    out += &svg::inline(report);
    out += &figures_table(&ran);
    out += &agreement_table(report, &ran);
    out += &rest(report, &ran);
    let _ = writeln!(
        out,
        "<p class=\"dim\">Duet {}, {} processors ({}), Linux {}. Runs of each mode: {} timed, {} observed, {} to \
         warm up; the modes take turns. Figures are medians ± half the distance between the quartiles. The \
         first instruction of a native run is the end of its execve.</p>\n</body>\n</html>",
        escape(&report.duet),
        report.host.processors,
        escape(&report.host.processor),
        escape(&report.host.kernel),
        report.runs,
        report.observed,
        report.warmups
    );
    out
}

fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, row: &[String]| {
        let all = row.iter().map(|c| format!("<{tag}>{c}</{tag}>"));
        format!("<tr>{}</tr>\n", all.collect::<String>())
    };
    let body = rows.iter().map(|r| cells("td", r));
    format!(
        "<div class=\"wide\"><table>\n<thead>{}</thead>\n<tbody>{}</tbody>\n</table></div>\n",
        cells("th", header),
        body.collect::<String>()
    )
}

fn figures_table(ran: &[&ModeReport]) -> String {
    let names = ran.iter().map(|m| escape(&m.mode));
    let header: Vec<String> = std::iter::once(String::new()).chain(names).collect();
    let mut rows = Vec::new();
    for figure in figures::all() {
        let values: Vec<_> = ran.iter().map(|m| m.figures.get(figure.id)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let cells = values
            .into_iter()
            .map(|v| v.map_or_else(|| "–".into(), text::value));
        rows.push(std::iter::once(escape(figure.title)).chain(cells).collect());
    }
    format!("<h2>Figures</h2>\n{}", table(&header, &rows))
}

fn agreement_table(report: &Report, ran: &[&ModeReport]) -> String {
    let others: Vec<_> = ran.iter().filter(|m| !m.agreement.is_empty()).collect();
    let (Some(reference), false) = (&report.reference, others.is_empty()) else {
        return String::new();
    };
    let names = others.iter().map(|m| escape(&m.mode));
    let header: Vec<String> = std::iter::once(String::new()).chain(names).collect();
    let cell = |m: &ModeReport, aspect: Aspect| match m.agreement.get(aspect.name()) {
        Some(v @ Verdict::Same) => format!("<span class=\"same\">{}</span>", text::verdict(*v)),
        Some(v @ Verdict::Differs) => {
            format!("<span class=\"differs\">{}</span>", text::verdict(*v))
        }
        Some(v) => text::verdict(*v).into(),
        None => "–".into(),
    };
    let rows: Vec<Vec<String>> = Aspect::ALL
        .iter()
        .map(|a| {
            let cells = others.iter().map(|m| cell(m, *a));
            std::iter::once(a.name().to_owned()).chain(cells).collect()
        })
        .collect();
    format!(
        "<h2>Behaviour against {}</h2>\n{}",
        escape(reference),
        table(&header, &rows)
    )
}

/// Differences, exits, and what was not run.
fn rest(report: &Report, ran: &[&ModeReport]) -> String {
    let mut out = String::new();
    for mode in ran {
        for difference in &mode.differences {
            let lines = difference.diff.lines().map(|line| {
                let text = escape(line);
                match line.as_bytes().first() {
                    Some(b'-') => format!("<del>{text}</del>\n"),
                    Some(b'+') => format!("<ins>{text}</ins>\n"),
                    _ => format!("{text}\n"),
                }
            });
            let lines: String = lines.collect();
            let aspect = difference.aspect.name();
            let _ = writeln!(
                out,
                "<h2>{}: {aspect}</h2>\n<pre>{lines}</pre>",
                escape(&mode.mode)
            );
        }
    }
    for mode in ran {
        let name = escape(&mode.mode);
        let monitor = escape(mode.monitor.as_deref().unwrap_or("the monitor"));
        match &mode.exits {
            Some(exits) => {
                let rows: Vec<Vec<String>> = exits
                    .iter()
                    .map(|(reason, n)| vec![escape(reason), figures::Unit::Count.show(n.median)])
                    .collect();
                let header = [format!("exits of {name}"), "number".into()];
                let _ = writeln!(
                    out,
                    "<h2>Exits of the machine</h2>\n{}",
                    table(&header, &rows)
                );
            }
            None if mode.mode == Mode::Vm.name() => {
                let _ = writeln!(
                    out,
                    "<p class=\"dim\">Exits of {name}, by reason, are not to be had from {monitor}.</p>"
                );
            }
            None => (),
        }
    }
    for mode in &report.modes {
        if let Some(why) = &mode.missing {
            let (name, why) = (escape(&mode.mode), escape(why));
            let _ = writeln!(out, "<p class=\"dim\">{name} is missing: {why}</p>");
        }
    }
    out
}

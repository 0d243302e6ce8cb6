//! A summary as one page, which needs nothing beside itself, in light and dark.

use std::fmt::Write;

use super::svg::{self, escape};
use super::text::{end, programs, time};
use super::{Summary, Uses};

/// Files that the page lists.
const FILES: usize = 500;
/// Processes, failures that it lists.
const ROWS: usize = 200;

const STYLE: &str = "\
:root { color-scheme: light dark; --page: #ffffff; --text: #1f2328; --dim: #59636e; --rule: #d1d9e0;
  --bad: #b42318; --code: #f6f8fa; --native: #2a78d6; --emulated: #eb6834; --refused: #4a3aa7;
  --time: #2a78d6; --ran: #5b7083; --next: #93a5b5; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --text: #e6edf3; --dim: #9198a1; --rule: #3d444d; --bad: #f47067;
    --code: #161b22; --native: #3987e5; --emulated: #d95926; --refused: #9085e9; --time: #3987e5;
    --ran: #7f93a6; --next: #4f6273; }
}
body { background: var(--page); color: var(--text); margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  font: 16px/1.5 system-ui, \"DejaVu Sans\", sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
code { background: var(--code); font-family: ui-monospace, \"DejaVu Sans Mono\", monospace; font-size: .9em;
  padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; padding: 0; margin: 1rem 0; list-style: none; }
.facts b { display: block; font-size: 1.4rem; font-weight: 600; }
.facts li { color: var(--dim); font-size: .9rem; } .facts b { color: var(--text); }
.dim { color: var(--dim); font-size: .9rem; }
.legend span { margin-right: 1.2rem; } .legend i { display: inline-block; width: .8em; height: .8em;
  border-radius: 2px; margin-right: .4em; }
.wide { overflow-x: auto; max-height: 28rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; }
th { position: sticky; top: 0; background: var(--page); font-weight: 600; }
#files td:nth-child(2), #layers td:first-child, #failures td.left:not(:last-child) { white-space: nowrap; }
th.left, td.left { text-align: left; overflow-wrap: anywhere; }
input { font: inherit; padding: .2rem .5rem; color: inherit; background: var(--code);
  border: 1px solid var(--rule); border-radius: 4px; width: 18rem; max-width: 100%; margin-bottom: .5rem; }
svg.chart { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, \"DejaVu Sans\", sans-serif; fill: var(--text); }
svg text.name { text-anchor: end; } svg text.figure, svg text.tick { fill: var(--dim); }
svg text.tick { text-anchor: middle; } svg text.bad { fill: var(--bad); }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg .native { fill: var(--native); } svg .emulated { fill: var(--emulated); }
svg .refused { fill: var(--refused); } svg .time { fill: var(--time); }
svg .ran { fill: var(--ran); } svg .next { fill: var(--next); }
svg rect:hover { opacity: .75; }
";

/// Hides rows of the table below a field that do not have what is typed there.
const SCRIPT: &str = "\
for (const field of document.querySelectorAll('input[data-for]')) {
  const rows = document.querySelectorAll('#' + field.dataset.for + ' tbody tr');
  field.hidden = false;
  field.addEventListener('input', () => {
    const wanted = field.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
";

/// The page.
pub fn page(s: &Summary) -> String {
    let command = escape(&s.program.join(" "));
    let c = &s.calls;
    let facts = [
        (time(s.seconds), "from start to end"),
        (s.processes.len().to_string(), "processes"),
        (c.total().to_string(), "calls"),
        (c.native.to_string(), "native"),
        (c.emulated.to_string(), "emulated"),
        (c.refused.to_string(), "refused"),
        (s.failed.to_string(), "failed"),
    ];
    let facts = facts
        .iter()
        .map(|(value, what)| format!("<li><b>{value}</b>{what}</li>\n"));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>duet trace: {command}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1><code>{command}</code></h1>\n<ul class=\"facts\">\n{}</ul>\n",
        facts.collect::<String>()
    );
    out += "<p class=\"legend dim\">\
        <span><i style=\"background: var(--native)\"></i>native: run by the kernel</span>\
        <span><i style=\"background: var(--emulated)\"></i>emulated: answered by Duet</span>\
        <span><i style=\"background: var(--refused)\"></i>refused</span></p>\n";
    out += "<h2>Processes over time</h2>\n<p class=\"dim\">A bar changes its shade where the process becomes \
            another program.</p>\n";
    out += &svg::timeline(s);
    processes(&mut out, s);
    out += "<h2>Calls by family</h2>\n";
    out += &svg::families(&s.families);
    out += "<h2>Time by call</h2>\n<p class=\"dim\">By the clock on the wall, waiting included; a trace makes each \
            call slower.</p>\n";
    out += &svg::names(&s.names);
    calls(&mut out, s);
    if !s.host.is_empty() {
        out += "<h2>Asked of the host</h2>\n<p class=\"dim\">What Duet's supervisor called to answer.</p>\n";
        out += &svg::host(&s.host);
    }
    files(&mut out, s);
    failures(&mut out, s);
    let d = &s.dropped;
    if d.processes + d.files + d.failures > 0 {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<p class=\"dim\">Too much to keep: {} processes, {} uses of files, {} failures.</p>",
            d.processes, d.files, d.failures
        );
    }
    let _ = write!(out, "<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

/// A column: its title, and whether its text stands to the left.
type Column = (&'static str, bool);

fn table(out: &mut String, id: &str, columns: &[Column], rows: &[Vec<String>]) {
    let class = |left: bool| if left { " class=\"left\"" } else { "" };
    let head = columns
        .iter()
        .map(|(title, left)| format!("<th{}>{title}</th>", class(*left)));
    let _ = writeln!(
        out,
        "<div class=\"wide\"><table id=\"{id}\">\n<thead><tr>{}</tr></thead>\n<tbody>",
        head.collect::<String>()
    );
    for row in rows {
        let cells = row.iter().zip(columns);
        let cells = cells.map(|(cell, (_, left))| format!("<td{}>{cell}</td>", class(*left)));
        let _ = writeln!(out, "<tr>{}</tr>", cells.collect::<String>());
    }
    *out += "</tbody>\n</table></div>\n";
}

fn more(out: &mut String, all: usize, shown: usize) {
    if all > shown {
        let _ = writeln!(out, "<p class=\"dim\">And {} more.</p>", all - shown);
    }
}

fn processes(out: &mut String, s: &Summary) {
    more(out, s.processes.len(), svg::PROCESSES);
    let rows: Vec<Vec<String>> = s
        .processes
        .iter()
        .take(ROWS)
        .map(|p| {
            vec![
                p.pid.to_string(),
                p.parent.map_or_else(String::new, |n| n.to_string()),
                escape(&programs(p)),
                time(p.ended - p.started),
                p.calls.to_string(),
                p.threads.to_string(),
                escape(&end(p)),
            ]
        })
        .collect();
    let columns = [
        ("process", false),
        ("of", false),
        ("ran", true),
        ("time", false),
        ("calls", false),
        ("threads", false),
        ("end", true),
    ];
    *out += "<details><summary class=\"dim\">as a table</summary>\n";
    table(out, "processes", &columns, &rows);
    *out += "</details>\n";
}

fn calls(out: &mut String, s: &Summary) {
    let rows: Vec<Vec<String>> = s
        .names
        .iter()
        .map(|n| {
            vec![
                n.name.to_owned(),
                n.family.to_owned(),
                n.calls.native.to_string(),
                n.calls.emulated.to_string(),
                n.calls.refused.to_string(),
                n.failed.to_string(),
                time(n.seconds),
                time(n.longest),
            ]
        })
        .collect();
    let columns = [
        ("call", true),
        ("family", true),
        ("native", false),
        ("emulated", false),
        ("refused", false),
        ("failed", false),
        ("time", false),
        ("longest", false),
    ];
    *out += "<details><summary class=\"dim\">all of them as a table</summary>\n";
    table(out, "calls", &columns, &rows);
    *out += "</details>\n";
}

/// Columns of what is done to files.
const USES: [Column; 7] = [
    ("reached", false),
    ("read", false),
    ("written", false),
    ("made", false),
    ("removed", false),
    ("copied up", false),
    ("missing", false),
];

fn uses(u: &Uses) -> [String; 7] {
    let all = [
        u.reached, u.opened, u.written, u.made, u.removed, u.copied, u.missing,
    ];
    all.map(|n| match n {
        0 => String::new(),
        n => n.to_string(),
    })
}

fn files(out: &mut String, s: &Summary) {
    if s.files.is_empty() {
        return;
    }
    let mut columns = vec![("layer", true), ("files", false)];
    columns.extend(USES);
    let rows: Vec<Vec<String>> = s
        .layers
        .iter()
        .map(|l| {
            let mut row = vec![escape(&l.name), l.files.to_string()];
            row.extend(uses(&l.uses));
            row
        })
        .collect();
    *out += "<h2>Files by layer</h2>\n<p class=\"dim\">How many were touched; nowhere: names that were looked \
             for in vain.</p>\n";
    *out += &svg::layers(&s.layers);
    table(out, "layers", &columns, &rows);
    let mut columns = vec![("file", true), ("layer", true)];
    columns.extend(USES);
    let rows: Vec<Vec<String>> = s
        .files
        .iter()
        .take(FILES)
        .map(|f| {
            let mut row = vec![escape(&f.path), escape(&f.layer)];
            row.extend(uses(&f.uses));
            row
        })
        .collect();
    *out += "<h2>Files</h2>\n<input data-for=\"files\" type=\"search\" aria-label=\"Show files with\" \
             placeholder=\"show files with …\" hidden>\n";
    table(out, "files", &columns, &rows);
    more(out, s.files.len(), FILES);
}

fn failures(out: &mut String, s: &Summary) {
    if s.failures.is_empty() {
        return;
    }
    let columns = [
        ("times", false),
        ("call", true),
        ("error", true),
        ("why", true),
    ];
    let rows: Vec<Vec<String>> = s
        .failures
        .iter()
        .take(ROWS)
        .map(|f| {
            vec![
                f.count.to_string(),
                f.call.to_owned(),
                escape(&f.error),
                escape(&f.why),
            ]
        })
        .collect();
    *out += "<h2>Failures</h2>\n";
    *out += &svg::failures(&s.failures);
    table(out, "failures", &columns, &rows);
    more(out, s.failures.len(), ROWS);
}

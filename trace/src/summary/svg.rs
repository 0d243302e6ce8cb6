//! The charts of a summary, as SVG to stand within a page: its style sheet gives them their colours.

use std::fmt::Write;

use super::text::{end, programs, time};
use super::{Failure, Group, Host, Kinds, Layer, Summary};

/// Width of every chart, in units of its own.
const WIDTH: f64 = 900.0;
/// Where bars begin: names stand before.
const LEFT: f64 = 190.0;
/// Room behind bars, for figures.
const RIGHT: f64 = 130.0;
/// From bar to bar.
const STEP: f64 = 22.0;
/// Height of a bar.
const BAR: f64 = 14.0;
/// Processes that are drawn.
pub const PROCESSES: usize = 60;
/// Bars of one chart.
pub const BARS: usize = 15;
/// Height of the calls over time.
const ACTIVITY: f64 = 70.0;

/// Whether a character changes how those around it are shown: a control character, the end of a line, or
/// one that turns the direction of writing.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text as it may stand in XML and HTML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c != '\n' && c != '\t' && steers(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A text cut to fit, at its front: of a path the end says most.
fn cut(text: &str, most: usize) -> String {
    let all = text.chars().count();
    match all > most {
        true => {
            let rest: String = text.chars().skip(all - most + 1).collect();
            format!("…{rest}")
        }
        false => text.to_owned(),
    }
}

fn open(out: &mut String, height: f64, label: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">",
        escape(label)
    );
}

fn name(out: &mut String, y: f64, text: &str) {
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
        LEFT - 8.0,
        y + BAR - 3.0,
        escape(&cut(text, 26))
    );
}

fn figure(out: &mut String, x: f64, y: f64, text: &str) {
    let _ = writeln!(
        out,
        "<text class=\"figure\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        x + 6.0,
        y + BAR - 3.0,
        escape(text)
    );
}

fn rect(out: &mut String, class: &str, [x, y, width, height]: [f64; 4], title: &str) {
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
         <title>{}</title></rect>",
        escape(title)
    );
}

/// Steps of an axis: about six, of 1, 2 or 5 times a power of ten.
fn step(all: f64) -> f64 {
    let rough = (all / 6.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|f| f * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// Processes over time, and above them how many calls were made when.
pub fn timeline(s: &Summary) -> String {
    let shown = s.processes.len().min(PROCESSES);
    let height = ACTIVITY + 30.0 + STEP * shown as f64 + 10.0;
    let mut out = String::new();
    open(&mut out, height, "Processes over time");
    let all = s.seconds.max(1e-9);
    let width = WIDTH - LEFT - RIGHT;
    let x = |at: f64| LEFT + (at / all).clamp(0.0, 1.0) * width;
    let unit = step(all);
    let mut tick = 0.0;
    while tick <= all {
        let _ = writeln!(
            out,
            "<line class=\"rule\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"{1:.0}\"/>\
             <text class=\"tick\" x=\"{0:.1}\" y=\"{2:.0}\">{3}</text>",
            x(tick),
            height - 10.0,
            ACTIVITY + 18.0,
            escape(&time(tick).replace("0 us", "0"))
        );
        tick += unit;
    }
    name(&mut out, ACTIVITY / 2.0 - BAR / 2.0, "calls over time");
    let most = s.activity.calls.iter().map(Kinds::total).max().unwrap_or(0);
    for (i, kinds) in s.activity.calls.iter().enumerate() {
        let from = s.activity.span * i as f64;
        let to = from + s.activity.span;
        let wide = (x(to) - x(from) - 1.0).max(1.0);
        let title = format!(
            "{} to {}: {} native, {} emulated, {} refused",
            time(from),
            time(to),
            kinds.native,
            kinds.emulated,
            kinds.refused
        );
        let mut top = ACTIVITY;
        for (class, n) in parts(kinds) {
            let high = n as f64 / most.max(1) as f64 * (ACTIVITY - 4.0);
            if n > 0 {
                top -= high;
                rect(&mut out, class, [x(from), top, wide, high], &title);
            }
        }
    }
    let end_of_axis = ACTIVITY + 30.0;
    for (i, process) in s.processes.iter().take(shown).enumerate() {
        let y = end_of_axis + STEP * i as f64;
        let last = process.programs.last().map_or("", |p| p.path.as_str());
        let short = last.rsplit('/').next().unwrap_or(last);
        name(&mut out, y, &format!("{short} {}", process.pid));
        let title = format!(
            "process {}: {}; {} calls in {}; {}",
            process.pid,
            programs(process),
            process.calls,
            time(process.ended - process.started),
            end(process)
        );
        for (k, program) in process.programs.iter().enumerate() {
            let next = process.programs.get(k + 1);
            let to = next.map_or(process.ended, |n| n.time);
            let from = program.time;
            let wide = (x(to) - x(from)).max(2.0);
            let class = if k % 2 == 0 { "ran" } else { "ran next" };
            rect(&mut out, class, [x(from), y, wide, BAR], &title);
        }
        let bad = process.signal.is_some() || process.status.is_some_and(|s| s != 0);
        let words = match bad {
            true => end(process),
            false => time(process.ended - process.started),
        };
        let class = if bad { "figure bad" } else { "figure" };
        let _ = writeln!(
            out,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(process.ended).max(x(process.started) + 2.0) + 6.0,
            y + BAR - 3.0,
            escape(&words)
        );
    }
    out + "</svg>\n"
}

fn parts(kinds: &Kinds) -> [(&'static str, u64); 3] {
    [
        ("native", kinds.native),
        ("emulated", kinds.emulated),
        ("refused", kinds.refused),
    ]
}

/// Calls by family and what became of them.
pub fn families(groups: &[Group]) -> String {
    let most = groups.iter().map(|g| g.calls.total()).max().unwrap_or(0);
    let mut out = String::new();
    open(
        &mut out,
        STEP * groups.len() as f64,
        "Calls by family and disposition",
    );
    let scale = (WIDTH - LEFT - RIGHT) / most.max(1) as f64;
    for (i, group) in groups.iter().enumerate() {
        let y = STEP * i as f64 + 4.0;
        name(&mut out, y, group.name);
        let mut x = LEFT;
        for (class, n) in parts(&group.calls) {
            if n > 0 {
                // A gap of the page's colour keeps neighbours apart.
                let wide = (n as f64 * scale).max(3.0);
                let title = format!("{}: {n} {class}", group.name);
                rect(&mut out, class, [x, y, (wide - 2.0).max(1.0), BAR], &title);
                x += wide;
            }
        }
        figure(&mut out, x, y, &group.calls.total().to_string());
    }
    out + "</svg>\n"
}

/// One bar for each of some names.
fn bars(label: &str, all: &[(&str, f64, String, String)]) -> String {
    let most = all.iter().map(|b| b.1).fold(0.0, f64::max);
    let mut out = String::new();
    open(&mut out, STEP * all.len() as f64, label);
    for (i, (bar, value, words, title)) in all.iter().enumerate() {
        let y = STEP * i as f64 + 4.0;
        name(&mut out, y, bar);
        let wide = (value / most.max(1e-12) * (WIDTH - LEFT - RIGHT)).max(1.0);
        rect(&mut out, "time", [LEFT, y, wide, BAR], title);
        figure(&mut out, LEFT + wide, y, words);
    }
    out + "</svg>\n"
}

/// Time by call.
pub fn names(groups: &[Group]) -> String {
    let all: Vec<_> = groups
        .iter()
        .take(BARS)
        .map(|g| {
            let title = format!(
                "{}: {} calls, {} failed, the longest {}",
                g.name,
                g.calls.total(),
                g.failed,
                time(g.longest)
            );
            let words = format!("{} in {}", time(g.seconds), g.calls.total());
            (g.name, g.seconds, words, title)
        })
        .collect();
    bars("Time by call", &all)
}

/// Files by layer, and what was done to them.
pub fn layers(layers: &[Layer]) -> String {
    let all: Vec<_> = layers
        .iter()
        .take(BARS)
        .map(|l| {
            let u = &l.uses;
            let changed = u.written + u.made + u.removed;
            let title = format!(
                "{}: {} files; opened to read {} times, changed {} times, copied up {} times, looked for in \
                 vain {} times",
                l.name, l.files, u.opened, changed, u.copied, u.missing
            );
            (l.name.as_str(), l.files as f64, l.files.to_string(), title)
        })
        .collect();
    bars("Files by layer", &all)
}

/// How often calls failed, by call and error.
pub fn failures(failures: &[Failure]) -> String {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for f in failures {
        let name = format!("{} {}", f.call, f.error);
        match sums.iter_mut().find(|(n, _)| *n == name) {
            Some((_, sum)) => *sum += f.count,
            None => sums.push((name, f.count)),
        }
    }
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let all: Vec<_> = sums
        .iter()
        .take(BARS)
        .map(|(name, n)| {
            let title = format!("{name}: {n} times");
            (name.as_str(), *n as f64, n.to_string(), title)
        })
        .collect();
    bars("Failures by call and error", &all)
}

/// Time by call to the host.
pub fn host(hosts: &[Host]) -> String {
    let all: Vec<_> = hosts
        .iter()
        .take(BARS)
        .map(|h| {
            let words = format!("{} in {}", time(h.seconds), h.count);
            (
                h.call,
                h.seconds,
                words.clone(),
                format!("{}: {words}", h.call),
            )
        })
        .collect();
    bars("Calls to the host", &all)
}

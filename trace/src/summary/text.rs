//! A summary for a terminal.

use std::fmt::Write;

use super::{Process, Summary};

/// Lines of each list that are shown.
const SHOWN: usize = 15;
/// Columns of the timeline.
const COLUMNS: usize = 40;

/// Seconds as people read them.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} us", s * 1e6),
    }
}

/// How a process ended.
pub fn end(process: &Process) -> String {
    match (&process.signal, process.status) {
        (Some(signal), _) => format!("killed by {signal}"),
        (None, Some(0)) => "exited".to_owned(),
        (None, Some(status)) => format!("exited with {status}"),
        (None, None) => "end not told".to_owned(),
    }
}

/// The programs of a process, one behind the other.
pub fn programs(process: &Process) -> String {
    let paths = process.programs.iter().map(|p| p.path.as_str());
    paths.collect::<Vec<_>>().join(", then ")
}

/// The page.
pub fn page(s: &Summary) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{}\n{}, {} processes, {} calls: {} native, {} emulated, {} refused; {} failed",
        s.program.join(" "),
        time(s.seconds),
        s.processes.len(),
        s.calls.total(),
        s.calls.native,
        s.calls.emulated,
        s.calls.refused,
        s.failed
    );
    let _ = writeln!(out, "\nProcesses");
    for process in s.processes.iter().take(SHOWN) {
        let _ = writeln!(
            out,
            "{:>6} |{}| {:>9} {:>7} calls  {}; {}",
            process.pid,
            bar(process, s.seconds),
            time(process.ended - process.started),
            process.calls,
            programs(process),
            end(process)
        );
    }
    more(&mut out, s.processes.len());
    let _ = writeln!(
        out,
        "\nFamilies          native  emulated   refused    failed      time"
    );
    for f in &s.families {
        let c = &f.calls;
        let _ = writeln!(
            out,
            "  {:<14} {:>7} {:>9} {:>9} {:>9} {:>9}",
            f.name,
            c.native,
            c.emulated,
            c.refused,
            f.failed,
            time(f.seconds)
        );
    }
    let _ = writeln!(
        out,
        "\nCalls              calls    failed      time   longest"
    );
    for n in s.names.iter().take(SHOWN) {
        let _ = writeln!(
            out,
            "  {:<14} {:>7} {:>9} {:>9} {:>9}",
            n.name,
            n.calls.total(),
            n.failed,
            time(n.seconds),
            time(n.longest)
        );
    }
    more(&mut out, s.names.len());
    if !s.host.is_empty() {
        let _ = writeln!(out, "\nAsked of the host  calls      time");
        for h in s.host.iter().take(SHOWN) {
            let (call, count) = (h.call, h.count);
            let _ = writeln!(out, "  {call:<17} {count:>4} {:>9}", time(h.seconds));
        }
        more(&mut out, s.host.len());
    }
    if !s.layers.is_empty() {
        let _ = writeln!(
            out,
            "\nFiles by layer               files   read written    made removed  copied missing"
        );
        for l in &s.layers {
            let u = &l.uses;
            let _ = writeln!(
                out,
                "  {:<26} {:>5} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7}",
                l.name, l.files, u.opened, u.written, u.made, u.removed, u.copied, u.missing
            );
        }
    }
    if !s.failures.is_empty() {
        let _ = writeln!(out, "\nFailures");
        for f in s.failures.iter().take(SHOWN) {
            let (count, call, error, why) = (f.count, f.call, &f.error, &f.why);
            let _ = writeln!(out, "{count:>7} {call} {error}: {why}");
        }
        more(&mut out, s.failures.len());
    }
    let d = &s.dropped;
    if d.processes + d.files + d.failures > 0 {
        let _ = writeln!(
            out,
            "\nToo much to keep: {} processes, {} uses of files, {} failures",
            d.processes, d.files, d.failures
        );
    }
    out
}

fn more(out: &mut String, all: usize) {
    if all > SHOWN {
        let _ = writeln!(out, "        and {} more", all - SHOWN);
    }
}

/// When it ran, between the start and the end of all.
fn bar(process: &Process, all: f64) -> String {
    let column = |at: f64| ((at / all.max(1e-9)) * COLUMNS as f64) as usize;
    let from = column(process.started).min(COLUMNS - 1);
    let to = column(process.ended).clamp(from + 1, COLUMNS);
    format!(
        "{}{}{}",
        " ".repeat(from),
        "=".repeat(to - from),
        " ".repeat(COLUMNS - to)
    )
}

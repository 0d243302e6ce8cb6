//! What was called during a run, by disposition.

use std::fmt::Write;

use anyhow::Result;
use duet_syscalls::kernel::Counters;
use duet_syscalls::table;
use serde::Serialize;

/// One call's line.
#[derive(Serialize)]
struct Line {
    name: String,
    count: u64,
}

/// Counts by disposition.
#[derive(Serialize)]
pub struct Report {
    native: Vec<Line>,
    emulated: Vec<Line>,
    refused: Vec<Line>,
    unknown: u64,
    foreign: u64,
}

impl Report {
    /// From the counters of a run that counted native calls too.
    pub fn new(counters: &Counters) -> Report {
        let mut report = Report {
            native: Vec::new(),
            emulated: Vec::new(),
            refused: Vec::new(),
            unknown: counters.unknown(),
            foreign: counters.foreign(),
        };
        for (nr, counts) in counters.counts() {
            let name = table::lookup(nr).map_or_else(|| format!("#{nr}"), |r| r.name.to_owned());
            let mut push = |to: fn(&mut Report) -> &mut Vec<Line>, count: u64| {
                if count > 0 {
                    to(&mut report).push(Line {
                        name: name.clone(),
                        count,
                    });
                }
            };
            push(|r| &mut r.native, counts.native);
            push(|r| &mut r.emulated, counts.emulated);
            push(|r| &mut r.refused, counts.refused);
        }
        for lines in [
            &mut report.native,
            &mut report.emulated,
            &mut report.refused,
        ] {
            lines.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        }
        report
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::from("--- system calls ---\n");
        let groups = [
            ("native", "run by the kernel, at native speed", &self.native),
            ("emulated", "answered by Duet", &self.emulated),
            ("refused", "answered with an error", &self.refused),
        ];
        for (title, meaning, lines) in groups {
            let total: u64 = lines.iter().map(|l| l.count).sum();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{title:<9} {total:>8}  {meaning}");
            let mut row = String::new();
            for l in lines {
                let item = format!("{} {}", l.name, l.count);
                if !row.is_empty() && row.len() + item.len() > 76 {
                    let _ = writeln!(out, "    {row}");
                    row.clear();
                }
                if !row.is_empty() {
                    row.push_str(", ");
                }
                row.push_str(&item);
            }
            if !row.is_empty() {
                let _ = writeln!(out, "    {row}");
            }
        }
        if self.unknown + self.foreign > 0 {
            let (u, f) = (self.unknown, self.foreign);
            let _ = writeln!(
                out,
                "also refused: {u} with unknown numbers, {f} by int 0x80 or x32"
            );
        }
        out
    }

    /// For machines: one object on one line.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

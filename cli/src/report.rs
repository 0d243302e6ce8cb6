//! What was called during a run, by disposition; what it took to run a machine.

use std::fmt::Write;

use anyhow::Result;
use duet_sandbox::machine;
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

/// What it took to run a machine.
#[derive(Serialize)]
pub struct Machine {
    monitor: String,
    /// Milliseconds since the command began, by phase.
    phases: Vec<(&'static str, f64)>,
    /// Without these, the monitor counts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    work: Option<Work>,
}

#[derive(Serialize)]
struct Work {
    exits: Vec<(&'static str, u64)>,
    guest_ms: f64,
    monitor_ms: f64,
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    name: &'static str,
    interrupts: u64,
    queues: Vec<Queue>,
}

#[derive(Serialize)]
struct Queue {
    notifications: u64,
    requests: u64,
}

impl Machine {
    /// From a run that has ended.
    pub fn new(outcome: &machine::Outcome) -> Machine {
        let ms = |time: std::time::Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let queue = |&(notifications, requests): &(u64, u64)| Queue {
            notifications,
            requests,
        };
        let marks = outcome.timings.marks().iter();
        Machine {
            monitor: outcome.monitor.clone(),
            phases: marks.map(|(phase, time)| (*phase, ms(*time))).collect(),
            work: outcome.work.as_ref().map(|work| Work {
                exits: work.exits.clone(),
                guest_ms: ms(work.guest),
                monitor_ms: ms(work.monitor),
                devices: (work.devices.iter())
                    .map(|d| Device {
                        name: d.name,
                        interrupts: d.interrupts,
                        queues: d.queues.iter().map(queue).collect(),
                    })
                    .collect(),
            }),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("--- machine: {} ---\n", self.monitor);
        // Writing to a string cannot fail, here and below.
        for (phase, ms) in &self.phases {
            let _ = writeln!(out, "{ms:>11.3} ms  {phase}");
        }
        let Some(work) = &self.work else {
            out += "this monitor counts neither exits nor requests\n";
            return out;
        };
        let _ = writeln!(
            out,
            "{:>11.3} ms  processors in the guest, or asleep",
            work.guest_ms
        );
        let _ = writeln!(
            out,
            "{:>11.3} ms  processors in the monitor",
            work.monitor_ms
        );
        let total: u64 = work.exits.iter().map(|(_, n)| n).sum();
        let reasons: Vec<String> = (work.exits.iter())
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        let _ = writeln!(out, "{total:>11}     exits: {}", reasons.join(", "));
        for device in &work.devices {
            let _ = writeln!(out, "{:<8} {} interrupts", device.name, device.interrupts);
            let used = |q: &Queue| q.notifications + q.requests > 0;
            for (i, q) in device.queues.iter().enumerate().filter(|(_, q)| used(q)) {
                let (kicks, requests) = (q.notifications, q.requests);
                let _ = writeln!(
                    out,
                    "    queue {i}: {requests} requests, {kicks} notifications"
                );
            }
        }
        out
    }

    /// For machines: one object on one line.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

//! The figures of a run: their names, units, and where they come from.

use serde::{Deserialize, Serialize};

use crate::child::Run;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// Things done in a second.
    #[serde(rename = "per second")]
    PerSecond,
}

impl Unit {
    /// A value for people, to about three digits.
    pub fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let last = steps.last().copied().unwrap_or((1.0, ""));
            let found = steps.iter().copied().find(|(size, _)| value.abs() >= *size);
            let (size, name) = found.unwrap_or(last);
            let n = value / size;
            let digits = match n.abs() {
                n if n >= 99.95 || n == 0.0 => 0,
                n if n >= 9.995 => 1,
                _ => 2,
            };
            format!("{n:.digits$} {name}")
        };
        match self {
            Unit::Seconds => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]),
            Unit::Bytes => {
                const K: f64 = 1024.0;
                scaled(&[(K * K * K, "GiB"), (K * K, "MiB"), (K, "KiB"), (1.0, "B")])
            }
            Unit::Count => {
                let digits = format!("{:.0}", value.abs());
                let mut text = String::new();
                for (i, c) in digits.chars().enumerate() {
                    if i > 0 && (digits.len() - i) % 3 == 0 {
                        text.push(',');
                    }
                    text.push(c);
                }
                text
            }
            Unit::PerSecond => Unit::Count.show(value) + "/s",
        }
    }

    /// Whether a greater value is a better one.
    pub fn is_rate(self) -> bool {
        self == Unit::PerSecond
    }
}

/// One figure.
pub struct Figure {
    /// Its name in JSON.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Its value in a run that can tell.
    pub of: fn(&Run) -> Option<f64>,
}

const NANO: f64 = 1e-9;
const MICRO: f64 = 1e-6;

fn nanos(n: u64) -> f64 {
    n as f64 * NANO
}

fn micros(n: u64) -> f64 {
    n as f64 * MICRO
}

/// Those of the runs whose time is taken.
pub const TIMED: [Figure; 11] = [
    Figure {
        id: "start",
        title: "start-up to the first instruction",
        unit: Unit::Seconds,
        of: |r| r.started.map(nanos),
    },
    Figure {
        id: "first_output",
        title: "start-up to the first output",
        unit: Unit::Seconds,
        of: |r| r.first_output.map(nanos),
    },
    Figure {
        id: "run",
        title: "run time after start",
        unit: Unit::Seconds,
        of: |r| Some(nanos(r.ended?.saturating_sub(r.started?))),
    },
    Figure {
        id: "stop",
        title: "from the program's end to the end of all",
        unit: Unit::Seconds,
        of: |r| Some(nanos(r.total.saturating_sub(r.ended?))),
    },
    Figure {
        id: "total",
        title: "total time",
        unit: Unit::Seconds,
        of: |r| Some(nanos(r.total)),
    },
    Figure {
        id: "cpu_guest_user",
        title: "CPU of the program, user",
        unit: Unit::Seconds,
        of: |r| r.guest.map(|c| micros(c.user)),
    },
    Figure {
        id: "cpu_guest_system",
        title: "CPU of the program, system",
        unit: Unit::Seconds,
        of: |r| r.guest.map(|c| micros(c.system)),
    },
    Figure {
        id: "cpu_mode_user",
        title: "CPU of the mode, user",
        unit: Unit::Seconds,
        of: |r| r.between.map(|c| micros(c.user)),
    },
    Figure {
        id: "cpu_mode_system",
        title: "CPU of the mode, system",
        unit: Unit::Seconds,
        of: |r| r.between.map(|c| micros(c.system)),
    },
    Figure {
        id: "read",
        title: "bytes read by calls",
        unit: Unit::Bytes,
        of: |r| r.moved.map(|m| m.0 as f64),
    },
    Figure {
        id: "written",
        title: "bytes written by calls",
        unit: Unit::Bytes,
        of: |r| r.moved.map(|m| m.1 as f64),
    },
];

/// Those of the runs that are looked at.
pub const OBSERVED: [Figure; 6] = [
    Figure {
        id: "memory_guest",
        title: "peak memory of the program",
        unit: Unit::Bytes,
        // One that was over before the first look was not seen.
        of: |r| r.memory.map(|m| m.guest as f64).filter(|g| *g > 0.0),
    },
    Figure {
        id: "memory_mode",
        title: "peak memory of the mode",
        unit: Unit::Bytes,
        of: |r| r.memory.map(|m| m.between as f64),
    },
    Figure {
        id: "calls_native",
        title: "system calls, native",
        unit: Unit::Count,
        of: |r| r.calls.map(|c| c.native as f64),
    },
    Figure {
        id: "calls_emulated",
        title: "system calls, emulated",
        unit: Unit::Count,
        of: |r| r.calls.map(|c| c.emulated as f64),
    },
    Figure {
        id: "calls_refused",
        title: "system calls, refused",
        unit: Unit::Count,
        of: |r| r.calls.map(|c| c.refused as f64),
    },
    Figure {
        id: "disk",
        title: "disk space of the mode's own files",
        unit: Unit::Bytes,
        of: |r| r.disk.map(|d| d as f64),
    },
];

/// All figures in the order of reports.
pub fn all() -> impl Iterator<Item = &'static Figure> {
    TIMED.iter().chain(&OBSERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_to_three_digits() {
        assert_eq!(Unit::Seconds.show(0.0012345), "1.23 ms");
        assert_eq!(Unit::Seconds.show(12.345), "12.3 s");
        assert_eq!(Unit::Seconds.show(123e-6), "123 µs");
        assert_eq!(Unit::Seconds.show(0.0), "0 ns");
        assert_eq!(Unit::Bytes.show(1536.0), "1.50 KiB");
        assert_eq!(Unit::Bytes.show(0.0), "0 B");
        assert_eq!(Unit::Count.show(1234567.0), "1,234,567");
        assert_eq!(Unit::Count.show(12.0), "12");
        assert_eq!(Unit::PerSecond.show(12345.6), "12,346/s");
    }

    #[test]
    fn names_are_unique() {
        let mut ids: Vec<_> = all().map(|f| f.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TIMED.len() + OBSERVED.len());
    }
}

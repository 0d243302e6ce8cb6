//! What the layer is to reach, held against what was measured.

use crate::bench::{Results, Row};
use crate::figures::Unit;
use crate::tables::{line, measured};

/// What a value is held against.
#[derive(Clone, Copy, Debug)]
enum Against {
    /// The same row in this mode.
    Mode(&'static str),
    /// This row in the native mode.
    Row(&'static str),
    /// Nothing: it is a time of its own, in seconds.
    Nothing,
}

/// One of them: a value is to be at most so much.
struct Aim {
    what: &'static str,
    /// A row, or a group, of whose rows it is the median.
    of: &'static str,
    mode: &'static str,
    against: Against,
    most: f64,
}

const fn native(what: &'static str, of: &'static str, most: f64) -> Aim {
    let against = Against::Mode("native");
    Aim {
        what,
        of,
        mode: "layer:seccomp",
        against,
        most,
    }
}

const fn strace(what: &'static str, mode: &'static str, most: f64) -> Aim {
    let against = Against::Mode("strace");
    Aim {
        what,
        of: "traces",
        mode,
        against,
        most,
    }
}

const AIMS: [Aim; 17] = [
    native("a native call that does next to nothing", "getppid", 1.05),
    native("a native call that does work, pread", "pread_4k", 1.05),
    native("another, mmap", "mmap_touch_munmap_16", 1.05),
    Aim {
        what: "getuid, of a bare notification",
        of: "getuid",
        mode: "layer:seccomp",
        against: Against::Row("notification"),
        most: 1.3,
    },
    native("stat", "stat", 4.0),
    native("open and close", "open_close", 4.5),
    native("fork, exec and wait, static", "fork_exec_wait", 1.25),
    native("readdir of 1,000", "readdir_1000", 2.0),
    native("create and unlink", "create_unlink", 3.0),
    Aim {
        what: "`duet run` of a trivial program, whole process",
        of: "whole_empty",
        mode: "layer:seccomp",
        against: Against::Nothing,
        most: 0.012,
    },
    native("python3, start with eight imports", "work_python", 1.4),
    native("`find /usr -type f`", "work_find", 2.5),
    native("compile a C file of 1,000 lines", "work_compile", 1.15),
    native("`tar -cz` of 400 documents", "work_archive", 1.3),
    native("`git add` and commit of 500 files", "work_git", 1.5),
    strace(
        "`duet trace`, of strace, median of the programs",
        "trace",
        1.0,
    ),
    strace("`duet trace --fast`, the same", "trace:fast", 0.3),
];

impl Aim {
    fn of_row(&self, results: &Results, row: &Row) -> Option<f64> {
        let value = row.values.get(self.mode)?.median;
        let base = match self.against {
            Against::Nothing => return Some(value),
            Against::Mode(mode) => row.values.get(mode)?.median,
            Against::Row(name) => {
                let row = results.rows.iter().find(|r| r.name == name)?;
                row.values.get("native")?.median
            }
        };
        (base > 0.0).then_some(value / base)
    }

    /// What was reached, if that was measured.
    fn reached(&self, results: &Results) -> Option<f64> {
        let is_meant = |r: &&Row| r.name == self.of || r.group == self.of;
        let rows = results.rows.iter().filter(is_meant);
        let values = rows.filter_map(|r| self.of_row(results, r));
        crate::stats::Summary::of(values).map(|s| s.median)
    }
}

/// As a table in Markdown.
pub fn markdown(results: &Results) -> String {
    let mut out = line(&["what", "aim", "reached", ""].map(String::from));
    out += "|---|--:|--:|---|\n";
    for aim in &AIMS {
        let unit = matches!(aim.against, Against::Nothing).then_some(Unit::Seconds);
        let reached = aim.reached(results);
        let verdict = reached.map_or("", |r| if r <= aim.most { "yes" } else { "no" });
        let reached = reached.map_or_else(|| "-".into(), |r| measured(r, unit));
        let cells = [
            aim.what.to_owned(),
            measured(aim.most, unit),
            reached,
            verdict.to_owned(),
        ];
        out += &line(&cells);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::{MEASURES, Set, WORKS};

    #[test]
    fn aims_are_of_rows_that_there_are() {
        let is_row = |n: &str| {
            MEASURES.iter().any(|m| m.name == n)
                || WORKS.iter().any(|w| w.name == n)
                || Set::of_group(n).is_some()
        };
        for aim in &AIMS {
            assert!(is_row(aim.of), "{}", aim.of);
            if let Against::Row(name) = aim.against {
                assert!(is_row(name), "{name}");
            }
            assert!(crate::modes::Mode::parse(aim.mode).is_ok());
        }
    }
}

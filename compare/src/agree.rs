//! Whether two runs behaved alike, and in what they differ.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use similar::TextDiff;

use crate::child::Run;
use crate::files::{Content, Entry};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// The exit status.
    Status,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Written files: names, types, modes, owners, contents, targets of links.
    Files,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Aspect; 4] = [
        Aspect::Status,
        Aspect::Stdout,
        Aspect::Stderr,
        Aspect::Files,
    ];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Aspect::Status => "exit status",
            Aspect::Stdout => "standard output",
            Aspect::Stderr => "standard error",
            Aspect::Files => "files written",
        }
    }

    fn same(self, a: &Run, b: &Run) -> bool {
        match self {
            Aspect::Status => a.status == b.status,
            Aspect::Stdout => same(&a.stdout, &b.stdout),
            Aspect::Stderr => same(&a.stderr, &b.stderr),
            Aspect::Files => {
                a.files.more() == b.files.more() && {
                    let (a, b) = (a.files.entries(), b.files.entries());
                    a.len() == b.len()
                        && a.iter()
                            .zip(b)
                            .all(|((p, x), (q, y))| p == q && same_entry(x, y))
                }
            }
        }
    }
}

fn same(a: &Content, b: &Content) -> bool {
    a.length == b.length && a.sum == b.sum
}

fn same_entry(a: &Entry, b: &Entry) -> bool {
    match (a, b) {
        (
            Entry::There {
                mode: m,
                owner: o,
                device: v,
                content: c,
                target: t,
            },
            Entry::There {
                mode: n,
                owner: p,
                device: w,
                content: d,
                target: u,
            },
        ) => {
            let contents = match (c, d) {
                (Some(c), Some(d)) => same(c, d),
                (c, d) => c.is_some() == d.is_some(),
            };
            m == n && o == p && v == w && t == u && contents
        }
        (a, b) => a == b,
    }
}

/// How a mode's runs behaved beside those of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All runs did the same.
    Same,
    /// The reference's runs differ among themselves, and this mode's are like some of them.
    Varies,
    /// At least one run did what none of the reference's did, though those agree with one another.
    Differs,
    /// No two runs are alike in either.
    Unsettled,
}

/// Compares the runs of a mode with those of the reference.
pub fn verdict(aspect: Aspect, reference: &[Run], runs: &[Run]) -> Verdict {
    let all_like = |all: &[Run], one: &Run| all.iter().all(|r| aspect.same(one, r));
    let steady = reference
        .first()
        .is_none_or(|first| all_like(reference, first));
    let met = |run: &Run| reference.iter().any(|r| aspect.same(r, run));
    match (steady, runs.iter().all(met)) {
        (true, true) => Verdict::Same,
        (true, false) => Verdict::Differs,
        (false, true) => Verdict::Varies,
        (false, false) => Verdict::Unsettled,
    }
}

/// The first run that did what none of the reference's did, as a difference from the reference's first.
pub fn difference(
    aspect: Aspect,
    reference: (&str, &[Run]),
    mode: (&str, &[Run]),
) -> Option<String> {
    let (from, expected) = reference;
    let (to, runs) = mode;
    let odd = runs
        .iter()
        .find(|r| !expected.iter().any(|e| aspect.same(e, r)))?;
    let first = expected.first()?;
    Some(match aspect {
        Aspect::Status => format!("-{from}: {}\n+{to}: {}\n", first.status, odd.status),
        Aspect::Stdout => contents((from, &first.stdout), (to, &odd.stdout)),
        Aspect::Stderr => contents((from, &first.stderr), (to, &odd.stderr)),
        Aspect::Files => files((from, first), (to, odd)),
    })
}

/// Most lines of a difference that are shown.
const LINES: usize = 40;
/// Longest line that is shown, in characters.
const WIDTH: usize = 200;
/// Most files that differ of which each is shown.
const FILES: usize = 10;

fn contents(a: (&str, &Content), b: (&str, &Content)) -> String {
    let ((from, a), (to, b)) = (a, b);
    let whole = |c: &Content| c.head.len() as u64 == c.length;
    let texts = (std::str::from_utf8(&a.head), std::str::from_utf8(&b.head));
    if let ((Ok(x), Ok(y)), true, true) = (texts, whole(a), whole(b)) {
        let diff = TextDiff::configure()
            // A difference that takes longer to find is shown less well.
            .timeout(std::time::Duration::from_millis(500))
            .diff_lines(x, y);
        let text = diff
            .unified_diff()
            .context_radius(2)
            .header(from, to)
            .to_string();
        return shorten(&text);
    }
    let at = a.head.iter().zip(&b.head).position(|(x, y)| x != y);
    let at = at.map_or_else(
        || {
            format!(
                "the first {} bytes are the same",
                a.head.len().min(b.head.len())
            )
        },
        |at| format!("they differ first at byte {at}"),
    );
    format!(
        "-{from}: {} bytes\n+{to}: {} bytes\n {at}\n",
        a.length, b.length
    )
}

/// So many lines as people read, without what would steer a terminal.
fn shorten(text: &str) -> String {
    let mut out = String::new();
    for (i, line) in text.lines().enumerate() {
        if i == LINES {
            let rest = text.lines().count() - LINES;
            // Writing to a string cannot fail.
            let _ = writeln!(out, " ... and {rest} more lines");
            break;
        }
        let plain = |c: char| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        };
        out.extend(line.chars().take(WIDTH).map(plain));
        out.push('\n');
    }
    out
}

fn files(a: (&str, &Run), b: (&str, &Run)) -> String {
    let ((from, a), (to, b)) = (a, b);
    let (x, y) = (a.files.entries(), b.files.entries());
    let names: std::collections::BTreeSet<_> = x.keys().chain(y.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|name| match (x.get(*name), y.get(*name)) {
            (Some(p), Some(q)) => !same_entry(p, q),
            _ => true,
        });
    let mut out = String::new();
    let mut more = 0;
    for (i, name) in differing.enumerate() {
        if i >= FILES {
            more += 1;
            continue;
        }
        let shown = shorten(&name.display().to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", shown.trim_end());
        let (p, q) = (x.get(name), y.get(name));
        if let (
            Some(Entry::There {
                content: Some(c), ..
            }),
            Some(Entry::There {
                content: Some(d), ..
            }),
        ) = (p, q)
            && !same(c, d)
        {
            out += &contents((from, c), (to, d));
            if describe(p) == describe(q) {
                continue;
            }
        }
        let _ = writeln!(out, "-{from}: {}\n+{to}: {}", describe(p), describe(q));
    }
    let unseen = a.files.more().max(b.files.more());
    if more > 0 || unseen > 0 {
        let _ = writeln!(out, "... and {more} more; {unseen} were not looked at");
    }
    out
}

fn describe(entry: Option<&Entry>) -> String {
    match entry {
        None => "as it was".into(),
        Some(Entry::Removed) => "removed".into(),
        Some(Entry::Unreadable(why)) => format!("unreadable: {why}"),
        Some(Entry::There {
            mode,
            owner,
            device,
            content,
            target,
        }) => {
            let size = content.as_ref().map(|c| format!(", {} bytes", c.length));
            let device = device.map(|(major, minor)| format!(" {major}:{minor}"));
            let target = target
                .as_ref()
                .map(|t| format!(" to {:?}", t.display().to_string()));
            format!(
                "{}{}{}, mode {:04o}, owner {}:{}{}",
                kind(*mode),
                device.unwrap_or_default(),
                target.unwrap_or_default(),
                mode & 0o7777,
                owner.0,
                owner.1,
                size.unwrap_or_default()
            )
        }
    }
}

fn kind(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "link",
        libc::S_IFIFO => "FIFO",
        libc::S_IFSOCK => "socket",
        libc::S_IFCHR => "character device",
        libc::S_IFBLK => "block device",
        _ => "something",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::Status;
    use crate::files::Gather;

    fn run(status: u8, stdout: &str) -> Run {
        let mut out = Gather::new(1000);
        out.add(stdout.as_bytes());
        Run {
            status: Status::Exited(status),
            stdout: out.finish(),
            stderr: Content::default(),
            files: Default::default(),
            started: None,
            first_output: None,
            ended: None,
            total: 0,
            guest: None,
            between: None,
            memory: None,
            calls: None,
            exits: None,
            monitor: None,
            moved: None,
            disk: None,
        }
    }

    #[test]
    fn steady_runs_are_told_from_those_that_vary() {
        let of = |reference: &[&str], runs: &[&str]| {
            let all = |texts: &[&str]| texts.iter().map(|t| run(0, t)).collect::<Vec<_>>();
            verdict(Aspect::Stdout, &all(reference), &all(runs))
        };
        assert_eq!(of(&["a", "a"], &["a", "a"]), Verdict::Same);
        assert_eq!(of(&["a", "a"], &["a", "b"]), Verdict::Differs);
        assert_eq!(of(&["a", "b"], &["b", "a"]), Verdict::Varies);
        assert_eq!(of(&["a", "b"], &["c"]), Verdict::Unsettled);
    }

    #[test]
    fn differences_are_shown_as_lines() {
        let native = [run(0, "one\ntwo\n")];
        let other = [run(3, "one\nt\u{1b}wo\n")];
        let of = |aspect| difference(aspect, ("native", &native), ("vm", &other));
        assert_eq!(of(Aspect::Status).unwrap(), "-native: 0\n+vm: 3\n");
        let text = of(Aspect::Stdout).unwrap();
        assert!(text.contains("--- native\n+++ vm\n"), "{text}");
        assert!(text.contains("-two\n+t\u{fffd}wo\n"), "{text}");
        assert_eq!(of(Aspect::Stderr), None);
        assert_eq!(of(Aspect::Files), None);
    }

    #[test]
    fn bytes_are_told_apart_by_place() {
        let content = |bytes: &[u8]| {
            let mut g = Gather::new(4);
            g.add(bytes);
            g.finish()
        };
        let text = contents(("a", &content(b"\xff123456")), ("b", &content(b"\xff124")));
        assert!(
            text.contains("-a: 7 bytes\n+b: 4 bytes\n they differ first at byte 3"),
            "{text}"
        );
    }
}

//! Whether two runs behaved alike, and in what they differ.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use duet_trace::summary::collect::shown;
use duet_trace::summary::svg::steers;
use serde::{Deserialize, Serialize};
use similar::TextDiff;

use crate::child::Status;
use crate::files::{Content, Entry, Files, Sum};

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
}

/// What came of a run that can be compared, beside its status.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Standard output.
    pub stdout: Content,
    /// Standard error.
    pub stderr: Content,
    /// Files that it wrote.
    pub files: Files,
}

/// The same in short: for each aspect a digest, equal if two runs did the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    status: Status,
    stdout: Sum,
    stderr: Sum,
    files: Sum,
}

impl Digests {
    /// Of a run that ended so.
    pub fn of(status: Status, output: &Output) -> Digests {
        Digests {
            status,
            stdout: output.stdout.digest(),
            stderr: output.stderr.digest(),
            files: output.files.digest(),
        }
    }

    fn same(&self, other: &Digests, aspect: Aspect) -> bool {
        match aspect {
            Aspect::Status => self.status == other.status,
            Aspect::Stdout => self.stdout == other.stdout,
            Aspect::Stderr => self.stderr == other.stderr,
            Aspect::Files => self.files == other.files,
        }
    }
}

/// What the runs of a mode did, as far as it is kept: of either stream and of the files, the first so many
/// that differ from one another. Of all others the digests must do.
#[derive(Clone, Debug)]
pub struct Kept {
    most: usize,
    stdout: BTreeMap<Sum, Content>,
    stderr: BTreeMap<Sum, Content>,
    files: BTreeMap<Sum, Files>,
}

impl Kept {
    /// Nothing yet, and later at most so many of each.
    pub fn new(most: usize) -> Kept {
        Kept {
            most,
            stdout: BTreeMap::new(),
            stderr: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    /// Takes what a run did.
    pub fn add(&mut self, digests: &Digests, output: Output) {
        fn put<T>(all: &mut BTreeMap<Sum, T>, most: usize, digest: Sum, part: T) {
            if all.len() < most {
                all.entry(digest).or_insert(part);
            }
        }
        put(&mut self.stdout, self.most, digests.stdout, output.stdout);
        put(&mut self.stderr, self.most, digests.stderr, output.stderr);
        put(&mut self.files, self.most, digests.files, output.files);
    }

    /// Standard output of a run, if it is kept.
    pub fn stdout(&self, digests: &Digests) -> Option<&Content> {
        self.stdout.get(&digests.stdout)
    }

    /// Standard error of a run, if it is kept.
    pub fn stderr(&self, digests: &Digests) -> Option<&Content> {
        self.stderr.get(&digests.stderr)
    }

    /// Files of a run, if they are kept.
    pub fn files(&self, digests: &Digests) -> Option<&Files> {
        self.files.get(&digests.files)
    }

    fn has(&self, aspect: Aspect, digests: &Digests) -> bool {
        match aspect {
            Aspect::Status => true,
            Aspect::Stdout => self.stdout(digests).is_some(),
            Aspect::Stderr => self.stderr(digests).is_some(),
            Aspect::Files => self.files(digests).is_some(),
        }
    }
}

/// The runs of one mode, to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The mode.
    pub name: &'a str,
    /// What each run did.
    pub runs: &'a [Digests],
    /// As far as it is kept.
    pub kept: &'a Kept,
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
pub fn verdict(aspect: Aspect, reference: &[Digests], runs: &[Digests]) -> Verdict {
    let steady = reference
        .first()
        .is_none_or(|first| reference.iter().all(|r| first.same(r, aspect)));
    let met = |run: &Digests| reference.iter().any(|r| r.same(run, aspect));
    match (steady, runs.iter().all(met)) {
        (true, true) => Verdict::Same,
        (true, false) => Verdict::Differs,
        (false, true) => Verdict::Varies,
        (false, false) => Verdict::Unsettled,
    }
}

/// A run that did what none of the reference's did, as a difference from the reference's first: the first
/// whose doings are kept.
pub fn difference(aspect: Aspect, reference: Side, mode: Side) -> Option<String> {
    let (from, to) = (reference.name, mode.name);
    let odd = |r: &&Digests| !reference.runs.iter().any(|e| e.same(r, aspect));
    let kept = |r: &&Digests| mode.kept.has(aspect, r);
    let first = reference.runs.first()?;
    let Some(odd) = mode.runs.iter().filter(odd).find(kept) else {
        mode.runs.iter().find(odd)?;
        return Some(format!(
            " {to} differs in a late run, of which no more than that was kept\n"
        ));
    };
    Some(match aspect {
        Aspect::Status => format!("-{from}: {}\n+{to}: {}\n", first.status, odd.status),
        Aspect::Stdout => {
            let (a, b) = (reference.kept.stdout(first)?, mode.kept.stdout(odd)?);
            contents((from, a), (to, b))
        }
        Aspect::Stderr => {
            let (a, b) = (reference.kept.stderr(first)?, mode.kept.stderr(odd)?);
            contents((from, a), (to, b))
        }
        Aspect::Files => {
            let (a, b) = (reference.kept.files(first)?, mode.kept.files(odd)?);
            files((from, a), (to, b))
        }
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
        let plain = |c: char| match c != '\t' && steers(c) {
            true => '\u{fffd}',
            false => c,
        };
        out.extend(line.chars().take(WIDTH).map(plain));
        out.push('\n');
    }
    out
}

/// A name on one line, escaped as in C but for printable ASCII; of a long one the beginning and the end.
fn name(path: &Path) -> String {
    let text = shown(path.as_os_str().as_bytes());
    if text.len() <= WIDTH {
        return text;
    }
    let half = WIDTH / 2;
    // All of it is ASCII.
    let (start, end) = (text.get(..half), text.get(text.len() - half..));
    format!("{}…{}", start.unwrap_or_default(), end.unwrap_or_default())
}

fn files(a: (&str, &Files), b: (&str, &Files)) -> String {
    let ((from, a), (to, b)) = (a, b);
    let (x, y) = (a.entries(), b.entries());
    let names: std::collections::BTreeSet<_> = x.keys().chain(y.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|name| match (x.get(*name), y.get(*name)) {
            (Some(p), Some(q)) => !p.same(q),
            _ => true,
        });
    let mut out = String::new();
    let mut more = 0;
    for (i, path) in differing.enumerate() {
        if i >= FILES {
            more += 1;
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", name(path));
        let (p, q) = (x.get(path), y.get(path));
        if let (
            Some(Entry::There {
                content: Some(c), ..
            }),
            Some(Entry::There {
                content: Some(d), ..
            }),
        ) = (p, q)
            && c.digest() != d.digest()
        {
            out += &contents((from, c), (to, d));
            if describe(p) == describe(q) {
                continue;
            }
        }
        let _ = writeln!(out, "-{from}: {}\n+{to}: {}", describe(p), describe(q));
    }
    let unseen = a.more().max(b.more());
    if more > 0 || unseen > 0 {
        let _ = writeln!(out, "... and {more} more; {unseen} others are not kept");
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
            let target = target.as_ref().map(|t| format!(" to \"{}\"", name(t)));
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
    use crate::files::Gather;

    /// Runs with these statuses and outputs, of which at most two are kept.
    fn runs(all: &[(u8, &str)]) -> (Vec<Digests>, Kept) {
        let mut kept = Kept::new(2);
        let one = |(status, stdout): &(u8, &str)| {
            let mut out = Gather::new(1000);
            out.add(stdout.as_bytes());
            let output = Output {
                stdout: out.finish(),
                ..Output::default()
            };
            let digests = Digests::of(Status::Exited(*status), &output);
            kept.add(&digests, output);
            digests
        };
        (all.iter().map(one).collect(), kept)
    }

    fn compared(aspect: Aspect, reference: &[(u8, &str)], mode: &[(u8, &str)]) -> Option<String> {
        let ((a, kept_a), (b, kept_b)) = (runs(reference), runs(mode));
        let side = |name, runs, kept| Side { name, runs, kept };
        difference(aspect, side("native", &a, &kept_a), side("vm", &b, &kept_b))
    }

    #[test]
    fn steady_runs_are_told_from_those_that_vary() {
        let of = |reference: &[&str], mode: &[&str]| {
            let all = |texts: &[&str]| {
                let all: Vec<_> = texts.iter().map(|t| (0, *t)).collect();
                runs(&all).0
            };
            verdict(Aspect::Stdout, &all(reference), &all(mode))
        };
        assert_eq!(of(&["a", "a"], &["a", "a"]), Verdict::Same);
        assert_eq!(of(&["a", "a"], &["a", "b"]), Verdict::Differs);
        assert_eq!(of(&["a", "b"], &["b", "a"]), Verdict::Varies);
        assert_eq!(of(&["a", "b"], &["c"]), Verdict::Unsettled);
    }

    #[test]
    fn differences_are_shown_as_lines() {
        let of = |aspect| {
            let other = [(3, "one\nt\u{1b}w\u{202e}o\n")];
            compared(aspect, &[(0, "one\ntwo\n")], &other)
        };
        assert_eq!(of(Aspect::Status).unwrap(), "-native: 0\n+vm: 3\n");
        let text = of(Aspect::Stdout).unwrap();
        assert!(text.contains("--- native\n+++ vm\n"), "{text}");
        assert!(text.contains("-two\n+t\u{fffd}w\u{fffd}o\n"), "{text}");
        assert_eq!(of(Aspect::Stderr), None);
        assert_eq!(of(Aspect::Files), None);
    }

    #[test]
    fn so_much_is_kept_and_the_rest_is_known_to_differ() {
        let of = |mode: &[(u8, &str)]| compared(Aspect::Stdout, &[(0, "a")], mode);
        assert!(of(&[(0, "a"), (0, "a"), (0, "b")]).unwrap().contains("+b"));
        let (_, kept) = runs(&[(0, "a"), (0, "b"), (0, "c")]);
        assert_eq!(kept.stdout.len(), 2);
        // The reference is like the two that are kept, and not like the third.
        let text = compared(
            Aspect::Stdout,
            &[(0, "a"), (0, "b")],
            &[(0, "a"), (0, "b"), (0, "c")],
        );
        assert_eq!(
            text.unwrap(),
            " vm differs in a late run, of which no more than that was kept\n"
        );
    }

    #[test]
    fn names_stay_on_their_line_and_leave_the_terminal_alone() {
        assert_eq!(
            name(Path::new("a\nb\u{202e}c\u{1b}")),
            "a\\nb\\xe2\\x80\\xaec\\x1b"
        );
        let long = "x".repeat(5000) + "/end";
        let text = name(Path::new(&long));
        assert!(text.len() < 300 && text.ends_with("x/end"), "{text}");
        let file = |name: &str| {
            let mut files = Files::default();
            files.add(name.into(), Entry::Removed);
            files
        };
        let text = files(("a", &file("x")), ("b", &file("y\n+z")));
        assert!(text.contains("\ny\\n+z\n"), "{text}");
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

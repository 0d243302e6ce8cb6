//! Which calls and signals are shown: the expressions of strace(1)'s `-e`.

use std::collections::{BTreeSet, HashSet};

use duet_syscalls::table::{self, Family, Row, Type};
use regex::Regex;

/// What is shown. By default, everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Numbers of calls; `None`: all.
    calls: Option<HashSet<u32>>,
    /// How calls end; `None`: in any way.
    statuses: Option<HashSet<Status>>,
    /// Patterns, of which one must match a path that the call names; none: any call.
    paths: Vec<Regex>,
    /// Numbers of signals; `None`: all.
    signals: Option<HashSet<i32>>,
    /// How ends of processes are not shown.
    pub hide_ends: bool,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Without an error.
    Successful,
    /// With an error.
    Failed,
    /// It did not return.
    Unfinished,
    /// It was run, and its result is not known.
    Unavailable,
}

const STATUSES: [(&str, Status); 4] = [
    ("successful", Status::Successful),
    ("failed", Status::Failed),
    ("unfinished", Status::Unfinished),
    ("unavailable", Status::Unavailable),
];

/// The qualifiers of an expression that are known, each with its short forms.
const QUALIFIERS: [(&str, &[&str]); 5] = [
    ("trace", &["t"]),
    ("status", &[]),
    ("path", &["P"]),
    ("signal", &["signals", "s"]),
    ("quiet", &["silent", "silence", "q"]),
];

impl Filter {
    /// Adds an expression `[QUALIFIER=][!]VALUE[,VALUE]...`; without a qualifier it is about calls. Of two
    /// with the same qualifier the later counts, but for paths, of which any may match. An error says what
    /// is wrong in one line.
    pub fn add(&mut self, expression: &str) -> Result<(), String> {
        let (qualifier, values) = match expression.split_once('=') {
            // A regular expression may hold one.
            Some((q, values)) if !q.starts_with(['/', '!', '?']) => (q, values),
            _ => ("trace", expression),
        };
        let known = |(name, short): &(&'static str, &[&str])| {
            (*name == qualifier || short.contains(&qualifier)).then_some(*name)
        };
        let Some(qualifier) = QUALIFIERS.iter().find_map(known) else {
            let names = QUALIFIERS.map(|(name, _)| name).join(", ");
            return Err(format!(
                "{qualifier:?} is none of {names}; an environment variable is set with -E"
            ));
        };
        match qualifier {
            "status" => self.statuses = select(values, &STATUSES.map(|(_, s)| s), status)?,
            "path" => self.paths.push(glob(values)?),
            "signal" => {
                let all: Vec<i32> = (1..=64).collect();
                self.signals = select(values, &all, signal)?;
            }
            "quiet" => match values {
                "exit" | "exits" | "all" => self.hide_ends = true,
                "none" => self.hide_ends = false,
                _ => return Err(format!("quiet={values:?}: exit, all and none are known")),
            },
            _ => {
                let all: Vec<u32> = table::rows().iter().map(|row| row.nr).collect();
                self.calls = select(values, &all, calls)?;
            }
        }
        Ok(())
    }

    /// An expression by itself, for options that hold just one.
    pub fn parse(expression: &str) -> Result<Filter, String> {
        let mut filter = Filter::default();
        filter.add(expression).map(|()| filter)
    }

    /// Shows only calls that end so.
    pub fn only(&mut self, status: Status) {
        self.statuses = Some(HashSet::from([status]));
    }

    /// Shows only calls that name this path, as it stands.
    pub fn add_path(&mut self, path: &str) -> Result<(), String> {
        self.paths.push(pattern(&regex::escape(path))?);
        Ok(())
    }

    /// Whether calls with this number may be shown.
    pub fn shows(&self, nr: u32) -> bool {
        self.calls.as_ref().is_none_or(|s| s.contains(&nr))
    }

    /// The numbers of those calls; `None`: all. A call that names no path and has no descriptor is not
    /// among them if paths are asked for.
    pub fn numbers(&self) -> Option<BTreeSet<u32>> {
        if self.calls.is_none() && self.paths.is_empty() {
            return None;
        }
        let by_path = |row: &&Row| self.paths.is_empty() || has_place(row);
        let rows = table::rows().iter().filter(by_path).map(|row| row.nr);
        Some(rows.filter(|&nr| self.shows(nr)).collect())
    }

    /// Whether calls are chosen by the paths that they name.
    pub fn by_path(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether a path is one of those that are asked for.
    pub fn shows_path(&self, path: &[u8]) -> bool {
        let text = String::from_utf8_lossy(path);
        self.paths.iter().any(|p| p.is_match(&text))
    }

    /// Whether calls are chosen by how they end, so that nothing is shown of one before that.
    pub fn by_status(&self) -> bool {
        self.statuses.is_some()
    }

    /// Whether a call that ends so is shown.
    pub fn shows_status(&self, status: Status) -> bool {
        self.statuses.as_ref().is_none_or(|s| s.contains(&status))
    }

    /// Whether a signal is shown.
    pub fn shows_signal(&self, signal: i32) -> bool {
        self.signals.as_ref().is_none_or(|s| s.contains(&signal))
    }
}

/// `[!]WORD,...`, of which each word means some of `all`. `None`: all.
fn select<T: Copy + Eq + std::hash::Hash>(
    text: &str,
    all: &[T],
    meaning: impl Fn(&str) -> Result<Vec<T>, String>,
) -> Result<Option<HashSet<T>>, String> {
    let (inverse, list) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut chosen = HashSet::new();
    for word in list.split(',').filter(|w| !w.is_empty()) {
        match word {
            "all" => chosen.extend(all),
            "none" => (),
            _ => chosen.extend(meaning(word)?),
        }
    }
    if inverse {
        chosen = all
            .iter()
            .copied()
            .filter(|t| !chosen.contains(t))
            .collect();
    }
    Ok((chosen.len() < all.len()).then_some(chosen))
}

fn status(word: &str) -> Result<Vec<Status>, String> {
    let found = STATUSES.iter().find(|(name, _)| *name == word);
    match found {
        Some((_, status)) => Ok(vec![*status]),
        // Duet never lets a process go on untraced.
        None if word == "detached" => Ok(Vec::new()),
        None => {
            let names = STATUSES.map(|(name, _)| name).join(", ");
            Err(format!("{word:?} is none of {names}"))
        }
    }
}

fn signal(word: &str) -> Result<Vec<i32>, String> {
    let bare = word.to_ascii_uppercase();
    let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
    let named = |n: &i32| crate::sets::signal((*n).into()).strip_prefix("SIG") == Some(bare);
    let number = bare.parse().ok();
    match (1..=64).find(|n| named(n) || number == Some(*n)) {
        Some(n) => Ok(vec![n]),
        None => Err(format!("{word:?} is no signal")),
    }
}

/// A name, a set with or without a `%`, or a `/regular expression`; with a `?` before it, it may mean no
/// call at all.
fn calls(word: &str) -> Result<Vec<u32>, String> {
    let (lenient, name) = match word.strip_prefix('?') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let numbers = |is: &dyn Fn(&Row) -> bool| -> Vec<u32> {
        let rows = table::rows().iter().filter(|row| is(row));
        rows.map(|row| row.nr).collect()
    };
    let found = match name.strip_prefix('/') {
        Some(expression) => {
            let expression = Regex::new(expression).map_err(|e| {
                let text = e.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!("/{expression}: {last}")
            })?;
            numbers(&|row| expression.is_match(row.name))
        }
        None => numbers(&|row| is_named(row, name)),
    };
    if found.is_empty() && !lenient {
        return Err(format!(
            "{word:?} is neither a system call nor a set of them; `duet syscalls` lists all"
        ));
    }
    Ok(found)
}

fn has(row: &Row, wanted: fn(&Type) -> bool) -> bool {
    row.args.iter().any(|a| wanted(&a.ty))
}

/// Whether a call names a path or has a descriptor.
fn has_place(row: &Row) -> bool {
    has(row, |t| matches!(t, Type::Path | Type::Fd | Type::DirFd))
}

/// Whether a word of a filter means this call.
fn is_named(row: &Row, word: &str) -> bool {
    let Some(set) = word.strip_prefix('%') else {
        return row.name == word || PLAIN_SETS.contains(&word) && is_in(row, word);
    };
    is_in(row, set)
}

/// Sets whose names need no `%`.
const PLAIN_SETS: &[&str] = &[
    "file", "desc", "process", "network", "net", "memory", "signal", "ipc",
];

fn is_in(row: &Row, set: &str) -> bool {
    match set {
        // symlink(2) takes its first as it stands.
        "file" => has(row, |t| matches!(t, Type::Path)) || row.name == "getcwd",
        "desc" => {
            has(row, |t| matches!(t, Type::Fd | Type::DirFd)) || MAKES_DESC.contains(&row.name)
        }
        "process" => PROCESS.contains(&row.name),
        "network" | "net" => row.family == Family::Network,
        "memory" => row.family == Family::Memory || row.name == "brk",
        "signal" => {
            row.family == Family::Signal && !matches!(row.name, "pause")
                || matches!(row.name, "signalfd" | "signalfd4")
        }
        "ipc" => {
            row.family == Family::Ipc
                && row.name != "futex"
                && IPC.iter().any(|p| row.name.starts_with(p))
        }
        "creds" => row.family == Family::Credentials,
        "clock" => {
            row.name.starts_with("clock_") && row.name != "clock_nanosleep"
                || CLOCK.contains(&row.name)
        }
        "stat" => row.name == "stat",
        "lstat" => row.name == "lstat",
        "fstat" => matches!(row.name, "fstat" | "newfstatat"),
        "%stat" => matches!(
            row.name,
            "stat" | "lstat" | "fstat" | "newfstatat" | "statx"
        ),
        "statfs" => row.name == "statfs",
        "fstatfs" => row.name == "fstatfs",
        "%statfs" => matches!(row.name, "statfs" | "fstatfs" | "ustat"),
        "pure" => PURE.contains(&row.name),
        _ => false,
    }
}

const PROCESS: &[&str] = &[
    "fork",
    "vfork",
    "clone",
    "clone3",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "wait4",
    "waitid",
    "kill",
    "tkill",
    "tgkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_open",
    "pidfd_send_signal",
];
/// Those that return a descriptor without taking one.
const MAKES_DESC: &[&str] = &[
    "open",
    "creat",
    "pipe",
    "pipe2",
    "epoll_create",
    "epoll_create1",
    "eventfd",
    "eventfd2",
    "inotify_init",
    "inotify_init1",
    "memfd_create",
    "mq_open",
    "perf_event_open",
    "pidfd_open",
    "select",
    "pselect6",
    "poll",
    "ppoll",
    "timerfd_create",
    "userfaultfd",
    "fanotify_init",
    "io_uring_setup",
    "memfd_secret",
    "landlock_create_ruleset",
    "fsopen",
];
const IPC: &[&str] = &["shm", "sem", "msg"];
const CLOCK: &[&str] = &["gettimeofday", "settimeofday", "time", "adjtimex"];
const PURE: &[&str] = &[
    "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getpgrp",
];

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("(?s)^(?:{text})$")).map_err(|_| "the pattern is too long".into())
}

/// A pattern of a shell: `*` and `?` match slashes too, `[...]` one of several, `\` takes off a meaning.
fn glob(text: &str) -> Result<Regex, String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '\\' => {
                let next = chars.next().unwrap_or('\\');
                out.push_str(&regex::escape(next.encode_utf8(&mut [0; 4])));
            }
            '[' => {
                let mut set = String::new();
                if let Some('!' | '^') = chars.peek() {
                    chars.next();
                    set.push('^');
                }
                let mut closed = false;
                let start = set.len();
                for c in chars.by_ref() {
                    match c {
                        ']' if set.len() > start => {
                            closed = true;
                            break;
                        }
                        '-' => set.push(c),
                        _ => set.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
                    }
                }
                if !closed {
                    return Err(format!("{text:?}: a [ has no ]"));
                }
                out.push('[');
                out.push_str(&set);
                out.push(']');
            }
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern(&out).map_err(|e| format!("{text:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_chosen_as_strace_does() {
        let shows = |filter: &str, name: &str| {
            let nr = table::by_name(name).unwrap().nr;
            Filter::parse(filter).unwrap().shows(nr)
        };
        assert!(shows("trace=open,close", "close") && !shows("trace=open,close", "read"));
        assert!(shows("t=open", "open") && shows("open", "open") && !shows("open", "openat"));
        assert!(shows("file", "openat") && shows("%file", "chmod") && !shows("file", "read"));
        assert!(shows("trace=!file", "read") && !shows("trace=!%file", "openat"));
        assert!(shows("network", "connect") && shows("process", "execve"));
        assert!(shows("all", "read") && !shows("none", "read"));
        assert!(shows("/^(mk|rm)dir", "mkdirat") && !shows("/^(mk|rm)dir", "chdir"));
        assert!(shows("desc", "read") && shows("%desc", "pipe2") && !shows("desc", "mkdir"));
        assert!(!shows("?nonesuch", "read") && shows("?nonesuch,read", "read"));
        for wrong in [
            "trace=opne",
            "A=b",
            "trace=/(",
            "status=well",
            "signal=SIGNONE",
            "path=[a",
        ] {
            let error = Filter::parse(wrong).unwrap_err();
            assert!(
                !error.contains('\n') && !error.is_empty(),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn paths_signals_and_statuses() {
        let mut f = Filter::parse("path=/etc/*.con[f-g]").unwrap();
        assert!(f.shows_path(b"/etc/a/b.conf") && !f.shows_path(b"/etc/a.con"));
        assert!(!f.shows_path(b"/x/etc/a.conf"));
        f.add_path("/lit*").unwrap();
        assert!(f.shows_path(b"/lit*") && !f.shows_path(b"/litter"));
        let numbers = f.numbers().unwrap();
        assert!(numbers.contains(&(libc::SYS_read as u32)));
        assert!(!numbers.contains(&(libc::SYS_getpid as u32)));
        let f = Filter::parse("signal=!chld,SIGUSR1").unwrap();
        assert!(!f.shows_signal(libc::SIGCHLD) && f.shows_signal(libc::SIGTERM));
        let mut f = Filter::parse("status=failed,unfinished").unwrap();
        assert!(f.shows_status(Status::Failed) && !f.shows_status(Status::Successful));
        f.only(Status::Successful);
        assert!(f.shows_status(Status::Successful) && !f.shows_status(Status::Failed));
        assert!(Filter::parse("all").unwrap().numbers().is_none());
    }
}

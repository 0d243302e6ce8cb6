//! Writes a run as strace(1) writes it with `-f`: a line a call, signals, stops and ends.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use duet_intercept::{ARCH_X86_64, Call, Ended, Observer, Tid};
use duet_syscalls::table::{self, Family, Row, Type};

use crate::decode::Decoder;
use crate::{sets, signals, structs};

/// Which calls are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Their numbers; `None`: all.
    shown: Option<HashSet<u32>>,
}

impl Filter {
    /// From strace's `-e trace=` list: names of calls, and of the sets `file`, `process`, `network`,
    /// `memory`, `signal`, `ipc`, `desc` with or without a `%`; a `!` before it all turns it round. An
    /// error names what is neither.
    pub fn parse(text: &str) -> Result<Filter, String> {
        let list = text.strip_prefix("trace=").unwrap_or(text);
        let (inverse, list) = match list.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, list),
        };
        let mut named = HashSet::new();
        for word in list.split(',').filter(|w| !w.is_empty()) {
            let rows = table::rows().iter().filter(|row| is_named(row, word));
            let before = named.len();
            named.extend(rows.map(|row| row.nr));
            if named.len() == before && !matches!(word, "none" | "all") {
                return Err(format!(
                    "{word:?} is neither a system call nor a set of them"
                ));
            }
        }
        if list == "all" {
            return Ok(Filter::default());
        }
        if inverse {
            let all = table::rows().iter().map(|row| row.nr);
            named = all.filter(|nr| !named.contains(nr)).collect();
        }
        Ok(Filter { shown: Some(named) })
    }

    fn shows(&self, nr: u32) -> bool {
        self.shown.as_ref().is_none_or(|s| s.contains(&nr))
    }
}

/// Whether a word of a filter means this call.
fn is_named(row: &Row, word: &str) -> bool {
    let has = |wanted: fn(&Type) -> bool| row.args.iter().any(|a| wanted(&a.ty));
    match word.strip_prefix('%').unwrap_or(word) {
        "file" => has(|t| matches!(t, Type::Path)),
        "desc" => has(|t| matches!(t, Type::Fd | Type::DirFd)),
        "process" => matches!(
            row.name,
            "fork"
                | "vfork"
                | "clone"
                | "clone3"
                | "execve"
                | "execveat"
                | "exit"
                | "exit_group"
                | "wait4"
                | "waitid"
                | "kill"
                | "tkill"
                | "tgkill"
                | "rt_sigqueueinfo"
                | "rt_tgsigqueueinfo"
                | "pidfd_open"
                | "pidfd_send_signal"
        ),
        "network" | "net" => row.family == Family::Network,
        "memory" => row.family == Family::Memory,
        "signal" => row.family == Family::Signal,
        "ipc" => row.family == Family::Ipc && row.name != "futex",
        _ => row.name == word,
    }
}

/// What is known of a thread.
#[derive(Default)]
struct Thread {
    /// Its id in the sandbox.
    pid: i32,
    /// A call that it is in and that is shown: what was written of it at its entry.
    call: Option<Call>,
    /// It loads a program: the calls of the stub are not the program's. The page that they come from,
    /// once known.
    loading: Option<Option<u64>>,
}

struct State {
    out: Box<dyn Write + Send>,
    threads: HashMap<i32, Thread>,
    /// Whose line has no end yet.
    open: Option<i32>,
    /// The first program runs; what comes before is Duet's own.
    started: bool,
    /// The output takes no more.
    broken: bool,
}

/// An observer that writes.
pub struct Recorder {
    filter: Filter,
    /// Bytes of strings that are shown.
    limit: usize,
    /// The first program and its arguments, whose `execve` is Duet's own.
    first: (Vec<u8>, Vec<Vec<u8>>, usize),
    state: Mutex<State>,
}

/// The page that an instruction lies in.
fn page(call: &Call) -> u64 {
    call.ip & !0xfff
}

/// The innermost id of a thread; the outer one if it is gone.
fn guest_id(tid: Tid) -> i32 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", tid.0)).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("NSpid:"));
    let last = line.and_then(|l| l.split_ascii_whitespace().next_back());
    last.and_then(|n| n.parse().ok()).unwrap_or(tid.0)
}

impl Recorder {
    /// Writes to `out` what `filter` shows. `limit`: bytes of strings. `program`, `args` (the first its
    /// name) and the number of variables are those of the first program.
    pub fn new(
        out: Box<dyn Write + Send>,
        filter: Filter,
        limit: usize,
        program: Vec<u8>,
        args: Vec<Vec<u8>>,
        variables: usize,
    ) -> Recorder {
        Recorder {
            filter,
            limit,
            first: (program, args, variables),
            state: Mutex::new(State {
                out,
                threads: HashMap::new(),
                open: None,
                started: false,
                broken: false,
            }),
        }
    }

    /// Writes what is still kept back. To be called when all has ended: threads of the engine may hold
    /// the recorder for longer.
    pub fn finish(&self) -> std::io::Result<()> {
        self.state().out.flush()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decoder<'a>(&self, call: &'a Call, row: &'a Row) -> Decoder<'a> {
        Decoder {
            call,
            row,
            limit: self.limit,
            name_of: None,
        }
    }
}

impl State {
    fn thread(&mut self, tid: Tid) -> &mut Thread {
        self.threads.entry(tid.0).or_insert_with(|| Thread {
            pid: guest_id(tid),
            ..Thread::default()
        })
    }

    fn write(&mut self, text: &str) {
        if self.broken {
            return;
        }
        if let Err(e) = self.out.write_all(text.as_bytes()) {
            self.broken = true;
            log::error!("the trace cannot be written: {e}");
        }
    }

    /// Begins a line of `tid`'s: whoever has not finished one is told of.
    fn begin(&mut self, tid: Tid, text: &str) {
        let pid = self.thread(tid).pid;
        let many = self.threads.len() > 1;
        let unfinished = self.open.take().is_some();
        let mut line = String::new();
        if unfinished {
            line.push_str(" <unfinished ...>\n");
        }
        if many {
            let _ = write!(line, "[pid {pid:>5}] ");
        }
        line.push_str(text);
        self.write(&line);
    }

    fn line(&mut self, tid: Tid, text: &str) {
        self.begin(tid, &format!("{text}\n"));
    }
}

impl Observer for Recorder {
    fn entered(&self, call: &Call) {
        let mut state = self.state();
        if !state.started {
            return;
        }
        let thread = state.thread(call.tid);
        if let Some(stub) = &mut thread.loading {
            if call.nr == duet_loader::stub::STUB_NR {
                *stub = Some(page(call));
                return;
            }
            if stub.is_none_or(|p| p == page(call)) {
                return;
            }
            thread.loading = None;
        }
        let row = match table::lookup(call.nr) {
            Some(row) if call.arch == ARCH_X86_64 => row,
            _ => return,
        };
        if !self.filter.shows(call.nr) {
            return;
        }
        thread.call = Some(*call);
        let decoder = self.decoder(call, row);
        let mut text = format!("{}(", row.name);
        decoder.args(&mut text, 0, decoder.known_at_entry(), None);
        state.begin(call.tid, &text);
        state.open = Some(call.tid.0);
    }

    fn wants_result(&self, call: &Call) -> bool {
        self.state().thread(call.tid).call.is_some()
    }

    fn left(&self, call: &Call, how: Ended) {
        let result = match how {
            Ended::Answered(n) | Ended::Ran(n) => n,
            Ended::Unknown => return,
        };
        let mut state = self.state();
        let Some(begun) = state.thread(call.tid).call.take() else {
            return;
        };
        let Some(row) = table::lookup(begun.nr) else {
            return;
        };
        let decoder = self.decoder(&begun, row);
        let mut text = String::new();
        decoder.args(
            &mut text,
            decoder.known_at_entry(),
            row.args.len(),
            Some(result),
        );
        text.push_str(") = ");
        decoder.result(&mut text, result);
        text.push('\n');
        if state.open == Some(call.tid.0) {
            state.open = None;
            state.write(&text);
        } else {
            let resumed = format!("<... {} resumed>{text}", row.name);
            state.begin(call.tid, &resumed);
        }
    }

    fn signal(&self, tid: Tid, info: &libc::siginfo_t) {
        // SAFETY: a plain structure of the kernel's, read as the bytes that it is.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                std::ptr::from_ref(info).cast::<u8>(),
                size_of::<libc::siginfo_t>(),
            )
        };
        let mut text = format!("--- {} ", sets::signal(info.si_signo.into()));
        signals::siginfo(&mut text, &structs::Fields(bytes));
        text.push_str(" ---");
        self.state().line(tid, &text);
    }

    fn stopped(&self, tid: Tid, signal: i32) {
        let text = format!("--- stopped by {} ---", sets::signal(signal.into()));
        self.state().line(tid, &text);
    }

    fn started(&self, _parent: Tid, tid: Tid) {
        self.state().thread(tid);
    }

    fn executed(&self, tid: Tid, former: Tid) {
        let mut state = self.state();
        let first = !std::mem::replace(&mut state.started, true);
        let begun = state.threads.remove(&former.0).and_then(|t| t.call);
        let thread = state.thread(tid);
        thread.loading = Some(None);
        thread.call = None;
        if let Some(call) = begun {
            let name = table::lookup(call.nr).map_or("execve", |row| row.name);
            if state.open == Some(former.0) {
                state.open = None;
                state.write(") = 0\n");
            } else {
                state.begin(tid, &format!("<... {name} resumed>) = 0\n"));
            }
        } else if first && self.filter.shows(libc::SYS_execve as u32) {
            let quoted = |s: &[u8]| format!("\"{}\"", s.escape_ascii());
            let (program, args, variables) = &self.first;
            let args: Vec<String> = args.iter().map(|a| quoted(a)).collect();
            let text = format!(
                "execve({}, [{}], /* {variables} vars */) = 0",
                quoted(program),
                args.join(", ")
            );
            state.line(tid, &text);
        }
    }

    fn ended(&self, tid: Tid, status: i32) {
        let mut state = self.state();
        if !state.threads.contains_key(&tid.0) {
            return;
        }
        if state.thread(tid).call.take().is_some() && state.open == Some(tid.0) {
            state.open = None;
            state.write(") = ?\n");
        }
        let text = match libc::WIFSIGNALED(status) {
            true => {
                let core = if libc::WCOREDUMP(status) {
                    " (core dumped)"
                } else {
                    ""
                };
                let name = sets::signal(libc::WTERMSIG(status).into());
                format!("+++ killed by {name}{core} +++")
            }
            false => format!("+++ exited with {} +++", libc::WEXITSTATUS(status)),
        };
        state.line(tid, &text);
        state.threads.remove(&tid.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_mean_what_straces_do() {
        let shows = |filter: &str, name: &str| {
            let nr = table::by_name(name).unwrap().nr;
            Filter::parse(filter).unwrap().shows(nr)
        };
        assert!(shows("trace=open,close", "close") && !shows("trace=open,close", "read"));
        assert!(shows("file", "openat") && shows("%file", "chmod") && !shows("file", "read"));
        assert!(shows("trace=!file", "read") && !shows("trace=!file", "openat"));
        assert!(shows("network", "connect") && shows("process", "execve"));
        assert!(shows("all", "read") && !shows("none", "read"));
        assert!(Filter::parse("trace=opne").is_err());
    }
}

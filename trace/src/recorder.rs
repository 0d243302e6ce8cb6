//! Shows a run as it goes: the observer that an engine tells of calls, signals and ends.

mod places;
mod show;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duet_intercept::{ARCH_X86_64, Call, Ended, Errno, Names, Observer, Tid, mem};
use duet_loader::stub::STUB_NR;
use duet_syscalls::accounts::{self, Served};
use duet_syscalls::table::{self, Disposition, Family, Ret, Row, Type};

use crate::counts::{Counts, Order};
use crate::decode::Args;
use crate::filter::Filter;
use crate::format::{Lines, Style, Whose};
use crate::json::Event;
use crate::output::Output;
use crate::structs::Fields;
use crate::summary::Summary;
use crate::summary::collect::Collector;
use crate::{sets, signals};

/// How often what is kept back is written.
const FLUSH: Duration = Duration::from_millis(100);

/// Calls of one thread that are kept at most: nobody tells of the end of one that is killed.
const MOST_CALLS: usize = 4;

/// Threads of which ends are not told, before those that are gone are looked for.
const MANY_THREADS: usize = 1024;

/// Which descriptors are shown with what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// None.
    #[default]
    Numbers,
    /// All, with their paths (`-y`).
    Paths,
    /// All, with the addresses of sockets and the numbers of devices (`-yy`).
    Details,
}

/// In what form.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Lines of text.
    Text(Style),
    /// JSON Lines.
    Json,
}

/// Whether calls are shown, counted, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// Each as it is made.
    #[default]
    Calls,
    /// Numbers of them, at the end.
    Counts(Order),
    /// Both.
    Both(Order),
    /// Neither: there is a summary.
    Nothing,
}

/// What is shown, and how.
pub struct Settings {
    /// Which calls and signals.
    pub filter: Filter,
    /// Bytes of strings and buffers.
    pub limit: usize,
    /// Whether structures and arrays are shown whole.
    pub full: bool,
    /// Names of descriptors.
    pub naming: Naming,
    /// Text or JSON.
    pub form: Form,
    /// Calls or numbers.
    pub show: Show,
    /// Whether it is explained what became of each.
    pub explain: bool,
    /// Whether a summary is gathered.
    pub summary: bool,
    /// The engine tells of intercepted calls only, from several threads, and of no signals and ends.
    pub fast: bool,
    /// The first program's arguments, its name as given the first of them; its `execve` is Duet's own.
    pub first: Vec<Vec<u8>>,
    /// Its environment.
    pub variables: Vec<Vec<u8>>,
}

/// A call that a thread is in and that is shown.
struct Begun {
    call: Call,
    row: &'static Row,
    name: Cow<'static, str>,
    args: Args,
    /// What is kept of memory that the call changes.
    before: u64,
    /// What has been written of the arguments.
    written: usize,
    /// Its line has begun.
    visible: bool,
    at: SystemTime,
    clock: Instant,
}

/// What is known of a thread.
#[derive(Default)]
struct Thread {
    /// Its id, and that of its process, in the sandbox.
    tid: i32,
    pid: i32,
    /// That of its process outside.
    group: i32,
    /// Calls that it is in: one, or two if the end of the first has yet to be told.
    calls: Vec<Begun>,
    /// It loads a program: the calls of the stub are not the program's.
    loading: Option<Loading>,
    /// With `--fast`: what was done for its call before it reported as the stub.
    before_report: Option<Arc<Served>>,
}

/// What is known of a stub that loads a program.
#[derive(Clone, Copy, Default)]
struct Loading {
    /// The page that its calls come from, once it has reported.
    page: Option<u64>,
    /// How many more calls it may make, once that is known: its page stays, and others can call from there.
    left: Option<u64>,
}

struct State {
    lines: Lines,
    threads: HashMap<i32, Thread>,
    counts: Counts,
    summary: Option<Collector>,
    /// Where the first program was found.
    program: Vec<u8>,
    /// The first program runs; what comes before is Duet's own.
    started: bool,
    /// How many threads there may be before those that are gone are looked for.
    most: usize,
}

/// An observer that writes.
pub struct Recorder {
    settings: Settings,
    state: Mutex<State>,
    names: OnceLock<Arc<dyn Names>>,
    me: Weak<Recorder>,
}

/// A call with a number that the table does not have.
static UNKNOWN: Row = Row {
    nr: u32::MAX,
    name: "",
    args: &[REGISTER; 6],
    ret: Ret::Value,
    family: Family::System,
    disposition: Disposition::Refused(Errno::ENOSYS),
    note: "No call has this number.",
    sense: "",
    own_errors: &[],
};

const REGISTER: table::Arg = table::Arg {
    name: "arg",
    ty: Type::Word,
};

/// The page that an instruction lies in.
fn page(call: &Call) -> u64 {
    call.ip & !0xfff
}

fn seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Microseconds, so that the number is short.
    since.as_micros() as f64 / 1e6
}

impl Thread {
    /// Takes the call that `is` means.
    fn take(&mut self, is: impl Fn(&Begun) -> bool) -> Option<Begun> {
        let at = self.calls.iter().position(is)?;
        Some(self.calls.remove(at))
    }

    /// What `/proc` says of it; of one that is gone, its outer id.
    fn new(tid: Tid) -> Thread {
        let text = mem::read_proc(&format!("/proc/{}/status", tid.0)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = |name: &str| -> Option<i32> {
            let line = text.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_ascii_whitespace().next_back()?.parse().ok()
        };
        let inner = last("NSpid:").unwrap_or(tid.0);
        Thread {
            tid: inner,
            pid: last("NStgid:").unwrap_or(inner),
            group: last("Tgid:").unwrap_or(tid.0),
            ..Thread::default()
        }
    }
}

impl State {
    fn thread(&mut self, tid: Tid) -> &mut Thread {
        self.threads
            .entry(tid.0)
            .or_insert_with(|| Thread::new(tid))
    }

    fn whose(&mut self, tid: Tid) -> Whose {
        let shown = self.thread(tid).tid;
        Whose {
            tid: tid.0,
            shown,
            many: self.threads.len() > 1,
        }
    }

    /// Forgets threads of whose end nobody told.
    fn prune(&mut self) {
        if self.threads.len() < self.most {
            return;
        }
        let gone = |tid: &i32| !std::path::Path::new(&format!("/proc/{tid}")).exists();
        self.threads.retain(|tid, _| !gone(tid));
        self.most = MANY_THREADS.max(2 * self.threads.len());
    }
}

impl Recorder {
    /// Writes to `out`.
    pub fn new(out: Output, settings: Settings) -> Arc<Recorder> {
        let style = match settings.form {
            Form::Text(style) => style,
            Form::Json => Style::default(),
        };
        let summary = settings.summary.then(|| Collector::new(&settings.first));
        if settings.explain || settings.summary {
            // What was done for a call is shown as it would be done without.
            mem::read_anew();
        }
        Arc::new_cyclic(|me| Recorder {
            state: Mutex::new(State {
                lines: Lines::new(out, style),
                threads: HashMap::new(),
                counts: Counts::default(),
                summary,
                program: Vec::new(),
                started: false,
                most: MANY_THREADS,
            }),
            settings,
            names: OnceLock::new(),
            me: me.clone(),
        })
    }

    /// The summary, if one was gathered. To be called once, when all has ended.
    pub fn summary(&self) -> Option<Summary> {
        let collector = self.state().summary.take();
        collector.map(Collector::finish)
    }

    /// Writes the counts, and what is still kept back. To be called when all has ended: threads of the
    /// engine may hold the recorder for longer. `unseen`: reads and writes that the kernel counted.
    pub fn finish(&self, unseen: Option<(u64, u64)>) -> std::io::Result<()> {
        let mut state = self.state();
        if let Show::Counts(order) | Show::Both(order) = self.settings.show {
            let text = match self.settings.form {
                Form::Text(_) => state.counts.table(order),
                Form::Json => self.count_lines(&state.counts, order),
            };
            state.lines.raw(0, &text);
        }
        if self.settings.fast {
            let (reads, writes) = unseen.unzip();
            let line = match self.settings.form {
                Form::Json => Event::Unseen { reads, writes }.line(),
                Form::Text(_) => {
                    let counted = match unseen {
                        Some((r, w)) => format!(" (the kernel counted {r} reads and {w} writes)"),
                        None => String::new(),
                    };
                    format!(
                        "--- not seen: native calls{counted}, results of calls that the kernel ran, \
                         signals, and ends by signals ---\n"
                    )
                }
            };
            state.lines.raw(0, &line);
        }
        state.lines.finish()
    }

    fn count_lines(&self, counts: &Counts, order: Order) -> String {
        let line = |(call, c): (&'static str, crate::counts::Count)| {
            let (calls, errors, seconds) = (c.calls, c.errors, c.time.as_secs_f64());
            Event::Count {
                call,
                calls,
                errors,
                seconds,
            }
            .line()
        };
        counts.sorted(order).into_iter().map(line).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shows_calls(&self) -> bool {
        matches!(self.settings.show, Show::Calls | Show::Both(_))
    }

    fn shows_text(&self) -> bool {
        self.shows_calls() && matches!(self.settings.form, Form::Text(_))
    }

    /// Looks at a call of the loader's. True: it is none of the program's.
    fn is_loaders(&self, state: &mut State, call: &Call) -> bool {
        let reports = call.nr == STUB_NR;
        let thread = state.thread(call.tid);
        if reports && self.settings.fast {
            // Anybody can say so. What is answered tells whether it is true.
            thread.before_report = accounts::last(call.tid);
            return true;
        }
        let Some(stub) = &mut thread.loading else {
            return reports;
        };
        if reports {
            stub.page = Some(page(call));
            return true;
        }
        let is_its = stub.page.is_none_or(|p| p == page(call));
        let has_any = stub.left != Some(0);
        stub.left = stub.left.map(|n| n.saturating_sub(1));
        if !(is_its && has_any) {
            thread.loading = None;
        }
        is_its && has_any
    }

    /// The supervisor has answered a report of the stub's: with the number of steps that are left to it, or
    /// that it is none, or cannot load the program.
    fn reported(&self, call: &Call, how: Ended) {
        let steps = match how {
            Ended::Answered(n) => u64::try_from(n).ok(),
            _ => None,
        };
        let mut state = self.state();
        if self.settings.fast {
            let served = state.thread(call.tid).before_report.take();
            if steps.is_none() {
                return;
            }
            self.loaded(&mut state, call.tid, call.tid, served);
            state.thread(call.tid).loading = Some(Loading {
                page: Some(page(call)),
                left: None,
            });
        }
        if let Some(stub) = &mut state.thread(call.tid).loading {
            // The last step is to let go of its buffer.
            stub.left = Some(steps.unwrap_or(0).saturating_add(1));
        }
    }

    /// A program has taken the place of another in the process of `tid`. `served`: what was done for the
    /// `execve`.
    fn loaded(&self, state: &mut State, tid: Tid, former: Tid, served: Option<Arc<Served>>) {
        let first = !std::mem::replace(&mut state.started, true);
        let executes = |t: &Thread| t.calls.iter().any(|b| b.executes());
        // Without an event of its own, it is seen when it reports.
        let caller = match state.threads.get(&former.0) {
            Some(t) if executes(t) => Some(former.0),
            _ => state
                .threads
                .iter()
                .find(|(_, t)| t.group == tid.0 && executes(t))
                .map(|(n, _)| *n),
        };
        let begun = caller
            .and_then(|n| state.threads.get_mut(&n))
            .and_then(|t| t.take(Begun::executes));
        if let Some(caller) = caller.filter(|&n| n != tid.0) {
            let whose = state.whose(Tid(caller));
            let words = format!("+++ superseded by execve in pid {} +++", whose.shown);
            if self.shows_text() {
                let leader = state.whose(tid);
                state.lines.end(leader, SystemTime::now(), &words);
            }
            state.threads.remove(&caller);
            state.lines.forget(whose);
        }
        if self.settings.fast {
            // The others of the process have ended.
            state.threads.retain(|&n, t| n == tid.0 || t.group != tid.0);
        }
        let thread = state.thread(tid);
        thread.loading = Some(Loading::default());
        thread.calls.clear();
        let pid = thread.pid;
        if let Some(summary) = &mut state.summary {
            let served = served.filter(|_| !first);
            summary.executed(pid, served.as_deref(), &state.program);
        }
        match begun {
            Some(begun) => self.finish_call(state, tid, begun, Ended::Answered(0), "0"),
            None if first => self.first_program(state, tid),
            None => (),
        }
    }
}

impl Begun {
    fn executes(&self) -> bool {
        matches!(
            i64::from(self.call.nr),
            libc::SYS_execve | libc::SYS_execveat
        )
    }

    /// Whether all arguments have been decoded.
    fn complete(&self) -> bool {
        let last = self.args.each().map(|(i, _)| i).max();
        last.is_some_and(|i| i + 1 >= self.row.args.len())
            || self.row.args.is_empty()
            || self.row.name == "clone"
    }
}

impl Observer for Recorder {
    fn begins(&self, names: Arc<dyn Names>, program: &[u8]) {
        self.state().program = program.to_vec();
        if self.names.set(names).is_err() {
            log::error!("the trace was begun twice");
        }
        let me = self.me.clone();
        let flusher = std::thread::Builder::new().name("duet-trace".into());
        let spawned = flusher.spawn(move || {
            loop {
                std::thread::sleep(FLUSH);
                let Some(recorder) = me.upgrade() else {
                    return;
                };
                if recorder.state().lines.flush().is_err() {
                    return;
                }
            }
        });
        if let Err(e) = spawned {
            log::warn!("starting a thread: {e}; the trace comes in blocks");
        }
    }

    fn entered(&self, call: &Call) {
        {
            let mut state = self.state();
            let first = self.settings.fast && call.nr == STUB_NR;
            if !(state.started || first) {
                return;
            }
            if self.is_loaders(&mut state, call) {
                return;
            }
            if self.settings.fast {
                state.prune();
            }
        }
        let filter = &self.settings.filter;
        let (row, name) = match table::lookup(call.nr) {
            _ if call.arch != ARCH_X86_64 => return,
            Some(row) => (row, Cow::Borrowed(row.name)),
            None => (&UNKNOWN, Cow::Owned(format!("syscall_{:#x}", call.nr))),
        };
        let ends = matches!(i64::from(call.nr), libc::SYS_exit | libc::SYS_exit_group);
        let shown = filter.shows(call.nr) && (!filter.by_path() || self.names_path(call, row));
        let last = self.settings.fast && ends;
        if !(shown || last) {
            return;
        }
        let (at, clock) = (SystemTime::now(), Instant::now());
        let mut args = Args::default();
        let (mut partial, mut before) = (false, 0);
        if self.shows_calls() && shown {
            self.decode(call, row, 0, |d| {
                before = d.before();
                let known = d.known_at_entry();
                partial = known < row.args.len();
                d.args(&mut args, 0, known, None);
            });
        }
        let mut state = self.state();
        let visible = self.shows_text() && !filter.by_status() && !self.settings.fast;
        if visible {
            let whose = state.whose(call.tid);
            state
                .lines
                .begin_call(whose, at, &name, &args.text, partial);
        }
        let written = if visible { args.text.len() } else { 0 };
        let begun = Begun {
            call: *call,
            row,
            name,
            args,
            before,
            written,
            visible,
            at,
            clock,
        };
        if last {
            // It does not come back, and nobody tells of its end.
            if shown {
                self.finish_call(&mut state, call.tid, begun, Ended::Unknown, "?");
            }
            let code = call.args.first().map_or(0, |&n| n as i32 & 0xff);
            return self.gone(&mut state, call.tid, code << 8);
        }
        let thread = state.thread(call.tid);
        if thread.calls.len() >= MOST_CALLS {
            thread.calls.remove(0);
        }
        thread.calls.push(begun);
    }

    fn wants_result(&self, call: &Call) -> bool {
        let mut state = self.state();
        let calls = &state.thread(call.tid).calls;
        calls.iter().any(|b| b.call.id == call.id)
    }

    fn withdrawn(&self, call: &Call) {
        let mut state = self.state();
        // It has no line yet.
        state.thread(call.tid).take(|b| b.call.id == call.id);
    }

    fn left(&self, call: &Call, how: Ended) {
        if call.nr == STUB_NR {
            return self.reported(call, how);
        }
        let executes = matches!(i64::from(call.nr), libc::SYS_execve | libc::SYS_execveat);
        if how == Ended::Unknown && self.settings.fast && executes {
            // It shows when the new program reports.
            return;
        }
        let begun = self.state().thread(call.tid).take(|b| b.call.id == call.id);
        let Some(mut begun) = begun else {
            return;
        };
        let mut meaning = String::from("?");
        if self.shows_calls() {
            let result = match how {
                Ended::Answered(n) | Ended::Ran(n) => Some(n),
                Ended::Unknown => None,
            };
            let (call, row, before) = (begun.call, begun.row, begun.before);
            if result.is_some() || self.settings.fast {
                self.decode(&call, row, before, |d| {
                    d.args(&mut begun.args, d.known_at_entry(), row.args.len(), result);
                    if let Some(n) = result {
                        meaning.clear();
                        d.result(&mut meaning, n);
                    }
                });
            }
        }
        let mut state = self.state();
        self.finish_call(&mut state, call.tid, begun, how, &meaning);
    }

    fn signal(&self, tid: Tid, info: &libc::siginfo_t) {
        if !self.settings.filter.shows_signal(info.si_signo) || !self.shows_calls() {
            return;
        }
        // SAFETY: a plain structure of the kernel's, read as the bytes that it is.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                std::ptr::from_ref(info).cast::<u8>(),
                size_of::<libc::siginfo_t>(),
            )
        };
        let mut text = String::new();
        signals::siginfo(&mut text, &Fields(bytes));
        let (name, at) = (sets::signal(info.si_signo.into()), SystemTime::now());
        let mut state = self.state();
        if !state.started {
            return;
        }
        let whose = state.whose(tid);
        if matches!(self.settings.form, Form::Json) {
            let thread = state.thread(tid);
            let (pid, tid) = (thread.pid, thread.tid);
            let (signal, text, time) = (&name, &text, seconds(at));
            let line = Event::Signal {
                time,
                pid,
                tid,
                signal,
                text,
            }
            .line();
            return state.lines.raw(whose.shown, &line);
        }
        state
            .lines
            .signal(whose, at, &format!("--- {name} {text} ---"));
    }

    fn stopped(&self, tid: Tid, signal: i32) {
        let (name, at) = (sets::signal(signal.into()), SystemTime::now());
        let mut state = self.state();
        if !self.shows_calls() || !state.started || !self.settings.filter.shows_signal(signal) {
            return;
        }
        let whose = state.whose(tid);
        if matches!(self.settings.form, Form::Json) {
            let thread = state.thread(tid);
            let (pid, tid) = (thread.pid, thread.tid);
            let (signal, time) = (&name, seconds(at));
            let line = Event::Stop {
                time,
                pid,
                tid,
                signal,
            }
            .line();
            return state.lines.raw(whose.shown, &line);
        }
        state
            .lines
            .signal(whose, at, &format!("--- stopped by {name} ---"));
    }

    fn started(&self, parent: Tid, tid: Tid) {
        let mut state = self.state();
        let made = state.thread(tid);
        let (pid, number) = (made.pid, made.tid);
        if state.started && state.summary.is_some() {
            let parent = state.thread(parent).pid;
            if let Some(summary) = &mut state.summary {
                summary.started(parent, pid, number);
            }
        }
        if !self.shows_calls() || !state.started || matches!(self.settings.form, Form::Text(_)) {
            return;
        }
        let parent = state.thread(parent).tid;
        let whose = state.whose(tid);
        let thread = state.thread(tid);
        let (pid, tid, time) = (thread.pid, thread.tid, seconds(SystemTime::now()));
        let line = Event::Start {
            time,
            pid,
            tid,
            parent,
        }
        .line();
        state.lines.raw(whose.shown, &line);
    }

    fn executed(&self, tid: Tid, former: Tid) {
        let mut state = self.state();
        let served = accounts::last(former);
        self.loaded(&mut state, tid, former, served);
    }

    fn ended(&self, tid: Tid, status: i32) {
        accounts::forget(tid);
        let mut state = self.state();
        if state.threads.contains_key(&tid.0) {
            self.gone(&mut state, tid, status);
        }
    }
}

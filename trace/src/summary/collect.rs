//! Gathers a summary while a program runs. What a guest can make without end – processes, names, failures –
//! has a bound, beyond which it is only counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use duet_intercept::Call;
use duet_syscalls::accounts::{self, Served};
use duet_syscalls::table::{self, Family, Row, Verdict};
use duet_vfs::account::Step;

use super::{
    Activity, Dropped, Failure, File, Group, Host, Kinds, Layer, Process, Program, SCHEMA, Summary,
    Uses,
};
use crate::explain::{self, Explanation};
use crate::{errno_text, sets};

/// Processes that are kept.
const MAX_PROCESSES: usize = 2048;
/// Programs of a process that are kept.
const MAX_PROGRAMS: usize = 16;
/// Files that are kept.
const MAX_FILES: usize = 4096;
/// Kinds of failures that are kept.
const MAX_FAILURES: usize = 512;
/// Spans of the activity.
const SPANS: usize = 128;
/// The first length of a span; it doubles whenever the run outgrows them.
const FIRST_SPAN: Duration = Duration::from_micros(500);

/// What calls are called whose number nobody knows.
const UNKNOWN: &str = "(unknown)";

/// Calls of one name.
#[derive(Default)]
struct Count {
    calls: Kinds,
    failed: u64,
    time: Duration,
    longest: Duration,
}

impl Count {
    fn add(&mut self, other: &Count) {
        self.calls.native += other.calls.native;
        self.calls.emulated += other.calls.emulated;
        self.calls.refused += other.calls.refused;
        self.failed += other.failed;
        self.time += other.time;
        self.longest = self.longest.max(other.longest);
    }

    fn group(&self, name: &'static str, family: Family) -> Group {
        Group {
            name,
            family: family.name(),
            calls: self.calls,
            failed: self.failed,
            seconds: self.time.as_secs_f64(),
            longest: self.longest.as_secs_f64(),
        }
    }
}

fn count(kinds: &mut Kinds, verdict: &Verdict) {
    match verdict {
        Verdict::Native => kinds.native += 1,
        Verdict::Emulated => kinds.emulated += 1,
        Verdict::Refused(_) => kinds.refused += 1,
    }
}

/// A summary that grows.
pub struct Collector {
    start: Instant,
    program: Vec<String>,
    processes: Vec<Process>,
    /// Where each living process stands in `processes`.
    living: HashMap<i32, usize>,
    by_number: HashMap<u32, Count>,
    host: HashMap<&'static str, (u64, Duration)>,
    files: HashMap<Vec<u8>, (String, Uses)>,
    failures: HashMap<(u32, i32, String), u64>,
    span: Duration,
    spans: Vec<Kinds>,
    dropped: Dropped,
}

impl Collector {
    /// Begins now; `program` and its arguments.
    pub fn new(program: &[Vec<u8>]) -> Collector {
        Collector {
            start: Instant::now(),
            program: program.iter().map(|a| shown(a)).collect(),
            processes: Vec::new(),
            living: HashMap::new(),
            by_number: HashMap::new(),
            host: HashMap::new(),
            files: HashMap::new(),
            failures: HashMap::new(),
            span: FIRST_SPAN,
            spans: Vec::new(),
            dropped: Dropped::default(),
        }
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The process of that number, made now if it is not known.
    fn process(&mut self, pid: i32, parent: Option<i32>) -> Option<&mut Process> {
        let at = match self.living.get(&pid) {
            Some(&at) => at,
            None if self.processes.len() >= MAX_PROCESSES => {
                self.dropped.processes += u64::from(parent.is_some());
                return None;
            }
            None => {
                let now = self.now();
                // A process runs what its parent runs, until it says otherwise.
                let inherited = parent.and_then(|p| self.living.get(&p));
                let inherited = inherited.and_then(|&at| self.processes.get(at));
                let path = inherited.and_then(|p| p.programs.last());
                let path = path.map_or_else(String::new, |p| p.path.clone());
                self.processes.push(Process {
                    pid,
                    parent,
                    started: now,
                    ended: now,
                    status: None,
                    signal: None,
                    threads: 1,
                    calls: 0,
                    programs: vec![Program { time: now, path }],
                });
                self.living.insert(pid, self.processes.len() - 1);
                self.processes.len() - 1
            }
        };
        self.processes.get_mut(at)
    }

    /// Thread `tid` of process `pid` was made by a thread of `parent`.
    pub fn started(&mut self, parent: i32, pid: i32, tid: i32) {
        let thread = tid != pid;
        let parent = Some(parent).filter(|p| *p != pid);
        let of_parent = parent
            .and_then(|p| self.living.get(&p))
            .and_then(|&at| self.processes.get(at)?.programs.last())
            .map(|p| p.path.clone());
        let Some(process) = self.process(pid, parent) else {
            return;
        };
        process.threads += u64::from(thread);
        // Its first call may have come before the news of it.
        process.parent = process.parent.or(parent);
        if let ([only], Some(path)) = (&mut process.programs[..], of_parent)
            && only.path.is_empty()
        {
            only.path = path;
        }
    }

    /// Process `pid` has become another program, by a call that was served so; the first has become
    /// `first` without one.
    pub fn executed(&mut self, pid: i32, served: Option<&Served>, first: &[u8]) {
        let path = shown(served.map_or(first, program_of));
        let time = self.now();
        let Some(process) = self.process(pid, None) else {
            return;
        };
        if let [only] = &mut process.programs[..]
            && only.path.is_empty()
        {
            only.path = path;
        } else if process.programs.len() < MAX_PROGRAMS {
            process.programs.push(Program { time, path });
        }
    }

    /// A call of process `pid` has ended, with this result if it is known.
    pub fn called(
        &mut self,
        pid: i32,
        call: &Call,
        row: &'static Row,
        result: Option<i64>,
        took: Duration,
    ) {
        let verdict = table::verdict(call.arch, call.nr, &call.args);
        let errno = result.filter(|n| (-4095..0).contains(n));
        // What it returns is the result of the call that the signal had interrupted.
        let errno = errno.filter(|_| i64::from(row.nr) != libc::SYS_rt_sigreturn);
        let errno = errno.and_then(|n| i32::try_from(-n).ok());
        if let Some(process) = self.process(pid, None) {
            process.calls += 1;
        }
        let known = self.by_number.entry(row.nr).or_default();
        count(&mut known.calls, &verdict);
        known.failed += u64::from(errno.is_some());
        known.time += took;
        known.longest = known.longest.max(took);
        self.at_this_time(&verdict);
        if let Some(served) = accounts::of(call) {
            self.account(&served);
        }
        if let Some(errno) = errno {
            let why = Explanation::new(call, row, result)
                .why()
                .unwrap_or_default();
            // The name stands at its start.
            let why = why.split_once(": ").map_or("", |(_, why)| why).to_owned();
            let known = self.failures.len() < MAX_FAILURES;
            let key = (row.nr, errno, why);
            match self.failures.get_mut(&key) {
                Some(n) => *n += 1,
                None if known => drop(self.failures.insert(key, 1)),
                None => self.dropped.failures += 1,
            }
        }
    }

    /// Thread `tid` of process `pid` has ended with this wait status.
    pub fn ended(&mut self, pid: i32, tid: i32, status: i32) {
        let now = self.now();
        if tid != pid {
            return;
        }
        if let Some(process) = self
            .living
            .remove(&pid)
            .and_then(|at| self.processes.get_mut(at))
        {
            process.ended = now;
            if libc::WIFSIGNALED(status) {
                process.signal = Some(sets::signal(libc::WTERMSIG(status).into()));
            } else {
                process.status = Some(libc::WEXITSTATUS(status));
            }
        }
    }

    /// Counts a call in the span of now.
    fn at_this_time(&mut self, verdict: &Verdict) {
        let elapsed = self.start.elapsed();
        while elapsed.as_nanos() / self.span.as_nanos() >= SPANS as u128 {
            self.span *= 2;
            let merged = self.spans.chunks(2).map(|pair| {
                let mut sum = Kinds::default();
                for k in pair {
                    sum.native += k.native;
                    sum.emulated += k.emulated;
                    sum.refused += k.refused;
                }
                sum
            });
            self.spans = merged.collect();
        }
        let at = (elapsed.as_nanos() / self.span.as_nanos()) as usize;
        if self.spans.len() <= at {
            self.spans.resize(at + 1, Kinds::default());
        }
        if let Some(kinds) = self.spans.get_mut(at) {
            count(kinds, verdict);
        }
    }

    fn account(&mut self, served: &Served) {
        for h in &served.account.host {
            let known = self.host.entry(h.name).or_default();
            known.0 += h.count;
            known.1 += h.time;
        }
        for step in &served.account.steps {
            match step {
                Step::At(place) => {
                    let layer = explain::layer(place.fs, place.layer);
                    self.touch(&place.path, Some(layer), |u| u.reached += 1);
                }
                Step::Open { place, flags } => {
                    let layer = explain::layer(place.fs, place.layer);
                    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
                    self.touch(&place.path, Some(layer), |u| match writes {
                        true => u.written += 1,
                        false => u.opened += 1,
                    });
                }
                Step::Missing { path, fs } => {
                    self.touch(path, Some((*fs).to_owned()), |u| u.missing += 1);
                }
                Step::Make { path, fs } => {
                    self.touch(path, Some((*fs).to_owned()), |u| u.made += 1);
                }
                Step::Remove { path, .. } => self.touch(path, None, |u| u.removed += 1),
                _ => (),
            }
        }
        // What is copied up goes by its name alone: it is the node that the walk came to last, but for the
        // directories above it.
        let copied = served.account.steps.iter().rev().find_map(|s| match s {
            Step::CopyUp { name, .. } => Some(name),
            _ => None,
        });
        if let Some(name) = copied {
            let ends = |path: &[u8]| path.rsplit(|&b| b == b'/').next() == Some(name);
            let path = served.account.steps.iter().rev().find_map(|s| match s {
                Step::At(p) | Step::Open { place: p, .. } if ends(&p.path) => Some(p.path.clone()),
                _ => None,
            });
            if let Some(path) = path {
                self.touch(&path, None, |u| u.copied += 1);
            }
        }
    }

    fn touch(&mut self, path: &[u8], layer: Option<String>, use_it: impl FnOnce(&mut Uses)) {
        let room = self.files.len() < MAX_FILES;
        match self.files.get_mut(path) {
            Some((known, uses)) => {
                // What is missing is in no layer; what was found before keeps that.
                if let Some(layer) = layer {
                    *known = layer;
                }
                use_it(uses);
            }
            None if room => {
                let mut uses = Uses::default();
                use_it(&mut uses);
                let layer = layer.unwrap_or_default();
                self.files.insert(path.to_vec(), (layer, uses));
            }
            None => self.dropped.files += 1,
        }
    }

    /// What has been gathered.
    pub fn finish(mut self) -> Summary {
        let seconds = self.now();
        for &at in self.living.values() {
            if let Some(process) = self.processes.get_mut(at) {
                process.ended = seconds;
            }
        }
        let mut all = Count::default();
        let mut names: Vec<Group> = Vec::new();
        let mut by_family: HashMap<Family, Count> = HashMap::new();
        for (nr, counted) in &self.by_number {
            let (name, family) = match table::lookup(*nr) {
                Some(row) => (row.name, row.family),
                None => (UNKNOWN, Family::System),
            };
            all.add(counted);
            by_family.entry(family).or_default().add(counted);
            names.push(counted.group(name, family));
        }
        names.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.name.cmp(b.name)));
        let families = Family::ALL.iter().filter_map(|f| {
            let counted = by_family.get(f)?;
            Some(counted.group(f.name(), *f))
        });
        let mut host: Vec<Host> = self
            .host
            .iter()
            .map(|(call, (count, time))| Host {
                call,
                count: *count,
                seconds: time.as_secs_f64(),
            })
            .collect();
        host.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.call.cmp(b.call)));
        let mut files: Vec<File> = self
            .files
            .iter()
            .map(|(path, (layer, uses))| File {
                path: shown(path),
                layer: layer.clone(),
                uses: *uses,
            })
            .collect();
        let weight =
            |u: &Uses| u.reached + u.opened + u.written + u.made + u.removed + u.copied + u.missing;
        files.sort_by(|a, b| {
            weight(&b.uses)
                .cmp(&weight(&a.uses))
                .then_with(|| a.path.cmp(&b.path))
        });
        let mut failures: Vec<Failure> = self
            .failures
            .into_iter()
            .map(|((nr, errno, why), count)| Failure {
                call: table::lookup(nr).map_or(UNKNOWN, |r| r.name),
                error: errno_text(errno).0,
                why,
                count,
            })
            .collect();
        failures.sort_by(|a, b| {
            let key = |f: &Failure| (f.call, f.error.clone(), f.why.clone());
            b.count.cmp(&a.count).then_with(|| key(a).cmp(&key(b)))
        });
        Summary {
            schema: SCHEMA,
            program: self.program,
            seconds,
            calls: all.calls,
            failed: all.failed,
            processes: self.processes,
            families: families.collect(),
            names,
            host,
            layers: layers(&files),
            files,
            failures,
            activity: Activity {
                span: self.span.as_secs_f64(),
                calls: self.spans,
            },
            dropped: self.dropped,
        }
    }
}

/// Bytes as a page shows them: what is not printable ASCII, and the backslash, escaped as in C.
pub fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'"' | b'\'' => out.push(b as char),
            b => out.extend(b.escape_ascii().map(char::from)),
        }
    }
    out
}

/// The path of the program that an `execve` found: where its first walk ended.
fn program_of(served: &Served) -> &[u8] {
    let mut walks = 0;
    let mut path: &[u8] = b"";
    for step in &served.account.steps {
        match step {
            Step::Resolve { .. } => walks += 1,
            Step::At(place) if walks < 2 => path = &place.path,
            _ => (),
        }
    }
    path
}

fn layers(files: &[File]) -> Vec<Layer> {
    let mut all: Vec<Layer> = Vec::new();
    for file in files {
        let missing = Uses {
            missing: 0,
            ..file.uses
        } == Uses::default();
        let name = match missing {
            true => "nowhere",
            false => &file.layer,
        };
        let at = all.iter().position(|l| l.name == name).unwrap_or_else(|| {
            all.push(Layer {
                name: name.to_owned(),
                files: 0,
                uses: Uses::default(),
            });
            all.len() - 1
        });
        if let Some(layer) = all.get_mut(at) {
            let (sum, u) = (&mut layer.uses, &file.uses);
            layer.files += 1;
            sum.reached += u.reached;
            sum.opened += u.opened;
            sum.written += u.written;
            sum.made += u.made;
            sum.removed += u.removed;
            sum.copied += u.copied;
            sum.missing += u.missing;
        }
    }
    all.sort_by(|a, b| b.files.cmp(&a.files).then_with(|| a.name.cmp(&b.name)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_makes_without_end_is_bounded() {
        let mut c = Collector::new(&[b"prog".to_vec()]);
        c.executed(2, None, b"/prog");
        for pid in 3..10_000 {
            c.started(2, pid, pid);
            c.touch(format!("/{pid}").as_bytes(), None, |u| u.missing += 1);
        }
        for n in 0..1000 {
            c.executed(2, None, format!("/prog{n}").as_bytes());
        }
        let s = c.finish();
        assert_eq!(s.processes.len(), MAX_PROCESSES);
        assert_eq!(s.dropped.processes, 10_000 - 2 - MAX_PROCESSES as u64);
        assert_eq!(s.files.len(), MAX_FILES);
        assert_eq!(s.dropped.files, 10_000 - 3 - MAX_FILES as u64);
        assert_eq!(s.processes[0].programs.len(), MAX_PROGRAMS);
        // A child runs its parent's program.
        assert_eq!(s.processes[1].programs[0].path, "/prog");
        assert_eq!(s.processes[1].parent, Some(2));
    }

    #[test]
    fn spans_double_and_lose_no_call() {
        let mut c = Collector::new(&[]);
        for _ in 0..100 {
            c.at_this_time(&Verdict::Native);
        }
        let (start, before) = (c.start, c.span);
        // As if much time had passed.
        c.start = start - Duration::from_secs(60);
        c.at_this_time(&Verdict::Emulated);
        assert!(c.span > before && c.spans.len() <= SPANS);
        let native: u64 = c.spans.iter().map(|k| k.native).sum();
        let emulated: u64 = c.spans.iter().map(|k| k.emulated).sum();
        assert_eq!((native, emulated), (100, 1));
    }

    #[test]
    fn bytes_are_shown_without_harm() {
        assert_eq!(shown(b"a \"b\" '\\\x1b\xff"), "a \"b\" '\\\\\\x1b\\xff");
    }
}

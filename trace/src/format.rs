//! Lines of text as strace(1) lays them out: whose, when, the call, its result at a column, how long.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::output::Output;

/// The time of day before each line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// None.
    #[default]
    None,
    /// `12:34:56`
    Seconds,
    /// `12:34:56.123456`
    Micros,
    /// Seconds since 1970, with microseconds.
    Epoch,
}

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// The time before them.
    pub clock: Clock,
    /// The time since the line before.
    pub relative: bool,
    /// How long calls took.
    pub durations: bool,
    /// Where results stand.
    pub column: usize,
    /// Whether for a terminal that has colours.
    pub color: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style {
            clock: Clock::None,
            relative: false,
            durations: false,
            column: 40,
            color: false,
        }
    }
}

/// What a piece of a line is, for its colour.
#[derive(Clone, Copy)]
enum Piece {
    Name,
    Error,
    Signal,
    End,
}

impl Piece {
    fn code(self) -> &'static str {
        match self {
            Piece::Name => "\x1b[36m",
            Piece::Error => "\x1b[31m",
            Piece::Signal => "\x1b[33m",
            Piece::End => "\x1b[35m",
        }
    }
}

/// Whose line it is.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    /// The thread, in the supervisor's numbers.
    pub tid: i32,
    /// The thread, in the sandbox's numbers.
    pub shown: i32,
    /// Whether there are others.
    pub many: bool,
}

/// A call that ends.
pub struct Ending<'a> {
    /// Its name.
    pub name: &'a str,
    /// The rest of its arguments, as behind those that its line began with.
    pub rest: &'a str,
    /// Its result, with what it means.
    pub result: &'a str,
    /// Whether that is an error.
    pub failed: bool,
    /// How long it took.
    pub took: Option<Duration>,
}

/// A line without an end.
struct Open {
    /// Characters in it.
    width: usize,
    /// There are more arguments to come, and some before them.
    partial: bool,
}

/// Writes lines.
pub struct Lines {
    style: Style,
    out: Output,
    /// By thread; where lines of several come together, one at most.
    open: HashMap<i32, Open>,
    /// Threads whose line was ended behind a comma.
    separated: HashSet<i32>,
    last: Option<SystemTime>,
    /// Why the output takes no more.
    broken: Option<io::Error>,
}

impl Lines {
    /// Lines of a style.
    pub fn new(out: Output, style: Style) -> Lines {
        Lines {
            style,
            out,
            open: HashMap::new(),
            separated: HashSet::new(),
            last: None,
            broken: None,
        }
    }

    /// Writes text as it stands.
    pub fn raw(&mut self, pid: i32, text: &str) {
        if self.broken.is_some() {
            return;
        }
        if let Err(e) = self.out.write(pid, text) {
            self.fails(e);
        }
    }

    fn fails(&mut self, e: io::Error) {
        if self.broken.is_none() {
            log::warn!("the trace ends here: {e}");
            self.broken = Some(e);
        }
    }

    /// Writes what is still kept back, at the end of all. An error also if something could not be written
    /// before, unless whoever read it had enough.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.broken.take() {
            Some(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(e) => Err(e),
            None => self.out.flush(),
        }
    }

    /// Writes what is still kept back.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A thread does nothing more.
    pub fn forget(&mut self, whose: Whose) {
        self.separated.remove(&whose.tid);
        self.open.remove(&whose.tid);
        if let Err(e) = self.out.end(whose.shown) {
            self.fails(e);
        }
    }

    /// Where lines of several threads come together, who has not finished one is told of.
    fn interrupt(&mut self, text: &mut String) {
        if self.out.is_separate() {
            return;
        }
        for (tid, open) in self.open.drain() {
            if open.partial {
                text.push_str(", ");
                self.separated.insert(tid);
            }
            text.push_str(" <unfinished ...>\n");
        }
    }

    fn leader(&mut self, text: &mut String, whose: Whose, at: SystemTime) {
        let pid = whose.shown;
        // Writing to a string does not fail.
        let _ = match &self.out {
            Output::Separate { .. } => Ok(()),
            Output::File(_) => write!(text, "{pid:<5} "),
            Output::Stream(_) if whose.many => write!(text, "[pid {pid:>5}] "),
            Output::Stream(_) => Ok(()),
        };
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, micros) = (since.as_secs(), since.subsec_micros());
        let clock = self.style.clock;
        let _ = match clock {
            Clock::None => Ok(()),
            Clock::Seconds => write!(text, "{}", time_of_day(seconds)),
            Clock::Micros => write!(text, "{}.{micros:06}", time_of_day(seconds)),
            Clock::Epoch => write!(text, "{seconds}.{micros:06}"),
        };
        let timed = clock != Clock::None;
        if timed {
            text.push_str(if self.style.relative { " (+" } else { " " });
        }
        if self.style.relative {
            let last = self.last.replace(at).unwrap_or(at);
            let since = at.duration_since(last).unwrap_or_default();
            let (s, us) = (since.as_secs(), since.subsec_micros());
            let _ = write!(text, "{s:6}.{us:06}{}", if timed { ") " } else { " " });
        }
    }

    fn piece(&self, text: &mut String, piece: Piece, words: &str) {
        if self.style.color {
            let _ = write!(text, "{}{words}\x1b[0m", piece.code());
        } else {
            text.push_str(words);
        }
    }

    /// A call begins: its name, and those arguments that are known. `partial`: there are more.
    pub fn begin_call(
        &mut self,
        whose: Whose,
        at: SystemTime,
        name: &str,
        args: &str,
        partial: bool,
    ) {
        let mut text = String::new();
        self.interrupt(&mut text);
        self.leader(&mut text, whose, at);
        self.piece(&mut text, Piece::Name, name);
        text.push('(');
        text.push_str(args);
        self.raw(whose.shown, &text);
        let open = Open {
            width: name.len() + 1 + args.chars().count(),
            partial: partial && !args.is_empty(),
        };
        self.open.insert(whose.tid, open);
    }

    /// It ends.
    pub fn end_call(&mut self, whose: Whose, at: SystemTime, end: &Ending<'_>) {
        let mut text = String::new();
        let mut rest = end.rest;
        let mut width = match self.open.remove(&whose.tid) {
            Some(open) => open.width,
            None => {
                self.interrupt(&mut text);
                self.leader(&mut text, whose, at);
                if self.separated.remove(&whose.tid) {
                    rest = rest.strip_prefix(", ").unwrap_or(rest);
                }
                let _ = write!(text, "<... {} resumed>", end.name);
                "<...  resumed>".len() + end.name.len()
            }
        };
        width += rest.chars().count();
        text.push_str(rest);
        self.result(&mut text, width, end);
        self.raw(whose.shown, &text);
    }

    /// A call in one line.
    pub fn whole_call(&mut self, whose: Whose, at: SystemTime, args: &str, end: &Ending<'_>) {
        let mut text = String::new();
        self.interrupt(&mut text);
        self.leader(&mut text, whose, at);
        self.piece(&mut text, Piece::Name, end.name);
        text.push('(');
        text.push_str(args);
        self.result(&mut text, end.name.len() + 1 + args.chars().count(), end);
        self.raw(whose.shown, &text);
    }

    fn result(&self, text: &mut String, width: usize, end: &Ending<'_>) {
        text.push_str(") ");
        let gap = self.style.column.saturating_sub(width + 2);
        text.extend(std::iter::repeat_n(' ', gap));
        text.push_str("= ");
        if end.failed {
            self.piece(text, Piece::Error, end.result);
        } else {
            text.push_str(end.result);
        }
        if let Some(took) = end.took.filter(|_| self.style.durations) {
            let _ = write!(text, " <{}.{:06}>", took.as_secs(), took.subsec_micros());
        }
        text.push('\n');
    }

    /// A line about a signal.
    pub fn signal(&mut self, whose: Whose, at: SystemTime, words: &str) {
        self.event(whose, at, Piece::Signal, words);
    }

    /// A line about the end of a thread.
    pub fn end(&mut self, whose: Whose, at: SystemTime, words: &str) {
        self.event(whose, at, Piece::End, words);
    }

    fn event(&mut self, whose: Whose, at: SystemTime, piece: Piece, words: &str) {
        let mut text = String::new();
        self.interrupt(&mut text);
        self.leader(&mut text, whose, at);
        self.piece(&mut text, piece, words);
        text.push('\n');
        self.raw(whose.shown, &text);
    }
}

/// `12:34:56` where the caller is.
fn time_of_day(seconds: u64) -> String {
    let seconds = seconds as libc::time_t;
    // SAFETY: all zeros are a `tm`.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours for the call; only `tm` is written.
    unsafe { libc::localtime_r(&seconds, &mut tm) };
    format!("{:02}:{:02}:{:02}", tm.tm_hour, tm.tm_min, tm.tm_sec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn whose(tid: i32) -> Whose {
        Whose {
            tid,
            shown: tid,
            many: true,
        }
    }

    fn ending<'a>(name: &'a str, rest: &'a str) -> Ending<'a> {
        Ending {
            name,
            rest,
            result: "0",
            failed: false,
            took: Some(Duration::from_micros(12)),
        }
    }

    #[test]
    fn calls_that_cross_are_told_as_strace_does() {
        let shared = Shared::default();
        let style = Style {
            durations: true,
            relative: true,
            clock: Clock::Epoch,
            ..Style::default()
        };
        let mut lines = Lines::new(Output::Stream(Box::new(shared.clone())), style);
        let at = |us| UNIX_EPOCH + Duration::from_micros(us);
        lines.begin_call(whose(7), at(1), "read", "3", true);
        lines.begin_call(whose(8), at(3), "close", "4", false);
        lines.end_call(whose(8), at(4), &ending("close", ""));
        lines.end_call(whose(7), at(5), &ending("read", ", \"\", 9"));
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "[pid     7] 0.000001 (+     0.000000) read(3,  <unfinished ...>\n\
             [pid     8] 0.000003 (+     0.000002) close(4)                                = 0 <0.000012>\n\
             [pid     7] 0.000005 (+     0.000002) <... read resumed>\"\", 9)                = 0 <0.000012>\n"
        );
    }
}

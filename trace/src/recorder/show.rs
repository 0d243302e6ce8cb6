//! Calls and ends of threads as they are shown.

use std::time::{Duration, Instant, SystemTime};

use duet_intercept::{ARCH_X86_64, Call, Ended, Tid};
use duet_syscalls::table::{self, Verdict};

use super::{Begun, Form, Recorder, Show, State, seconds};
use crate::decode::Args;
use crate::explain::{Explained, Explanation};
use crate::filter::Status;
use crate::format::Ending;
use crate::json::{Arg, Event, SCHEMA};
use crate::{errno_text, sets, text};

impl Recorder {
    pub(super) fn first_program(&self, state: &mut State, tid: Tid) {
        let program = &std::mem::take(&mut state.program);
        let args = &self.settings.first;
        let at = SystemTime::now();
        let quoted = |s: &[u8]| {
            let mut out = String::new();
            let shown = s.get(..self.settings.limit);
            text::quoted(
                &mut out,
                shown.unwrap_or(s),
                shown.is_some_and(|p| p.len() < s.len()),
            );
            out
        };
        if matches!(self.settings.form, Form::Json) && self.shows_calls() {
            let bare = |a: &Vec<u8>| a.escape_ascii().to_string();
            let begin = Event::Begin {
                schema: SCHEMA,
                time: seconds(at),
                program: args.iter().map(bare).collect(),
                engine: if self.settings.fast {
                    "seccomp"
                } else {
                    "ptrace"
                },
            };
            let shown = state.whose(tid).shown;
            state.lines.raw(shown, &begin.line());
        }
        let filter = &self.settings.filter;
        let Some(row) = table::lookup(libc::SYS_execve as u32).filter(|r| filter.shows(r.nr))
        else {
            return;
        };
        if filter.by_path() && !filter.shows_path(program) {
            return;
        }
        let variables = &self.settings.variables;
        let environment = match self.settings.full {
            true => {
                let all: Vec<String> = variables.iter().map(|v| quoted(v)).collect();
                format!("[{}]", all.join(", "))
            }
            false => format!("/* {} vars */", variables.len()),
        };
        let args_text: Vec<String> = args.iter().map(|a| quoted(a)).collect();
        let mut shown = Args::default();
        let pieces = [
            {
                let mut out = String::new();
                text::quoted(&mut out, program, false);
                out
            },
            format!("[{}]", args_text.join(", ")),
            environment,
        ];
        for (i, piece) in pieces.iter().enumerate() {
            shown.add(i, "", |out| {
                out.push_str(piece);
                true
            });
        }
        let begun = Begun {
            call: Call {
                id: 0,
                tid,
                arch: ARCH_X86_64,
                nr: row.nr,
                args: [0; 6],
                ip: 0,
            },
            row,
            name: row.name.into(),
            before: 0,
            args: shown,
            written: 0,
            visible: false,
            at,
            clock: Instant::now(),
        };
        self.finish_call(state, tid, begun, Ended::Answered(0), "0");
    }

    /// Shows the end of a call whose arguments are decoded. `meaning`: its result as text.
    pub(super) fn finish_call(
        &self,
        state: &mut State,
        tid: Tid,
        begun: Begun,
        how: Ended,
        meaning: &str,
    ) {
        let took = begun.clock.elapsed();
        let Begun { row, args, at, .. } = &begun;
        let filter = &self.settings.filter;
        let result = match how {
            Ended::Answered(n) | Ended::Ran(n) => Some(n),
            Ended::Unknown => None,
        };
        let ends = matches!(i64::from(row.nr), libc::SYS_exit | libc::SYS_exit_group);
        let status = match result {
            Some(n) if (-4095..0).contains(&n) => Status::Failed,
            Some(_) => Status::Successful,
            None if self.settings.fast && !ends => Status::Unavailable,
            None => Status::Unfinished,
        };
        let failed = status == Status::Failed;
        if !filter.shows_status(status) {
            return;
        }
        let pid = state.thread(tid).pid;
        if let Some(summary) = &mut state.summary {
            summary.called(pid, &begun.call, row, result, took);
        }
        if matches!(self.settings.show, Show::Counts(_) | Show::Both(_)) {
            state.counts.add(row.nr, failed, took);
        }
        if !self.shows_calls() {
            return;
        }
        let whose = state.whose(tid);
        let explains = self.settings.explain && !ends;
        let explanation = explains.then(|| Explanation::new(&begun.call, row, result));
        if matches!(self.settings.form, Form::Json) {
            let explain = explanation.map(|e| e.json());
            let line = self.json_call(state, tid, &begun, how, status, meaning, took, explain);
            return state.lines.raw(whose.shown, &line);
        }
        let rest = args.text.get(begun.written..).unwrap_or_default();
        let complete = result.is_some() || begun.complete() || self.settings.fast;
        let rest = match complete {
            true => rest.to_owned(),
            false => format!("{rest},  <unfinished ...>"),
        };
        let end = Ending {
            name: &begun.name,
            rest: &rest,
            result: meaning,
            failed,
            took: result.is_some().then_some(took),
        };
        if begun.visible {
            state.lines.end_call(whose, SystemTime::now(), &end);
        } else {
            let all = args.text.clone();
            state.lines.whole_call(whose, *at, &all, &end);
        }
        if let Some(explanation) = explanation {
            state.lines.raw(whose.shown, &explanation.text());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of one call")]
    fn json_call(
        &self,
        state: &mut State,
        tid: Tid,
        begun: &Begun,
        how: Ended,
        status: Status,
        meaning: &str,
        took: Duration,
        explain: Option<Explained>,
    ) -> String {
        let Begun {
            row,
            call,
            args,
            at,
            ..
        } = begun;
        let arg = |(i, text): (usize, &'_ str)| -> (&'static str, String, String) {
            // rt_sigreturn(2) has none, but takes what lies on the stack.
            let name = row.args.get(i).map_or("frame", |a| a.name);
            let value = call.args.get(i).copied().unwrap_or(0);
            (name, format!("{value:#x}"), text.to_owned())
        };
        let shown: Vec<_> = args.each().map(arg).collect();
        let thread = state.thread(tid);
        let result = match how {
            Ended::Answered(n) | Ended::Ran(n) => Some(n),
            Ended::Unknown => None,
        };
        let failed = result.filter(|_| status == Status::Failed);
        Event::Call {
            time: seconds(*at),
            pid: thread.pid,
            tid: thread.tid,
            call: &begun.name,
            nr: call.nr,
            args: shown
                .iter()
                .map(|(name, value, text)| Arg {
                    name,
                    value: value.clone(),
                    text,
                })
                .collect(),
            disposition: match table::verdict(call.arch, call.nr, &call.args) {
                Verdict::Native => "native",
                Verdict::Emulated => "emulated",
                Verdict::Refused(_) => "refused",
            },
            status: match status {
                Status::Successful => "successful",
                Status::Failed => "failed",
                Status::Unfinished => "unfinished",
                Status::Unavailable => "unavailable",
            },
            result,
            error: failed.map(|n| errno_text(-n as i32).0),
            text: meaning,
            duration: result.map(|_| took.as_micros() as f64 / 1e6),
            explain: explain.map(Box::new),
        }
        .line()
    }

    /// A thread is gone.
    pub(super) fn gone(&self, state: &mut State, tid: Tid, status: i32) {
        for begun in std::mem::take(&mut state.thread(tid).calls) {
            self.finish_call(state, tid, begun, Ended::Unknown, "?");
        }
        let killed = libc::WIFSIGNALED(status);
        let name = sets::signal(libc::WTERMSIG(status).into());
        let code = libc::WEXITSTATUS(status);
        let whose = state.whose(tid);
        let thread = state.thread(tid);
        let (pid, number) = (thread.pid, thread.tid);
        if let Some(summary) = &mut state.summary {
            summary.ended(pid, number, status);
        }
        if self.shows_calls() && !self.settings.filter.hide_ends {
            match self.settings.form {
                Form::Json => {
                    let thread = state.thread(tid);
                    let line = Event::End {
                        time: seconds(SystemTime::now()),
                        pid: thread.pid,
                        tid: thread.tid,
                        status: (!killed).then_some(code),
                        signal: killed.then_some(&name),
                    }
                    .line();
                    state.lines.raw(whose.shown, &line);
                }
                Form::Text(_) => {
                    let core = if libc::WCOREDUMP(status) {
                        " (core dumped)"
                    } else {
                        ""
                    };
                    let words = match killed {
                        true => format!("+++ killed by {name}{core} +++"),
                        false => format!("+++ exited with {code} +++"),
                    };
                    state.lines.end(whose, SystemTime::now(), &words);
                }
            }
        }
        state.lines.forget(whose);
        state.threads.remove(&tid.0);
    }
}

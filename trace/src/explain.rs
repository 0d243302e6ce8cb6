//! What became of a call, in words and for machines: its disposition, the walk of its paths, the host calls
//! made for it, and why it failed.

use std::fmt::Write;
use std::sync::Arc;

use duet_intercept::Call;
use duet_syscalls::accounts::{self, Served};
use duet_syscalls::table::{self, Row, Verdict};
use duet_vfs::account::{Denied, Place, Step};
use duet_vfs::inode::Layer;
use serde::Serialize;

use crate::{errno_text, text};

/// What is known of one call.
pub struct Explanation {
    row: &'static Row,
    verdict: Verdict,
    served: Option<Arc<Served>>,
    /// The errno that it failed with.
    failed: Option<i32>,
}

/// An explanation for machines.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The function of Duet's that answered or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    /// Seconds that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// What it did in the tree.
    steps: Vec<Line>,
    /// Calls made to the host.
    host: Vec<Host>,
    /// Why the call failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// A step.
#[derive(Debug, Serialize)]
struct Line {
    /// What kind of step.
    step: &'static str,
    /// What it was, in words.
    text: String,
}

/// Host calls of one name.
#[derive(Debug, Serialize)]
struct Host {
    call: &'static str,
    count: u64,
    seconds: f64,
}

impl Explanation {
    /// Of a call that has ended, with this result if it is known. To be made before the thread makes
    /// another.
    pub fn new(call: &Call, row: &'static Row, result: Option<i64>) -> Explanation {
        let failed = result.filter(|n| (-4095..0).contains(n));
        Explanation {
            row,
            verdict: table::verdict(call.arch, call.nr, &call.args),
            served: accounts::of(call),
            failed: failed.and_then(|n| i32::try_from(-n).ok()),
        }
    }

    /// Lines to stand below the call's.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |label: &str, words: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "    {label:<9} {words}");
        };
        match self.verdict {
            Verdict::Native => line("native", "run by the kernel"),
            Verdict::Refused(_) => line("refused", self.row.note),
            Verdict::Emulated => {
                let took = self.served.as_ref().map(|s| micros(s.took));
                let took = took.map(|t| format!(", {t}")).unwrap_or_default();
                line("emulated", &format!("by {}{took}", self.function()));
            }
        }
        for Line { step, text } in self.steps() {
            line(step, &text);
        }
        if let Some(served) = &self.served {
            let each: Vec<String> = served
                .account
                .host
                .iter()
                .map(|h| format!("{} {} ({})", h.count, h.name, micros(h.time)))
                .collect();
            let words = match each.is_empty() {
                true => "no calls".to_owned(),
                false => each.join(", "),
            };
            line("host", &words);
        }
        if let Some(why) = self.why() {
            line("why", &why);
        }
        out
    }

    /// The same for machines.
    pub fn json(&self) -> Explained {
        let hosts = self.served.iter().flat_map(|s| &s.account.host);
        Explained {
            function: (self.verdict != Verdict::Native).then(|| self.function()),
            seconds: self.served.as_ref().map(|s| s.took.as_secs_f64()),
            steps: self.steps(),
            host: hosts
                .map(|h| Host {
                    call: h.name,
                    count: h.count,
                    seconds: h.time.as_secs_f64(),
                })
                .collect(),
            why: self.why(),
        }
    }

    fn function(&self) -> String {
        let place = self.row.place(&self.verdict);
        place.map_or_else(String::new, |p| format!("{} ({})", p.function, p.file))
    }

    fn steps(&self) -> Vec<Line> {
        let Some(served) = &self.served else {
            return Vec::new();
        };
        let account = &served.account;
        let mut lines: Vec<Line> = account.steps.iter().map(line).collect();
        if account.dropped > 0 {
            let text = format!("{} more steps", account.dropped);
            lines.push(Line { step: "…", text });
        }
        lines
    }

    /// Why it failed.
    pub fn why(&self) -> Option<String> {
        let errno = self.failed?;
        let (name, meaning) = errno_text(errno);
        let found = self
            .served
            .iter()
            .flat_map(|s| s.account.steps.iter().rev());
        let cause = found.filter_map(|step| cause(step, errno)).next();
        let cause = cause.or_else(|| {
            let errors = self.row.errors();
            let known = errors.into_iter().find(|(e, _)| *e as i32 == errno);
            known.map(|(_, when)| when).filter(|when| when != "always")
        });
        let cause = match (cause, self.verdict) {
            (_, Verdict::Refused(_)) => self.row.note.trim_end_matches('.').to_owned(),
            (Some(cause), _) => cause,
            (None, _) => meaning.to_owned(),
        };
        Some(format!("{name}: {cause}"))
    }
}

/// What a step has to do with an error, if it has.
fn cause(step: &Step, errno: i32) -> Option<String> {
    match (step, errno) {
        (Step::Missing { path, fs }, libc::ENOENT) => {
            Some(format!("the {fs} has no {}", quoted(path)))
        }
        (Step::Denied(denied), libc::EACCES | libc::EPERM) => Some(refusal(denied)),
        (Step::ReadOnly { fs }, libc::EROFS) => Some(format!("this {fs} is mounted read-only")),
        _ => None,
    }
}

fn refusal(d: &Denied) -> String {
    let words: Vec<&str> = [(4, "read"), (2, "write"), (1, "run or search")]
        .iter()
        .filter(|(bit, _)| d.wanted & bit != 0)
        .map(|(_, word)| *word)
        .collect();
    let wanted = words.join(" and ");
    format!(
        "user {} may not {wanted} what has mode {:04o}, owner {} and group {}",
        d.user, d.mode, d.owner, d.group
    )
}

fn line(step: &Step) -> Line {
    let (step, text) = match step {
        Step::Resolve { path, from: None } => ("walk", quoted(path)),
        Step::Resolve {
            path,
            from: Some(from),
        } => ("walk", format!("{} from {}", quoted(path), quoted(from))),
        Step::At(place) => ("at", located(place)),
        Step::Mount { at, fs } => ("mount", format!("{} ({fs})", quoted(at))),
        Step::Link { path, text } => (
            "link",
            format!("{} leads to {}", quoted(path), quoted(text)),
        ),
        Step::Jump { path } => ("jump", format!("from {}", quoted(path))),
        Step::Missing { path, fs } => ("none", format!("{} is not there ({fs})", quoted(path))),
        Step::Denied(denied) => ("denied", refusal(denied)),
        Step::ReadOnly { fs } => ("denied", format!("this {fs} is mounted read-only")),
        Step::CopyUp { name, bytes } => (
            "copy-up",
            format!("{}, {bytes} bytes, to the upper layer", quoted(name)),
        ),
        Step::Make { path, fs } => ("make", format!("{} ({fs})", quoted(path))),
        Step::Remove { path, fs } => ("remove", format!("{} ({fs})", quoted(path))),
        Step::Descriptor { fd, place } => {
            let what = match place {
                Some(place) => located(place),
                None => "no node of the tree".to_owned(),
            };
            ("fd", format!("{fd} is {what}"))
        }
        Step::Open { place, flags } => {
            let how = match flags & libc::O_ACCMODE {
                libc::O_RDONLY => "to read",
                libc::O_WRONLY => "to write",
                _ => "to read and write",
            };
            ("open", format!("{} {how}", located(place)))
        }
    };
    Line { step, text }
}

fn located(place: &Place) -> String {
    format!("{} ({})", quoted(&place.path), layer(place.fs, place.layer))
}

/// A file system and the layer of it.
pub fn layer(fs: &str, layer: Layer) -> String {
    match layer {
        Layer::Only => fs.to_owned(),
        Layer::Upper => format!("{fs}, upper layer"),
        Layer::Lower(0) => format!("{fs}, lower layer"),
        Layer::Lower(n) => format!("{fs}, lower layer {n}"),
        Layer::Merged => format!("{fs}, merged layers"),
    }
}

fn quoted(bytes: &[u8]) -> String {
    let mut out = String::new();
    text::quoted(&mut out, bytes, false);
    out
}

fn micros(time: std::time::Duration) -> String {
    format!("{:.1} us", time.as_nanos() as f64 / 1e3)
}

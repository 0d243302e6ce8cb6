//! A trace for machines: JSON Lines, an object a line, as docs/trace.md describes them.

use serde::Serialize;

use crate::explain::Explained;

/// The number of the schema: raised when a reader of the one before would go wrong.
pub const SCHEMA: u32 = 1;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event<'a> {
    /// The first line.
    Begin {
        /// [`SCHEMA`]
        schema: u32,
        /// Seconds since 1970.
        time: f64,
        /// The program and its arguments, escaped as in C.
        program: Vec<String>,
        /// `ptrace`; with `--fast`, `seccomp`.
        engine: &'static str,
    },
    /// A call, when it has ended.
    Call {
        /// When it was made: seconds since 1970.
        time: f64,
        /// The process, in the sandbox's numbers.
        pid: i32,
        /// The thread.
        tid: i32,
        /// Its name.
        call: &'a str,
        /// Its number.
        nr: u32,
        /// Its arguments.
        args: Vec<Arg<'a>>,
        /// `native`, `emulated` or `refused`.
        disposition: &'static str,
        /// `successful`, `failed`, `unfinished` or `unavailable`.
        status: &'static str,
        /// What it returned.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<i64>,
        /// The name of its error.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The result as text.
        text: &'a str,
        /// How long it took, in seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        duration: Option<f64>,
        /// With `--explain`: what became of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        explain: Option<Box<Explained>>,
    },
    /// A signal is delivered.
    Signal {
        /// Seconds since 1970.
        time: f64,
        /// The process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// The signal's name.
        signal: &'a str,
        /// What came with it, as text.
        text: &'a str,
    },
    /// A thread stops together with its process.
    Stop {
        /// Seconds since 1970.
        time: f64,
        /// The process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// The signal that stopped it.
        signal: &'a str,
    },
    /// A thread was made.
    Start {
        /// Seconds since 1970.
        time: f64,
        /// Its process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// Who made it: a thread.
        parent: i32,
    },
    /// A thread ended.
    End {
        /// Seconds since 1970.
        time: f64,
        /// The process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// What it exited with.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<i32>,
        /// What killed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<&'a str>,
    },
    /// With `-c` and `-C`, at the end: what is known of one call.
    Count {
        /// Its name.
        call: &'static str,
        /// How often it was made.
        calls: u64,
        /// How often it failed.
        errors: u64,
        /// How long it took in all.
        seconds: f64,
    },
    /// With `--fast`, at the end: what the kernel counted of calls that were not seen.
    Unseen {
        /// Reads, those that were seen included.
        #[serde(skip_serializing_if = "Option::is_none")]
        reads: Option<u64>,
        /// Writes, those that were seen included.
        #[serde(skip_serializing_if = "Option::is_none")]
        writes: Option<u64>,
    },
}

/// An argument of a call.
#[derive(Debug, Serialize)]
pub struct Arg<'a> {
    /// The name that the man page uses.
    pub name: &'static str,
    /// The register, in hexadecimal.
    pub value: String,
    /// What it means, as in a line of text.
    pub text: &'a str,
}

impl Event<'_> {
    /// The line, with its end.
    pub fn line(&self) -> String {
        match serde_json::to_string(self) {
            Ok(mut text) => {
                text.push('\n');
                text
            }
            Err(e) => {
                // There is no map, and no number that JSON does not have.
                log::error!("a line of the trace cannot be written: {e}");
                String::new()
            }
        }
    }
}

//! A run in one page: who ran when, which calls were made and what became of them, where the time went, which
//! files were touched in which layer, and what failed.
//!
//! [`collect`] gathers it while the program runs, in bounded memory; [`Summary`] is the result, which
//! serialises to the JSON that docs/trace.md describes; [`text`] and [`html`] show it.

pub mod collect;
pub mod html;
pub mod svg;
pub mod text;

use serde::Serialize;

/// The number of the JSON's schema: raised when a reader of the one before would go wrong.
pub const SCHEMA: u32 = 1;

/// A run. Times are seconds, from its start.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The program and its arguments, escaped as in C.
    pub program: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Calls, by what became of them.
    pub calls: Kinds,
    /// How many of them failed.
    pub failed: u64,
    /// Processes, in the order of their starts.
    pub processes: Vec<Process>,
    /// Calls by family.
    pub families: Vec<Group>,
    /// Calls by name, those that took longest first.
    pub names: Vec<Group>,
    /// What the supervisor asked of the host, by call, what took longest first.
    pub host: Vec<Host>,
    /// Files by the layer that they were found in.
    pub layers: Vec<Layer>,
    /// Files, those used most first.
    pub files: Vec<File>,
    /// What failed, most frequent first.
    pub failures: Vec<Failure>,
    /// Calls over time.
    pub activity: Activity,
    /// What was too much to keep.
    pub dropped: Dropped,
}

/// Numbers of calls by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kinds {
    /// Run by the kernel.
    pub native: u64,
    /// Answered by Duet.
    pub emulated: u64,
    /// Refused by the table.
    pub refused: u64,
}

impl Kinds {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.native + self.emulated + self.refused
    }
}

/// A process.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Its number in the sandbox.
    pub pid: i32,
    /// The process that made it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<i32>,
    /// When it started.
    pub started: f64,
    /// When it ended; that of the run if nobody told of it.
    pub ended: f64,
    /// What it exited with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// The signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Threads that it had in all.
    pub threads: u64,
    /// Calls that it made.
    pub calls: u64,
    /// What it ran.
    pub programs: Vec<Program>,
}

/// A program that a process has become.
#[derive(Debug, Serialize)]
pub struct Program {
    /// When.
    pub time: f64,
    /// Its path, escaped as in C; empty if it is not known.
    pub path: String,
}

/// Calls of one name or family.
#[derive(Debug, Serialize)]
pub struct Group {
    /// The name.
    pub name: &'static str,
    /// The family.
    pub family: &'static str,
    /// How many.
    pub calls: Kinds,
    /// How many failed.
    pub failed: u64,
    /// How long they took in all, by the clock on the wall: waiting too.
    pub seconds: f64,
    /// How long the longest took.
    pub longest: f64,
}

/// Calls to the host.
#[derive(Debug, Serialize)]
pub struct Host {
    /// The name.
    pub call: &'static str,
    /// How many.
    pub count: u64,
    /// How long they took in all.
    pub seconds: f64,
}

/// What was done to files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Uses {
    /// Walks that ended at it.
    pub reached: u64,
    /// Opened to read only.
    pub opened: u64,
    /// Opened to write.
    pub written: u64,
    /// Made.
    pub made: u64,
    /// Removed.
    pub removed: u64,
    /// Copied to the upper layer.
    pub copied: u64,
    /// Looked for, and not there.
    pub missing: u64,
}

/// Files of one layer.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// The file system, and the layer of it.
    pub name: String,
    /// How many.
    pub files: u64,
    /// What was done to them.
    #[serde(flatten)]
    pub uses: Uses,
}

/// A file.
#[derive(Debug, Serialize)]
pub struct File {
    /// Its path, escaped as in C.
    pub path: String,
    /// The file system, and the layer of it that had it last.
    pub layer: String,
    /// What was done to it.
    #[serde(flatten)]
    pub uses: Uses,
}

/// Calls that failed alike.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The call.
    pub call: &'static str,
    /// The errno's name.
    pub error: String,
    /// Why.
    pub why: String,
    /// How many.
    pub count: u64,
}

/// How many calls were made in each of equal spans.
#[derive(Debug, Serialize)]
pub struct Activity {
    /// How long a span is.
    pub span: f64,
    /// The spans.
    pub calls: Vec<Kinds>,
}

/// How much was left out, as memory is bounded.
#[derive(Debug, Default, Serialize)]
pub struct Dropped {
    /// Processes.
    pub processes: u64,
    /// Uses of files that had no place any more.
    pub files: u64,
    /// Failures.
    pub failures: u64,
}

impl Summary {
    /// As JSON: an object on a line.
    ///
    /// # Errors
    /// None that is to be expected: there is no map, and no number that JSON does not have.
    pub fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

//! `duet bench`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, value_parser};
use duet_compare::bench::{self, Results};
use duet_compare::modes::Mode;
use duet_compare::peers::Peer;
use duet_compare::session::{self, Settings};
use duet_compare::{against, modes::Candidate};

use crate::compare;

/// Options of `duet bench`.
#[derive(Args)]
#[group(id = "bench-options")]
pub struct Options {
    /// Modes and peers; by default all of Duet's, and the peers that are installed
    #[arg(long, value_name = "MODE,...", value_delimiter = ',', value_parser = Mode::parse)]
    modes: Vec<Mode>,
    /// Runs of the set in each mode; they take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Time for each measurement within a run
    #[arg(long, value_name = "SECONDS", default_value_t = 0.05, value_parser = parse_seconds)]
    time: f64,
    /// Keep the results in a file, as JSON
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show what has changed since the results in that file, beyond the noise
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Measure nothing; take the results from that file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["modes", "runs", "time", "output"])]
    show: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long, conflicts_with_all = ["against", "markdown"])]
    json: bool,
    /// Print the results as a table in Markdown
    #[arg(long, conflicts_with = "against")]
    markdown: bool,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if (0.001..=60.0).contains(&n) => Ok(n),
        _ => Err("a number of seconds from 0.001 to 60".into()),
    }
}

impl Options {
    fn candidates(&self) -> Vec<Candidate> {
        let peers = Peer::ALL.into_iter().filter(|p| p.program().is_some());
        let all = || Mode::OWN.into_iter().chain(peers.clone().map(Mode::Peer));
        match self.modes.is_empty() {
            true => compare::candidates(all(), None),
            false => compare::candidates(self.modes.iter().copied(), None),
        }
    }

    /// The results, and the signal that ended measuring early.
    fn results(&self) -> Result<(Results, Option<i32>)> {
        if let Some(path) = &self.show {
            return Ok((Results::read(path)?, None));
        }
        let settings = Settings {
            duet: std::env::current_exe().context("finding this program")?,
            runs: self.runs,
            warmups: 0,
            observed: 0,
            timeout: None,
            // Of its own program's, all: they are short.
            kept: self.runs as usize,
        };
        let candidates = self.candidates();
        let signals = session::watch_signals()?;
        let version = env!("CARGO_PKG_VERSION");
        let mut progress = compare::progress();
        let found = bench::run(
            &candidates,
            &settings,
            self.time,
            version,
            &signals,
            &mut *progress,
        );
        Ok(found?)
    }
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    // Before anything is measured: what cannot be read ends it.
    let before = options.against.as_deref().map(Results::read).transpose()?;
    let (results, interrupted) = options.results()?;
    if let Some(path) = &options.output {
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    let mut shown = match (options.json, options.markdown) {
        (true, _) => serde_json::to_string(&results)? + "\n",
        (_, true) => results.markdown(),
        _ => results.text(),
    };
    if let Some(before) = before {
        shown += &against::report(&before, &results);
    }
    compare::print(&shown)?;
    Ok(compare::interrupted(interrupted).unwrap_or(0))
}

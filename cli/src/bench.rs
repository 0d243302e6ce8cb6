//! `duet bench`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, value_parser};
use duet_compare::bench::{self, Plan, Results};
use duet_compare::modes::Mode;
use duet_compare::peers::Peer;
use duet_compare::session::{self, Settings};
use duet_compare::sets::Set;
use duet_compare::{against, modes::Candidate, page};

use crate::compare;

/// Options of `duet bench`.
#[derive(Args)]
#[group(id = "bench-options")]
pub struct Options {
    /// What to measure: calls, files, processes, memory, network and programs by a program of Duet's own; trees,
    /// the layer's file systems; traces, beside strace; workloads and servers, of software that is installed;
    /// or all. By default the first six
    #[arg(long = "set", value_name = "SET,...", value_delimiter = ',', value_parser = parse_set)]
    sets: Vec<Sets>,
    /// Modes and peers; by default those of Duet's, and the peers that are installed, that say something of a set
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
    /// Make the tables of a page in Markdown anew, which stand between lines `<!-- duet bench: SET,... -->`
    /// and `<!-- end -->`
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long, conflicts_with_all = ["against", "markdown"])]
    json: bool,
    /// Print the results as a table in Markdown
    #[arg(long, conflicts_with = "against")]
    markdown: bool,
}

/// What one word of `--set` names.
#[derive(Clone)]
struct Sets(Vec<Set>);

fn parse_set(text: &str) -> Result<Sets, String> {
    Set::parse(text).map(Sets)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if (0.001..=60.0).contains(&n) => Ok(n),
        _ => Err("a number of seconds from 0.001 to 60".into()),
    }
}

impl Options {
    fn candidates(&self, sets: &[Set]) -> Vec<Candidate> {
        if !self.modes.is_empty() {
            return compare::candidates(self.modes.iter().copied(), None);
        }
        let installed = |m: &Mode| !matches!(m, Mode::Peer(peer) if peer.program().is_none());
        let of = |m: &Mode| sets.iter().any(|s| s.modes().contains(m));
        let peers = Peer::ALL.into_iter().map(Mode::Peer);
        let all = Mode::OWN.into_iter().chain(peers);
        let all = all.chain([Mode::Trace, Mode::Fast]);
        compare::candidates(all.filter(of).filter(installed), None)
    }

    /// The sets that were asked for, in their own order; of kept results all.
    fn sets(&self) -> Vec<Set> {
        let asked: Vec<Set> = self.sets.iter().flat_map(|s| s.0.clone()).collect();
        match (asked.is_empty(), &self.show) {
            (true, None) => Set::OWN.into(),
            (true, Some(_)) => Set::ALL.into(),
            _ => Set::ALL.into_iter().filter(|s| asked.contains(s)).collect(),
        }
    }

    /// The results, and the signal that ended measuring early.
    fn results(&self, sets: &[Set]) -> Result<(Results, Option<i32>)> {
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
            patience: None,
            place: None,
        };
        let plan = Plan {
            sets: sets.to_vec(),
            candidates: self.candidates(sets),
            everywhere: !self.modes.is_empty(),
            settings,
            seconds: self.time,
        };
        let signals = session::watch_signals()?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(bench::run(
            &plan,
            version,
            &signals,
            &mut *compare::progress(),
        )?)
    }
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    // Before anything is measured: what cannot be read ends it.
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string());
        text.map(|text| (path.clone(), text))
    };
    let page = options.page.as_ref().map(read).transpose()?;
    let before = options.against.as_deref().map(Results::read).transpose()?;
    let sets = options.sets();
    let (results, interrupted) = options.results(&sets)?;
    if let Some(path) = &options.output {
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if let Some((path, old)) = page {
        let on = || path.display().to_string();
        let new = page::fill(&old, &results).map_err(|e| anyhow::anyhow!("{}: {e}", on()))?;
        std::fs::write(&path, new).with_context(on)?;
    }
    let mut shown = match (options.json, options.markdown) {
        (true, _) => serde_json::to_string(&results)? + "\n",
        (_, true) => results.markdown(&sets),
        _ => results.text(&sets),
    };
    if let Some(before) = before {
        shown += &against::report(&before, &results);
    }
    compare::print(&shown)?;
    Ok(compare::interrupted(interrupted).unwrap_or(0))
}

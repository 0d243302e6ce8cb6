//! `duet trace`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use duet_sandbox::{Engine, Seen};
use duet_trace::recorder::{Filter, Recorder};

use crate::run;

/// Options of `duet trace`.
#[derive(Args)]
#[group(id = "trace-options")]
pub struct Options {
    /// Show these only: calls, or the sets file, process, network, memory, signal, ipc, desc
    #[arg(long = "trace", value_name = "SET|NAME,...", value_parser = Filter::parse)]
    filter: Option<Filter>,
    /// Write to a file instead of standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Bytes of a string that are shown
    #[arg(short = 's', long, value_name = "N", default_value_t = 32)]
    string_limit: usize,
    #[command(flatten)]
    run: run::Options,
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    run::check_layer(&options.run)?;
    let mut config = run::config(&options.run)?;
    config.engine = Engine::Ptrace;
    config.seen = Seen::All;
    let out: Box<dyn Write + Send> = match &options.output {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(std::io::stderr()),
    };
    let program = config.program.as_bytes().to_vec();
    let args = std::iter::once(&config.program).chain(&config.args);
    let args = args.map(|a| a.as_bytes().to_vec()).collect();
    let filter = options.filter.clone().unwrap_or_default();
    let limit = options.string_limit.min(1 << 20);
    let recorder = Recorder::new(out, filter, limit, program, args, config.env.len());
    let recorder = Arc::new(recorder);
    let outcome = duet_sandbox::run(&config, Some(recorder.clone()))?;
    recorder.finish().context("writing the trace")?;
    Ok(outcome.exit_code)
}

//! `duet doctor`: what this host offers.

use anyhow::Result;
use clap::Args;
use duet_sandbox::doctor::{Verdict, checks};
use serde_json::json;

/// Options of `duet doctor`.
#[derive(Args)]
pub struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exits 1 if something that `duet run` cannot do without is missing.
pub fn main(options: &Options) -> Result<u8> {
    let mut missing = 0;
    for c in checks() {
        let (mark, word) = match c.verdict {
            Verdict::Present => ("ok  ", "present"),
            Verdict::Slower => ("slow", "slower"),
            Verdict::Weaker => ("weak", "weaker"),
            Verdict::Missing => ("MISS", "missing"),
        };
        missing += usize::from(c.verdict == Verdict::Missing);
        if options.json {
            println!(
                "{}",
                json!({ "check": c.name, "verdict": word, "advice": c.advice })
            );
            continue;
        }
        println!("{mark}  {}", c.name);
        if c.verdict != Verdict::Present {
            println!("      {}", c.advice);
        }
    }
    if !options.json && missing == 0 {
        println!("duet run works here");
    }
    Ok(u8::from(missing > 0))
}

//! `duet syscalls`: the table, for people and for machines.

mod page;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use duet_syscalls::table::{self, Family, Row, Verdict, docs::Counts};

/// Options of `duet syscalls`.
#[derive(Args)]
#[command(after_help = "Examples:
  duet syscalls openat                       all about one call
  duet syscalls --family file                what Duet does with calls that name files
  duet syscalls --disposition refused --json
  duet syscalls --search descriptor          calls whose name or purpose has this word")]
pub struct Options {
    /// Explain this call (its name or number)
    #[arg(conflicts_with_all = ["family", "disposition", "search"])]
    name: Option<String>,
    /// Only calls of this family
    #[arg(long, value_name = "NAME", value_parser = family)]
    family: Option<Family>,
    /// Only calls that are treated so, if only for some arguments
    #[arg(long, value_enum, value_name = "HOW")]
    disposition: Option<How>,
    /// Only calls that have this word in their name, purpose or note
    #[arg(long, value_name = "WORD")]
    search: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What Duet does with a call.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// The kernel runs it
    Native,
    /// Duet answers it
    Emulated,
    /// It fails
    Refused,
}

fn family(name: &str) -> Result<Family, String> {
    let found = Family::ALL
        .into_iter()
        .find(|f| f.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let all: Vec<&str> = Family::ALL.iter().map(|f| f.name()).collect();
        format!("there are {}", all.join(", "))
    })
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    if let Some(name) = &options.name {
        let row = match name.parse() {
            Ok(nr) => table::lookup(nr),
            Err(_) => table::by_name(name),
        };
        let Some(row) = row else {
            bail!(
                "{name}: no system call of x86-64 has this name; `duet syscalls --search {name}` looks for the word"
            )
        };
        print(&if options.json {
            page::json(row)
        } else {
            page::text(row)
        });
        return Ok(0);
    }
    let rows: Vec<&Row> = table::rows()
        .iter()
        .filter(|r| wanted(r, options))
        .collect();
    if rows.is_empty() {
        bail!("no system call is like that");
    }
    let line = if options.json { page::json } else { page::line };
    let mut out: String = rows.iter().map(|row| line(row)).collect();
    if !options.json {
        let c = Counts::of(rows.iter().copied());
        out += &format!(
            "{} calls: {} native, {} by arguments, {} emulated, {} refused\n",
            c.total(),
            c.native,
            c.by_arguments,
            c.emulated,
            c.refused
        );
    }
    print(&out);
    Ok(0)
}

fn wanted(row: &Row, options: &Options) -> bool {
    let has = |text: &str, word: &str| text.to_ascii_lowercase().contains(word);
    let treated = match options.disposition {
        None => true,
        Some(How::Native) => row.may_be(|v| *v == Verdict::Native),
        Some(How::Emulated) => row.may_be(|v| *v == Verdict::Emulated),
        Some(How::Refused) => row.may_be(|v| matches!(v, Verdict::Refused(_))),
    };
    let found = options.search.as_deref().is_none_or(|word| {
        let word = word.to_ascii_lowercase();
        [row.name, row.sense, row.note]
            .iter()
            .any(|text| has(text, &word))
    });
    treated && found && options.family.is_none_or(|f| f == row.family)
}

/// Prints, and stays quiet if the reader of a pipe has gone.
fn print(text: &str) {
    use std::io::Write;
    if let Err(e) = std::io::stdout().lock().write_all(text.as_bytes()) {
        log::debug!("standard output: {e}");
    }
}

//! `duet syscalls`: the table, for people.

use anyhow::{Result, bail};
use clap::Args;
use duet_syscalls::table::{self, Row, docs::Counts};
use serde_json::json;

/// Options of `duet syscalls`.
#[derive(Args)]
pub struct Options {
    /// Explain this call (its name or number)
    name: Option<String>,
    /// Only calls of this family (file, descriptor, process, …)
    #[arg(long, value_name = "NAME")]
    family: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    if let Some(name) = &options.name {
        let row = match name.parse() {
            Ok(nr) => table::lookup(nr),
            Err(_) => table::by_name(name),
        };
        let Some(row) = row else {
            bail!("{name}: no system call of x86-64 has this name")
        };
        print(&explain(row, options.json));
        return Ok(0);
    }
    let wanted = |r: &&Row| {
        let family = options.family.as_deref();
        family.is_none_or(|f| r.family.name().eq_ignore_ascii_case(f))
    };
    let rows: Vec<&Row> = table::rows().iter().filter(wanted).collect();
    if rows.is_empty() {
        let all: Vec<&str> = table::Family::ALL.iter().map(|f| f.name()).collect();
        bail!("no such family; there are {}", all.join(", "));
    }
    let mut out = String::new();
    for row in &rows {
        out += &if options.json {
            explain(row, true)
        } else {
            line(row)
        };
    }
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

fn line(row: &Row) -> String {
    format!(
        "{:>3} {:<24} {:<12} {}\n",
        row.nr,
        row.name,
        row.family.name(),
        row.treatment()
    )
}

fn explain(row: &Row, as_json: bool) -> String {
    if as_json {
        let object = json!({
            "number": row.nr,
            "name": row.name,
            "signature": row.signature(),
            "family": row.family.name(),
            "treatment": row.treatment(),
            "note": row.note,
        });
        return object.to_string() + "\n";
    }
    let (nr, family) = (row.nr, row.family.name());
    let mut text = format!(
        "{}\n  number   {nr}\n  family   {family}\n",
        row.signature()
    );
    text += &format!("  in Duet  {}\n", row.treatment());
    if !row.note.is_empty() {
        text += &format!("  {}\n", row.note);
    }
    text
}

/// Prints, and stays quiet if the reader of a pipe has gone.
fn print(text: &str) {
    use std::io::Write;
    if let Err(e) = std::io::stdout().lock().write_all(text.as_bytes()) {
        log::debug!("standard output: {e}");
    }
}

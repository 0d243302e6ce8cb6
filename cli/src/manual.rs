//! `duet manual` and `duet completions`: both are made from the definition of the command line.

use std::io::Write;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Options of `duet completions`.
#[derive(Args)]
pub struct Options {
    /// The shell that is to complete
    shell: Shell,
}

const EXIT_STATUS: &str = ".SH EXIT STATUS
The program's own; 128+N if signal N killed it.
.TP
125
duet itself failed, or was used wrongly.
.TP
126
The program cannot be run.
.TP
127
There is no such program.
";

/// Prints one page about everything, in the format of man(7). `duet` is the whole command line.
pub fn manual(duet: Command) -> Result<u8> {
    print(&page(duet)?)
}

fn page(mut duet: Command) -> Result<Vec<u8>> {
    duet.build();
    let examples = duet.get_after_help().map(ToString::to_string);
    let page = Man::new(duet.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_options_section(&mut text)?;
    let shown = |c: &&Command| !c.is_hide_set() && c.get_name() != "help";
    for command in duet.get_subcommands().filter(shown) {
        let title = format!("duet {}", command.get_name()).to_uppercase();
        let about = command.get_about().map(ToString::to_string);
        writeln!(text, ".SH {title}\n{}.", escape(&about.unwrap_or_default()))?;
        let mut options = Vec::new();
        Man::new(command.clone()).render_options_section(&mut options)?;
        // Under the command's own heading.
        let options = String::from_utf8_lossy(&options);
        let list = options.split_once(".SH OPTIONS\n");
        text.extend_from_slice(list.map_or(&*options, |(_, list)| list).as_bytes());
    }
    text.extend_from_slice(EXIT_STATUS.as_bytes());
    if let Some(examples) = examples {
        let lines = examples.trim_start_matches("Examples:\n");
        writeln!(text, ".SH EXAMPLES\n.nf\n{}\n.fi", escape(lines))?;
    }
    Ok(text)
}

/// As text of roff(7): dashes stay what they are typed as.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Prints a script for a shell. `duet` is the whole command line.
pub fn completions(options: &Options, mut duet: Command) -> Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut duet, "duet", &mut text);
    print(&text)
}

fn print(text: &[u8]) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    out.write_all(text).context("writing to standard output")?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_option_that_is_shown() {
        let mut duet = <crate::Cli as clap::CommandFactory>::command();
        let text = String::from_utf8(page(duet.clone()).unwrap()).unwrap();
        duet.build();
        for command in duet.get_subcommands().filter(|c| !c.is_hide_set()) {
            let shown = command.get_arguments().filter(|a| !a.is_hide_set());
            for option in shown.filter_map(|a| a.get_long()) {
                let option = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(text.contains(&option), "{option} in {text}");
            }
        }
        assert!(!text.contains(".SH OPTIONS\n.SH"), "{text}");
    }
}

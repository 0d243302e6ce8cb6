//! Pages as a browser draws them: Chromium without a window.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::build::host_tool;
use crate::run::{command_output_within, tempdir};
use crate::skip;

/// A browser starts slowly where others want the processors too.
const LIMIT: Duration = Duration::from_secs(400);

/// The colours that the person prefers.
#[derive(Clone, Copy, Debug)]
pub enum Scheme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// Whether there is a browser; says so if not.
pub fn has_browser(test: &str) -> bool {
    let found = host_tool("chromium").is_some();
    if !found {
        skip(test, "no chromium");
    }
    found
}

/// Opens a file, runs its scripts, and returns the document as it is then.
pub fn drawn(file: &Path, scheme: Scheme) -> String {
    let profile = tempdir();
    let mut command = Command::new(host_tool("chromium").expect("a browser"));
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1000,800",
        "--dump-dom",
    ]);
    let preferred = match scheme {
        Scheme::Dark => 0,
        Scheme::Light => 1,
    };
    command.arg(format!("--blink-settings=preferredColorScheme={preferred}"));
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("file://{}", file.display()));
    command_output_within(command, b"", LIMIT).ok()
}

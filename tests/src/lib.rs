//! Support for the end-to-end tests: it finds the `duet` program, builds the guests of `testbins/`,
//! runs a program natively and in a layer, and compares.
//!
//! The oracle is Linux itself: a guest prints what it sees, and must print the same natively (in a
//! fresh directory) and under `duet run` (in the layer's `/tmp`).

mod browser;
mod build;
mod expectations;
mod gallery;
mod known;
mod machine;
mod page;
mod run;

pub use browser::{Scheme, drawn, has_browser};
pub use build::{Toolchain, duet, guest, host_tool, testbins_dir, workspace_dir};
pub use expectations::{Expectations, Verdicts};
pub use gallery::{EXHIBITS, Exhibit, exhibit, show};
pub use known::{known, known_with};
pub use machine::{
    Libkrunfw, MACHINE_LIMIT, kernel_cache, kvm_modules, libkrunfw, machine_possible,
};
pub use page::{MATRIX, around_matrix, compatibility_page};
pub use run::{
    Known, Output, assert_same, both, both_but, command_output, command_output_within,
    copy_program, duet_command, duet_run, expected, in_place_of, native_command, native_run,
    tempdir, without_stray_descriptors,
};

use std::io::Write;

/// Says that `test` did not run and why: at once on standard error (past the test harness's capture)
/// and in `skipped.txt` beside the guests, which `.ci/run` prints at its end.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(testbins_dir().join("skipped.txt"));
    if let Ok(mut file) = file {
        let _ = file.write_all(line.as_bytes());
    }
}

/// Debian's static busybox; says so if there is none.
pub fn busybox(test: &str) -> Option<std::path::PathBuf> {
    let found = host_tool("busybox");
    if found.is_none() {
        skip(test, "no busybox (package busybox-static)");
    }
    found
}

/// True if this process is root, as tests of ownership need on their native side.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

//! `duet demo`: a built-in static program, run in the layer.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use duet_sandbox::{Config, Engine, Limits, Messages, Network, Seen, Tree};

use crate::report::Report;

/// A static program, built from `demo/demo.rs` together with this one.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/duet-demo"));

/// Runs the command.
pub fn main() -> Result<u8> {
    let mut file = tempfile()?;
    file.write_all(PROGRAM)
        .context("writing the demo program")?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    println!(
        "duet: running a static program of {} KiB in the layer\n",
        PROGRAM.len() / 1024
    );
    let outcome = duet_sandbox::run(
        &Config {
            program: CString::new(path)?,
            args: Vec::new(),
            env: vec![c"PATH=/bin".into(), c"HOME=/".into()],
            tree: Tree::Bare,
            volumes: Vec::new(),
            keep_id: false,
            tmpfs: Vec::new(),
            workdir: None,
            uid: 0,
            gid: 0,
            hostname: "duet-demo".into(),
            network: Network::None,
            limits: Limits::default(),
            engine: Engine::Seccomp,
            seen: Seen::All,
            messages: Messages::Seen,
            accelerated: false,
        },
        None,
    )?;
    print!("\n{}", Report::new(outcome.counters()).text());
    Ok(outcome.exit_code)
}

/// A file without a name, executable.
fn tempfile() -> Result<std::fs::File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let fd = memfd_create(c"demo", MFdFlags::MFD_CLOEXEC).context("making a memfd")?;
    Ok(fd.into())
}

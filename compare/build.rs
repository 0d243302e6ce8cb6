//! Builds the measuring program of `duet bench`: a static executable, embedded in this crate.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "../benches/abibench.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CC");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("abibench");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-O2", "-static", "-pthread", "-s", "-o"])
        .arg(&out)
        .arg(source)
        .status();
    match status {
        Ok(status) if status.success() => (),
        other => panic!(
            "{compiler:?} cannot build {source} ({other:?}): a C compiler and the static C library are needed"
        ),
    }
}

//! Builds the demo program: a static executable, embedded in `duet`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=demo/demo.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("duet-demo");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let status = Command::new(rustc)
        .args([
            "--edition=2024",
            "-O",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ])
        .args(["--crate-name=duet_demo", "demo/demo.rs", "-o"])
        .arg(&out)
        .status()
        .expect("rustc can be run");
    assert!(status.success(), "building the demo program failed");
}

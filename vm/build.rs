//! Builds the agent: a static program, embedded in this crate.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    for path in ["agent", "protocol", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let variable = |name| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("agent");
    // With a target that is named, the flags do not concern macros, which cannot be static.
    let target = "x86_64-unknown-linux-gnu";
    let mut command = Command::new(variable("CARGO"));
    command
        .args(["build", "--quiet", "--package", "duet-agent"])
        .args(["--profile", "agent", "--target", target])
        .arg("--target-dir")
        .arg(&out)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // What wraps the outer build (clippy, coverage) or steers it is not for the agent.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let wraps = text == "RUSTC_WORKSPACE_WRAPPER" || text == "RUSTC_WRAPPER";
        let steers = text == "RUSTFLAGS" || text.starts_with("CARGO_PROFILE_");
        if wraps || steers {
            command.env_remove(&name);
        }
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "building the agent failed");
    let agent = out.join(target).join("agent/duet-agent");
    println!("cargo::rustc-env=DUET_AGENT={}", agent.display());
}

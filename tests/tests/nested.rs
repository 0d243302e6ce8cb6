//! A sandbox within the sandbox, and what else needs namespaces, is refused in words.

use std::path::PathBuf;

use duet_tests::{duet, duet_run, host_tool, skip};

/// Runs a tool of the host in a layer; it must fail with this status and say this.
#[track_caller]
fn refused(tool: &str, args: &[&str], status: i32, says: &str) {
    let program = match tool {
        "duet" => Some(PathBuf::from(duet())),
        _ => host_tool(tool),
    };
    let Some(program) = program else {
        return skip(tool, "not installed");
    };
    let output = duet_run(&["--host-root"], &program, args, b"");
    assert_eq!(output.status, status, "{output:?}");
    assert!(output.stderr.contains(says), "{output:?}");
}

#[test]
fn unshare() {
    refused("unshare", &["-Ur", "true"], 1, "Operation not permitted");
    refused("unshare", &["-m", "true"], 1, "Operation not permitted");
    // What is no namespace is not refused.
    let perl = host_tool("perl").unwrap_or_default();
    let script = "exit(syscall(272, 0x200) == 0 && syscall(272, 0x400) == 0 ? 7 : 8)";
    if perl.is_file() {
        let output = duet_run(&["--host-root"], &perl, &["-e", script], b"");
        assert_eq!(output.status, 7, "{output:?}");
    }
}

#[test]
fn bubblewrap() {
    let args = ["--ro-bind", "/", "/", "true"];
    refused("bwrap", &args, 1, "Operation not permitted");
}

#[test]
fn pivot_root() {
    refused("pivot_root", &["/", "/tmp"], 1, "Operation not permitted");
}

#[test]
fn duet_itself() {
    let says = "cannot make a user namespace: Operation not permitted; `duet doctor`";
    refused("duet", &["run", "/bin/true"], 125, says);
}

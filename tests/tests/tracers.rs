//! Guests trace guests as processes trace one another natively, and nothing else.

use duet_tests::{Toolchain, both, duet_run, guest, host_tool, is_root, skip, tempdir};

/// On a volume, where set-id bits count.
#[test]
fn between_guests() {
    let test = "between_guests";
    if !is_root() {
        return skip(test, "its native side needs root");
    }
    let dir = tempdir();
    let volume = format!("{}:/work", dir.path().display());
    let options = ["--engine", "seccomp", "-v", &volume, "-w", "/work"];
    for toolchain in [Toolchain::Static, Toolchain::StaticPie] {
        match guest("tracing", toolchain) {
            Some(program) => {
                both(&options, &program, &[]);
                std::fs::remove_dir_all(dir.path().join("tracing")).unwrap();
            }
            None => skip(test, &format!("no compiler for {toolchain:?}")),
        }
    }
}

/// The first program has Duet's init as its parent, which is no tracer.
#[test]
fn not_by_init() {
    let Some(perl) = host_tool("perl") else {
        return skip("not_by_init", "no perl");
    };
    // ptrace(PTRACE_TRACEME)
    let script =
        r#"$r = syscall(101, 0, 0, 0, 0); printf "%d %s\n", $r, $!{EPERM} ? "EPERM" : "";"#;
    let output = duet_run(
        &["--engine", "seccomp", "--host-root"],
        &perl,
        &["-e", script],
        b"",
    );
    assert_eq!(output.ok(), "-1 EPERM\n");
}

/// With the engine that traces the guests itself a tracer is told so.
#[test]
fn not_beside_the_engine() {
    let Some(strace) = host_tool("strace") else {
        return skip("not_beside_the_engine", "no strace");
    };
    let options = ["--engine", "ptrace", "--host-root"];
    let output = duet_run(&options, &strace, &["true"], b"");
    let text = "ptrace(PTRACE_TRACEME, ...): Operation not permitted";
    assert!(output.stderr.contains(text), "{output:?}");
    assert_ne!(output.status, 0);
}

/// A tracer that is a user inside, over a tree whose files are root's.
#[test]
fn as_a_user() {
    let Some(strace) = host_tool("strace") else {
        return skip("as_a_user", "no strace");
    };
    let options = ["--engine", "seccomp", "--host-root", "-u", "1000:1000"];
    let args = [
        "-f",
        "-e",
        "trace=none",
        "-e",
        "signal=none",
        "sh",
        "-c",
        "id -u; id -u | cat",
    ];
    let output = duet_run(&options, &strace, &args, b"");
    assert_eq!(output.stdout, "1000\n1000\n", "{output:?}");
    assert_eq!(
        output.stderr.matches("exited with 0").count(),
        4,
        "{output:?}"
    );
}

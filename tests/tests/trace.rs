//! `duet trace` writes what strace writes for the same program, but for numbers that differ from run to
//! run.

use std::process::Command;

use duet_tests::{command_output, duet, host_tool, skip, tempdir};

/// `duet trace OPTIONS COMMAND`, or strace: the lines, without what differs from run to run.
fn lines(command: &mut Command, output: &std::path::Path) -> Vec<String> {
    command.env_clear().env("PATH", "/usr/bin:/bin");
    let mut owned = Command::new(command.get_program());
    owned
        .args(command.get_args())
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    command_output(owned, b"").ok();
    let text = std::fs::read_to_string(output).unwrap();
    let names = |line: &str| {
        // strace aligns results, and names the process where there are several.
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let (call, result) = line.rsplit_once(" = ").unwrap_or((line, ""));
        let call = call.trim_end();
        let fixed = [
            "openat(",
            "newfstatat(",
            "read(",
            "write(",
            "close(",
            "sendfile(",
            "exit_group(",
        ];
        match fixed.iter().any(|f| call.starts_with(f)) {
            true => format!("{call} = {result}"),
            false => call.split('(').next().unwrap_or(call).to_owned(),
        }
    };
    let plain = |line: &&String| !line.contains("0x");
    let all: Vec<String> = text.lines().map(names).collect();
    all.iter().filter(plain).cloned().collect()
}

#[test]
fn a_static_program_as_strace_has_it() {
    let test = "a_static_program_as_strace_has_it";
    let (Some(busybox), Some(strace)) = (host_tool("busybox"), host_tool("strace")) else {
        return skip(test, "no busybox or no strace");
    };
    let dir = tempdir();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut command = Command::new(strace);
    command
        .arg("-o")
        .arg(&theirs)
        .arg(&busybox)
        .args(["cat", "/etc/passwd", "/none"]);
    command.args(["/etc/group"]);
    let run = |command: &mut Command, out: &std::path::Path| {
        // cat fails for the file that is not there.
        let mut shell = Command::new("/bin/sh");
        let mut words = vec![command.get_program().to_owned()];
        words.extend(command.get_args().map(ToOwned::to_owned));
        shell.args(["-c", "\"$@\"; [ $? = 1 ]", "sh"]).args(words);
        lines(&mut shell, out)
    };
    let native = run(&mut command, &theirs);
    let mut command = Command::new(duet());
    command
        .args(["trace", "--host-root", "-o"])
        .arg(&ours)
        .arg(&busybox);
    command.args(["cat", "/etc/passwd", "/none", "/etc/group"]);
    let traced = run(&mut command, &ours);
    assert_eq!(native, traced);
    assert!(native.iter().any(|l| l.contains("\"/none\"")), "{native:?}");
}

#[test]
fn processes_signals_and_filters() {
    let test = "processes_signals_and_filters";
    let Some(busybox) = host_tool("busybox") else {
        return skip(test, "no busybox (package busybox-static)");
    };
    let trace = |options: &[&str], script: &str| {
        let mut command = Command::new(duet());
        command
            .arg("trace")
            .args(options)
            .arg(&busybox)
            .args(["sh", "-c", script]);
        command_output(command, b"")
    };
    let output = trace(&[], "(exit 3) & wait; kill -TERM $$");
    assert_eq!(output.status, 143);
    for wanted in [
        "execve(\"",
        "+++ exited with 3 +++",
        "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=3, si_uid=0, si_status=3",
        "kill(2, SIGTERM)",
        "--- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=2, si_uid=0} ---",
        "+++ killed by SIGTERM +++",
    ] {
        assert!(
            output.stderr.contains(wanted),
            "no {wanted} in {}",
            output.stderr
        );
    }
    let output = trace(
        &["--trace", "mkdir,chdir"],
        "mkdir /tmp/x; cd /tmp/x; mkdir /none/y",
    );
    let lines = output.stderr.lines();
    let of_process = lines.map(|l| l.split_once("] ").map_or(l, |(_, rest)| rest));
    let calls: Vec<&str> = of_process.filter(|l| l.contains("dir(\"")).collect();
    assert_eq!(
        calls,
        [
            "mkdir(\"/tmp/x\", 0777)                   = 0",
            "chdir(\"/tmp/x\")                         = 0",
            "mkdir(\"/none/y\", 0777)                  = -1 ENOENT (No such file or directory)",
        ],
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("execve("), "{}", output.stderr);
    let output = trace(&["--trace", "opne"], "true");
    assert!(
        output.status == 125 && output.stderr.contains("opne"),
        "{output:?}"
    );
}

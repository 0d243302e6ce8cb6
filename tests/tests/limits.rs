//! `--memory`, `--pids`, `--cpus`, `--timeout`: kept by a control group where one can be made, by the
//! next best means where not.

use std::time::Instant;

use duet_tests::{Output, duet_run, host_tool, skip};

fn shell(test: &str, options: &[&str], script: &str) -> Option<Output> {
    let Some(program) = host_tool("busybox") else {
        skip(test, "no busybox (package busybox-static)");
        return None;
    };
    Some(duet_run(options, &program, &["sh", "-c", script], b""))
}

/// Whether Duet said that no control group was to be had.
fn without_group(output: &Output) -> bool {
    output.stderr.contains("no control group can be made here")
}

#[test]
fn memory() {
    // tail keeps its whole input, which has no end of line.
    let script = "grep MemTotal /proc/meminfo; head -c 100m /dev/zero | tail >/dev/null; echo $?";
    let Some(output) = shell("memory", &["--memory", "40m"], script) else {
        return;
    };
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[0], "MemTotal:          40960 kB");
    assert_ne!(lines[1], "0", "{output:?}");
    if !without_group(&output) {
        assert_eq!(lines[1], "137", "{output:?}");
    }
    let output = shell("memory", &["-m", "400m"], script).unwrap();
    assert!(output.stdout.ends_with("\n0\n"), "{output:?}");
}

#[test]
fn processes() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 60 & done; echo all; kill $(jobs -p)";
    let Some(output) = shell("processes", &["--pids", "10"], script) else {
        return;
    };
    assert_eq!((output.stdout.as_str(), output.status), ("", 2));
    assert!(output.stderr.contains("fork"), "{output:?}");
    assert!(!output.stderr.contains("duet:"), "{output:?}");
    let output = shell("processes", &["--pids", "100"], script).unwrap();
    assert_eq!(output.stdout, "all\n");
    // Duet's own init, and the program.
    let output = shell("processes", &["--pids", "2"], "echo one").unwrap();
    if !without_group(&output) {
        assert_eq!(
            (output.stdout.as_str(), output.status),
            ("one\n", 0),
            "{output:?}"
        );
    }
}

#[test]
fn processors() {
    // Half a processor: as much time again as the loop takes of it is spent waiting, whatever else the
    // machine does.
    let script =
        "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; cat /proc/self/stat >/dev/null; times";
    let started = Instant::now();
    let Some(output) = shell("processors", &["--cpus", "0.5"], script) else {
        return;
    };
    let elapsed = started.elapsed().as_secs_f64();
    if without_group(&output) {
        return skip("processors", "no control group for processors");
    }
    // "0m1.230s 0m0.010s" of the shell.
    let own = output.stdout.lines().next().unwrap_or_default();
    let user = own
        .split(['m', 's'])
        .nth(1)
        .and_then(|s| s.parse::<f64>().ok());
    let user = user.unwrap_or_else(|| panic!("{output:?}"));
    assert!(elapsed > user * 1.6, "{elapsed} s for {user} s of work");
}

#[test]
fn time() {
    let Some(output) = shell(
        "time",
        &["--timeout", "0.3"],
        "echo begun; (sleep 50 &); sleep 60",
    ) else {
        return;
    };
    assert_eq!((output.stdout.as_str(), output.status), ("begun\n", 124));
    assert!(output.stderr.contains("the time is up"), "{output:?}");
    let output = shell("time", &["--timeout", "1m"], "exit 7").unwrap();
    assert_eq!((output.status, output.stderr.as_str()), (7, ""));
}

#[test]
fn what_is_no_limit_is_refused() {
    for bad in [
        ["--memory", "0"],
        ["--memory", "lots"],
        ["--pids", "0"],
        ["--cpus", "0"],
        ["--timeout", "soon"],
    ] {
        let Some(output) = shell("what_is_no_limit_is_refused", &bad, "true") else {
            return;
        };
        assert_eq!(output.status, 125, "{output:?}");
        assert!(output.stderr.contains(bad[0]), "{output:?}");
    }
}

//! A long trace is written as it goes: it does not grow in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use duet_tests::{Toolchain, duet, guest, skip};

/// Kibibytes of memory that a process has at most.
const MOST_GROWTH: u64 = 4 << 10;

/// What process `pid` holds in memory, in KiB.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs calls, and as many more as `more` says; the lines that told of them. Fails if Duet's memory grows
/// meanwhile.
fn lines(options: &[&str], more: u64) -> u64 {
    const FIRST: u64 = 50_000;
    let program = guest("million", Toolchain::Static).expect("it was built already");
    let mut command = Command::new(duet());
    command.arg("trace").args(options).arg(program);
    command.args([FIRST.to_string(), more.to_string()]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let trace = BufReader::new(child.stderr.take().unwrap());
    let counter = std::thread::spawn(move || {
        let told = |line: &std::io::Result<Vec<u8>>| {
            line.as_ref()
                .is_ok_and(|l| l.windows(8).any(|w| w == b"getppid(" || w == b"getppid\""))
        };
        trace.split(b'\n').filter(told).count() as u64
    });
    let mut step = || {
        let mut dot = [0];
        output.read_exact(&mut dot).unwrap();
        let now = resident(child.id());
        input.write_all(b"x").unwrap();
        now
    };
    let (before, after) = (step(), step());
    assert!(child.wait().unwrap().success());
    assert!(
        after < before + MOST_GROWTH,
        "{options:?}: {before} KiB grew to {after} KiB over {more} calls"
    );
    counter.join().unwrap() - FIRST
}

#[test]
fn a_million_calls() {
    if guest("million", Toolchain::Static).is_none() {
        return skip("a_million_calls", "no C compiler");
    }
    assert_eq!(lines(&[], 1_000_000), 1_000_000);
    // The other forms are made by other code, call for call.
    assert_eq!(lines(&["--json", "-y"], 100_000), 100_000);
    assert_eq!(lines(&["--fast", "-e", "getppid", "-C"], 100_000), 100_000);
}

//! However much a guest does, its supervisor has as many descriptors, threads and bytes afterwards as
//! before.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Stdio};

use duet_tests::{Toolchain, duet_command, guest, skip};

#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: u64,
    kilobytes: u64,
}

fn held(pid: u32) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Held {
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count(),
        threads: field("Threads:"),
        kilobytes: field("RssAnon:"),
    }
}

/// What is held for a while is held in tables with bounds: a first lot of rounds fills them.
const WARM_UP: u32 = 270;
const ROUNDS: u32 = 300;

/// After 300 rounds, in each of which four processes, a thread, a mount, two sockets and a dozen files come
/// and go. A descriptor held for each round would be five times as many. Of memory, the tables of what has
/// been open, of states and of peers take some kilobytes a round until they are full.
const DESCRIPTORS: usize = 60;
const THREADS: u64 = 4;
const KILOBYTES: u64 = 4096;

fn stays_as_it_was(test: &str, engine: &str) {
    let Some(program) = guest("churn", Toolchain::Static) else {
        return skip(test, "no gcc");
    };
    let mut command = duet_command(&["--engine", engine]);
    command
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut duet = command.spawn().unwrap();
    let mut stdin = duet.stdin.take().unwrap();
    let mut lines = BufReader::new(duet.stdout.take().unwrap()).lines();
    let mut rounds = |stdin: &mut ChildStdin, n: u32| {
        writeln!(stdin, "{n}").unwrap();
        let line = lines.next().map(Result::unwrap);
        assert_eq!(line.as_deref(), Some("done"));
        held(duet.id())
    };
    let before = rounds(&mut stdin, WARM_UP);
    let after = rounds(&mut stdin, ROUNDS);
    drop(stdin);
    assert!(duet.wait().unwrap().success());
    println!("{before:?} {after:?}");
    assert!(
        after.descriptors <= before.descriptors + DESCRIPTORS
            && after.threads <= before.threads + THREADS
            && after.kilobytes <= before.kilobytes + KILOBYTES,
        "before {before:?}, after {ROUNDS} rounds {after:?}"
    );
}

#[test]
fn of_the_seccomp_engine() {
    stays_as_it_was("of_the_seccomp_engine", "seccomp");
}

#[test]
fn of_the_ptrace_engine() {
    stays_as_it_was("of_the_ptrace_engine", "ptrace");
}

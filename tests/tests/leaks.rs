//! However much a guest does, its supervisor has as many descriptors, threads and bytes afterwards as
//! before.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use duet_tests::{Toolchain, duet_command, guest, skip, tempdir};

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

/// What a supervisor holds after each of these lots of rounds that `program` makes.
fn held_after(mut command: Command, rounds: &[u32]) -> Vec<Held> {
    let mut duet = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = duet.stdin.take().unwrap();
    let mut lines = BufReader::new(duet.stdout.take().unwrap()).lines();
    let held = rounds.iter().map(|n| {
        writeln!(stdin, "{n}").unwrap();
        let line = lines.next().map(Result::unwrap);
        assert_eq!(line.as_deref(), Some("done"));
        held(duet.id())
    });
    let held = held.collect();
    drop(stdin);
    assert!(duet.wait().unwrap().success());
    println!("{held:?}");
    held
}

fn stays_as_it_was(test: &str, engine: &str) {
    let Some(program) = guest("churn", Toolchain::Static) else {
        return skip(test, "no gcc");
    };
    let mut command = duet_command(&["--engine", engine]);
    command.arg(program);
    let held = held_after(command, &[WARM_UP, ROUNDS]);
    let (before, after) = (&held[0], &held[1]);
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

/// Each round 16,200 directories are let go at once, more than the kernel tells of.
#[test]
fn of_removed_directories() {
    let Some(program) = guest("hoard", Toolchain::Static) else {
        return skip("of_removed_directories", "no gcc");
    };
    let mut command = duet_command(&[""; 0]);
    command.arg(program).arg("removed");
    let held = held_after(command, &[2, 3]);
    let (before, after) = (&held[0], &held[1]);
    // What is not let go is 6 MB a round.
    assert!(
        after.kilobytes <= before.kilobytes + 12 * 1024,
        "before {before:?}, after three rounds {after:?}"
    );
}

/// A file that may still be open keeps the directories that it lay in, and each of them a descriptor.
#[test]
fn of_deep_directories_of_a_volume() {
    let Some(program) = guest("hoard", Toolchain::Static) else {
        return skip("of_deep_directories_of_a_volume", "no gcc");
    };
    let dir = tempdir();
    let volume = format!("{}:/vol", dir.path().display());
    let mut command = duet_command(&["-v", &volume, "--workdir", "/vol"]);
    command.arg(program).arg("deep");
    let held = held_after(command, &[100, 100]);
    assert!(held[1].descriptors <= 4096, "{held:?}");
}

/// More directories are watched, one after the other, than can be at once.
#[test]
fn of_watched_directories() {
    let Some(program) = guest("hoard", Toolchain::Static) else {
        return skip("of_watched_directories", "no gcc");
    };
    let mut command = duet_command(&[""; 0]);
    command.arg(program).arg("watched");
    let held = held_after(command, &[4000, 1000]);
    assert!(held[1].descriptors < held[0].descriptors, "{held:?}");
}

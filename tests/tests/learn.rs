//! The walks of docs/learn: every command in them prints what stands below it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use duet_tests::{
    command_output_within, duet, host_tool, kernel_cache, machine_possible, skip, tempdir,
    workspace_dir,
};

/// What a page writes for text that differs from run to run.
const ANY: char = '…';

/// The longest that a command may take: some start a machine.
const LIMIT: Duration = Duration::from_secs(600);

/// A command of a page, and the lines below it.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The commands of a page, in their order.
fn commands(page: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
            continue;
        } else if let Some(command) = line.strip_prefix("$ ") {
            all.push(Shown {
                command: command.to_owned(),
                output: Vec::new(),
            });
        } else {
            let last = all.last_mut().expect("output stands below a command");
            match line.strip_prefix("> ").or_else(|| line.strip_prefix('>')) {
                Some(more) if last.output.is_empty() => {
                    last.command.push('\n');
                    last.command.push_str(more);
                }
                _ => last.output.push(line.to_owned()),
            }
        }
    }
    all
}

/// Whether a line is what the page shows.
fn line_matches(shown: &str, line: &str) -> bool {
    let mut pieces = shown.split(ANY);
    let Some(mut rest) = pieces.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(end) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(end)
}

/// Whether lines are what the page shows.
fn matches(shown: &[String], lines: &[&str]) -> bool {
    match shown.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first.trim() == ANY.to_string() => {
            (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..]))
        }
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, lines)| line_matches(first, line) && matches(rest, lines)),
    }
}

/// Runs a page's commands in a directory of their own.
fn walk(page: &str) {
    let text = workspace_dir().join("docs/learn").join(page);
    let text = std::fs::read_to_string(&text).unwrap();
    let dir = tempdir();
    let bin = duet().parent().unwrap();
    let all = commands(&text);
    assert!(!all.is_empty(), "{page} shows commands");
    for Shown { command, output } in all {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\numask 022\n{command}")]);
        shell.current_dir(dir.path()).env_clear();
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        shell.env("PATH", path).env("LANG", "C.UTF-8");
        shell.env("XDG_CACHE_HOME", kernel_cache());
        let got = command_output_within(shell, b"", LIMIT);
        let lines: Vec<&str> = got.stdout.lines().collect();
        assert!(
            matches(&output, &lines),
            "{page}: $ {command}\n--- is to print\n{}\n--- and prints\n{}",
            output.join("\n"),
            got.stdout
        );
    }
}

/// The tools that a page needs are there, or it is said that it is skipped.
fn have(page: &str, tools: &[&str]) -> bool {
    let missing = tools.iter().find(|tool| host_tool(tool).is_none());
    if let Some(tool) = missing {
        skip(&format!("learn {page}"), &format!("no {tool}"));
    }
    missing.is_none()
}

#[test]
fn the_start() {
    walk("README.md");
}

#[test]
fn exec() {
    if have("exec", &["busybox"]) {
        walk("exec.md");
    }
}

#[test]
fn path() {
    if have("path", &["busybox"]) {
        walk("path.md");
    }
}

#[test]
fn fork() {
    if have("fork", &["gcc"]) {
        walk("fork.md");
    }
}

#[test]
fn signal() {
    if have("signal", &["busybox"]) {
        walk("signal.md");
    }
}

#[test]
fn container() {
    if have("container", &["busybox"]) {
        walk("container.md");
    }
}

#[test]
fn vm() {
    if have("vm", &["busybox"]) && machine_possible("learn vm") {
        walk("vm.md");
    }
}

#[test]
fn the_start_lists_every_walk() {
    let dir = workspace_dir().join("docs/learn");
    let start = std::fs::read_to_string(dir.join("README.md")).unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let listed = start.contains(&format!("({name})"));
        assert!(
            listed || Path::new(&name) == Path::new("README.md"),
            "{name}"
        );
    }
}

#[test]
fn what_differs_is_told_from_what_must_not() {
    let page = |lines: &[&str]| -> Vec<String> { lines.iter().map(|l| (*l).into()).collect() };
    assert!(matches(
        &page(&["a … c", "…", "z"]),
        &["a b c", "x", "y", "z"]
    ));
    assert!(matches(&page(&["…"]), &[]));
    assert!(!matches(&page(&["a … c", "z"]), &["a b d", "z"]));
    assert!(!matches(&page(&["a"]), &["a", "b"]));
    assert!(!matches(&page(&["…", "a", "…", "b"]), &["b", "a"]));
    let found = commands("```console\n$ cat <<E\n> x\n> E\nx\n```\n$ no\n```sh\n$ no\n```\n");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].command, "cat <<E\nx\nE");
    assert_eq!(found[0].output, ["x"]);
}

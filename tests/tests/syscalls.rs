//! `duet syscalls`: lists, pages and JSON of the one table.

use std::process::{Command, Output};

use duet_syscalls::table::{self, Disposition};
use duet_tests::{Toolchain, command_output, duet, guest, skip, tempdir};
use serde_json::Value;

fn syscalls(args: &[&str]) -> Output {
    let command = Command::new(duet()).arg("syscalls").args(args).output();
    command.unwrap()
}

/// What it printed, having succeeded.
fn text(args: &[&str]) -> String {
    let output = syscalls(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn objects(args: &[&str]) -> Vec<Value> {
    let lines = text(args);
    lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn names(args: &[&str]) -> Vec<String> {
    let all = objects(&[args, &["--json"]].concat());
    all.iter()
        .map(|o| o["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_call_is_an_object() {
    let all = objects(&["--json"]);
    assert_eq!(all.len(), table::rows().len());
    for (object, row) in all.iter().zip(table::rows()) {
        assert_eq!(object["number"], row.nr);
        assert_eq!(object["name"], row.name);
        assert_eq!(object["sense"], row.sense);
        let arguments = object["arguments"].as_array().unwrap();
        assert_eq!(arguments.len(), row.args.len());
        assert!(!object["code"].as_array().unwrap().is_empty());
        let wanted = match row.disposition {
            Disposition::Native => "native",
            Disposition::Emulated => "emulated",
            Disposition::Refused(_) => "refused",
            Disposition::When(..) => "by arguments",
        };
        assert_eq!(object["disposition"], wanted);
    }
}

#[test]
fn a_page_tells_all_of_a_call() {
    let page = text(&["openat"]);
    for part in [
        "openat – Finds a file",
        "int openat(int dirfd, const char *path, int flags, mode_t mode);",
        "number   257",
        "emulated",
        "openat (syscalls/src/handlers/open.rs)",
        "O_WRONLY=1",
        "O_CLOEXEC=0x80000",
        "ELOOP ",
        "a descriptor; or -1 and an error",
    ] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    assert!(page.lines().all(|l| l.chars().count() <= 100), "{page}");
    assert_eq!(text(&["257"]), page);
    assert!(text(&["bpf"]).contains("EPERM           always"));
}

#[test]
fn lists_are_filtered() {
    let refused = names(&["--family", "process", "--disposition", "refused"]);
    assert!(refused.contains(&"setns".into()) && refused.contains(&"clone".into()));
    assert!(!refused.contains(&"fork".into()) && !refused.contains(&"openat".into()));
    let found = names(&["--search", "Working Directory"]);
    assert!(found.contains(&"getcwd".into()) && !found.contains(&"open".into()));
    let list = text(&["--family", "time"]);
    let last = list.lines().last().unwrap();
    let count = list.lines().count() - 1;
    assert!(last.starts_with(&format!("{count} calls: ")), "{last}");
}

/// Errors with which the kernel tells itself that a signal interrupted a call (`ERESTARTSYS` and others).
fn is_restart(error: &str) -> bool {
    error.starts_with("ERESTART")
}

#[test]
fn errors_that_programs_meet_are_in_the_table() {
    let mut met = 0;
    for name in [
        "files", "meta", "rename", "unixsock", "inet", "openat2", "mmap", "signals",
    ] {
        let Some(program) = guest(name, Toolchain::Static) else {
            return skip(
                "errors_that_programs_meet_are_in_the_table",
                "no C compiler",
            );
        };
        let out = tempdir();
        let file = out.path().join("summary");
        let mut command = Command::new(duet());
        command.args(["trace", "--summary", &format!("json={}", file.display())]);
        command.args(["-w", "/tmp"]).arg(program);
        command_output(command, b"");
        let summary: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for failure in summary["failures"].as_array().unwrap() {
            let (call, error) = (&failure["call"], failure["error"].as_str().unwrap());
            let row = table::by_name(call.as_str().unwrap()).expect("a call of the table");
            let errors = row.errors();
            let known = errors.iter().any(|(e, _)| format!("{e:?}") == error);
            assert!(
                known || is_restart(error),
                "{name}: {call} can give {error}"
            );
            met += 1;
        }
    }
    assert!(met > 50, "just {met} errors were met");
}

#[test]
fn what_does_not_exist_is_said_in_a_line() {
    let wrong: [&[&str]; 4] = [
        &["opne"],
        &["99999"],
        &["--search", "no such word"],
        &["--family", "fil"],
    ];
    for args in wrong {
        let output = syscalls(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

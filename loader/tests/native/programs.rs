//! Whole programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::{gcc, native, run};

/// Lines of the report that say who runs it, which the harness makes up.
fn without_ids(report: &str) -> Vec<&str> {
    report.lines().filter(|l| !l.starts_with("uid ")).collect()
}

fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn installed_programs_run() {
    for aslr in [false, true] {
        for (path, argv) in [
            ("/bin/echo", &["echo", "hi"][..]),
            ("/usr/bin/busybox", &["busybox", "echo", "hi"]),
            ("/bin/bash", &["bash", "-c", "echo $(/bin/echo hi)"]),
        ] {
            let outcome = run(Path::new(path), argv, &["PATH=/bin"], aslr).unwrap();
            assert_eq!(
                (outcome.exit(), outcome.output.as_str()),
                (Some(0), "hi\n"),
                "{path}"
            );
        }
    }
    let outcome = run(Path::new("/bin/true"), &["true"], &[], true).unwrap();
    assert_eq!(outcome.exit(), Some(0));
}

#[test]
fn programs_see_what_they_see_natively() {
    let dir = tempfile::tempdir().unwrap();
    let argv = ["report", "one", "", "three"];
    let envp = ["A=1", "LC_ALL=C"];
    for (name, flags) in [
        ("dynamic", &["-DBSS=100000"][..]),
        ("small", &["-DBSS=3"]),
        ("fixed", &["-no-pie", "-DBSS=1000000"]),
        ("static", &["-static", "-no-pie", "-DBSS=100000"]),
        ("static-pie", &["-static-pie", "-DBSS=100000000"]),
        ("aligned", &["-Wl,-z,max-page-size=0x200000", "-DBSS=1"]),
        (
            "separate",
            &["-Wl,-z,separate-code,-z,max-page-size=0x10000", "-DBSS=1"],
        ),
        ("joined", &["-Wl,-z,noseparate-code", "-DBSS=5000"]),
        (
            "high",
            &[
                "-static",
                "-no-pie",
                "-Wl,-Ttext-segment=0x10000000",
                "-DBSS=9",
            ],
        ),
    ] {
        let path = gcc(dir.path(), "report.c", name, flags);
        let (status, expected) = native(&path, &argv, &envp);
        for aslr in [true, false] {
            let outcome = run(&path, &argv, &envp, aslr).unwrap();
            assert_eq!(
                without_ids(&outcome.output),
                without_ids(&expected),
                "{name}"
            );
            let native = status.unwrap();
            assert_eq!(
                format!("{:?}", outcome.exit()),
                format!("Some({})", exit(native)),
                "{name}"
            );
        }
    }
}

fn exit(status: nix::sys::wait::WaitStatus) -> i32 {
    match status {
        nix::sys::wait::WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn scripts_give_their_interpreter_the_right_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let report = gcc(dir.path(), "report.c", "report", &["-DBSS=1"]);
    let report = report.display();
    let plain = script(dir.path(), "plain", &format!("#!{report}\n"));
    let with_arg = script(dir.path(), "arg", &format!("#! {report}  -a b \nx"));
    let chain = script(
        dir.path(),
        "chain",
        &format!("#!{} c\n", with_arg.display()),
    );
    for path in [plain, with_arg, chain] {
        for argv in [&["zero"][..], &["zero", "one", "two"]] {
            let (_, expected) = native(&path, argv, &["E=1"]);
            let outcome = run(&path, argv, &["E=1"], true).unwrap();
            assert_eq!(without_ids(&outcome.output), without_ids(&expected));
        }
    }
}

#[test]
fn long_arguments_and_environments_survive() {
    let many: Vec<String> = (0..50_000).map(|i| i.to_string()).collect();
    let mut argv = vec!["busybox", "echo"];
    argv.extend(many.iter().map(String::as_str));
    let outcome = run(Path::new("/usr/bin/busybox"), &argv, &["A=b"; 1000], true).unwrap();
    assert_eq!(outcome.output.trim_end(), many.join(" "));
}

#[test]
fn the_stack_is_executable_on_request_only() {
    let dir = tempfile::tempdir().unwrap();
    for (name, flags, runs) in [
        ("yes", &["-Wl,-z,execstack"][..], true),
        ("no", &["-Wl,-z,noexecstack"], false),
        ("static-yes", &["-static", "-Wl,-z,execstack"], true),
        ("static-no", &["-static", "-Wl,-z,noexecstack"], false),
    ] {
        let path = gcc(dir.path(), "execstack.c", name, flags);
        let (status, _) = native(&path, &["x"], &[]);
        let outcome = run(&path, &["x"], &[], true).unwrap();
        assert_eq!(outcome.exit() == Some(7), runs, "{name}: {outcome:?}");
        assert_eq!(outcome.end(), crate::harness::end(status.unwrap()));
    }
}

#[test]
fn the_registers_are_those_of_a_new_program() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["-nostdlib", "-static", "-ffreestanding"];
    let path = gcc(dir.path(), "registers.c", "registers", &flags);
    let (status, expected) = native(&path, &["x"], &[]);
    assert_eq!(exit(status.unwrap()), 0);
    let outcome = run(&path, &["x"], &[], true).unwrap();
    assert_eq!((outcome.exit(), &outcome.output), (Some(0), &expected));
    assert!(outcome.output.contains("dirty 0"), "{}", outcome.output);
}

#[test]
fn sanitizers_find_their_shadow_free() {
    let dir = tempfile::tempdir().unwrap();
    for sanitizer in ["address", "thread", "undefined", "leak"] {
        let flag = format!("-fsanitize={sanitizer}");
        for pie in ["-pie", "-no-pie"] {
            let path = gcc(dir.path(), "hello.c", sanitizer, &[&flag, pie, "-fPIE"]);
            let (status, expected) = native(&path, &["x"], &[]);
            let native = exit(status.unwrap());
            for aslr in [true, false] {
                let outcome = run(&path, &["x"], &[], aslr).unwrap();
                assert_eq!(
                    (outcome.exit(), &outcome.output),
                    (Some(native), &expected),
                    "{sanitizer} {pie}"
                );
            }
        }
    }
}

#[test]
fn a_go_program_runs() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("hello.go");
    fs::write(
        &source,
        "package main\nimport \"os\"\nfunc main() { println(len(os.Args)) }\n",
    )
    .unwrap();
    let path = dir.path().join("hello");
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .args([&path, &source])
        .env("GOCACHE", dir.path().join("cache"))
        .status();
    // Go is not everywhere; a machine that has it has to build this.
    let Ok(status) = built else { return };
    assert!(status.success());
    let outcome = run(&path, &["hello", "a"], &[], true).unwrap();
    assert_eq!((outcome.exit(), outcome.output.as_str()), (Some(0), "2\n"));
}

#[test]
fn the_name_of_the_thread_is_set() {
    let argv = ["busybox", "cat", "/proc/self/comm"];
    let outcome = run(Path::new("/usr/bin/busybox"), &argv, &[], true).unwrap();
    // busybox renames itself after its applet when it is built to; ours came first.
    assert!(
        ["a-name-that-is-\n", "cat\n"].contains(&outcome.output.as_str()),
        "{outcome:?}"
    );
}

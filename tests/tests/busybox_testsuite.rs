//! busybox's own test suite (its sources come with `.ci/deps`), run on Debian's static busybox natively
//! and in a layer over the host's tree: every test that passes natively must pass inside.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use duet_tests::{
    command_output_within, copy_program, duet_command, host_tool, skip, testbins_dir,
};

/// How long the suite may run.
const LIMIT: Duration = Duration::from_secs(900);

/// The verdict (`PASS`, `FAIL`, ...) of each test by applet's name and its own.
fn verdicts(output: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in output.lines() {
        if let Some((verdict, name)) = line.split_once(": ")
            && matches!(verdict, "PASS" | "FAIL" | "SKIPPED" | "UNTESTED")
        {
            all.insert(name.to_string(), verdict.to_string());
        }
    }
    all
}

#[test]
fn passes_what_native_passes() {
    let source = testbins_dir()
        .parent()
        .unwrap()
        .join("busybox-source/testsuite");
    let (Some(busybox), true) = (host_tool("busybox"), source.is_dir()) else {
        return skip(
            "busybox_testsuite",
            "no busybox-static, or no sources of it (run .ci/deps)",
        );
    };
    // Not below /tmp, which the layer has of its own.
    let dir = tempfile::Builder::new()
        .prefix("testsuite-")
        .tempdir_in(testbins_dir())
        .unwrap();
    copy_program(busybox, dir.path().join("busybox"));
    let copied = Command::new("cp")
        .arg("-r")
        .arg(&source)
        .arg(dir.path().join("testsuite"))
        .status()
        .unwrap();
    assert!(copied.success());
    // Every feature that the tests ask for: where the binary lacks one, native fails and does not count.
    let mut config = String::new();
    for entry in fs::read_dir(&source).unwrap().flatten() {
        for line in fs::read_to_string(entry.path()).unwrap_or_default().lines() {
            for word in line
                .trim()
                .strip_prefix("optional ")
                .unwrap_or_default()
                .split_whitespace()
            {
                config += &format!("CONFIG_{word}=y\n");
            }
        }
    }
    fs::write(dir.path().join(".config"), config).unwrap();
    let script = "cd testsuite; export ECHO=/bin/echo LC_ALL=C TZ=UTC SHELL=/bin/sh; ./runtest 2>&1 < /dev/null";

    let mut native = Command::new("/bin/sh");
    native.args(["-c", script]).current_dir(dir.path());
    // hostname's tests look the host's own name up.
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let mut layer = duet_command(&[
        "--host-root",
        "-w",
        dir.path().to_str().unwrap(),
        "--hostname",
        &name,
    ]);
    layer.args(["/bin/sh", "-c", script]);
    // The layer first: it must leave the tree as it found it, so native starts afresh too.
    let layer = command_output_within(layer, b"", LIMIT);
    assert!(
        !dir.path().join("runtest-tempdir-links").exists(),
        "the layer changed the host's tree"
    );
    let native = command_output_within(native, b"", LIMIT);

    let (inside, outside) = (verdicts(&layer.stdout), verdicts(&native.stdout));
    let passed = outside.iter().filter(|(_, v)| *v == "PASS").count();
    let mut list = String::new();
    let mut worse = Vec::new();
    for (name, verdict) in &outside {
        let here = inside.get(name).map_or("MISSING", |v| v);
        list += &format!("{verdict:9}{here:9}{name}\n");
        if verdict == "PASS" && here != "PASS" {
            worse.push(name);
        }
    }
    let file = testbins_dir().join("busybox-testsuite.txt");
    fs::write(&file, list).unwrap();
    fs::write(file.with_extension("layer.log"), &layer.stdout).unwrap();
    assert!(
        passed > 500,
        "only {passed} tests passed natively:\n{}",
        native.stdout
    );
    assert!(
        worse.is_empty(),
        "{} of {passed} pass natively but not inside: {worse:#?}\nsee {}",
        worse.len(),
        file.display()
    );
}

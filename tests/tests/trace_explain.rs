//! `duet trace --explain` tells what became of each call.

use std::path::Path;
use std::process::Command;

use duet_tests::{busybox, command_output, copy_program, duet, tempdir};

/// A tree with busybox, as `sh` and under its name, and some files.
fn tree(busybox: &Path) -> tempfile::TempDir {
    let dir = tempdir();
    let at = |path: &str| dir.path().join(path);
    for name in ["bin", "etc"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    copy_program(busybox, at("bin/busybox"));
    std::fs::write(at("etc/motd"), "hello\n").unwrap();
    std::os::unix::fs::symlink("etc", at("way")).unwrap();
    dir
}

/// The trace of a script, with every number that differs from run to run as `N`.
fn explained(tree: &Path, options: &[&str], script: &str) -> Vec<String> {
    let mut command = Command::new(duet());
    command.args(["trace", "--explain", "--rootfs"]).arg(tree);
    command.args(options);
    command.args(["/bin/busybox", "sh", "-c", script]);
    let output = command_output(command, b"");
    output.stderr.lines().map(without_times).collect()
}

fn without_times(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let shown: Vec<String> = words
        .iter()
        .enumerate()
        .map(|(i, word)| {
            let timed = words.get(i + 1).is_some_and(|next| next.starts_with("us"));
            let bare = word.trim_start_matches('(');
            match timed && bare.parse::<f64>().is_ok() {
                true => word.replace(bare, "N"),
                false => (*word).to_owned(),
            }
        })
        .collect();
    shown.join(" ")
}

/// Whether `wanted` stands in `lines`, one behind the other.
fn assert_has(lines: &[String], wanted: &[&str]) {
    let found = lines.windows(wanted.len()).any(|w| w == wanted);
    assert!(found, "{wanted:#?} is not in {lines:#?}");
}

#[test]
fn walks_copies_and_refusals_are_told() {
    let Some(busybox) = busybox("walks_copies_and_refusals_are_told") else {
        return;
    };
    let tree = tree(&busybox);
    let lines = explained(
        tree.path(),
        &["-e", "trace=open,openat,mkdir,unlink,write"],
        "echo more >>/way/motd; exec cat /none",
    );
    assert_has(
        &lines,
        &[
            "openat(AT_FDCWD, \"/way/motd\", O_WRONLY|O_CREAT|O_APPEND, 0666) = 3",
            "    emulated  by openat (syscalls/src/handlers/open.rs), N us",
            "    walk      \"/way/motd\"",
            "    link      \"/way\" leads to \"etc\"",
            "    at        \"/etc/motd\" (overlay, lower layer)",
            "    walk      \"/way/motd\"",
            "    link      \"/way\" leads to \"etc\"",
            "    open      \"/etc/motd\" (overlay, lower layer) to write",
            "    copy-up   \"etc\", 0 bytes, to the upper layer",
            "    copy-up   \"motd\", 6 bytes, to the upper layer",
        ],
    );
    assert_has(
        &lines,
        &[
            "write(1, \"more\\n\", 5)                   = 5",
            "    native    run by the kernel",
        ],
    );
    assert_has(
        &lines,
        &[
            "openat(AT_FDCWD, \"/none\", O_RDONLY)     = -1 ENOENT (No such file or directory)",
            "    emulated  by openat (syscalls/src/handlers/open.rs), N us",
            "    walk      \"/none\"",
            "    none      \"/none\" is not there (overlay)",
        ],
    );
    assert!(lines.contains(&"    why       ENOENT: the overlay has no \"/none\"".into()));
    // Each emulated call says what it asked of the host, first of all for its path.
    let emulated = lines.iter().filter(|l| l.starts_with("    emulated"));
    let host = "    host      1 process_vm_readv (N us)";
    let hosts = lines.iter().filter(|l| l.starts_with(host));
    assert_eq!(emulated.count(), hosts.count(), "{lines:#?}");
}

#[test]
fn a_missing_permission_is_named() {
    let Some(busybox) = busybox("a_missing_permission_is_named") else {
        return;
    };
    let tree = tree(&busybox);
    let lines = explained(
        tree.path(),
        &[
            "-u",
            "1000:100",
            "--tmpfs",
            "/tmp",
            "-e",
            "trace=open,openat",
        ],
        "umask 777; echo >/tmp/shut; exec cat /tmp/shut",
    );
    let why =
        "    why       EACCES: user 1000 may not read what has mode 0000, owner 1000 and group 100";
    assert!(lines.contains(&why.into()), "{lines:#?}");
}

#[test]
fn mounts_and_links_of_proc_are_crossed() {
    let Some(busybox) = busybox("mounts_and_links_of_proc_are_crossed") else {
        return;
    };
    let tree = tree(&busybox);
    let lines = explained(
        tree.path(),
        &["-e", "trace=open,openat", "--fast"],
        "exec cat /proc/self/root/etc/motd",
    );
    assert_has(
        &lines,
        &[
            "    walk      \"/proc/self/root/etc/motd\"",
            "    mount     \"/proc\" (proc)",
            "    link      \"/proc/self\" leads to \"2\"",
            "    jump      from \"/proc/2/root\"",
            "    open      \"/etc/motd\" (overlay, lower layer) to read",
        ],
    );
}

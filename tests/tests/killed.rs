//! A supervisor that is killed at any moment leaves no process behind.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use duet_tests::{duet, host_tool, skip, tempdir};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Processes, programs and files without end: each kind of call that the supervisor is in the midst of.
const BUSY: &str = "while :; do (cat /etc/hostname; ls /tmp) >/dev/null & sleep 60 & mkdir /tmp/d; rmdir /tmp/d; done";

/// Every process of a sandbox has the standard output of the caller, which ends with the last of them.
fn killed_after(options: &[&str], shell: &[&str], delay: Duration) {
    let (mut output, theirs) = std::io::pipe().unwrap();
    let mut command = Command::new(duet());
    command
        .args(options)
        .args(shell)
        .stdin(Stdio::null())
        .stdout(theirs)
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The command holds the other end too.
    drop(command);
    std::thread::sleep(delay);
    let early = child.try_wait().unwrap();
    assert!(
        early.is_none(),
        "{options:?}: ended by itself after {delay:?}: {early:?}"
    );
    // Duet alone, not its group: nobody else is told.
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = Vec::new();
    loop {
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        let patient = PollTimeout::from(30_000u16);
        let ready = poll(&mut fds, patient).unwrap();
        assert!(
            ready == 1,
            "{options:?}: somebody is left of a run that was killed after {delay:?}"
        );
        let mut some = [0; 4096];
        match output.read(&mut some).unwrap() {
            0 => break,
            n => rest.extend_from_slice(&some[..n]),
        }
    }
}

fn at_any_moment(test: &str, options: &[&str]) {
    let Some(busybox) = host_tool("busybox") else {
        return skip(test, "no busybox (package busybox-static)");
    };
    let busybox = busybox.to_string_lossy().into_owned();
    // From before there is a sandbox, over its making, to a program in full swing.
    let moments = (0..24).map(|n| Duration::from_micros(500 * n * n / 2));
    for delay in moments {
        killed_after(options, &[&busybox, "sh", "-c", BUSY], delay);
    }
}

#[test]
fn with_notifications() {
    let options = ["run", "--host-root", "--engine", "seccomp", "--pids", "500"];
    at_any_moment("with_notifications", &options);
}

#[test]
fn with_ptrace() {
    let options = ["run", "--host-root", "--engine", "ptrace", "--pids", "500"];
    at_any_moment("with_ptrace", &options);
}

#[test]
fn while_it_traces() {
    let dir = tempdir();
    let file = dir.path().join("trace").to_string_lossy().into_owned();
    at_any_moment(
        "while_it_traces",
        &["trace", "--host-root", "--pids", "500", "-o", &file],
    );
}

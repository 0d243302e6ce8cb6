//! Running programs, natively and in a layer, with a time limit.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::build::duet;

/// How long any one run may take.
const LIMIT: Duration = Duration::from_secs(240);

/// What a program printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// Its standard output, lossily decoded.
    pub stdout: String,
    /// Its standard error, lossily decoded.
    pub stderr: String,
    /// Its exit status as a shell has it: 128 + N for death by signal N.
    pub status: i32,
}

impl Output {
    /// Fails the test unless the program ended with status 0; returns its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.status, 0,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self.stdout
    }
}

/// Copies a program, to be run. Not in this process: while it is written, another test may fork, and the
/// child would hold it open for writing until it executes something else (`ETXTBSY`).
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let (from, to) = (from.as_ref(), to.as_ref());
    let mut cp = Command::new("cp");
    cp.arg("--preserve=mode").arg(from).arg(to);
    let status = cp.status().expect("cp");
    assert!(status.success(), "copying {from:?} to {to:?}: {status}");
}

/// Runs `command` with `input` as standard input, and kills its process group after the time limit.
pub fn command_output(command: Command, input: &[u8]) -> Output {
    command_output_within(command, input, LIMIT)
}

/// As [`command_output`], with a time limit of its own.
pub fn command_output_within(mut command: Command, input: &[u8], limit: Duration) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let read = |stream: &mut dyn Read| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let out = std::thread::spawn(move || read(&mut stdout));
    let err = std::thread::spawn(move || read(&mut stderr));
    let end = Instant::now() + limit;
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > end && !late {
            late = true;
            let group = nix::unistd::Pid::from_raw(child.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let _ = writer.join();
    let stdout = out.join().expect("reader");
    let mut stderr = err.join().expect("reader");
    if late {
        stderr.push_str("\n(killed: it ran longer than the time limit)\n");
    }
    let status = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Output {
        stdout,
        stderr,
        status,
    }
}

/// A fresh directory that any user may use, as `/tmp` is.
pub fn tempdir() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("duet-test-")
        .tempdir_in("/tmp")
        .expect("temporary directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o1777)).expect("chmod");
    dir
}

/// A directory to come first in `PATH`, with a shell script in place of a program.
pub fn in_place_of(program: &str, script: &str) -> TempDir {
    let dir = tempdir();
    let text = dir.path().join("text");
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("script");
    std::fs::set_permissions(&text, PermissionsExt::from_mode(0o755)).expect("chmod");
    copy_program(text, dir.path().join(program));
    dir
}

/// The environment of every run: nothing of the caller's.
fn plain_environment(command: &mut Command) {
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LANG", "C");
}

/// Runs `program` natively in a fresh directory.
pub fn native_run(program: &Path, args: &[&str], input: &[u8]) -> Output {
    let dir = tempdir();
    let mut command = Command::new(program);
    command.args(args).current_dir(dir.path());
    plain_environment(&mut command);
    without_stray_descriptors(&mut command);
    command_output(command, input)
}

/// Gives a native run a loopback device of its own, as a layer has, so that its ports meet nobody
/// else's. Only root can; others share the host's.
fn own_loopback(command: &mut Command) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // SAFETY: system calls between fork and exec, which touch no memory but the request on the stack.
    unsafe {
        command.pre_exec(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            let mut request: libc::ifreq = std::mem::zeroed();
            request.ifr_name[0] = b'l' as libc::c_char;
            request.ifr_name[1] = b'o' as libc::c_char;
            request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
            match libc::ioctl(socket, libc::SIOCSIFFLAGS, &request) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

/// What the caller of the tests left open shall not show in a native run: a layer hides it anyway.
pub fn without_stray_descriptors(command: &mut Command) {
    // SAFETY: one system call between fork and exec, which touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            Ok(())
        });
    }
}

/// A command that runs natively what is added to it as a layer without a network does: with the same
/// environment, no descriptors but 0 to 2, and, if the tests' user can make one, a loopback device of its own.
pub fn native_command() -> Command {
    let mut command = Command::new("/usr/bin/env");
    plain_environment(&mut command);
    own_loopback(&mut command);
    without_stray_descriptors(&mut command);
    command
}

/// `duet run OPTIONS`, to which the program and its arguments are added. The caller's HOME and
/// temporary directories are kept, nothing else of the environment. `DUET_TEST_ENGINE` names the engine,
/// unless the options do.
pub fn duet_command<S: AsRef<OsStr>>(options: &[S]) -> Command {
    let mut command = Command::new(duet());
    command.arg("run");
    if let Some(engine) = std::env::var_os("DUET_TEST_ENGINE")
        && !options.iter().any(|o| o.as_ref() == "--engine")
    {
        command.arg("--engine").arg(engine);
    }
    command.args(options);
    let home = std::env::var_os("HOME").unwrap_or_else(|| OsString::from("/tmp"));
    plain_environment(&mut command);
    command.env("HOME", home);
    command
}

/// Runs `program` in a layer made with `options`.
pub fn duet_run(options: &[&str], program: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = duet_command(options);
    command.arg(program).args(args);
    command_output(command, input)
}

/// Runs `program` natively and in a layer, and fails the test where output or status differ.
#[track_caller]
pub fn both(options: &[&str], program: &Path, args: &[&str]) {
    both_but(options, program, args, &[]);
}

/// A line that differs, and why.
#[derive(Clone, Copy)]
pub struct Known {
    /// What the program prints natively.
    pub native: &'static str,
    /// What it prints in the layer; empty: nothing.
    pub layer: &'static str,
    /// The reason, as docs/layer.md has it.
    pub why: &'static str,
}

/// What the layer should print where the host prints `native`. A difference that does not show is no
/// longer known: it is to be taken off the list.
#[track_caller]
pub fn expected(mut native: Output, known: &[Known]) -> Output {
    for k in known {
        let lines: Vec<&str> = native.stdout.lines().collect();
        assert!(
            lines.contains(&k.native),
            "no line {:?} ({})",
            k.native,
            k.why
        );
        let changed = |l: &str| match (l == k.native, k.layer) {
            (true, "") => None,
            (true, layer) => Some(format!("{layer}\n")),
            (false, _) => Some(format!("{l}\n")),
        };
        native.stdout = lines.into_iter().filter_map(changed).collect();
    }
    native
}

/// As [`both`], but with differences that are known. Each must show: one that has gone is to be taken
/// off the list.
#[track_caller]
pub fn both_but(options: &[&str], program: &Path, args: &[&str], known: &[Known]) {
    let native = expected(native_run(program, args, b""), known);
    let layer = duet_run(options, program, args, b"");
    assert_same(&format!("{} {args:?}", program.display()), &native, &layer);
}

/// Fails the test, with the lines that differ, unless both runs printed and ended alike.
#[track_caller]
pub fn assert_same(what: &str, native: &Output, layer: &Output) {
    if native == layer {
        return;
    }
    let mut difference = String::new();
    let (a, b): (Vec<_>, Vec<_>) = (
        native.stdout.lines().collect(),
        layer.stdout.lines().collect(),
    );
    let mut shown = 0;
    for i in 0..a.len().max(b.len()) {
        let (x, y) = (a.get(i).unwrap_or(&"(end)"), b.get(i).unwrap_or(&"(end)"));
        if x != y && shown < 40 {
            difference += &format!("line {}\n  native: {x}\n  layer:  {y}\n", i + 1);
            shown += 1;
        }
    }
    panic!(
        "{what} differs from native: status {} and {}\n{difference}native stderr: {}\nlayer stderr: {}",
        native.status, layer.status, native.stderr, layer.stderr
    );
}

//! A machine's way out to networks: passt(1), a user-space network stack in a process of its own, which
//! carries the guest's connections over the host's sockets. The host's own loopback addresses are closed
//! to the guest.
//!
//! It ends when the monitor's end of the link is closed, so also when the monitor dies.

use std::io::{Read, Seek};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use duet_vm_protocol::network::{ADDRESS, GATEWAY, NAME_SERVER, PREFIX};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::host;

const PROGRAM: &str = "passt";
/// Its descriptor of the link.
const LINK: i32 = 3;
/// How long it may take to start: many times what it takes on a busy host.
const START: Duration = Duration::from_secs(30);

/// A port of the host that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Address on the host that listens.
    pub address: Ipv4Addr,
    /// Port on the host.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
    /// UDP, not TCP.
    pub udp: bool,
}

impl Forward {
    /// As passt(1) wants it.
    fn arguments(&self) -> [String; 2] {
        let option = if self.udp {
            "--udp-ports"
        } else {
            "--tcp-ports"
        };
        let Forward {
            address,
            host,
            guest,
            ..
        } = self;
        [option.into(), format!("{address}/{host}:{guest}")]
    }
}

/// Starts a network, and returns the link to it: Ethernet frames, each after its length in four bytes,
/// the most significant first. The program keeps the signal mask of the calling thread.
pub fn start(forwards: &[Forward]) -> Result<UnixStream> {
    let program = host::find_program(PROGRAM).ok_or_else(|| {
        Error::Failed(format!(
            "--network user with --mode vm needs the program {PROGRAM}, which is not in PATH; install the \
             package {PROGRAM}"
        ))
    })?;
    start_program(&program, forwards, START)
}

fn start_program(program: &Path, forwards: &[Forward], limit: Duration) -> Result<UnixStream> {
    let failed = |e: std::io::Error| Error::io(format!("--network user: {PROGRAM}"), &e);
    let (link, theirs) = UnixStream::pair().map_err(failed)?;
    let mut said = tempfile::tempfile().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(["--quiet", "--ipv4-only", "--no-dhcp", "--no-map-gw"])
        .args(["--address", &ADDRESS.to_string()])
        .args(["--netmask", &PREFIX.to_string()])
        .args(["--gateway", &GATEWAY.to_string()])
        .args(["--dns-forward", &NAME_SERVER.to_string()])
        .args(["--fd", &LINK.to_string()])
        .args(forwards.iter().flat_map(Forward::arguments))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.try_clone().map_err(failed)?)
        .fd_mappings(vec![FdMapping {
            parent_fd: theirs.into(),
            child_fd: LINK,
        }])
        .map_err(|e| Error::Failed(format!("--network user: {e}")))?;
    log::debug!("{command:?}, link {}", link.as_raw_fd());
    let status = run(&mut command, limit).map_err(failed)?;
    if status.is_some_and(|s| s.success()) {
        return Ok(link);
    }
    const MOST: u64 = 4096;
    let mut text = String::new();
    said.rewind()
        .and_then(|()| said.take(MOST).read_to_string(&mut text))
        .map_err(failed)?;
    // It notes it each time that no system log is there, and whom it becomes.
    let noise = |l: &str| l.contains("syslog") || l.contains("Don't run as root");
    let words: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !noise(l))
        .collect();
    let words = words.join("; ");
    Err(Error::Failed(match (status, words.is_empty()) {
        (None, true) => format!("--network user: {PROGRAM} was not ready after {limit:?}"),
        (None, false) => {
            format!("--network user: {PROGRAM} was not ready after {limit:?}: {words}")
        }
        (Some(_), true) => format!("--network user: {PROGRAM}: failed without a word"),
        (Some(_), false) => format!("--network user: {PROGRAM}: {words}"),
    }))
}

/// Runs the program until it has gone into the background, which it does once it is ready, or has failed.
/// `None`: neither within `limit`, and it has been killed.
fn run(command: &mut Command, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let ended = host::pidfd(child.id()).and_then(|pidfd| {
        let mut end = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        poll(&mut end, limit)
    });
    match ended {
        Ok(1..) => child.wait().map(Some),
        not => {
            child.kill()?;
            child.wait()?;
            not.map(|_| None).map_err(Into::into)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn forwards() {
        let forward = Forward {
            address: Ipv4Addr::new(127, 0, 0, 1),
            host: 8080,
            guest: 80,
            udp: false,
        };
        assert_eq!(
            forward.arguments(),
            ["--tcp-ports", "127.0.0.1/8080:80"].map(String::from)
        );
    }

    #[test]
    fn a_start_that_fails_or_takes_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |script: &str, limit: Duration| {
            // Copied by another process: a test that forks meanwhile would hold it open for writing.
            let (text, program) = (dir.path().join("text"), dir.path().join("passt"));
            std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&text, Permissions::from_mode(0o755)).unwrap();
            let copy = Command::new("cp").arg(&text).arg(&program).status();
            assert!(copy.unwrap().success());
            start_program(&program, &[], limit).unwrap_err().to_string()
        };
        let (short, long) = (Duration::from_millis(300), Duration::from_secs(100));
        let hangs = fails("exec sleep 1000", short);
        assert!(
            hangs.ends_with("passt was not ready after 300ms"),
            "{hangs}"
        );
        let fails = fails("echo No such port >&2; exit 1", long);
        assert!(fails.ends_with("passt: No such port"), "{fails}");
    }
}

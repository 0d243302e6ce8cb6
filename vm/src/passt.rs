//! A machine's way out to networks: passt(1), a user-space network stack in a process of its own, which
//! carries the guest's connections over the host's sockets. The host's own loopback addresses are closed
//! to the guest.
//!
//! It ends when the monitor's end of the link is closed, so also when the monitor dies.

use std::io::{Read, Seek};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use duet_vm_protocol::network::{ADDRESS, GATEWAY, NAME_SERVER, PREFIX};

use crate::error::{Error, Result};
use crate::host;

const PROGRAM: &str = "passt";
/// Its descriptor of the link.
const LINK: i32 = 3;

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
/// the most significant first.
pub fn start(forwards: &[Forward]) -> Result<UnixStream> {
    let program = host::find_program(PROGRAM).ok_or_else(|| {
        Error::Failed(format!(
            "--network user with --mode vm needs the program {PROGRAM}, which is not in PATH; install the \
             package {PROGRAM}"
        ))
    })?;
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
    // It goes into the background once it is ready.
    let status = command.status().map_err(failed)?;
    if status.success() {
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
    Err(Error::Failed(format!(
        "--network user: {PROGRAM}: {}",
        if words.is_empty() {
            "failed without a word".into()
        } else {
            words.join("; ")
        }
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

//! `--network user`: slirp4netns(1), a user-space network stack in a process of its own, joins the
//! sandbox's network namespace and carries its connections over the host's sockets.
//!
//! The host's own loopback addresses are closed to the guest. The program ends with the sandbox: it is
//! killed, or told so by the end of a pipe, which the kernel closes should the supervisor die.

use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, pipe2};
use serde_json::{Value, json};

use crate::config::{Port, Protocol};
use crate::error::{Error, Result};
use crate::{namespaces, tree};

/// Address of the guest in the network that slirp4netns makes.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// Its name server, which asks the host's.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

const PROGRAM: &str = "slirp4netns";
/// How long it may take to start, and to answer: many times what it takes on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest packet it takes: fewer of them.
const MTU: &str = "--mtu=65520";

/// The running program; it ends when this goes away.
pub struct UserNetwork {
    child: Child,
    /// Its end tells the program to go, should this process not come to that.
    _exit: OwnedFd,
}

impl Drop for UserNetwork {
    fn drop(&mut self) {
        let killed = self.child.kill();
        if let Err(e) = killed.and_then(|()| self.child.wait()) {
            log::debug!("{PROGRAM}: {e}");
        }
    }
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::Failed(format!("--network user: {what}: {e}"))
}

impl UserNetwork {
    /// Connects the network namespace of `init`, and waits until it is. `mask`: the program's signal mask.
    pub fn start(init: Pid, ports: &[Port], mask: SigSet) -> Result<UserNetwork> {
        let program = tree::find_on_host(PROGRAM).ok_or_else(|| {
            Error::Failed(format!(
                "--network user needs the program {PROGRAM}, which is not in PATH; install the package \
                 {PROGRAM}"
            ))
        })?;
        let pipe =
            || pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::step("--network user: making a pipe", e));
        let ((ready, theirs), (their_exit, exit)) = (pipe()?, pipe()?);
        let said = tempfile::tempfile().map_err(failed("making a temporary file"))?;
        let errors = said
            .try_clone()
            .map_err(failed("making a temporary file"))?;
        let api = tempfile::tempdir().map_err(failed("making a temporary directory"))?;
        let socket = api.path().join("api");
        let mut command = Command::new(&program);
        command
            .args(["--configure", "--disable-host-loopback", MTU])
            // It reads what the guest sends: without privileges, an empty root, a filter of its own.
            .args(["--enable-sandbox", "--enable-seccomp"])
            .args(["--ready-fd=3", "--exit-fd=4", "--netns-type=path"])
            .arg(format!("--userns-path=/proc/{init}/ns/user"))
            .arg("--api-socket")
            .arg(&socket)
            .arg(format!("/proc/{init}/ns/net"))
            .arg("tap0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            // Of its own: Ctrl-C is for the guest.
            .process_group(0)
            .fd_mappings(vec![
                FdMapping {
                    parent_fd: theirs,
                    child_fd: 3,
                },
                FdMapping {
                    parent_fd: their_exit,
                    child_fd: 4,
                },
            ])
            .map_err(|e| Error::Failed(format!("--network user: {e}")))?;
        namespaces::set_mask(&mut command, mask);
        let child = command.spawn().map_err(failed(PROGRAM))?;
        // Drops the copies of the program's ends that this process has.
        drop(command);
        let network = UserNetwork { child, _exit: exit };
        let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        let mut news = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
        let in_time = poll(&mut news, limit).map_err(|e| Error::step("--network user", e))? > 0;
        let mut one = [0];
        if !in_time {
            return Err(Error::Failed(format!(
                "--network user: {PROGRAM} was not ready after {PATIENCE:?}"
            )));
        }
        let n = std::fs::File::from(ready).read(&mut one);
        if n.map_err(failed(PROGRAM))? == 0 {
            return Err(Error::Failed(format!(
                "--network user: {PROGRAM}: {}",
                last_words(said)
            )));
        }
        ports.iter().try_for_each(|port| forward(&socket, port))?;
        Ok(network)
    }
}

/// What the program wrote, in one line.
fn last_words(mut said: std::fs::File) -> String {
    const MOST: u64 = 4096;
    let mut text = String::new();
    let read = said
        .rewind()
        .and_then(|()| said.take(MOST).read_to_string(&mut text));
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    match (read, lines.is_empty()) {
        (Ok(_), false) => lines.join("; "),
        _ => "ended without a word".into(),
    }
}

/// Asks for a forwarded port (slirp4netns(1), "API socket").
fn forward(socket: &Path, port: &Port) -> Result<()> {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let request = json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": protocol,
            "host_addr": port.address,
            "host_port": port.host,
            "guest_addr": GUEST,
            "guest_port": port.guest,
        }
    });
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.to_string().as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.take(65536).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(failed("asking for a port"))?;
    let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
    if answer.get("return").is_some() {
        return Ok(());
    }
    let (address, host) = (port.address, port.host);
    Err(Error::Failed(format!(
        "--publish: {address}:{host}/{protocol} cannot be listened on; is the port taken, or below 1024 \
         and you not root?"
    )))
}

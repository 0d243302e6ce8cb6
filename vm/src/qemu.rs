//! The monitor for hosts whose own KVM cannot run a kernel, and for those without one: QEMU, with its
//! smallest machine (`microvm`). The root comes from Duet's own vhost-user device, so the guest sees the
//! same file system as under Duet's own monitor.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::fuse::Server;
use crate::host;
use crate::init_tree;
use crate::machine::{End, Init, Machine, ROOT_TAG, Running};
use crate::vhost::FsDevice;

/// The program.
const PROGRAM: &str = "qemu-system-x86_64";

/// A machine that QEMU runs.
pub struct Qemu {
    child: Child,
    ended: OwnedFd,
    /// What it writes to standard error.
    messages: File,
    stopped: bool,
    /// Where the sockets of the trees' devices lie.
    _place: TempDir,
}

/// Whether QEMU is there.
pub fn is_installed() -> bool {
    host::is_installed(PROGRAM)
}

/// Starts a machine.
pub fn start(machine: Machine) -> Result<Qemu> {
    let program = host::find_program(PROGRAM).ok_or_else(|| {
        Error::Failed(format!(
            "{PROGRAM} is not installed, and Duet's own monitor cannot run a kernel here (`duet doctor` \
             says why); install QEMU (Debian: qemu-system-x86)"
        ))
    })?;
    let failed = |e: std::io::Error| Error::io("starting QEMU", &e);
    let (place, trees) = serve_trees(&machine)?;
    let messages: File = memfd_create(c"qemu-messages", MFdFlags::MFD_CLOEXEC)
        .map_err(|e| Error::step("starting QEMU", e))?
        .into();
    let mut command = Command::new(program);
    command.args(arguments(&machine, &trees));
    let streams = machine.ports.iter().map(|p| p.stream.as_raw_fd());
    let mut passed: Vec<RawFd> = streams.collect();
    passed.extend([machine.serial.as_raw_fd(), machine.kernel.as_raw_fd()]);
    if let Init::Initramfs(file) = &machine.init {
        passed.push(file.as_raw_fd());
    }
    passed.extend(machine.network.as_ref().map(AsRawFd::as_raw_fd));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone().map_err(failed)?);
    let parent = nix::unistd::getpid();
    // SAFETY: system calls only, on numbers that were put in place before the fork.
    unsafe { command.pre_exec(move || prepare(&passed, parent)) };
    log::debug!("{command:?}");
    let child = command.spawn().map_err(failed)?;
    let ended = host::pidfd(child.id()).map_err(|e| Error::step("watching QEMU", e))?;
    Ok(Qemu {
        child,
        ended,
        messages,
        stopped: false,
        _place: place,
    })
}

/// A tree that is served: the tag by which the guest finds it, and the socket of its device.
struct Tree {
    tag: &'static str,
    socket: PathBuf,
}

/// Begins to serve the root, and the tree of init if the kernel mounts one. They are reached by sockets in a
/// private directory.
fn serve_trees(machine: &Machine) -> Result<(TempDir, Vec<Tree>)> {
    let failed = |e: std::io::Error| Error::io("serving the root", &e);
    // Nobody but this user may enter it.
    let place = tempfile::Builder::new()
        .prefix("duet-")
        .tempdir()
        .map_err(failed)?;
    let init = match &machine.init {
        Init::Initramfs(_) => None,
        Init::Tree(tree) => Some((init_tree::TAG, tree)),
    };
    let mut trees = Vec::new();
    for (tag, tree) in [(ROOT_TAG, &machine.root)].into_iter().chain(init) {
        let socket = place.path().join(tag);
        let server = Server::new(tree.clone()).map_err(|e| Error::step("serving the root", e))?;
        FsDevice::listen(Arc::new(server), &socket).map_err(failed)?;
        trees.push(Tree { tag, socket });
    }
    Ok((place, trees))
}

/// In the child: keeps what is passed on, and dies with Duet.
fn prepare(passed: &[RawFd], parent: nix::unistd::Pid) -> std::io::Result<()> {
    for &fd in passed {
        // SAFETY: integers.
        Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
    }
    // Keys of the terminal are for the guest.
    nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0))?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if nix::unistd::getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    Ok(())
}

/// QEMU's command line.
fn arguments(machine: &Machine, trees: &[Tree]) -> Vec<String> {
    let memory = machine.memory;
    let inherited = |fd: &dyn AsRawFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut all: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| all.extend([format!("-{option}"), value]);
    // Without ACPI, QEMU puts the devices on the kernel's command line.
    let (acpi, serial) = match machine.init {
        Init::Initramfs(_) => ("on", "on"),
        Init::Tree(_) => ("off", "off"),
    };
    add(
        "machine",
        format!(
            "microvm,acpi={acpi},pit=on,pic=on,rtc=on,isa-serial={serial},x-option-roms=off,memory-backend=ram"
        ),
    );
    add("accel", "tcg,thread=multi,tb-size=256".into());
    add("cpu", "max".into());
    add("smp", machine.cpus.to_string());
    add("m", format!("{}M", memory >> 20));
    add(
        "object",
        format!("memory-backend-memfd,id=ram,size={memory},share=on"),
    );
    add("kernel", inherited(&machine.kernel));
    if let Init::Initramfs(file) = &machine.init {
        add("initrd", inherited(file));
    }
    add("append", machine.command_line.clone());
    // Devices as of the current specification, not those of before version 1.
    add("global", "virtio-mmio.force-legacy=false".into());
    add(
        "chardev",
        format!("socket,id=serial,fd={}", machine.serial.as_raw_fd()),
    );
    for (i, Tree { tag, socket }) in trees.iter().enumerate() {
        add(
            "chardev",
            format!("socket,id=tree{i},path={}", socket.display()),
        );
        add(
            "device",
            format!("vhost-user-fs-device,chardev=tree{i},tag={tag},queue-size=1024"),
        );
    }
    // The first port is a console, or left out.
    add(
        "device",
        format!("virtio-serial-device,max_ports={}", machine.ports.len() + 1),
    );
    match machine.init {
        Init::Initramfs(_) => add("serial", "chardev:serial".into()),
        Init::Tree(_) => add("device", "virtconsole,chardev=serial,nr=0".into()),
    }
    for (i, port) in machine.ports.iter().enumerate() {
        add(
            "chardev",
            format!("socket,id=port{i},fd={}", port.stream.as_raw_fd()),
        );
        add(
            "device",
            format!(
                "virtserialport,chardev=port{i},nr={},name={}",
                i + 1,
                port.name
            ),
        );
    }
    if let Some(link) = &machine.network {
        add(
            "netdev",
            format!("stream,id=net,addr.type=fd,addr.str={}", link.as_raw_fd()),
        );
        add("device", "virtio-net-device,netdev=net".into());
    }
    // Its own filter of system calls.
    add(
        "sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        all.push(flag.into());
    }
    all.extend(["-display".into(), "none".into()]);
    all
}

impl Qemu {
    /// What QEMU said, at most the last part of it.
    fn said(&mut self) -> String {
        const MAX: u64 = 4096;
        let mut bytes = Vec::new();
        let end = self.messages.seek(std::io::SeekFrom::End(0)).unwrap_or(0);
        let read = self
            .messages
            .seek(std::io::SeekFrom::Start(end.saturating_sub(MAX)))
            .and_then(|_| (&self.messages).take(MAX).read_to_end(&mut bytes));
        if let Err(e) = read {
            log::debug!("messages of QEMU: {e}");
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Running for Qemu {
    fn describe(&self) -> String {
        "QEMU (TCG: every instruction is translated)".into()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn wait(&mut self) -> Result<End> {
        let status = self
            .child
            .wait()
            .map_err(|e| Error::io("waiting for QEMU", &e))?;
        if self.stopped {
            return Ok(End::Stopped);
        }
        if status.success() {
            return Ok(End::PoweredOff);
        }
        let how = match status.signal() {
            Some(n) => format!("QEMU was killed by signal {n}"),
            None => format!("QEMU failed ({status})"),
        };
        let said = self.said();
        Ok(End::Failed(match said.is_empty() {
            true => how,
            false => format!("{how}: {said}"),
        }))
    }

    fn process(&self) -> Option<u32> {
        Some(self.child.id())
    }

    fn stop(&mut self) {
        self.stopped = true;
        if let Err(e) = self.child.kill() {
            log::debug!("QEMU is gone: {e}");
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.stop();
        if let Err(e) = self.child.wait() {
            log::debug!("QEMU is gone: {e}");
        }
    }
}

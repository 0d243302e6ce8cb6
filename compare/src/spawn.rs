//! The command line of each mode, and starting it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode as FileMode, umask};
use nix::unistd::{Pid, setsid};

use crate::modes::Mode;
use crate::stage::Stage;
use crate::subject::{Subject, Tree};
use crate::{Error, Result};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its time is taken; nothing looks at it.
    Timed,
    /// Its calls are counted, its memory is looked at.
    Observed,
}

/// Starts a run.
///
/// # Errors
/// The program of the mode, or natively the program itself, cannot be started.
pub fn spawn(
    subject: &Subject,
    mode: Mode,
    purpose: Purpose,
    duet: &Path,
    stage: &Stage,
) -> Result<Child> {
    let mut command = match mode {
        Mode::Native => native(subject, stage),
        Mode::Peer(peer) => peer.command(subject, stage)?,
        _ => layered(subject, mode, purpose, duet, stage),
    };
    let stdin = match &subject.input {
        Some(path) => File::open(path).map_err(|e| Error::on(path, e))?.into(),
        None => Stdio::null(),
    };
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let root = match mode {
        Mode::Native => stage.tree().map(|tree| {
            let dir = subject.working_directory(Path::new("/"));
            (tree.to_owned(), dir.to_owned())
        }),
        _ => None,
    };
    let user = (mode == Mode::Native).then_some(subject.user);
    let parent = nix::unistd::getpid();
    // SAFETY: system calls only, on what was made before the fork.
    unsafe { command.pre_exec(move || prepare(root.as_ref(), user, parent)) };
    log::debug!("{command:?}");
    command
        .spawn()
        .map_err(|e| Error::step(&command.get_program().to_string_lossy(), e))
}

/// Between fork and exec: a session of its own, nothing inherited, and the end with Duet's.
fn prepare(
    root: Option<&(PathBuf, PathBuf)>,
    user: Option<(u32, u32)>,
    parent: Pid,
) -> io::Result<()> {
    setsid()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != parent {
        return Err(nix::errno::Errno::ESRCH.into());
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    umask(FileMode::from_bits_truncate(0o022));
    // SAFETY: integers. Older kernels have no such call; then the caller's descriptors are passed on.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if let Some((root, dir)) = root {
        nix::unistd::chroot(root)?;
        nix::unistd::chdir(dir)?;
    }
    let (own_uid, own_gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if let Some((uid, gid)) = user.filter(|u| *u != (own_uid.as_raw(), own_gid.as_raw())) {
        nix::unistd::setgroups(&[])?;
        nix::unistd::setgid(gid.into())?;
        nix::unistd::setuid(uid.into())?;
        // That of the parent's death is lost with it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    }
    Ok(())
}

fn native(subject: &Subject, stage: &Stage) -> Command {
    let mut command = Command::new(subject.program());
    command.args(subject.command.iter().skip(1));
    command.env_clear().envs(subject.env.iter().cloned());
    if stage.tree().is_none() {
        command.current_dir(subject.working_directory(&stage.work()));
    }
    command
}

/// `duet run`, or `duet trace`.
fn layered(subject: &Subject, mode: Mode, purpose: Purpose, duet: &Path, stage: &Stage) -> Command {
    let mut command = Command::new(duet);
    command.arg("--quiet");
    match mode {
        Mode::Trace | Mode::Fast => command.arg("trace").arg("-o").arg(stage.scratch("trace")),
        _ => command.args(["run", "--figures"]).arg(stage.inside()),
    };
    match mode {
        Mode::Trace => (),
        Mode::Fast => {
            command.arg("--fast");
        }
        Mode::Vm => {
            command
                .args(["--mode", "vm"])
                .args(&subject.machine_options);
        }
        _ => {
            let engine = match mode {
                Mode::Ptrace => "ptrace",
                _ => "seccomp",
            };
            command.args(["--engine", engine]);
            if purpose == Purpose::Observed {
                command.arg("--count");
            }
        }
    }
    let work = stage.work();
    match (&subject.tree, stage.tree()) {
        (_, Some(tree)) => {
            command.arg("--rootfs").arg(tree).arg("--rw");
        }
        (tree, None) => {
            if *tree == Tree::Host {
                command.arg("--host-root");
            }
            command.arg("-v").arg(volume(&work, &work, ""));
        }
    }
    for (i, v) in subject.volumes.iter().enumerate() {
        let source = stage.volume(subject, i).unwrap_or(&v.source);
        let mode = if v.read_only { ":ro" } else { "" };
        command.arg("-v").arg(volume(source, &v.target, mode));
    }
    command.arg("-w").arg(subject.working_directory(&work));
    let (uid, gid) = subject.user;
    command.args(["-u", &format!("{uid}:{gid}")]);
    // Natively an ordinary user's files are its own.
    command.arg("--keep-id");
    // The variables that `duet run` sets by itself go, if they are not the subject's.
    for (name, value) in &subject.env {
        let mut setting = name.clone();
        setting.push("=");
        setting.push(value);
        command.arg("--env").arg(setting);
    }
    command.env_remove("TERM");
    command.args(&subject.options);
    command.arg("--").args(&subject.command);
    command
}

fn volume(source: &Path, target: &Path, mode: &str) -> OsString {
    let mut text = source.as_os_str().to_owned();
    text.push(":");
    text.push(target);
    text.push(mode);
    text
}

//! Other programs that run a program in a way of their own, as further columns.

use std::path::PathBuf;
use std::process::Command;

use duet_vm::host::{find_program, find_program_in};

use crate::stage::Stage;
use crate::subject::{Subject, Tree};
use crate::{Error, Result};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// ptrace(2), paths rewritten.
    Proot,
    /// Namespaces of the host's kernel.
    Bwrap,
    /// The same, by an OCI bundle.
    Crun,
    /// gVisor: a kernel in user space.
    Runsc,
    /// Every instruction translated, calls passed on.
    QemuUser,
    /// Every call stopped twice, none changed.
    Strace,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 6] = [
        Peer::Proot,
        Peer::Bwrap,
        Peer::Crun,
        Peer::Runsc,
        Peer::QemuUser,
        Peer::Strace,
    ];

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Proot => "proot",
            Peer::Bwrap => "bwrap",
            Peer::Crun => "crun",
            Peer::Runsc => "runsc",
            Peer::QemuUser => "qemu-user",
            Peer::Strace => "strace",
        }
    }

    /// Where it is installed.
    pub fn program(self) -> Option<PathBuf> {
        let names: &[&str] = match self {
            Peer::QemuUser => &["qemu-x86_64", "qemu-x86_64-static"],
            _ => &[self.name()],
        };
        names.iter().find_map(|n| find_program(n))
    }

    /// Its command line for this subject, on the host's tree.
    ///
    /// # Errors
    /// It is not installed, or cannot run the subject.
    pub fn command(self, subject: &Subject, stage: &Stage) -> Result<Command> {
        let failed = |why: &str| Error::Failed(format!("{}: {why}", self.name()));
        let program = self.program().ok_or_else(|| failed("is not installed"))?;
        if matches!(subject.tree, Tree::Directory(_)) || !subject.volumes.is_empty() {
            return Err(failed("is compared on the host's tree only"));
        }
        let work = stage.work();
        let dir = subject.working_directory(&work).to_owned();
        let mut command = Command::new(program);
        command.env_clear().envs(subject.env.iter().cloned());
        command.current_dir(&dir);
        match self {
            Peer::Proot => {
                command.arg("-w").arg(&dir);
            }
            Peer::Bwrap => {
                command.args([
                    "--dev-bind",
                    "/",
                    "/",
                    "--unshare-all",
                    "--proc",
                    "/proc",
                    "--chdir",
                ]);
                command.arg(&dir).arg("--");
            }
            Peer::Strace => {
                command.args(["-f", "-q", "-o"]).arg(stage.scratch("trace"));
                command.arg("--");
            }
            Peer::QemuUser => {
                let found = find(subject).ok_or_else(|| failed("finds no such program"))?;
                command.arg("-0").arg(subject.program()).arg(found);
                command.args(subject.command.iter().skip(1));
                return Ok(command);
            }
            Peer::Crun | Peer::Runsc => {
                let bundle = bundle(subject, stage, &dir)?;
                let state = stage.scratch("state");
                let name = format!("duet-{}-{}", std::process::id(), crate::inside::now());
                if self == Peer::Runsc {
                    command.args(["--network=none", "--ignore-cgroups"]);
                    command.arg("--root").arg(&state);
                } else {
                    command
                        .args(["--cgroup-manager=disabled", "--root"])
                        .arg(&state);
                }
                command.arg("run").arg("--bundle").arg(bundle).arg(name);
                return Ok(command);
            }
        }
        command.args(&subject.command);
        Ok(command)
    }
}

/// The program's file, looked for as execvp(3) does.
fn find(subject: &Subject) -> Option<PathBuf> {
    let name = subject.program();
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(name.into());
    }
    let path = subject.env.iter().find(|(n, _)| n == "PATH");
    let path = path.map(|(_, v)| v.as_os_str()).unwrap_or_default();
    find_program_in(name, path)
}

/// Writes an OCI bundle on the host's tree.
fn bundle(subject: &Subject, stage: &Stage, dir: &std::path::Path) -> Result<PathBuf> {
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let env = subject
        .env
        .iter()
        .map(|(n, v)| format!("{}={}", text(n), text(v)));
    let bind = |path: &std::path::Path| {
        serde_json::json!({
            "destination": path, "source": path, "type": "bind", "options": ["rbind", "rw"],
        })
    };
    let config = serde_json::json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": subject.user.0, "gid": subject.user.1},
            "args": subject.command.iter().map(|a| text(a)).collect::<Vec<_>>(),
            "env": env.collect::<Vec<_>>(),
            "cwd": dir,
        },
        "root": {"path": "/", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            bind(stage.path()),
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    });
    let bundle = stage.scratch("bundle");
    std::fs::create_dir_all(&bundle).map_err(|e| Error::on(&bundle, e))?;
    let file = bundle.join("config.json");
    std::fs::write(&file, config.to_string()).map_err(|e| Error::on(&file, e))?;
    Ok(bundle)
}

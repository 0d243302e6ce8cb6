//! The program that a sandbox is to run: found, checked, and ready to be started.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use duet_syscalls::handlers::exec::{self, ExecError, SetId};
use duet_syscalls::process::{PendingExec, State};
use duet_vfs::{Context, Creds, Errno, FileType, Lookup, NoCaller, Vfs};

use crate::config::{Config, Tree};
use crate::error::{Error, Result};
use crate::tree;

/// With a bare tree: the program's name in it and the host file.
pub(crate) fn bare_program(config: &Config) -> Result<Option<(Vec<u8>, File)>> {
    if config.tree != Tree::Bare {
        return Ok(None);
    }
    let shown = config.program.to_string_lossy().into_owned();
    let not_found = |reason: &str| Error::NotFound {
        program: shown.clone(),
        reason: reason.into(),
    };
    let cannot = |reason: String| Error::CannotRun {
        program: shown.clone(),
        reason,
    };
    let path = tree::find_on_host(&shown).ok_or_else(|| not_found("not found in PATH"))?;
    let name = path.file_name().map(|n| n.as_encoded_bytes().to_vec());
    let name = name.ok_or_else(|| cannot("is a directory".into()))?;
    // A FIFO must not make it wait.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&path);
    let file = match opened {
        Ok(f) => f,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_found("no such file"));
        }
        Err(e) => {
            return Err(cannot(
                Errno::from_raw(e.raw_os_error().unwrap_or(0)).desc().into(),
            ));
        }
    };
    match file.metadata() {
        Ok(m) if m.is_file() => Ok(Some((name, file))),
        Ok(m) if m.is_dir() => Err(cannot("is a directory; name a program".into())),
        Ok(_) => Err(cannot("is not a regular file".into())),
        Err(e) => Err(cannot(e.to_string())),
    }
}

/// The state that the first process starts from, and what it is to run.
pub(crate) fn first_program(config: &Config, vfs: &Vfs) -> Result<(State, PendingExec)> {
    let root = vfs.root();
    let creds = Creds::user(config.uid, config.gid, Arc::from([]));
    let mut state = State {
        root: root.clone(),
        cwd: root,
        umask: 0o022,
        creds: Arc::new(creds),
        program: None,
        number: 0,
        keep_caps: false,
        no_new_privs: false,
    };
    if let Some(dir) = workdir(config) {
        let cx = context(&state);
        let how = Lookup::FOLLOW | Lookup::DIRECTORY;
        state.cwd = match vfs.resolve(&cx, &state.cwd, &dir.path, how) {
            Ok(l) => l,
            Err(Errno::ENOENT) if !dir.explicit => state.root.clone(),
            Err(e) => {
                let text = String::from_utf8_lossy(&dir.path).into_owned();
                return Err(Error::step(format!("working directory {text}"), e));
            }
        };
    }
    let cx = context(&state);
    let name = config.program.as_bytes();
    let path = program_path(config, vfs, &cx)?;
    let location = vfs.resolve(&cx, &state.cwd, &path, Lookup::FOLLOW);
    let pending = location
        .map_err(ExecError::Access)
        .and_then(|l| exec::prepare(vfs, &cx, &state, &path, l, SetId::Honoured))
        .map_err(|e| explain(config, name, &e))?;
    Ok((state, pending))
}

pub(crate) fn context(state: &State) -> Context<'_> {
    Context {
        root: &state.root,
        cwd: &state.cwd,
        creds: &state.creds,
        umask: state.umask,
        caller: &NoCaller,
    }
}

struct Workdir {
    path: Vec<u8>,
    explicit: bool,
}

fn workdir(config: &Config) -> Option<Workdir> {
    if let Some(dir) = &config.workdir {
        return Some(Workdir {
            path: dir.clone(),
            explicit: true,
        });
    }
    if config.tree != Tree::Host {
        return None;
    }
    let path = std::env::current_dir()
        .ok()?
        .into_os_string()
        .into_encoded_bytes();
    Some(Workdir {
        path,
        explicit: false,
    })
}

/// Where the program is in the tree: as given, or found in the guest's `PATH`.
pub(crate) fn program_path(config: &Config, vfs: &Vfs, cx: &Context<'_>) -> Result<Vec<u8>> {
    let name = config.program.as_bytes();
    if config.tree == Tree::Bare {
        let base = name.rsplit(|&b| b == b'/').next().unwrap_or(name);
        return Ok([b"/", base].concat());
    }
    if name.contains(&b'/') {
        return Ok(name.to_vec());
    }
    let path = config
        .env_value(b"PATH")
        .unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
    for dir in path.split(|&b| b == b':') {
        let dir = if dir.is_empty() { &b"."[..] } else { dir };
        let candidate = [dir, b"/", name].concat();
        if let Ok(l) = vfs.resolve(cx, cx.cwd, &candidate, Lookup::FOLLOW)
            && l.kind() == FileType::Regular
            && vfs.access(cx, &l, libc::X_OK as u32).is_ok()
        {
            return Ok(candidate);
        }
    }
    let reason = format!(
        "not found in the tree's PATH ({})",
        String::from_utf8_lossy(path)
    );
    Err(Error::NotFound {
        program: String::from_utf8_lossy(name).into_owned(),
        reason,
    })
}

fn explain(config: &Config, name: &[u8], error: &ExecError) -> Error {
    let program = String::from_utf8_lossy(name).into_owned();
    let hint = match config.tree {
        Tree::Bare => "; give it a tree with --rootfs DIR, or --host-root",
        _ => "",
    };
    match error {
        ExecError::Access(Errno::ENOENT | Errno::ENOTDIR) => Error::NotFound {
            program,
            reason: "no such file in the tree".into(),
        },
        ExecError::Access(Errno::EACCES) => Error::CannotRun {
            program,
            reason: "permission denied; is it a file with execute permission (chmod +x)?".into(),
        },
        ExecError::Interpreter { .. } => Error::CannotRun {
            program,
            reason: format!("{error}{hint}"),
        },
        other => Error::CannotRun {
            program,
            reason: other.to_string(),
        },
    }
}

// ---- while it runs ----

//! One run in a virtual machine: the same options, tree and exit statuses as in the layer, handed to
//! `duet-vm`.

use std::os::fd::OwnedFd;
use std::time::Instant;

use duet_vm::kernel;
use duet_vm::passt::Forward;
use duet_vm::session::{self, Run};
use duet_vm_protocol::Start;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tempfile::TempDir;

use crate::config::{Config, Network, Port, Protocol, Tree};
use crate::error::{Error, Result};
use crate::program::{bare_program, context, first_program, program_path};
use crate::tree::{self, Interfaces};
use crate::{init, namespaces};

pub use duet_vm::machine::Choice;
pub use duet_vm::session::{Outcome, Timings};

/// What a run in a machine needs to know beside its [`Config`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kernel: a name of the cache, or a file; `None`: the one added last.
    pub kernel: Option<String>,
    /// More for the kernel's command line.
    pub append: String,
    /// Show the kernel's messages on standard error.
    pub console: bool,
    /// What runs the machine.
    pub monitor: Choice,
}

/// Memory of a machine without `--memory`, in bytes.
const MEMORY: u64 = 512 << 20;
/// A kernel needs as much to start.
const LEAST_MEMORY: u64 = 96 << 20;

/// Runs the program to its end in a machine. `began`: when the command did, for the timings.
pub fn run(config: &Config, options: &Options, began: Instant) -> Result<Outcome> {
    let (network, ports) = match &config.network {
        Network::None => (false, &[][..]),
        Network::User(ports) => (true, &ports[..]),
        Network::Host => {
            let text = "--network host is not to be had with --mode vm; --network user is";
            return Err(Error::Failed(text.into()));
        }
    };
    let memory = config.limits.memory.unwrap_or(MEMORY);
    if memory < LEAST_MEMORY {
        return Err(Error::Failed(format!(
            "--memory: a machine needs at least {} MiB for its kernel",
            LEAST_MEMORY >> 20
        )));
    }
    let kernel = kernel::find(options.kernel.as_deref()).map_err(convert)?;
    let program = bare_program(config)?;
    namespaces::raise_descriptor_limit()?;
    let (store, _place) = store()?;
    let root = tree::build(config, &store, program, Interfaces::Kernel)?;
    // Finds what is wrong with the program before a machine is started for it.
    let (state, _) = first_program(config, &root)?;
    let program = program_path(config, &root, &context(&state))?;
    let bytes = |s: &std::ffi::CString| s.as_bytes().to_vec();
    let args = std::iter::once(&config.program).chain(&config.args);
    let start = Start {
        program,
        args: args.map(bytes).collect(),
        env: config.env.iter().map(bytes).collect(),
        workdir: state.cwd.path(&state.root).0,
        uid: config.uid,
        gid: config.gid,
        hostname: config.hostname.clone().into_bytes(),
        tmpfs: config.tmpfs.clone(),
        sysfs: config.tree != Tree::Bare,
        network,
        processes: config.limits.pids,
        ..Start::default()
    };
    let run = Run {
        start,
        kernel,
        root,
        memory,
        cpus: config.limits.cpus.map(|n| n.ceil() as u32),
        append: options.append.clone(),
        console: options.console,
        monitor: options.monitor,
        timeout: config.limits.timeout,
        forwards: ports.iter().map(forward).collect(),
        began,
    };
    session::run(run).map_err(convert)
}

fn forward(port: &Port) -> Forward {
    Forward {
        address: port.address,
        host: port.host,
        guest: port.guest,
        udp: port.protocol == Protocol::Udp,
    }
}

fn convert(e: duet_vm::Error) -> Error {
    match e {
        duet_vm::Error::Failed(text) => Error::Failed(text),
        duet_vm::Error::CannotRun { program, reason } => Error::CannotRun { program, reason },
        duet_vm::Error::NotFound { program, reason } => Error::NotFound { program, reason },
    }
}

/// A place for the contents of the tree's own files: a tmpfs that nobody else sees, or for an ordinary
/// user, who may not mount one, a private directory that goes with the run.
fn store() -> Result<(OwnedFd, Option<TempDir>)> {
    if nix::unistd::geteuid().is_root() {
        let mounted = init::store_mount().map_err(|e| Error::step("mounting a tmpfs", e))?;
        return Ok((mounted, None));
    }
    let failed = |e: std::io::Error| Error::Failed(format!("making a private directory: {e}"));
    let shm = std::path::Path::new("/dev/shm");
    let place = tempfile::Builder::new().prefix("duet-").tempdir_in(shm);
    let place = place.or_else(|_| tempfile::tempdir()).map_err(failed)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(place.path(), flags, Mode::empty())
        .map_err(|e| Error::step("opening a private directory", e))?;
    Ok((fd, Some(place)))
}

//! What `/proc` shows of the sandbox.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use duet_intercept::Engine;
use duet_syscalls::kernel::NameKind;
use duet_syscalls::process::ProcessTable;
use duet_vfs::proc::{ProcessSource, ProcessView};
use duet_vfs::{BackingId, Location, MountInfo, Vfs};

use crate::names::Names;

/// Filled in once the tree and the table exist: `/proc` is part of the tree.
pub struct Source {
    proc: OwnedFd,
    names: Arc<Names>,
    shares_network: bool,
    memory_limit: Option<u64>,
    vfs: OnceLock<Weak<Vfs>>,
    processes: OnceLock<Arc<ProcessTable>>,
    engine: OnceLock<Arc<dyn Engine>>,
}

impl Source {
    /// `proc` is a procfs of the sandbox's pid namespace.
    pub fn new(
        proc: OwnedFd,
        names: Arc<Names>,
        shares_network: bool,
        memory_limit: Option<u64>,
    ) -> Source {
        Source {
            proc,
            names,
            shares_network,
            memory_limit,
            vfs: OnceLock::new(),
            processes: OnceLock::new(),
            engine: OnceLock::new(),
        }
    }

    /// Says which tree this is about.
    pub fn set_vfs(&self, vfs: &Arc<Vfs>) {
        if self.vfs.set(Arc::downgrade(vfs)).is_err() {
            log::error!("/proc got a second tree");
        }
    }

    /// Says which engine keeps descriptors in processes.
    pub fn set_engine(&self, engine: Arc<dyn Engine>) {
        if self.engine.set(engine).is_err() {
            log::error!("/proc got a second engine");
        }
    }

    /// Says which processes this is about.
    pub fn set_processes(&self, processes: Arc<ProcessTable>) {
        if self.processes.set(processes).is_err() {
            log::error!("/proc got a second process table");
        }
    }
}

impl ProcessSource for Source {
    fn ns_proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    fn process(&self, pid: i32) -> Option<ProcessView> {
        let table = self.processes.get()?;
        let (id, state) = if pid == 1 {
            (0, table.initial_state()?)
        } else {
            let process = table.by_guest_pid(pid)?;
            (process.serial(), process.state())
        };
        let program = state.program.as_ref();
        let exe = program.map(|p| p.location.clone());
        let exe_path = exe
            .as_ref()
            .map_or_else(Vec::new, |l| l.path(&state.root).0);
        let view = ProcessView {
            id,
            creds: state.creds.clone(),
            umask: state.umask,
            root: state.root.clone(),
            cwd: state.cwd.clone(),
            exe,
            exe_path,
            cmdline_prefix: program.and_then(|p| p.cmdline_prefix.clone()),
            auxv: program.and_then(|p| p.auxv.clone()),
            no_new_privs: state.no_new_privs,
            seccomp_filters: 0,
            dumpable: true,
            visible: pid != 1,
        };
        Some(view)
    }

    fn about_to_show_affinities(&self) {
        if let Some(engine) = self.engine.get() {
            engine.let_go();
        }
    }

    fn own_descriptor(&self, pid: i32) -> Option<i32> {
        let process = self.processes.get()?.by_guest_pid(pid)?;
        let engine = self.engine.get()?;
        engine
            .own_descriptor(process.host_pid())
            .or_else(|| process.agent_descriptor())
    }

    fn mounts(&self) -> Vec<MountInfo> {
        self.vfs
            .get()
            .and_then(Weak::upgrade)
            .map(|v| v.mounts())
            .unwrap_or_default()
    }

    fn locate_backing(&self, id: BackingId) -> Option<Location> {
        self.vfs.get().and_then(Weak::upgrade)?.locate(id)
    }

    fn hostname(&self) -> Vec<u8> {
        self.names.get(NameKind::Host)
    }

    fn domainname(&self) -> Vec<u8> {
        self.names.get(NameKind::Domain)
    }

    fn memory_limit(&self) -> Option<u64> {
        self.memory_limit
    }

    fn shares_host_network(&self) -> bool {
        self.shares_network
    }
}

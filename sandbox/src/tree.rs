//! The guest's tree: which file systems are joined where.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duet_vfs::dev::{PtsFs, new_dev};
use duet_vfs::host::{HostFs, HostOptions, IdMap};
use duet_vfs::overlay::{OverlayFs, Upper};
use duet_vfs::proc::{ProcFs, ProcessSource};
use duet_vfs::sys::SysFs;
use duet_vfs::tmp::{TmpFile, TmpFs, TmpOptions};
use duet_vfs::{
    BackingId, Context, Creds, Errno, FileSystem, FileType, Location, Lookup, MountFlags, NewNode,
    NoCaller, Store, Vfs,
};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};

use crate::config::{Config, Network, Tree};
use crate::error::{Error, Result};
use crate::usernet;

/// Makes the two private directories on the tmpfs that init mounted.
fn open_store(tmpfs: &OwnedFd) -> nix::Result<Store> {
    let make = |name: &str| {
        mkdirat(tmpfs, name, Mode::S_IRWXU)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(tmpfs, name, flags, Mode::empty())
    };
    Ok(Store {
        files: make("files")?,
        dirs: make("dirs")?,
    })
}

/// Who makes `/dev`, `/proc` and `/sys`.
pub enum Interfaces {
    /// Duet, and `/proc` shows these processes.
    Duet(Arc<dyn ProcessSource>),
    /// The kernel of a virtual machine: the tree has just the places for them, and for what else it is to
    /// mount.
    Kernel,
}

/// Joins the tree that `config` asks for. `program` is the host file that a bare tree shows.
pub fn build(
    config: &Config,
    tmpfs: &OwnedFd,
    program: Option<(Vec<u8>, File)>,
    interfaces: Interfaces,
) -> Result<Arc<Vfs>> {
    let store = open_store(tmpfs).map_err(|e| Error::step("preparing the private tmpfs", e))?;
    let files = store
        .files
        .as_fd()
        .try_clone_to_owned()
        .map_err(io("preparing the tmpfs"))?;
    let tmp = |mode: u32| -> Result<Arc<TmpFs>> {
        let files = files.try_clone().map_err(io("preparing the tmpfs"))?;
        TmpFs::new(
            files,
            TmpOptions {
                mode,
                ..TmpOptions::default()
            },
        )
        .map_err(|e| Error::step("making a tmpfs", e))
    };
    let (root, source): (Arc<dyn FileSystem>, &str) = match &config.tree {
        Tree::Bare => (tmp(0o755)?, "duet"),
        Tree::Directory {
            path,
            writable: true,
        } => {
            let options = HostOptions {
                shared: true,
                ..HostOptions::default()
            };
            (host(path, options)?, "duet")
        }
        Tree::Directory {
            path,
            writable: false,
        } => {
            let options = HostOptions::default();
            (throw_away(path, tmp(0o755)?, options)?, "overlay")
        }
        Tree::Host => {
            let root = Path::new("/");
            // What Duet keeps beside nodes it has kept for trees of their own, not for the host.
            let options = HostOptions {
                records: false,
                ids: host_ids(config),
                ..HostOptions::default()
            };
            (throw_away(root, tmp(0o755)?, options)?, "overlay")
        }
    };
    let vfs = Vfs::new(store, root, MountFlags::empty(), source)
        .map_err(|e| Error::step("making the tree", e))?;
    let tree = Builder {
        vfs: vfs.clone(),
        creds: Creds::root(),
    };
    let guest_mounts = matches!(interfaces, Interfaces::Kernel);
    match interfaces {
        Interfaces::Duet(processes) => tree.interfaces(config, processes, &tmp)?,
        Interfaces::Kernel => {
            let own = config.tmpfs.iter().map(Vec::as_slice);
            for place in [&b"/dev"[..], b"/proc", b"/sys"].into_iter().chain(own) {
                let text = String::from_utf8_lossy(place).into_owned();
                tree.mount_point(place, true)
                    .map_err(|e| Error::step(format!("making the mount point {text}"), e))?;
            }
        }
    }
    if config.tree == Tree::Bare {
        tree.mount(b"/tmp", tmp(0o1777)?, MountFlags::NOSUID, "tmpfs")?;
    }
    if let Some((name, file)) = program {
        let options = HostOptions {
            read_only: true,
            ..HostOptions::default()
        };
        let fs = HostFs::new(file.into(), options).map_err(io("opening the program"))?;
        tree.mount(&[b"/", &*name].concat(), fs, MountFlags::RDONLY, "program")?;
    }
    for target in config.tmpfs.iter().filter(|_| !guest_mounts) {
        tree.mount(target, tmp(0o1777)?, MountFlags::NOSUID, "tmpfs")?;
    }
    for v in &config.volumes {
        let options = HostOptions {
            shared: true,
            read_only: v.read_only,
            ids: host_ids(config),
            ..HostOptions::default()
        };
        let fs = host(&v.source, options)?;
        let flags = if v.read_only {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        tree.mount(&v.target, fs, flags, &v.source.to_string_lossy())?;
    }
    for (path, content) in network_files(config) {
        let files = files.try_clone().map_err(io("preparing the tmpfs"))?;
        let file = TmpFile::new(files, &content, 0o644)
            .map_err(|e| Error::step(format!("making {path}"), e))?;
        if let Err(e) = tree.mount(path.as_bytes(), file, MountFlags::empty(), "network") {
            log::warn!("{path} is the tree's own: {e}");
        }
    }
    // Its root may remount, but not take back what it was given read-only.
    vfs.seal();
    Ok(vfs)
}

/// Files that tell the guest of the network it is in. With the host's tree and network they are the
/// host's already.
fn network_files(config: &Config) -> Vec<(&'static str, Vec<u8>)> {
    const RESOLVER: &str = "/etc/resolv.conf";
    const HOSTS: &str = "/etc/hosts";
    match &config.network {
        Network::None => Vec::new(),
        Network::Host if config.tree == Tree::Host => Vec::new(),
        Network::Host => {
            let read = |path| Some((path, std::fs::read(path).ok()?));
            [RESOLVER, HOSTS].into_iter().filter_map(read).collect()
        }
        Network::User(_) => {
            let name = &config.hostname;
            let hosts = format!(
                "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{name}\n",
                usernet::GUEST
            );
            let resolver = format!("nameserver {}\n", usernet::NAME_SERVER);
            vec![(RESOLVER, resolver.into()), (HOSTS, hosts.into())]
        }
    }
}

/// What the tmpfs that the guest will mount are made beside.
pub fn guest_tmpfs(vfs: &Vfs) -> Result<Arc<TmpFs>> {
    let files = vfs.store().files.try_clone();
    let files = files.map_err(io("preparing the tmpfs"))?;
    TmpFs::new(files, TmpOptions::default()).map_err(|e| Error::step("making a tmpfs", e))
}

/// The file systems that mount(2) can show at further places, by type.
pub fn singletons(vfs: &Vfs) -> HashMap<Vec<u8>, Arc<dyn FileSystem>> {
    let mounts = vfs.mounts().into_iter();
    let all = mounts.filter(|m| matches!(m.type_name, "proc" | "sysfs" | "devtmpfs" | "devpts"));
    all.map(|m| (m.type_name.into(), m.location.mount.sb().fs().clone()))
        .collect()
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::Failed(format!("{what}: {e}"))
}

fn host(path: &Path, options: HostOptions) -> Result<Arc<HostFs>> {
    let failed = |e: std::io::Error| Error::Failed(format!("{}: {e}", path.display()));
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let journals = journals();
    HostFs::with_journal(fd, options, journals.as_deref()).map_err(failed)
}

/// Where owners of symbolic links and the like in an ordinary user's trees are kept: `$XDG_STATE_HOME/duet/owners`
/// or `~/.local/state/duet/owners`. Root sets them for real.
fn journals() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    let absolute = |name| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|p| p.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME");
    let state = state.or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("duet/owners"))
}

/// As whose the guest sees what the caller owns on the host, outside trees made for guests.
fn host_ids(config: &Config) -> IdMap {
    let ids = IdMap::invoking_user();
    match config.keep_id {
        true => ids.shown_as(config.uid, config.gid),
        false => ids,
    }
}

/// A host directory that stays as it is, under an upper layer that is gone after the run.
fn throw_away(path: &Path, upper: Arc<TmpFs>, options: HostOptions) -> Result<Arc<OverlayFs>> {
    let options = HostOptions {
        read_only: true,
        layer: true,
        ..options
    };
    let lower = host(path, options)?.root();
    if lower.kind() != FileType::Directory {
        let path = path.display();
        return Err(Error::Failed(format!(
            "{path}: is not a directory; --rootfs wants one"
        )));
    }
    let layer = |name: &[u8]| {
        upper.root().mkdir(
            name,
            NewNode {
                mode: 0o755,
                uid: 0,
                gid: 0,
            },
        )
    };
    let over = layer(b"upper").and_then(|root| {
        let work = layer(b"work")?;
        OverlayFs::new(
            Upper {
                fs: upper.clone(),
                root,
                work,
            },
            vec![lower],
        )
    });
    over.map_err(|e| Error::step(format!("layering over {}", path.display()), e))
}

struct Builder {
    vfs: Arc<Vfs>,
    creds: Creds,
}

impl Builder {
    /// Duet's own `/dev`, `/proc` and `/sys`.
    fn interfaces(
        &self,
        config: &Config,
        processes: Arc<dyn ProcessSource>,
        tmp: &dyn Fn(u32) -> Result<Arc<TmpFs>>,
    ) -> Result<()> {
        // Device nodes are harmless wherever they lie: only known ones can be opened.
        let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let device = MountFlags::NOSUID | MountFlags::NOEXEC;
        let files = self.vfs.store().files.try_clone();
        let files = files.map_err(io("preparing the tmpfs"))?;
        let dev = new_dev(files).map_err(|e| Error::step("making /dev", e))?;
        self.mount(b"/dev", dev, device, "devtmpfs")?;
        let pts = PtsFs::new();
        self.mount(b"/dev/pts", pts.clone(), device, "devpts")?;
        self.adopt_terminals(&pts);
        self.mount(b"/dev/shm", tmp(0o1777)?, MountFlags::NOSUID, "shm")?;
        self.mount(b"/proc", ProcFs::new(processes), plain, "proc")?;
        if config.tree != Tree::Bare {
            self.mount(
                b"/sys",
                SysFs::new().map_err(io("making /sys"))?,
                plain | MountFlags::RDONLY,
                "sysfs",
            )?;
        }
        Ok(())
    }

    /// Mounts at `path`, which is made where it is missing.
    fn mount(
        &self,
        path: &[u8],
        fs: Arc<dyn FileSystem>,
        flags: MountFlags,
        source: &str,
    ) -> Result<()> {
        let directory = fs.root().kind() == FileType::Directory;
        let text = || String::from_utf8_lossy(path).into_owned();
        let at = self
            .mount_point(path, directory)
            .map_err(|e| Error::step(format!("making the mount point {}", text()), e))?;
        self.vfs
            .mount(&at, fs, flags, source)
            .map_err(|e| Error::step(format!("mounting at {}", text()), e))
    }

    /// Shows the terminals that are the guest's standard input, output and error under their names, so
    /// that ttyname(3) finds them.
    fn adopt_terminals(&self, pts: &PtsFs) {
        for fd in 0..3 {
            let path = format!("/proc/self/fd/{fd}");
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let Ok(node) = nix::fcntl::open(path.as_str(), flags, Mode::empty()) else {
                continue;
            };
            let Ok(stat) = fstat(&node) else { continue };
            let Ok(number) = pts.adopt(node) else {
                continue;
            };
            let name = format!("/dev/pts/{number}");
            match self.mount_point(name.as_bytes(), false) {
                Ok(l) => self.vfs.adopt(
                    BackingId {
                        dev: stat.st_dev,
                        ino: stat.st_ino,
                    },
                    &l,
                ),
                Err(e) => log::warn!("{name} is not shown: {e}"),
            }
        }
    }

    fn mount_point(&self, path: &[u8], directory: bool) -> std::result::Result<Location, Errno> {
        const LINKS: u32 = 8;
        self.mount_point_through(path, directory, LINKS)
    }

    /// Following at most `links` links that lead nowhere.
    fn mount_point_through(
        &self,
        path: &[u8],
        directory: bool,
        links: u32,
    ) -> std::result::Result<Location, Errno> {
        let root = self.vfs.root();
        let cx = Context {
            root: &root,
            cwd: &root,
            creds: &self.creds,
            umask: 0o022,
            caller: &NoCaller,
        };
        let find = |p: &[u8]| self.vfs.resolve(&cx, &root, p, Lookup::FOLLOW);
        match find(path) {
            Err(Errno::ENOENT) => (),
            other => return other,
        }
        // A link that leads nowhere yet: the place is made where it leads.
        if let Ok(link) = self.vfs.resolve(&cx, &root, path, Lookup::empty()) {
            let target = self.vfs.readlink(&cx, &link)?;
            let dir = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
            let target = match target.first() {
                Some(b'/') => target,
                _ => [path.get(..dir).unwrap_or_default(), b"/", &target].concat(),
            };
            return match links {
                0 => Err(Errno::ELOOP),
                _ => self.mount_point_through(&target, directory, links - 1),
            };
        }
        let mut end = 0;
        let parts: Vec<&[u8]> = path
            .split(|&b| b == b'/')
            .filter(|p| !p.is_empty())
            .collect();
        let mut prefix = Vec::with_capacity(path.len());
        for part in &parts {
            end += 1;
            prefix.push(b'/');
            prefix.extend_from_slice(part);
            if !matches!(find(&prefix), Err(Errno::ENOENT)) {
                continue;
            }
            if end == parts.len() && !directory {
                let mode = libc::S_IFREG | 0o644;
                self.vfs.mknod(&cx, &root, &prefix, mode, 0)?;
            } else {
                self.vfs.mkdir(&cx, &root, &prefix, 0o755)?;
            }
        }
        find(path)
    }
}

/// Looks for `name` where the host's shell would.
pub fn find_on_host(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

//! `sys`: the little of sysfs(5) that programs look for, read-only: processors, memory nodes, huge
//! pages, the loopback interface.
//!
//! Shapes and values are the host's, because the sandbox runs on its processors; nothing of its
//! devices shows. The tree is built when somebody first looks.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::OFlag;

use crate::inode::{DentryPolicy, FileSystem, Inode, StatFs};
use crate::proc::host;
use crate::proc::pseudo::{Content, Later, Style, Tree, now};
use crate::types::*;

/// Processors and nodes beyond this number are not shown: no machine has them.
const MAX_UNITS: usize = 8192;

/// Files of `devices/system/cpu`.
const CPUS: &[&str] = &[
    "isolated",
    "kernel_max",
    "offline",
    "online",
    "possible",
    "present",
];

/// Files of `devices/system/cpu/cpuN`.
const CPU: &[&str] = &[
    "topology/cluster_cpus",
    "topology/cluster_cpus_list",
    "topology/cluster_id",
    "topology/core_cpus",
    "topology/core_cpus_list",
    "topology/core_id",
    "topology/core_siblings",
    "topology/core_siblings_list",
    "topology/die_cpus",
    "topology/die_cpus_list",
    "topology/die_id",
    "topology/package_cpus",
    "topology/package_cpus_list",
    "topology/physical_package_id",
    "topology/thread_siblings",
    "topology/thread_siblings_list",
];

/// Files of `devices/system/cpu/cpuN/cache/indexN`.
const CACHE: &[&str] = &[
    "coherency_line_size",
    "id",
    "level",
    "number_of_sets",
    "physical_line_partition",
    "shared_cpu_list",
    "shared_cpu_map",
    "size",
    "type",
    "ways_of_associativity",
];

/// Files of `devices/system/node`.
const NODES: &[&str] = &[
    "has_cpu",
    "has_memory",
    "has_normal_memory",
    "online",
    "possible",
];

/// Files of `devices/system/node/nodeN`.
const NODE: &[&str] = &["cpulist", "cpumap", "distance", "meminfo"];

/// Files of `kernel/mm`.
const MM: &[&str] = &[
    "transparent_hugepage/defrag",
    "transparent_hugepage/enabled",
    "transparent_hugepage/hpage_pmd_size",
    "transparent_hugepage/shmem_enabled",
    "transparent_hugepage/use_zero_page",
];

/// Files of `class/net/lo`, whose state is the same everywhere.
const LOOPBACK: &[(&str, &str)] = &[
    ("addr_len", "6\n"),
    ("address", "00:00:00:00:00:00\n"),
    ("broadcast", "00:00:00:00:00:00\n"),
    ("carrier", "1\n"),
    ("flags", "0x9\n"),
    ("ifindex", "1\n"),
    ("iflink", "1\n"),
    ("mtu", "65536\n"),
    ("operstate", "unknown\n"),
    ("tx_queue_len", "1000\n"),
    ("type", "772\n"),
];

/// Directories that programs expect, with nothing in them.
const EMPTY: &[&str] = &[
    "block",
    "bus",
    "class/block",
    "dev/block",
    "dev/char",
    "devices/virtual",
    "firmware",
    "fs/cgroup",
    "kernel/security",
    "module",
];

/// Directories in the root: `block`, `bus`, `class`, `dev`, `devices`, `firmware`, `fs`, `kernel`, `module`.
const DIRECTORIES: u32 = 9;

/// The `sysfs` file system.
pub struct SysFs {
    root: Arc<Later>,
}

impl SysFs {
    /// A `/sys` with the values of the host's, which is found at `/sys`. Errors of opening that.
    pub fn new() -> std::io::Result<Arc<SysFs>> {
        let host = Arc::new(OwnedFd::from(File::open("/sys")?));
        let style = Style {
            file_size: 4096,
            blksize: 4096,
            time: now(),
        };
        Ok(Arc::new(SysFs {
            root: Later::new(style, 1, 2 + DIRECTORIES, move || tree(&host)),
        }))
    }
}

impl FileSystem for SysFs {
    fn type_name(&self) -> &'static str {
        "sysfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs {
            // SYSFS_MAGIC of linux/magic.h
            magic: 0x6265_6572,
            bsize: 4096,
            blocks: 0,
            bfree: 0,
            bavail: 0,
            files: 0,
            ffree: 0,
            namelen: 255,
        })
    }

    fn dentry_policy(&self) -> DentryPolicy {
        DentryPolicy::Exclusive
    }
}

fn tree(host: &Arc<OwnedFd>) -> Tree {
    let mut tree = Tree::default();
    for &dir in EMPTY {
        tree.dir(dir);
    }
    for &(name, value) in LOOPBACK {
        tree.file(
            &format!("devices/virtual/net/lo/{name}"),
            0o444,
            Content::text(value),
        );
    }
    tree.link("class/net/lo", "../../devices/virtual/net/lo");
    add(&mut tree, host, "devices/system/cpu", CPUS);
    for cpu in units(host, "devices/system/cpu/possible") {
        let dir = format!("devices/system/cpu/cpu{cpu}");
        if host::lstat(host.as_fd(), &dir).is_err() {
            continue;
        }
        tree.dir(&dir);
        add(&mut tree, host, &dir, CPU);
        // Processors have up to four or five caches.
        for index in 0..8 {
            add(&mut tree, host, &format!("{dir}/cache/index{index}"), CACHE);
        }
    }
    add(&mut tree, host, "devices/system/node", NODES);
    for node in units(host, "devices/system/node/online") {
        add(
            &mut tree,
            host,
            &format!("devices/system/node/node{node}"),
            NODE,
        );
    }
    add(&mut tree, host, "kernel/mm", MM);
    tree
}

/// Adds those of the `names` in `dir` that the host has.
fn add(tree: &mut Tree, host: &Arc<OwnedFd>, dir: &str, names: &[&str]) {
    if host::lstat(host.as_fd(), dir).is_err() {
        return;
    }
    for name in names {
        let path = format!("{dir}/{name}");
        if host::lstat(host.as_fd(), &path).is_ok() {
            let (host, own) = (host.clone(), path.clone());
            let open = move |f: OFlag| host::open(host.as_fd(), &own, f);
            tree.file(&path, 0o444, Content::live(open));
        }
    }
}

/// The numbers of a list such as `0-3,8`, which the host's file `path` holds.
fn units(host: &Arc<OwnedFd>, path: &str) -> Vec<usize> {
    let text = host::read(host.as_fd(), path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut units = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            units.extend(first..=last.min(MAX_UNITS));
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inode::NoCaller;

    fn at(path: &str) -> Result<Arc<dyn Inode>> {
        let fs = SysFs::new().unwrap();
        path.split('/').try_fold(fs.root(), |dir, name| {
            dir.lookup(name.as_bytes(), &NoCaller)
        })
    }

    fn text(path: &str) -> String {
        let opened = at(path).unwrap().open(libc::O_RDONLY, &NoCaller).unwrap();
        String::from_utf8(host::read_all(opened.fd).unwrap()).unwrap()
    }

    #[test]
    fn processors_are_the_hosts() {
        for file in ["online", "possible", "present", "cpu0/topology/core_id"] {
            let path = format!("devices/system/cpu/{file}");
            assert_eq!(
                text(&path),
                std::fs::read_to_string(format!("/sys/{path}")).unwrap()
            );
        }
    }

    #[test]
    fn devices_do_not_show() {
        for path in [
            "class/dmi",
            "devices/pci0000:00",
            "class/net/eth0",
            "kernel/debug",
        ] {
            assert_eq!(at(path).err(), Some(Errno::ENOENT), "{path}");
        }
        assert_eq!(text("devices/virtual/net/lo/mtu"), "65536\n");
        let link = at("class/net/lo").unwrap();
        assert_eq!(
            link.readlink(&NoCaller).unwrap(),
            b"../../devices/virtual/net/lo"
        );
    }

    #[test]
    fn the_root_knows_its_number_of_links_before_it_is_made() {
        let fs = SysFs::new().unwrap();
        let mut count = 0;
        fs.root()
            .read_dir(0, &NoCaller, &mut |e| {
                assert_eq!(e.kind, Some(FileType::Directory));
                count += 1;
                true
            })
            .unwrap();
        assert_eq!(fs.root().attr().unwrap().nlink, 2 + count);
    }

    #[test]
    fn nothing_can_be_written() {
        let file = at("kernel/mm/transparent_hugepage/enabled").unwrap();
        assert_eq!(
            file.open(libc::O_RDWR, &NoCaller).err(),
            Some(Errno::EACCES)
        );
        assert_eq!(file.attr().unwrap().size, 4096);
    }

    #[test]
    fn a_directory_is_listed_in_pieces() {
        let dir = at("devices/system/cpu").unwrap();
        let mut all = Vec::new();
        dir.read_dir(0, &NoCaller, &mut |e| {
            all.push(e);
            true
        })
        .unwrap();
        let mut cookie = 0;
        for expected in &all {
            dir.read_dir(cookie, &NoCaller, &mut |e| {
                assert_eq!(e.name, expected.name);
                cookie = e.next;
                false
            })
            .unwrap();
        }
        let child = dir.lookup(&all[0].name, &NoCaller).unwrap();
        assert_eq!(child.attr().unwrap().ino, all[0].ino);
    }
}

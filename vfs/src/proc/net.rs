//! `/proc/PID/net`: the tables of the process's network namespace that programs read (proc(5)).

use std::any::Any;
use std::sync::Arc;

use super::pseudo::open_live;
use super::task::Task;
use super::{host, snapshot};
use crate::inode::{Caller, Inode, OpenedFile};
use crate::types::*;

/// How much of a table the guest sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    /// All: it tells of interfaces and totals.
    Open,
    /// It lists sockets or neighbours: just the head if the host shares the namespace.
    Sockets,
    /// The same, and its last column may be a path of the host.
    Unix,
}

/// Sorted by name; a cookie is an index plus one.
const TABLES: &[(&str, Table)] = &[
    ("arp", Table::Sockets),
    ("dev", Table::Open),
    ("dev_mcast", Table::Open),
    ("icmp", Table::Sockets),
    ("icmp6", Table::Sockets),
    ("if_inet6", Table::Open),
    ("igmp", Table::Open),
    ("igmp6", Table::Open),
    ("ipv6_route", Table::Open),
    ("netlink", Table::Sockets),
    ("netstat", Table::Open),
    ("packet", Table::Sockets),
    ("protocols", Table::Open),
    ("psched", Table::Open),
    ("raw", Table::Sockets),
    ("raw6", Table::Sockets),
    ("route", Table::Open),
    ("snmp", Table::Open),
    ("snmp6", Table::Open),
    ("sockstat", Table::Open),
    ("sockstat6", Table::Open),
    ("tcp", Table::Sockets),
    ("tcp6", Table::Sockets),
    ("udp", Table::Sockets),
    ("udp6", Table::Sockets),
    ("udplite", Table::Sockets),
    ("udplite6", Table::Sockets),
    ("unix", Table::Unix),
];

/// `/proc/PID/net`.
pub(super) struct NetDir {
    task: Task,
}

impl NetDir {
    pub(super) fn new(task: Task) -> NetDir {
        NetDir { task }
    }
}

impl Inode for NetDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        self.task
            .attr(self.task.ino("net", 0), libc::S_IFDIR | 0o555, 2)
    }

    fn lookup(&self, name: &[u8], caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        if self.task.is_zombie(caller) {
            return Err(Errno::ENOENT);
        }
        let (name, table) = TABLES
            .iter()
            .find(|(n, _)| n.as_bytes() == name)
            .ok_or(Errno::ENOENT)?;
        // What the host's kernel was not built with does not exist here either.
        self.task
            .host(&format!("net/{name}"), host::lstat)
            .map_err(|_| Errno::ENOENT)?;
        Ok(Arc::new(NetFile {
            task: self.task.clone(),
            name,
            table: *table,
        }))
    }

    fn read_dir(
        &self,
        cookie: u64,
        caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        if self.task.is_zombie(caller) {
            return Err(Errno::EINVAL);
        }
        let start = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (index, (name, _)) in TABLES.iter().enumerate().skip(start) {
            if self.task.host(&format!("net/{name}"), host::lstat).is_err() {
                continue;
            }
            let entry = DirEntry {
                ino: self.task.ino(name, u64::MAX - 1),
                kind: Some(FileType::Regular),
                name: name.as_bytes().to_vec(),
                next: index as u64 + 1,
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

struct NetFile {
    task: Task,
    name: &'static str,
    table: Table,
}

impl Inode for NetFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> Result<Attr> {
        let ino = self.task.ino(self.name, u64::MAX - 1);
        let mut attr = self.task.attr(ino, libc::S_IFREG | 0o444, 1)?;
        (attr.uid, attr.gid) = (0, 0);
        Ok(attr)
    }

    fn open(&self, flags: i32, _caller: &dyn Caller) -> Result<OpenedFile> {
        let file = format!("net/{}", self.name);
        let shared = self.task.proc.source.shares_host_network();
        match (self.table, shared) {
            (Table::Open, _) | (Table::Sockets, false) => open_live(flags, |f| {
                self.task.host(&file, |dir, path| host::open(dir, path, f))
            }),
            (Table::Sockets | Table::Unix, true) => {
                let text = self.task.host(&file, host::read)?;
                let head = text
                    .split_inclusive(|&b| b == b'\n')
                    .next()
                    .unwrap_or_default();
                snapshot::open(head, flags)
            }
            (Table::Unix, false) => snapshot::open(
                &without_own_paths(&self.task.host(&file, host::read)?),
                flags,
            ),
        }
    }
}

/// `/proc/net/unix` without paths of Duet's: the kernel knows some sockets by where the supervisor bound
/// them ([`crate::Binding`]), and the others by what the guest calls them.
fn without_own_paths(text: &[u8]) -> Vec<u8> {
    const OWN: &[u8] = b" /proc/self/fd/";
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        match line.windows(OWN.len()).position(|w| w == OWN) {
            Some(at) => {
                out.extend_from_slice(line.get(..at).unwrap_or_default());
                out.push(b'\n');
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(TABLES.is_sorted_by_key(|(name, _)| name));
    }

    #[test]
    fn own_paths_do_not_show() {
        let text = b"Num       RefCount\n\
            0: 00000002 00000000 00010000 0001 01 25 /proc/self/fd/7/x /y\n\
            1: 00000002 00000000 00010000 0001 01 26 @abstract\n\
            2: 00000002 00000000 00010000 0001 01 27\n\
            3: 00000002 00000000 00010000 0001 01 28 /run/x y\n";
        let shown = String::from_utf8(without_own_paths(text)).unwrap();
        assert!(!shown.contains("self") && shown.contains("@abstract"));
        assert!(shown.contains(" 25\n") && shown.ends_with(" 28 /run/x y\n"));
        assert_eq!(shown.lines().count(), 5);
    }
}

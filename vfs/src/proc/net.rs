//! `/proc/PID/net`: the tables of the process's network namespace that programs read (proc(5)).

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use super::pseudo::open_live;
use super::task::Task;
use super::{host, snapshot};
use crate::inode::{Caller, Inode, OpenedFile};
use crate::types::*;

/// Descriptors that are looked at to tell the sandbox's own sockets from the host's.
const MAX_DESCRIPTORS: usize = 1 << 16;

/// How much of a table the guest sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    /// All: it tells of interfaces and totals.
    Open,
    /// It lists neighbours: just the head if the host shares the namespace.
    Neighbours,
    /// It lists sockets, whose inode numbers stand in this column, counted from 0: just those of the sandbox if
    /// the host shares the namespace.
    Sockets(usize),
    /// The same, and its last column may be a path of Duet's.
    Unix,
}

impl Table {
    /// Where the inode number of a socket stands.
    fn column(self) -> Option<usize> {
        match self {
            Table::Open | Table::Neighbours => None,
            Table::Sockets(column) => Some(column),
            Table::Unix => Some(6),
        }
    }
}

/// Sorted by name; a cookie is an index plus one.
const TABLES: &[(&str, Table)] = &[
    ("arp", Table::Neighbours),
    ("dev", Table::Open),
    ("dev_mcast", Table::Open),
    ("icmp", Table::Sockets(9)),
    ("icmp6", Table::Sockets(9)),
    ("if_inet6", Table::Open),
    ("igmp", Table::Open),
    ("igmp6", Table::Open),
    ("ipv6_route", Table::Open),
    ("netlink", Table::Sockets(9)),
    ("netstat", Table::Open),
    ("packet", Table::Sockets(8)),
    ("protocols", Table::Open),
    ("psched", Table::Open),
    ("raw", Table::Sockets(9)),
    ("raw6", Table::Sockets(9)),
    ("route", Table::Open),
    ("snmp", Table::Open),
    ("snmp6", Table::Open),
    ("sockstat", Table::Open),
    ("sockstat6", Table::Open),
    ("tcp", Table::Sockets(9)),
    ("tcp6", Table::Sockets(9)),
    ("udp", Table::Sockets(9)),
    ("udp6", Table::Sockets(9)),
    ("udplite", Table::Sockets(9)),
    ("udplite6", Table::Sockets(9)),
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
        if self.table == Table::Open || !shared && self.table != Table::Unix {
            return open_live(flags, |f| {
                self.task.host(&file, |dir, path| host::open(dir, path, f))
            });
        }
        let mut text = self.task.host(&file, host::read)?;
        if shared {
            let own = match self.table.column() {
                Some(_) if text.iter().filter(|&&b| b == b'\n').count() > 1 => self.own_sockets(),
                _ => HashSet::new(),
            };
            text = only_rows_of(&text, self.table.column(), &own);
        }
        if self.table == Table::Unix {
            text = without_own_paths(&text);
        }
        snapshot::open(&text, flags)
    }
}

impl NetFile {
    /// The inode numbers of the sockets that processes of the sandbox have open. What cannot be read, as its process
    /// has ended, is left out.
    fn own_sockets(&self) -> HashSet<u64> {
        let source = &self.task.proc.source;
        let proc = source.ns_proc();
        let mut pids = Vec::new();
        let _ = host::read_numbers(proc, ".", 0, &mut |pid, _| {
            // Duet's own init is none of them.
            if pid != 1 {
                pids.push(pid);
            }
            pids.len() < MAX_DESCRIPTORS
        });
        let mut own = HashSet::new();
        let mut looked_at = 0;
        for pid in pids {
            let dir = format!("{pid}/fd");
            let hidden = source.own_descriptor(pid);
            let mut fds = Vec::new();
            let _ = host::read_numbers(proc, &dir, 0, &mut |fd, _| {
                if hidden != Some(fd) {
                    fds.push(fd);
                }
                looked_at += 1;
                looked_at < MAX_DESCRIPTORS
            });
            own.extend(fds.iter().filter_map(|fd| {
                let text = host::read_link(proc, &format!("{dir}/{fd}")).ok()?;
                number(text.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
            }));
        }
        own
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The head of a table, and the rows that have one of these numbers in the column.
fn only_rows_of(text: &[u8], column: Option<usize>, own: &HashSet<u64>) -> Vec<u8> {
    let mut lines = text.split_inclusive(|&b| b == b'\n');
    let mut out = lines.next().unwrap_or_default().to_vec();
    let Some(column) = column else {
        return out;
    };
    for line in lines {
        let mut cells = line
            .split(u8::is_ascii_whitespace)
            .filter(|c| !c.is_empty());
        if cells
            .nth(column)
            .and_then(number)
            .is_some_and(|inode| own.contains(&inode))
        {
            out.extend_from_slice(line);
        }
    }
    out
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
    fn rows_of_others_do_not_show() {
        let text = b"  sl  local_address rem_address st tx rx tr\n\
            0: 0100007F:C3D1 00000000:0000 0A 0:0 00:0 0 65534 0 154004 1 0 100 0 0 10 0\n\
            1: 0100007F:C3D2 00000000:0000 0A 0:0 00:0 0 65534 0 154005 1 0 100 0 0 10 0\n\
            2: 0100007F\n\n";
        let own = HashSet::from([154_005]);
        let shown = String::from_utf8(only_rows_of(text, Some(9), &own)).unwrap();
        assert_eq!(shown.lines().count(), 2);
        assert!(shown.starts_with("  sl") && shown.contains("C3D2"));
        assert_eq!(
            only_rows_of(text, None, &own)
                .iter()
                .filter(|&&b| b == b'\n')
                .count(),
            1
        );
        assert!(only_rows_of(b"", Some(9), &own).is_empty());
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

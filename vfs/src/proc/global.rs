//! The files of `/proc` that speak of the whole machine (proc(5)).

use std::io::Write;
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::pseudo::{Content, Tree};
use super::{ProcessSource, host};
use crate::types::*;

type Source = Arc<dyn ProcessSource>;

/// Files that never change: (path, text).
const FIXED: &[(&str, &str)] = &[
    ("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"),
    ("cmdline", "duet\n"),
    (
        "devices",
        "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n\
         128 ptm\n136 pts\n\nBlock devices:\n",
    ),
    ("diskstats", ""),
    ("execdomains", "0-0\tLinux           \t[kernel]\n"),
    (
        "filesystems",
        "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tdevpts\nnodev\toverlay\n",
    ),
    ("misc", ""),
    ("modules", ""),
    ("partitions", "major minor  #blocks  name\n\n"),
    (
        "swaps",
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
    ),
    (
        "tty/drivers",
        "/dev/tty             /dev/tty        5       0 system:/dev/tty\n\
         /dev/console         /dev/console    5       1 system:console\n\
         /dev/ptmx            /dev/ptmx       5       2 system\n\
         pty_slave            /dev/pts      136 0-1048575 pty:slave\n\
         pty_master           /dev/ptm      128 0-1048575 pty:master\n",
    ),
];

/// Files of the host that are its own to tell, handed out as they are.
const LIVE: &[&str] = &["cpuinfo", "locks", "stat", "uptime", "version", "vmstat"];

/// The tree, `sys`, processes and `self` aside.
pub(super) fn tree(source: &Source) -> Tree {
    let mut tree = Tree::default();
    for &(path, text) in FIXED {
        tree.file(path, 0o444, Content::text(text));
    }
    for &name in LIVE {
        let source = source.clone();
        tree.file(
            name,
            0o444,
            Content::live(move |f| host::open(source.ns_proc(), name, f)),
        );
    }
    tree.file("meminfo", 0o444, memory(source.clone()));
    let loads = source.clone();
    tree.file(
        "loadavg",
        0o444,
        Content::make(move || load_average(&*loads)),
    );
    tree.link("mounts", "self/mounts");
    tree.link("net", "self/net");
    tree
}

/// `meminfo`: the host's, within the sandbox's limit.
fn memory(source: Source) -> Content {
    if source.memory_limit().is_none() {
        return Content::live(move |f: OFlag| host::open(source.ns_proc(), "meminfo", f));
    }
    Content::make(move || {
        let text = host::read(source.ns_proc(), "meminfo")?;
        Ok(match source.memory_limit() {
            Some(limit) => limit_memory(&text, limit),
            None => text,
        })
    })
}

/// The text of `meminfo` with no figure of memory above `limit` bytes, and no swap.
fn limit_memory(text: &[u8], limit: u64) -> Vec<u8> {
    let limit = limit / 1024;
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        let Some((key, kib)) = parse_meminfo(line) else {
            out.extend_from_slice(line);
            continue;
        };
        let shown = match key {
            "SwapTotal" | "SwapFree" | "SwapCached" => 0,
            // Address space, not memory.
            "VmallocTotal" | "CommitLimit" | "Committed_AS" => kib,
            _ => kib.min(limit),
        };
        // As show_val_kb (fs/proc/meminfo.c); writing to a Vec cannot fail.
        let colon = format!("{key}:");
        let _ = writeln!(out, "{colon:<16}{shown:>8} kB");
    }
    out
}

/// `Key:   123 kB`
fn parse_meminfo(line: &[u8]) -> Option<(&str, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let (key, value) = line.split_once(':')?;
    let kib = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((key, kib))
}

/// `loadavg`: the host's averages, but the sandbox's own processes.
fn load_average(source: &dyn ProcessSource) -> Result<Vec<u8>> {
    let text = host::read(source.ns_proc(), "loadavg")?;
    let (mut count, mut last) = (0u32, 0);
    host::read_numbers(source.ns_proc(), ".", 0, &mut |pid, _| {
        count += 1;
        last = last.max(pid);
        true
    })?;
    let mut out = Vec::with_capacity(text.len());
    for average in text.split(|&b| b == b' ').take(3) {
        out.extend_from_slice(average);
        out.push(b' ');
    }
    let _ = writeln!(out, "1/{count} {last}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_limited_in_the_kernels_format() {
        let text =
            b"MemTotal:       24684096 kB\nMemFree:         1000 kB\nSwapTotal:      99 kB\n\
            VmallocTotal:   34359738367 kB\nHugePages_Total:       0\n";
        let shown = String::from_utf8(limit_memory(text, 64 << 20)).unwrap();
        assert_eq!(
            shown,
            "MemTotal:          65536 kB\nMemFree:            1000 kB\n\
             SwapTotal:             0 kB\nVmallocTotal:   34359738367 kB\nHugePages_Total:       0\n"
        );
        // Without a limit below the machine's, nothing changes.
        let host = std::fs::read("/proc/meminfo").unwrap();
        let same = limit_memory(&host, u64::MAX);
        let swapless = |text: &[u8]| {
            String::from_utf8_lossy(text)
                .lines()
                .filter(|l| !l.starts_with("Swap"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(swapless(&same), swapless(&host));
    }

    #[test]
    fn random_bytes_do_no_harm() {
        super::super::tests::for_random_bytes(b"MemTotal: kB\n0123", |bytes| {
            limit_memory(bytes, 1 << 20);
        });
    }
}

//! `/proc/sys`, read-only (proc_sys(5), sysctl(8)).

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use super::pseudo::{Content, Tree};
use super::{ProcessSource, host};
use crate::types::*;

/// Settings whose values are the host's: they bind the sandbox too.
const HOST: &[&str] = &[
    "fs/aio-max-nr",
    "fs/epoll/max_user_watches",
    "fs/file-max",
    "fs/inotify/max_queued_events",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/mqueue/msg_default",
    "fs/mqueue/msg_max",
    "fs/mqueue/msgsize_default",
    "fs/mqueue/msgsize_max",
    "fs/mqueue/queues_max",
    "fs/nr_open",
    "fs/pipe-max-size",
    "fs/pipe-user-pages-hard",
    "fs/pipe-user-pages-soft",
    "kernel/cap_last_cap",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/ngroups_max",
    "kernel/osrelease",
    "kernel/ostype",
    "kernel/pid_max",
    "kernel/randomize_va_space",
    "kernel/random/entropy_avail",
    "kernel/random/poolsize",
    "kernel/sched_rr_timeslice_ms",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/threads-max",
    "kernel/version",
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_keepalive_intvl",
    "net/ipv4/tcp_keepalive_probes",
    "net/ipv4/tcp_keepalive_time",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv6/conf/all/disable_ipv6",
    "vm/legacy_va_layout",
    "vm/max_map_count",
    "vm/mmap_min_addr",
    "vm/nr_hugepages",
    "vm/overcommit_kbytes",
    "vm/overcommit_memory",
    "vm/overcommit_ratio",
    "vm/swappiness",
];

/// Settings of Duet's own: (path, value).
const FIXED: &[(&str, &str)] = &[
    ("fs/overflowgid", "65534\n"),
    ("fs/overflowuid", "65534\n"),
    ("fs/protected_fifos", "0\n"),
    ("fs/protected_hardlinks", "0\n"),
    ("fs/protected_regular", "0\n"),
    ("fs/protected_symlinks", "0\n"),
    ("fs/suid_dumpable", "0\n"),
    ("kernel/core_pattern", "core\n"),
    ("kernel/core_uses_pid", "0\n"),
    ("kernel/dmesg_restrict", "1\n"),
    ("kernel/io_uring_disabled", "2\n"),
    ("kernel/kptr_restrict", "1\n"),
    ("kernel/overflowgid", "65534\n"),
    ("kernel/overflowuid", "65534\n"),
    ("kernel/perf_event_paranoid", "3\n"),
    (
        "kernel/seccomp/actions_avail",
        "kill_process kill_thread trap errno user_notif trace log allow\n",
    ),
    ("kernel/tainted", "0\n"),
    ("kernel/unprivileged_bpf_disabled", "2\n"),
    ("vm/unprivileged_userfaultfd", "0\n"),
];

/// The tree below `/proc/sys`.
pub(super) fn tree(source: &Arc<dyn ProcessSource>) -> Tree {
    let mut tree = Tree::default();
    for &(path, value) in FIXED {
        tree.file(path, 0o444, Content::text(value));
    }
    for &path in HOST {
        let own = format!("sys/{path}");
        // What the host's kernel lacks does not exist here either.
        if host::lstat(source.ns_proc(), &own).is_ok() {
            let source = source.clone();
            let read = move || host::read(source.ns_proc(), &own);
            tree.file(path, 0o444, Content::make(read));
        }
    }
    let names = source.clone();
    tree.file(
        "kernel/hostname",
        0o444,
        Content::make(move || Ok(line(names.hostname()))),
    );
    let names = source.clone();
    tree.file(
        "kernel/domainname",
        0o444,
        Content::make(move || Ok(line(names.domainname()))),
    );
    let files = source.clone();
    tree.file(
        "fs/file-nr",
        0o444,
        Content::make(move || file_numbers(&*files)),
    );
    tree.file(
        "kernel/random/uuid",
        0o444,
        Content::make(|| Ok(line(random_uuid()?))),
    );
    // The host's would tell it from other hosts.
    let boot_id = random_uuid();
    tree.file(
        "kernel/random/boot_id",
        0o444,
        Content::make(move || Ok(line(boot_id.clone()?))),
    );
    tree
}

fn line(mut text: Vec<u8>) -> Vec<u8> {
    text.push(b'\n');
    text
}

/// `fs/file-nr`, without the number of files that the host has open.
fn file_numbers(source: &dyn ProcessSource) -> Result<Vec<u8>> {
    let text = host::read(source.ns_proc(), "sys/fs/file-nr")?;
    let max = text
        .trim_ascii()
        .rsplit(|&b| b == b'\t')
        .next()
        .unwrap_or_default();
    let mut out = b"0\t0\t".to_vec();
    out.extend_from_slice(max);
    Ok(line(out))
}

/// A random UUID (version 4) as text.
fn random_uuid() -> Result<Vec<u8>> {
    let mut bytes = [0u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = Vec::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        text.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_the_kernels_form() {
        let (a, b) = (random_uuid().unwrap(), random_uuid().unwrap());
        assert_ne!(a, b);
        let text = String::from_utf8(a).unwrap();
        let parts: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(text.as_bytes()[14], b'4');
    }
}

//! The built-in sets: what is measured, by which program, in which modes.

use crate::figures::Unit;
use crate::modes::Mode;
use crate::peers::Peer;

/// A set of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Calls that touch no file.
    Calls,
    /// Calls about files.
    Files,
    /// Processes and threads.
    Processes,
    /// Memory.
    Memory,
    /// Sockets.
    Network,
    /// Whole programs, each of one kind.
    Programs,
    /// The file systems of the layer.
    Trees,
    /// What it costs to see calls.
    Traces,
    /// Software at its work.
    Workloads,
    /// Servers under load.
    Servers,
}

impl Set {
    /// All of them.
    pub const ALL: [Set; 10] = [
        Set::Calls,
        Set::Files,
        Set::Processes,
        Set::Memory,
        Set::Network,
        Set::Programs,
        Set::Trees,
        Set::Traces,
        Set::Workloads,
        Set::Servers,
    ];

    /// Those that need nothing that is not part of Duet.
    pub const OWN: [Set; 6] = [
        Set::Calls,
        Set::Files,
        Set::Processes,
        Set::Memory,
        Set::Network,
        Set::Programs,
    ];

    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            Set::Calls => "calls",
            Set::Files => "files",
            Set::Processes => "processes",
            Set::Memory => "memory",
            Set::Network => "network",
            Set::Programs => "programs",
            Set::Trees => "trees",
            Set::Traces => "traces",
            Set::Workloads => "workloads",
            Set::Servers => "servers",
        }
    }

    /// The sets that a word names: one of them, or `all`.
    ///
    /// # Errors
    /// A text that names those there are.
    pub fn parse(name: &str) -> std::result::Result<Vec<Set>, String> {
        if name == "all" {
            return Ok(Set::ALL.into());
        }
        let found = Set::ALL.into_iter().find(|s| s.name() == name);
        found.map(|s| vec![s]).ok_or_else(|| {
            let all = Set::ALL.map(Set::name).join(", ");
            format!("{name:?} is no set; there are {all}, and `all`")
        })
    }

    /// The groups of its rows.
    pub fn groups(self) -> &'static [&'static str] {
        match self {
            Set::Calls => &["calls"],
            Set::Files => &["files"],
            Set::Processes => &["processes"],
            Set::Memory => &["memory"],
            Set::Network => &["network"],
            Set::Programs => &["whole programs"],
            Set::Trees => &["file systems of the layer"],
            Set::Traces => &["traces", "traces: processor time"],
            Set::Workloads => &["workloads"],
            Set::Servers => &["servers"],
        }
    }

    /// The set with rows of this group.
    pub fn of_group(group: &str) -> Option<Set> {
        let mut all = Set::ALL.into_iter();
        all.find(|s| s.groups().contains(&group))
    }

    /// The modes that say something of it, where nobody names others.
    pub fn modes(self) -> Vec<Mode> {
        match self {
            Set::Trees => vec![Mode::Native, Mode::Seccomp],
            Set::Traces => vec![
                Mode::Native,
                Mode::Seccomp,
                Mode::Peer(Peer::Strace),
                Mode::Trace,
                Mode::Fast,
            ],
            Set::Workloads => {
                let peers = [Peer::Proot, Peer::Runsc].map(Mode::Peer);
                let own = [Mode::Native, Mode::Seccomp, Mode::Ptrace];
                own.into_iter().chain(peers).collect()
            }
            Set::Servers => vec![Mode::Native, Mode::Seccomp, Mode::Ptrace],
            _ => {
                let peers = Peer::ALL.into_iter().map(Mode::Peer);
                Mode::OWN.into_iter().chain(peers).collect()
            }
        }
    }

    /// What its values are held against; `None`: the first column.
    pub fn base(self) -> Option<Mode> {
        (self == Set::Traces).then_some(Mode::Peer(Peer::Strace))
    }
}

/// A row that a program prints a value for, in nanoseconds unless it is a rate.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Where it belongs.
    pub set: Set,
    /// As the program prints it.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Seconds or a rate.
    pub unit: Unit,
}

const fn time(set: Set, name: &'static str, title: &'static str) -> Measure {
    let unit = Unit::Seconds;
    Measure {
        set,
        name,
        title,
        unit,
    }
}

const fn rate(name: &'static str, title: &'static str) -> Measure {
    let (set, unit) = (Set::Servers, Unit::PerSecond);
    Measure {
        set,
        name,
        title,
        unit,
    }
}

/// The row that is measured from outside.
pub const EMPTY: &str = "whole_empty";

/// Those of the measuring program and of servers, in the order of tables.
pub const MEASURES: [Measure; 46] = [
    time(Set::Calls, "getppid", "getppid"),
    time(Set::Calls, "getuid", "getuid"),
    time(
        Set::Calls,
        "notification",
        "a bare notification, of seccomp",
    ),
    time(
        Set::Calls,
        "clock_gettime_vdso",
        "clock_gettime, by the vDSO",
    ),
    time(
        Set::Calls,
        "clock_gettime_syscall",
        "clock_gettime, as a call",
    ),
    time(Set::Calls, "epoll_wait_ready", "epoll_wait, ready"),
    time(Set::Calls, "poll_ready", "poll, ready"),
    time(Set::Calls, "signal_self", "signal to itself"),
    time(Set::Files, "stat", "stat, four components"),
    time(Set::Files, "stat_missing", "stat, missing"),
    time(Set::Files, "open_close", "open and close"),
    time(Set::Files, "pread_4k", "pread 4 KiB"),
    time(Set::Files, "pwrite_4k", "pwrite 4 KiB"),
    time(Set::Files, "read_seq_1m", "read 1 MiB in 64 KiB"),
    time(Set::Files, "readdir_1000", "readdir, 1,000 entries"),
    time(Set::Files, "create_unlink", "create and unlink"),
    time(Set::Files, "rename", "rename"),
    time(Set::Processes, "fork_wait", "fork and wait"),
    time(Set::Processes, "fork_exec_wait", "fork, exec and wait"),
    time(
        Set::Processes,
        "thread_create_join",
        "thread, made and joined",
    ),
    time(Set::Processes, "futex_threads", "futex round trip"),
    time(
        Set::Processes,
        "pipe_processes",
        "pipe round trip, processes",
    ),
    time(Set::Processes, "pipe_threads", "pipe round trip, threads"),
    time(
        Set::Memory,
        "mmap_touch_munmap_16",
        "mmap, touch and unmap 16 pages",
    ),
    time(
        Set::Network,
        "tcp_loopback_threads",
        "TCP round trip, loopback",
    ),
    time(Set::Network, "socketpair_threads", "socket pair round trip"),
    time(Set::Programs, "whole_cpu", "a program that computes"),
    time(
        Set::Programs,
        "whole_files",
        "one that works on 1,000 files",
    ),
    time(Set::Programs, "whole_forks", "one that starts 150 others"),
    time(Set::Programs, EMPTY, "one that does nothing, start to end"),
    time(Set::Trees, "tmp_stat", "tmpfs: stat, four components"),
    time(Set::Trees, "tmp_open_close", "tmpfs: open and close"),
    time(
        Set::Trees,
        "tmp_readdir_1000",
        "tmpfs: readdir, 1,000 entries",
    ),
    time(Set::Trees, "tmp_create_unlink", "tmpfs: create and unlink"),
    time(Set::Trees, "tmp_rename", "tmpfs: rename"),
    time(Set::Trees, "overlay_stat", "overlay: stat, four components"),
    time(Set::Trees, "overlay_open_close", "overlay: open and close"),
    time(
        Set::Trees,
        "overlay_readdir_1000",
        "overlay: readdir, 1,000 entries",
    ),
    time(
        Set::Trees,
        "overlay_create_unlink",
        "overlay: create and unlink",
    ),
    time(Set::Trees, "overlay_rename", "overlay: rename"),
    rate("redis_ping", "redis-benchmark, PING"),
    rate("redis_set", "redis-benchmark, SET"),
    rate("redis_get", "redis-benchmark, GET"),
    rate("redis_set_pipelined", "redis-benchmark, SET, 16 at a time"),
    rate("pgbench_select", "pgbench, selections"),
    rate("pgbench_write", "pgbench, transactions that write"),
];

/// What the set of trees measures of each.
pub const OF_TREES: &str = "stat,open_close,readdir_1000,create_unlink,rename";

/// Software that runs from its start to its end, on the host's tree, in a directory that holds the
/// [`crate::material`].
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Traces or workloads.
    pub set: Set,
    /// Its name in results.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What it needs to be installed.
    pub needs: &'static [&'static str],
    /// For `sh -c`. Output goes to a file: some programs do less if they see that nobody reads. That not all
    /// of the host's tree may be read is no failure.
    pub script: &'static str,
}

const fn work(
    set: Set,
    name: &'static str,
    title: &'static str,
    needs: &'static [&'static str],
    script: &'static str,
) -> Work {
    Work {
        set,
        name,
        title,
        needs,
        script,
    }
}

/// Those there are.
pub const WORKS: [Work; 13] = [
    work(
        Set::Traces,
        "trace_calls",
        "20,000 native calls",
        &[],
        "exec ./abibench --calls 20000",
    ),
    work(
        Set::Traces,
        "trace_dd",
        "`dd`, 4,000 times a byte",
        &["dd"],
        "exec dd if=/dev/zero of=/dev/null bs=1 count=4000 2>out",
    ),
    work(
        Set::Traces,
        "trace_find",
        "`find`, two levels of /usr",
        &["find"],
        "find /usr -maxdepth 2 >out 2>errors; [ $? -le 1 ]",
    ),
    work(
        Set::Traces,
        "trace_ls",
        "`ls -l /usr/bin`",
        &["ls"],
        "exec ls -l /usr/bin >out",
    ),
    work(
        Set::Traces,
        "trace_sh",
        "`sh`, 50 programs",
        &[],
        "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i + 1)); done",
    ),
    work(
        Set::Traces,
        "trace_python",
        "`python3`, five imports",
        &["python3"],
        "exec python3 -I -c 'import json, http.client, email, argparse, unittest' >out",
    ),
    work(
        Set::Traces,
        "trace_gcc",
        "`gcc`, a small file",
        &["gcc"],
        "exec gcc -S -o hello.s hello.c",
    ),
    work(
        Set::Traces,
        "trace_grep",
        "`grep -r`, the kernel's headers",
        &["grep"],
        "exec grep -r --include='*.h' define /usr/include/linux >out",
    ),
    work(
        Set::Workloads,
        "work_python",
        "python3, start with eight imports",
        &["python3"],
        "exec python3 -I -c 'import json, asyncio, sqlite3, subprocess, http.client, email.message, unittest, decimal'",
    ),
    work(
        Set::Workloads,
        "work_find",
        "`find /usr -type f`",
        &["find"],
        "find /usr -type f >out 2>errors; [ $? -le 1 ]",
    ),
    work(
        Set::Workloads,
        "work_compile",
        "compile a C file of 1,000 lines",
        &["gcc"],
        "exec gcc -O1 -o thousand thousand.c",
    ),
    work(
        Set::Workloads,
        "work_archive",
        "`tar -cz` of 400 documents",
        &["tar", "gzip"],
        "exec tar -czf docs.tar.gz docs",
    ),
    work(
        Set::Workloads,
        "work_git",
        "`git add` and commit of 500 files",
        &["git"],
        "mkdir repo && cd repo && git init -q . && n=0 && \
         while [ $n -lt 500 ]; do echo $n >f$n; n=$((n + 1)); done && \
         git add . && git -c user.name=a -c user.email=a@b commit -qm all",
    ),
];

/// A server and the program that puts it under load; prints `name value` for each rate.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What it is, for people.
    pub name: &'static str,
    /// What it needs to be installed.
    pub needs: &'static [&'static str],
    /// A user that it runs as instead of root.
    pub user: Option<&'static str>,
    /// For `sh -c`; `PORT` is a free one of the host's.
    pub script: &'static str,
}

/// Those there are.
pub const LOADS: [Load; 2] = [
    Load {
        name: "redis",
        needs: &["redis-server", "redis-cli", "redis-benchmark"],
        user: None,
        script: r#"
redis-server --port $PORT --bind 127.0.0.1 --save '' --appendonly no --daemonize no >log 2>&1 &
n=0; until redis-cli -p $PORT ping >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 200 ] || exit 1; sleep 0.02; done
of() {
    redis-benchmark -p $PORT --csv -c 20 "$@" | tr -d '"' | while IFS=, read -r test rate rest; do
        case $test in PING_MBULK) echo redis_ping$suffix $rate ;; SET) echo redis_set$suffix $rate ;;
            GET) echo redis_get$suffix $rate ;; esac
    done
}
suffix=; of -n 60000 -t ping_mbulk,set,get
suffix=_pipelined; of -n 300000 -P 16 -t set
redis-cli -p $PORT shutdown nosave >/dev/null 2>&1; wait
"#,
    },
    Load {
        name: "pgbench",
        needs: &["pgbench"],
        user: Some("postgres"),
        script: r#"
for d in /usr/lib/postgresql/*/bin; do PATH=$d:$PATH; done; export LC_ALL=C
initdb -N -A trust -U p -E UTF8 --locale=C data >log 2>&1 || exit 1
pg_ctl -D data -l log -w -o "-c listen_addresses= -c unix_socket_directories=$PWD" start >/dev/null || exit 1
pgbench -h "$PWD" -U p -i -q postgres >/dev/null 2>&1
of() { pgbench -h "$PWD" -U p -c 2 -T 1 "$@" postgres 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p'; }
echo pgbench_select $(of -S)
echo pgbench_write $(of)
pg_ctl -D data -m fast stop >/dev/null
"#,
    },
];

/// `cpu_` and the name: the same work's processor time.
pub fn cpu_name(of: &str) -> String {
    format!("cpu_{of}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_rows_are_unique() {
        for set in Set::ALL {
            assert_eq!(Set::parse(set.name()), Ok(vec![set]));
            for group in set.groups() {
                assert_eq!(Set::of_group(group), Some(set));
            }
        }
        assert_eq!(Set::parse("all").unwrap().len(), Set::ALL.len());
        assert!(Set::parse("none").unwrap_err().contains("workloads"));
        let measures = MEASURES.iter().map(|m| m.name.to_owned());
        let works = WORKS.iter().map(|w| w.name.to_owned());
        let mut all: Vec<_> = measures.chain(works).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}

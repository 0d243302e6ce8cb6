//! The gallery: real programs, each with a script of `tests/scripts` that must print the same natively
//! and in a layer. One list drives the tests and the page of `page.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::build::{Toolchain, guest, host_tool, workspace_dir};
use crate::run::{
    Known, Output, assert_same, command_output_within, duet_command, expected, native_command,
    tempdir,
};
use crate::skip;

/// A program, or a family of them, and the script that tries it.
pub struct Exhibit {
    /// The test's name in `software.rs`.
    pub test: &'static str,
    /// The program as its users call it.
    pub program: &'static str,
    /// What the script makes it do.
    pub what: &'static str,
    /// File name in `tests/scripts`, or of a guest in `testbins`.
    pub script: &'static str,
    /// Commands that must be installed.
    pub needs: &'static [&'static str],
    /// Lines that both runs must print: a script that failed at once both times would compare equal.
    pub shows: &'static [&'static str],
    /// Exit status of both.
    pub status: i32,
    /// What is known to differ.
    pub known: &'static [Known],
}

const NONE: Exhibit = Exhibit {
    test: "",
    program: "",
    what: "",
    script: "",
    needs: &[],
    shows: &[],
    status: 0,
    known: &[],
};

/// All of them, in the order of the page.
pub const EXHIBITS: &[Exhibit] = &[
    Exhibit {
        test: "bash_jobs",
        program: "bash",
        what: "job control, traps, coprocesses, process substitution, limits",
        script: "bash_jobs.sh",
        needs: &["bash", "ps"],
        shows: &["continued 5", "own group", "xfsz 153", "THROUGH COPROC"],
        status: 7,
        ..NONE
    },
    Exhibit {
        test: "coreutils",
        program: "GNU coreutils",
        what: "copies, links, modes, times, sparse files, sums, sorting with temporary files, timeouts",
        script: "coreutils.sh",
        needs: &["bash"],
        shows: &["linked", "2048000 0", "chroot 0", "done"],
        ..NONE
    },
    Exhibit {
        test: "text_tools",
        program: "findutils, grep, sed, awk, diffutils, patch",
        what: "searching, editing in place, pipes to children, comparing trees",
        script: "text_tools.sh",
        needs: &["bash", "awk", "patch", "file"],
        shows: &["patched", "executed"],
        ..NONE
    },
    Exhibit {
        test: "archives",
        program: "tar, cpio, gzip, bzip2, xz, zstd",
        what: "trees with links, holes and FIFOs out and back in, increments, threads",
        script: "archives.sh",
        needs: &["bash", "cpio", "gzip", "bzip2", "xz", "zstd"],
        shows: &["gzip 0", "xz 0", "zstd 0", "same", "round trip"],
        ..NONE
    },
    Exhibit {
        test: "perl",
        program: "perl",
        what: "processes, pipes, sockets, locks, signals, directories",
        script: "perl.pl",
        needs: &["perl"],
        shows: &["pipe ok", "over tcp", "over unix", "fifo line", "executed"],
        status: 137,
        ..NONE
    },
    Exhibit {
        test: "python",
        program: "python3",
        what: "threads, subprocess, asyncio, multiprocessing (fork, spawn, forkserver), sqlite3, mmap, sockets, signals",
        script: "python.py",
        needs: &["python3"],
        shows: &[
            "threads 2664667000 1",
            "b'ASK 99\\n'",
            "[('a', 1), ('b', 2)]",
        ],
        status: 3,
        ..NONE
    },
    Exhibit {
        test: "node",
        program: "node",
        what: "files, children, cluster, worker threads, HTTP, streams",
        script: "node.js",
        needs: &["node"],
        shows: &["POST29000", "worker /q", "4000"],
        status: 4,
        ..NONE
    },
    Exhibit {
        test: "go",
        program: "a Go program",
        what: "goroutines on many threads, preemption by signals, HTTP, children, files, a recovered fault",
        script: "gallery.go",
        needs: &["go", "sh"],
        shows: &["preempted", "children 40", "over unix", "ticks 20"],
        status: 5,
        ..NONE
    },
    Exhibit {
        test: "java",
        program: "Java (the JVM)",
        what: "compiling and running, threads, the collector, NIO, processes, HTTP, stack overflow",
        script: "java.sh",
        needs: &["java", "javac"],
        shows: &["to a child 3", "[ok]", "overflow", "status 6"],
        ..NONE
    },
    Exhibit {
        test: "git",
        program: "git",
        what: "1,200 commits, merges, rebase, clone by path and file://, push, gc, fsck, worktrees, hooks, bisect",
        script: "git.sh",
        needs: &["git", "bash"],
        shows: &[
            "1000",
            "verified",
            "merge 1",
            "linked packs",
            "../b.bundle is okay",
        ],
        ..NONE
    },
    Exhibit {
        test: "sqlite",
        program: "sqlite3",
        what: "every kind of journal, several writers, a killed writer, backup, recovery",
        script: "sqlite.sh",
        needs: &["sqlite3", "bash", "pgrep"],
        shows: &["5100", "5045", "ok"],
        ..NONE
    },
    Exhibit {
        test: "redis",
        program: "redis-server, redis-benchmark",
        what: "commands, scripts, persistence by a forked child, restart, its benchmark over loopback and a Unix socket",
        script: "redis.sh",
        needs: &["redis-server", "bash"],
        shows: &[
            "PONG",
            "rdb_last_bgsave_status:ok",
            "10005",
            "pid file gone",
        ],
        ..NONE
    },
    Exhibit {
        test: "nginx",
        program: "nginx, curl",
        what: "worker processes, TLS, ranges, proxying over a Unix socket, reload, log rotation, 60 parallel downloads",
        script: "nginx.sh",
        needs: &["nginx", "curl", "openssl", "bash"],
        shows: &["successful", "SAID GET", "119333700"],
        ..NONE
    },
    Exhibit {
        test: "postgres",
        program: "PostgreSQL",
        what: "initdb and server as their own user, parallel queries, pgbench, dump and restore, recovery after a crash",
        script: "postgres.sh",
        needs: &["pg_lsclusters", "bash", "su"],
        shows: &[
            "initdb 0",
            "number of transactions actually processed: 200/200",
            "workers",
            "Database cluster state:               shut down",
        ],
        ..NONE
    },
    Exhibit {
        test: "keys",
        program: "ssh-keygen, gpg, gpg-agent, openssl",
        what: "keys, signatures, certificates, encryption, the agent over a Unix socket, TLS",
        script: "keys.sh",
        needs: &["ssh-keygen", "gpg", "gpg-agent", "openssl", "bash"],
        shows: &[
            "Good \"file\" si",
            "signed text",
            "c.pem: OK",
            "HTTP/1.0 200 ok",
        ],
        ..NONE
    },
    Exhibit {
        test: "terminals",
        program: "tmux, vim, nano, script",
        what: "terminals of one's own, job control by keys, window sizes, full-screen editors, recordings",
        script: "terminals.sh",
        needs: &["tmux", "vim", "nano", "script", "python3", "bash"],
        shows: &[
            "shown: ^status 130",
            "second WORD",
            "typed in nano",
            "script 7",
        ],
        ..NONE
    },
    Exhibit {
        test: "agents",
        program: "ssh-agent, ssh-add",
        what: "keys held by an agent, which looks at who its peer is",
        script: "agents.sh",
        needs: &["ssh-agent", "ssh-add", "ssh-keygen", "bash"],
        shows: &["1", "agent", "socket 600", "gone 2"],
        ..NONE
    },
    Exhibit {
        test: "messages",
        program: "logger, systemd-notify, python3 as a syslog daemon and a service manager",
        what: "datagrams by path, with credentials and files: logs, a restarted daemon, notifications, answers",
        script: "messages.py",
        needs: &["logger", "python3"],
        shows: &[
            "long 30034",
            "notified b'WATCHDOG=1' service",
            "answer (b'ping', 'notify')",
            "full 11",
        ],
        ..NONE
    },
    Exhibit {
        test: "inotify",
        program: "inotifywait, tail -F",
        what: "trees watched in memory and over old files, moves, a followed log that is rotated",
        script: "inotify.sh",
        needs: &["inotifywait", "tail", "bash"],
        shows: &["three", "CLOSE_WRITE,CLOSE touched"],
        ..NONE
    },
    Exhibit {
        test: "strace",
        program: "strace",
        what: "pipelines, scripts, filters by path, injected errors, attaching, threads with children",
        script: "strace.sh",
        needs: &["strace", "bash", "python3"],
        shows: &["START", "attached", "+++ exited with 1 +++", "143"],
        ..NONE
    },
    Exhibit {
        test: "gdb",
        program: "gdb",
        what: "breakpoints, backtraces, threads, watchpoints, execs, forks, calling functions, attaching, cores",
        script: "gdb.sh",
        needs: &["gdb", "gcc", "bash"],
        shows: &[
            "thread 3: 51",
            "in the shell",
            "$1 = 9",
            "Saved corefile core",
            "10",
        ],
        ..NONE
    },
];

/// The exhibit of a test.
pub fn exhibit(test: &str) -> &'static Exhibit {
    let found = EXHIBITS.iter().find(|e| e.test == test);
    found.unwrap_or_else(|| panic!("no exhibit {test}"))
}

/// The interpreter of a script, and its path; or the program itself.
fn program(exhibit: &Exhibit) -> Option<(Option<PathBuf>, PathBuf)> {
    let script = workspace_dir().join("tests/scripts").join(exhibit.script);
    let (name, extension) = exhibit.script.rsplit_once('.')?;
    let interpreter = match extension {
        "sh" => "bash",
        "pl" => "perl",
        "py" => "python3",
        "js" => "node",
        _ => return Some((None, guest(name, Toolchain::Go)?)),
    };
    let script = script.canonicalize().expect("the script of an exhibit");
    Some((Some(host_tool(interpreter)?), script))
}

/// How long a script may run.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs an exhibit in a layer over the host's tree and natively, in the same empty directory, which the
/// layer must leave empty; fails the test where they differ otherwise than known.
pub fn show(test: &str) {
    let exhibit = exhibit(test);
    if let Some(missing) = exhibit.needs.iter().find(|n| host_tool(n).is_none()) {
        return skip(test, &format!("no {missing}"));
    }
    let Some((interpreter, script)) = program(exhibit) else {
        return skip(test, "no interpreter");
    };
    let dir = tempdir();
    let at = dir.path();
    let run = |mut command: Command| -> Output {
        command.args(&interpreter).arg(&script);
        command.env("HOME", at).current_dir(at);
        command_output_within(command, b"", LIMIT)
    };
    let ids = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let mut options = vec!["--host-root", "-e", "LANG=C", "-w", path(at)];
    if !crate::is_root() {
        options.extend(["-u", &ids]);
    }
    let layer = run(duet_command(&options));
    let left = std::fs::read_dir(at).expect("working directory").count();
    assert_eq!(left, 0, "the layer wrote to the host's {}", at.display());

    let native = expected(run(native_command()), exhibit.known);
    assert_same(exhibit.script, &native, &layer);
    let line = |wanted: &&&str| !layer.stdout.lines().any(|l| l == **wanted);
    let missing: Vec<_> = exhibit.shows.iter().filter(line).collect();
    assert!(
        missing.is_empty() && layer.status == exhibit.status,
        "both runs lack {missing:?}, or end with {} instead of {}: {layer:#?}",
        layer.status,
        exhibit.status
    );
}

fn path(path: &Path) -> &str {
    path.to_str()
        .expect("temporary directories have plain names")
}

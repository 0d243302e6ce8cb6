//! Every guest of `testbins/` prints the same natively and in a layer.

use duet_tests::{Known, Toolchain, both_but, guest, is_root, skip, tempdir};

/// Runs a guest both ways. As another user than root, the layer gets that user's id, so that both
/// sides see the same; guests about root itself are then skipped.
#[track_caller]
fn same(test: &str, name: &str, toolchain: Toolchain, needs_root: bool, args: &[&str]) {
    let Some(program) = guest(name, toolchain) else {
        return skip(test, &format!("no compiler for {toolchain:?}"));
    };
    let user = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let mut options = vec!["-w", "/tmp", "-e", "LANG=C"];
    if toolchain == Toolchain::Dynamic {
        options.push("--host-root");
    }
    if !is_root() {
        if needs_root {
            return skip(test, "its native side needs root");
        }
        options.extend(["-u", &user]);
    }
    both_but(&options, &program, args, known(name));
}

/// What is known to differ, and why.
fn known(guest: &str) -> &'static [Known] {
    const O_PATH: &str = "the kernel hands no O_PATH file over; its stand-in is a directory";
    const SOCKET_NAME: &str = "the kernel knows a bound socket by a path of Duet's";
    const HIDDEN_NAME: &str = "sendmsg is native, and its addresses are not seen";
    const WAITING: &str = "it waits for Duet while Duet looks";
    const PROC: &str = "Duet's own /proc has no such operation";
    match guest {
        "files" => &[
            Known {
                native: "ftruncate(fd, 0): EBADF",
                layer: "ftruncate(fd, 0): EINVAL",
                why: O_PATH,
            },
            Known {
                native: "lseek(fd, 0, SEEK_SET): EBADF",
                layer: "lseek(fd, 0, SEEK_SET): 0",
                why: O_PATH,
            },
            Known {
                native: "(fcntl(fd, F_GETFL) & O_PATH) == O_PATH: 1",
                layer: "(fcntl(fd, F_GETFL) & O_PATH) == O_PATH: 0",
                why: O_PATH,
            },
        ],
        "unixsock" => &[
            Known {
                native: "strcmp(from.sun_path, \"sender\") == 0 && flen == 9: yes",
                layer: "strcmp(from.sun_path, \"sender\") == 0 && flen == 9: NO",
                why: SOCKET_NAME,
            },
            Known {
                native: "sendmsg(e, &m, 0): 3",
                layer: "sendmsg(e, &m, 0): ENOENT",
                why: HIDDEN_NAME,
            },
            Known {
                native: "sendmmsg(e, mm, 2, 0): 2",
                layer: "sendmmsg(e, mm, 2, 0): ENOENT",
                why: HIDDEN_NAME,
            },
            Known {
                native: "recv(d, text, sizeof text, MSG_DONTWAIT): 3",
                layer: "recv(d, text, sizeof text, MSG_DONTWAIT): EAGAIN",
                why: HIDDEN_NAME,
            },
        ],
        "procfs" => &[
            Known {
                native: "has_line(\"/proc/self/status\", \"State:\\tR (running)\"): yes",
                layer: "has_line(\"/proc/self/status\", \"State:\\tR (running)\"): NO",
                why: WAITING,
            },
            Known {
                native: "has_line(path, \"flags:\\t0100000\"): 1",
                layer: "has_line(path, \"flags:\\t0100000\"): 0",
                why: "Duet opens files without following links",
            },
            Known {
                native: "open \"/proc/new\" O_CREAT | O_WRONLY: ENOENT",
                layer: "open \"/proc/new\" O_CREAT | O_WRONLY: EACCES",
                why: PROC,
            },
            Known {
                native: "mkdir(\"/proc/new\", 0755): ENOENT",
                layer: "mkdir(\"/proc/new\", 0755): EPERM",
                why: PROC,
            },
            Known {
                native: "rename(\"/proc/self/comm\", \"/proc/self/x\"): ENOENT",
                layer: "rename(\"/proc/self/comm\", \"/proc/self/x\"): EPERM",
                why: PROC,
            },
        ],
        _ => &[],
    }
}

/// On a directory of the host: those in memory cannot be watched.
#[test]
fn inotify() {
    let Some(program) = guest("inotify", Toolchain::Static) else {
        return skip("inotify", "no C compiler");
    };
    let dir = tempdir();
    let volume = format!("{}:/watched", dir.path().display());
    const HELD: &str = "Duet holds a deleted node for a while, so its end is not reported yet";
    let known = [
        Known {
            native: "wd 1 mask 0x400 cookie no name ''",
            layer: "",
            why: HELD,
        },
        Known {
            native: "wd 1 mask 0x8000 cookie no name ''",
            layer: "",
            why: HELD,
        },
    ];
    both_but(&["-v", &volume, "-w", "/watched"], &program, &[], &known);
}

macro_rules! guests {
    ($($test:ident: $name:literal $toolchain:ident $(root $root:literal)? $([$($arg:literal),*])?;)*) => {$(
        #[test]
        fn $test() {
            let needs_root = false $(|| $root)?;
            same(stringify!($test), $name, Toolchain::$toolchain, needs_root, &[$($($arg),*)?]);
        }
    )*};
}

guests! {
    files: "files" Static;
    files_musl: "files" Musl;
    files_pie: "files" StaticPie;
    files_dynamic: "files" Dynamic;
    tmpfile: "tmpfile" Static;
    dirs: "dirs" Static;
    dirs_musl: "dirs" Musl ["300"];
    dirs_100000: "dirs" Static ["100000"];
    rename: "rename" Static;
    meta: "meta" Static;
    perms: "perms" Static root true;
    mknod: "mknod" Static root true;
    fifo: "fifo" Static;
    fifo_musl: "fifo" Musl;
    unixsock: "unixsock" Static;
    locks: "locks" Static;
    openat2: "openat2" Static;
    opath: "opath" Static;
    mmap: "mmap" Static;
    exec: "exec" Static;
    exec_pie: "exec" StaticPie;
    exec_musl: "exec" Musl;
    signals: "signals" Static root true;
    procs: "procs" Static;
    procs_musl: "procs" Musl;
    threads: "threads" Static;
    threads_musl: "threads" Musl;
    threads_dynamic: "threads" Dynamic;
    ipc: "ipc" Static;
    inet: "inet" Static;
    pty: "pty" Static;
    procfs: "procfs" Static;
    system: "system" Static;
    rust: "std" Rust;
    go: "std" Go;
}

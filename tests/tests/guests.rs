//! Every guest of `testbins/` prints the same natively and in a layer, with either engine.

use duet_tests::{
    Known, Toolchain, assert_same, both_but, copy_program, duet_run, guest, is_root, known_with,
    native_run, skip, tempdir,
};

/// Runs a guest both ways. As another user than root, the layer gets that user's id, so that both
/// sides see the same; guests about root itself are then skipped.
#[track_caller]
fn same(
    test: &str,
    engine: &str,
    name: &str,
    toolchain: Toolchain,
    needs_root: bool,
    args: &[&str],
) {
    let Some(program) = guest(name, toolchain) else {
        return skip(test, &format!("no compiler for {toolchain:?}"));
    };
    let user = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let mut options = vec!["--engine", engine, "-w", "/tmp", "-e", "LANG=C"];
    if matches!(toolchain, Toolchain::Dynamic | Toolchain::MuslDynamic) {
        options.push("--host-root");
    }
    if !is_root() {
        if needs_root {
            return skip(test, "its native side needs root");
        }
        options.extend(["-u", &user]);
    }
    both_but(&options, &program, args, &known_with(engine, name));
}

/// On a directory of the host, which the kernel itself watches.
#[test]
fn inotify_volume() {
    let Some(program) = guest("inotify", Toolchain::Static) else {
        return skip("inotify_volume", "no C compiler");
    };
    let dir = tempdir();
    let volume = format!("{}:/watched", dir.path().display());
    const HELD: &str = "Duet holds a deleted node for a while, so its end is not reported yet";
    let known = [
        Known {
            native: "wd 3 mask 0x400 cookie 0 name ''",
            layer: "",
            why: HELD,
        },
        Known {
            native: "wd 3 mask 0x8000 cookie 0 name ''",
            layer: "",
            why: HELD,
        },
    ];
    let options = ["-v", &volume, "-w", "/watched"];
    both_but(&options, &program, &["moves"], &known);
}

/// On files of the host's tree, under a layer that is thrown away.
#[test]
fn inotify_old_files() {
    let Some(program) = guest("inotify", Toolchain::Static) else {
        return skip("inotify_old_files", "no C compiler");
    };
    let dir = tempdir();
    let old = dir.path().join("old");
    let fresh = || {
        let _ = std::fs::remove_dir_all(&old);
        std::fs::create_dir_all(old.join("sub")).unwrap();
        std::fs::write(old.join("file"), "hello\n").unwrap();
        std::fs::write(old.join("alone"), "x\n").unwrap();
    };
    let old = old.to_str().unwrap();
    fresh();
    let native = native_run(&program, &[old], b"");
    fresh();
    let layer = duet_run(&["--host-root", "-w", "/tmp"], &program, &[old], b"");
    assert_same("inotify on old files", &native, &layer);
}

/// Nobody gets hold of a set-id program between its start and its new credentials. At the top of the tree, for
/// `/tmp` knows no set-id bits.
#[test]
fn set_id_traced() {
    let Some(program) = guest("execs", Toolchain::Static) else {
        return skip("set_id_traced", "no C compiler");
    };
    for engine in ["seccomp", "ptrace"] {
        let options = ["--engine", engine, "-u", "0", "-w", "/"];
        let layer = duet_run(&options, &program, &["traced"], b"");
        assert_eq!(layer.ok(), "taken over: 0\n");
    }
}

/// With messages left to the kernel, those to paths find nobody.
#[test]
fn native_sendmsg() {
    let Some(program) = guest("unixsock", Toolchain::Static) else {
        return skip("native_sendmsg", "no C compiler");
    };
    const UNSEEN: &str = "nobody looks at the message";
    let known = [
        Known {
            native: "sendmsg(e, &m, 0): 3",
            layer: "sendmsg(e, &m, 0): ENOENT",
            why: UNSEEN,
        },
        Known {
            native: "sendmmsg(e, mm, 2, 0): 2",
            layer: "sendmmsg(e, mm, 2, 0): ENOENT",
            why: UNSEEN,
        },
        Known {
            native: "recv(d, text, sizeof text, MSG_DONTWAIT): 3",
            layer: "recv(d, text, sizeof text, MSG_DONTWAIT): EAGAIN",
            why: UNSEEN,
        },
    ];
    let user = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let options = [
        "--native-sendmsg",
        "-w",
        "/tmp",
        "-e",
        "LANG=C",
        "-u",
        &user,
    ];
    both_but(&options, &program, &[], &known);
}

/// In a tree that holds nothing but the program and musl's one file.
#[test]
fn musl_from_a_tree() {
    let test = "musl_from_a_tree";
    let loader = std::path::Path::new("/lib/ld-musl-x86_64.so.1");
    let program = guest("procs", Toolchain::MuslDynamic).filter(|_| loader.exists());
    let Some(program) = program else {
        return skip(test, "no musl-gcc, or no musl");
    };
    let tree = tempdir();
    for dir in ["lib", "tmp"] {
        std::fs::create_dir(tree.path().join(dir)).unwrap();
    }
    copy_program(loader, tree.path().join("lib/ld-musl-x86_64.so.1"));
    copy_program(&program, tree.path().join("procs"));
    let native = native_run(&program, &[], b"");
    let root = tree.path().to_str().unwrap();
    let user = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let options = ["--rootfs", root, "-w", "/tmp", "-e", "LANG=C", "-u", &user];
    let layer = duet_run(&options, std::path::Path::new("/procs"), &[], b"");
    assert_same("a program of musl's", &native, &layer);
    std::fs::remove_file(tree.path().join("lib/ld-musl-x86_64.so.1")).unwrap();
    let without = duet_run(&options, std::path::Path::new("/procs"), &[], b"");
    assert_eq!(without.status, 126, "{without:?}");
    let says = "needs /lib/ld-musl-x86_64.so.1, which is not in its tree";
    assert!(without.stderr.contains(says), "{without:?}");
}

macro_rules! guests {
    ($($test:ident: $name:literal $toolchain:ident $(root $root:literal)? $([$($arg:literal),*])?;)*) => {
        mod seccomp { $(guests!(@ "seccomp" $test: $name $toolchain $(root $root)? $([$($arg),*])?);)* }
        mod ptrace { $(guests!(@ "ptrace" $test: $name $toolchain $(root $root)? $([$($arg),*])?);)* }
    };
    (@ $engine:literal $test:ident: $name:literal $toolchain:ident $(root $root:literal)? $([$($arg:literal),*])?) => {
        #[test]
        fn $test() {
            let needs_root = false $(|| $root)?;
            let args = &[$($($arg),*)?];
            super::same(
                stringify!($test), $engine, $name, super::Toolchain::$toolchain, needs_root, args,
            );
        }
    };
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
    mounts: "mounts" Static root true;
    execs: "execs" Static root true;
    fifo: "fifo" Static;
    fifo_musl: "fifo" Musl;
    unixsock: "unixsock" Static;
    datagram: "datagram" Static;
    datagram_musl: "datagram" Musl;
    peers: "peers" Static root true;
    peers_pidfd: "peers" Static root true ["pidfd"];
    locks: "locks" Static;
    openat2: "openat2" Static;
    opath: "opath" Static;
    mmap: "mmap" Static;
    exec: "exec" Static;
    exec_pie: "exec" StaticPie;
    exec_musl: "exec" Musl;
    signals: "signals" Static root true;
    stops: "stops" Static;
    procs: "procs" Static;
    procs_musl: "procs" Musl;
    threads: "threads" Static;
    affinity: "affinity" Static;
    affinity_dynamic: "affinity" Dynamic;
    busy: "busy" Static;
    busy_dynamic: "busy" Dynamic;
    once: "once" Static;
    once_dynamic: "once" Dynamic;
    opens: "opens" Static;
    opens_dynamic: "opens" Dynamic;
    threads_musl: "threads" Musl;
    threads_dynamic: "threads" Dynamic;
    threads_musl_dynamic: "threads" MuslDynamic;
    exec_musl_dynamic: "exec" MuslDynamic;
    clone3: "clone3" Static;
    ipc: "ipc" Static;
    inotify: "inotify" Static;
    inet: "inet" Static;
    pty: "pty" Static;
    procfs: "procfs" Static;
    system: "system" Static;
    rust: "std" Rust;
    go: "std" Go;
}

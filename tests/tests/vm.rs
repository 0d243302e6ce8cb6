//! The VM mode: guests print the same natively and on a kernel of their own; options and exit statuses
//! are those of the layer. Needs QEMU and a kernel, which `duet kernel fetch` gets through apt.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use duet_tests::{
    MACHINE_LIMIT, Output, Toolchain, assert_same, command_output, command_output_within,
    copy_program, duet_command, guest, host_tool, in_place_of, is_root, kernel_cache,
    machine_possible, native_run, skip, tempdir,
};

/// `duet run --mode vm OPTIONS PROGRAM ARGS`.
fn vm(options: &[&str], program: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = duet_command(&["--mode", "vm"]);
    command.args(options).arg(program).args(args);
    command.env("XDG_CACHE_HOME", kernel_cache());
    command_output_within(command, input, MACHINE_LIMIT)
}

fn busybox(test: &str) -> Option<PathBuf> {
    duet_tests::busybox(test).filter(|_| machine_possible(test))
}

#[track_caller]
fn same(name: &str, toolchain: Toolchain) {
    let test = format!("vm {name}");
    let Some(program) = guest(name, toolchain) else {
        return skip(&test, "no C compiler");
    };
    if !is_root() {
        return skip(&test, "its native side needs root, which the guest is");
    }
    if !machine_possible(&test) {
        return;
    }
    let mut options = vec!["-w", "/tmp", "-e", "LANG=C", "-e", "HOME=/tmp"];
    if toolchain == Toolchain::Dynamic {
        options.push("--host-root");
    }
    assert_same(
        name,
        &native_run(&program, &[], b""),
        &vm(&options, &program, &[], b""),
    );
}

macro_rules! guests {
    ($($test:ident: $name:literal $toolchain:ident;)*) => {$(
        #[test]
        fn $test() {
            same($name, Toolchain::$toolchain);
        }
    )*};
}

guests! {
    files: "files" Static;
    files_dynamic: "files" Dynamic;
    dirs: "dirs" Static;
    rename: "rename" Static;
    meta: "meta" Static;
    perms: "perms" Static;
    mknod: "mknod" Static;
    tmpfile: "tmpfile" Static;
    fifo: "fifo" Static;
    unixsock: "unixsock" Static;
    peers: "peers" Static;
    locks: "locks" Static;
    openat2: "openat2" Static;
    opath: "opath" Static;
    mmap: "mmap" Static;
    signals: "signals" Static;
    inet: "inet" Static;
    pty: "pty" Static;
    exec: "exec" Static;
    procfs: "procfs" Static;
    system: "system" Static;
}

#[test]
fn exit_statuses_and_streams() {
    let Some(program) = busybox("vm exit_statuses_and_streams") else {
        return;
    };
    let run = |script| vm(&[], &program, &["sh", "-c", script], b"one\ntwo\n");
    let output = run("cat; echo error >&2; exit 7");
    assert_eq!(
        (output.stdout.as_str(), output.status),
        ("one\ntwo\n", 7),
        "{output:?}"
    );
    assert_eq!(output.stderr, "error\n");
    assert_eq!(run("kill -SEGV $$").status, 139);
    let bytes = "8388608";
    let script = format!("head -c {bytes} /dev/zero | tr '\\0' x");
    assert_eq!(run(&script).stdout.len().to_string(), bytes);
}

#[test]
fn a_slow_reader_gets_all_output() {
    let test = "vm a_slow_reader_gets_all_output";
    let Some(program) = busybox(test) else {
        return;
    };
    let mut command = duet_command(&["--mode", "vm"]);
    command.arg(&program);
    // Its end is on another stream, and told at once; the output does not fit the pipe.
    let script = "head -c 400000 /dev/zero; echo over >&2";
    command.args(["sh", "-c", script]);
    let mut child = command
        .env("XDG_CACHE_HOME", kernel_cache())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    assert_eq!(&line, b"over\n");
    // Time for a machine to end that should not.
    std::thread::sleep(Duration::from_secs(2));
    let mut all = Vec::new();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    assert_eq!(all.len(), 400_000);
    assert!(child.wait().unwrap().success());
}

#[test]
fn options_mean_what_they_mean_in_the_layer() {
    let test = "vm options_mean_what_they_mean_in_the_layer";
    let Some(program) = busybox(test) else {
        return;
    };
    let dir = tempdir();
    std::fs::write(dir.path().join("note"), "from the host\n").unwrap();
    let volume = format!("{}:/data", dir.path().display());
    let read_only = format!("{}:/ro:ro", dir.path().display());
    let options = [
        "-v",
        &volume,
        "-v",
        &read_only,
        "--tmpfs",
        "/scratch",
        "-u",
        "12:34",
        "--hostname",
        "box",
        "-e",
        "NAME=value",
        "-w",
        "/data",
        "--memory",
        "256m",
        "--cpus",
        "2",
    ];
    let script = "hostname; id; pwd; cat note; echo $NAME; nproc; echo made >out; echo x >/ro/out2; \
                  touch /scratch/z && ls /scratch; uname -s; [ $(awk '/MemTotal/{print $2}' /proc/meminfo) -lt 262144 ] && echo small";
    let args = ["sh", "-c", script];
    let machine = vm(&options, &program, &args, b"");
    assert_eq!(
        machine.stdout, "box\nuid=12 gid=34\n/data\nfrom the host\nvalue\n2\nz\nLinux\nsmall\n",
        "{machine:?}"
    );
    assert!(
        machine.stderr.contains("Read-only file system"),
        "{machine:?}"
    );
    assert_eq!(
        std::fs::read_to_string(dir.path().join("out")).unwrap(),
        "made\n"
    );
    assert!(!dir.path().join("out2").exists());
}

#[test]
fn a_tree_stays_as_it_is_unless_written_through() {
    let test = "vm a_tree_stays_as_it_is_unless_written_through";
    let Some(busybox) = busybox(test) else {
        return;
    };
    let tree = tempdir();
    let bin = tree.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    copy_program(&busybox, bin.join("busybox"));
    std::os::unix::fs::symlink("busybox", bin.join("sh")).unwrap();
    let root = tree.path().to_str().unwrap();
    let script = "echo x >/made; /bin/busybox chown 5:6 /made; /bin/busybox stat -c %u:%g /made";
    let run = |rw: &[&str]| {
        let options = [&["--rootfs", root][..], rw].concat();
        vm(&options, Path::new("/bin/sh"), &["-c", script], b"").ok()
    };
    assert_eq!(run(&[]), "5:6\n");
    assert!(!tree.path().join("made").exists());
    assert_eq!(run(&["--rw"]), "5:6\n");
    assert!(tree.path().join("made").exists());
    let layer = ["--rootfs", root];
    let mut command = duet_command(&layer);
    command.args(["/bin/busybox", "stat", "-c", "%u:%g", "/made"]);
    assert_eq!(
        command_output(command, b"").ok(),
        "5:6\n",
        "the layer sees it otherwise"
    );
}

#[test]
fn what_cannot_be_run_is_said_before_a_machine_starts() {
    let test = "vm what_cannot_be_run_is_said_before_a_machine_starts";
    let Some(program) = busybox(test) else {
        return;
    };
    let fails = |options: &[&str], program: &Path, status: i32, words: &str| {
        let output = vm(options, program, &["true"], b"");
        assert_eq!(output.status, status, "{output:?}");
        assert!(output.stderr.contains(words), "{output:?} lacks {words:?}");
    };
    fails(&[], Path::new("/none"), 127, "no such file");
    fails(&[], Path::new("/etc/passwd"), 126, "permission denied");
    fails(&["--network", "host"], &program, 125, "--network user");
    fails(&["--memory", "1m"], &program, 125, "at least");
    fails(&["--kernel", "/none"], &program, 125, "neither a kernel");
    let exists = |path: &str| Path::new(path).exists();
    if !exists("/dev/kvm") || exists("/sys/module/kvm_pvm") {
        fails(&["--monitor", "duet"], &program, 125, "--monitor qemu");
    }
    let output = vm(&["--timeout", "0.5"], &program, &["sleep", "60"], b"");
    assert_eq!(output.status, 124, "{output:?}");
}

#[test]
fn a_network_with_published_ports() {
    let test = "vm a_network_with_published_ports";
    let Some(program) = busybox(test) else {
        return;
    };
    if host_tool("passt").is_none() {
        return skip(test, "no passt (package passt)");
    }
    // One of the host's, which must not be reached, and one that is free.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let hosts = listener.local_addr().unwrap().port();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let publish = format!("127.0.0.1:{port}:80");
    let mut command = duet_command(&["--mode", "vm", "-p", &publish, "--timeout", "100"]);
    let script = format!(
        "ip -o -4 addr show eth0 | grep -o '10[0-9.]*/24'; cat /etc/resolv.conf
         nc -w 2 10.0.2.2 {hosts} 2>/dev/null || echo closed; echo answer | nc -l -p 80"
    );
    command.arg(&program).args(["sh", "-c", &script]);
    command.env("XDG_CACHE_HOME", kernel_cache());
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + MACHINE_LIMIT;
    let mut text = String::new();
    // Until it listens, the connection is accepted and ends at once, or is refused.
    while text.is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            let _ = stream.write_all(b"question\n");
            let _ = stream.read_to_string(&mut text);
        }
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(text, "answer\n");
    let seen = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        seen,
        "10.0.2.100/24\nnameserver 10.0.2.3\nclosed\nquestion\n"
    );
    listener.set_nonblocking(true).unwrap();
    assert!(
        listener.accept().is_err(),
        "a connection came out of the machine"
    );
    // A port that is taken, and no network program.
    let taken = format!("127.0.0.1:{hosts}:80");
    let output = vm(&["-p", &taken], &program, &["true"], b"");
    assert_eq!(output.status, 125, "{output:?}");
    assert!(output.stderr.contains(&hosts.to_string()), "{output:?}");
    // One that fails at once, after it has shown that no signal is blocked.
    let bin = in_place_of("passt", "grep SigBlk /proc/self/status >&2; exit 1");
    let mut command = duet_command(&["--mode", "vm", "--network", "user"]);
    command.arg(&program).arg("true");
    command.env("XDG_CACHE_HOME", kernel_cache());
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.path().display()));
    let output = command_output(command, b"");
    assert_eq!(output.status, 125, "{output:?}");
    let mask = "SigBlk:\t0000000000000000";
    assert!(output.stderr.contains(mask), "{output:?}");
}

#[test]
fn what_it_took_is_told() {
    let Some(program) = busybox("vm what_it_took_is_told") else {
        return;
    };
    let mut command = std::process::Command::new(duet_tests::duet());
    command.args(["-v", "run", "--mode", "vm"]).arg(&program);
    command.arg("true").env("XDG_CACHE_HOME", kernel_cache());
    let told = command_output_within(command, b"", MACHINE_LIMIT);
    let asked = vm(&["--report"], &program, &["true"], b"");
    for output in [told, asked] {
        let has = |text: &str| output.stderr.contains(text);
        assert!(
            output.status == 0 && has("--- machine: ") && has("program started"),
            "{output:#?}"
        );
    }
}

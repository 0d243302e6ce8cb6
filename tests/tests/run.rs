//! The command line of `duet run`: options, exit codes, and messages for what cannot be run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use duet_tests::{
    Output, Toolchain, busybox, command_output, duet_command, duet_run, guest, host_tool, skip,
    tempdir,
};

/// Runs a busybox applet with `options`.
fn applet(options: &[&str], args: &[&str]) -> Output {
    duet_run(
        options,
        &host_tool("busybox").expect("looked for before"),
        args,
        b"",
    )
}

fn file(dir: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    path
}

/// Runs something that must fail before it starts: status `status`, nothing on standard output, a
/// message that begins with `duet: ` and holds `words`.
#[track_caller]
fn fails(options: &[&str], program: &Path, status: i32, words: &str) {
    let output = duet_run(options, program, &[], b"");
    assert_eq!(output.status, status, "{output:?}");
    assert_eq!(output.stdout, "");
    assert!(
        output.stderr.starts_with("duet: ") && output.stderr.contains(words),
        "{output:?} lacks {words:?}"
    );
    assert!(
        output.stderr.lines().count() <= 4 && !output.stderr.contains("panicked"),
        "{output:?}"
    );
}

#[test]
fn exit_codes() {
    let Some(program) = busybox("exit_codes") else {
        return;
    };
    for code in [0, 1, 2, 42, 125, 126, 127, 128, 255] {
        let output = duet_run(&[], &program, &["sh", "-c", &format!("exit {code}")], b"");
        assert_eq!((output.status, output.stderr.as_str()), (code, ""));
    }
    for (signal, name) in [
        (15, "TERM"),
        (9, "KILL"),
        (11, "SEGV"),
        (2, "INT"),
        (6, "ABRT"),
        (1, "HUP"),
    ] {
        let output = duet_run(
            &[],
            &program,
            &["sh", "-c", &format!("kill -{name} $$")],
            b"",
        );
        assert_eq!(output.status, 128 + signal, "{name}: {output:?}");
    }
}

#[test]
fn streams() {
    if busybox("streams").is_none() {
        return;
    }
    let program = host_tool("busybox").unwrap();
    let output = duet_run(
        &[],
        &program,
        &["sh", "-c", "cat; echo err >&2"],
        b"through\n",
    );
    assert_eq!(
        (
            output.stdout.as_str(),
            output.stderr.as_str(),
            output.status
        ),
        ("through\n", "err\n", 0)
    );
    let big = vec![b'x'; 3_000_000];
    assert_eq!(
        duet_run(&[], &program, &["wc", "-c"], &big).ok().trim(),
        "3000000"
    );
}

#[test]
fn what_a_plain_run_sees() {
    if busybox("what_a_plain_run_sees").is_none() {
        return;
    }
    let out = applet(&[], &["sh", "-c", "pwd; ls /; id -u; id -g; hostname | wc -l; echo $$; ls /dev; ls -d /etc /home /root 2>&1 | wc -l; cat /proc/1/comm | wc -l"]).ok();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "/");
    for name in ["busybox", "dev", "proc", "tmp"] {
        assert!(lines.contains(&name), "no {name} in {out}");
    }
    for name in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "fd", "shm", "stdin",
        "stdout", "stderr",
    ] {
        assert!(lines.contains(&name), "no /dev/{name} in {out}");
    }
    assert!(!lines.contains(&"etc") && !lines.contains(&"usr"), "{out}");
}

#[test]
fn environment() {
    if busybox("environment").is_none() {
        return;
    }
    let program = host_tool("busybox").unwrap();
    let mut command = duet_command(&[
        "-e",
        "A=1",
        "-e",
        "B=two words",
        "-e",
        "EMPTY=",
        "-e",
        "PASSED",
    ]);
    command
        .arg(&program)
        .arg("env")
        .env("SECRET", "x")
        .env("PASSED", "on");
    let out = command_output(command, b"").ok();
    for line in ["A=1", "B=two words", "EMPTY=", "PASSED=on"] {
        assert!(out.lines().any(|l| l == line), "no {line} in {out}");
    }
    assert!(!out.contains("SECRET") && out.contains("PATH="), "{out}");
    let mut command = duet_command(&["--env-host", "-e", "A=over"]);
    command
        .arg(&program)
        .arg("env")
        .env("A", "host")
        .env("SECRET", "x");
    let out = command_output(command, b"").ok();
    assert!(
        out.contains("SECRET=x") && out.contains("A=over") && !out.contains("A=host"),
        "{out}"
    );
}

#[test]
fn directory_user_and_host_name() {
    if busybox("directory_user_and_host_name").is_none() {
        return;
    }
    assert_eq!(applet(&["-w", "/tmp"], &["pwd"]).ok(), "/tmp\n");
    assert_eq!(
        applet(&["-u", "1000:2000"], &["sh", "-c", "id -u; id -g"]).ok(),
        "1000\n2000\n"
    );
    assert_eq!(applet(&["-u", "1000"], &["id", "-u"]).ok(), "1000\n");
    assert_eq!(
        applet(&["--hostname", "nest"], &["hostname"]).ok(),
        "nest\n"
    );
    assert_eq!(
        applet(
            &["--hostname", "nest"],
            &["sh", "-c", "hostname other && hostname"]
        )
        .ok(),
        "other\n"
    );
    let host = nix::unistd::gethostname().unwrap();
    assert_ne!(applet(&[], &["hostname"]).ok().trim(), "other");
    assert_eq!(nix::unistd::gethostname().unwrap(), host);
    let failed = applet(&["-w", "/none"], &["true"]);
    assert!(
        failed.status == 125 && failed.stderr.contains("/none"),
        "{failed:?}"
    );
    let failed = applet(&["-u", "nonsense"], &["true"]);
    assert!(
        (failed.status == 125 || failed.status == 2) && failed.stderr.contains("nonsense"),
        "{failed:?}"
    );
}

#[test]
fn arguments_pass_unchanged() {
    if busybox("arguments_pass_unchanged").is_none() {
        return;
    }
    let out = applet(
        &[],
        &[
            "sh",
            "-c",
            "for a; do echo \"[$a]\"; done",
            "sh",
            "--report",
            "-v",
            "",
            "a b",
            "--",
            "$x",
            "-h",
        ],
    )
    .ok();
    assert_eq!(out, "[--report]\n[-v]\n[]\n[a b]\n[--]\n[$x]\n[-h]\n");
}

#[test]
fn report() {
    if busybox("report").is_none() {
        return;
    }
    let output = applet(&["--report"], &["true"]);
    assert_eq!((output.status, output.stdout.as_str()), (0, ""));
    assert!(!output.stderr.is_empty());
}

#[test]
fn network() {
    if busybox("network").is_none() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("nc -w 1 127.0.0.1 {port} < /dev/null; echo $?");
    assert_eq!(applet(&[], &["sh", "-c", &script]).ok().trim(), "1");
    assert_eq!(
        applet(&["--network", "none"], &["sh", "-c", &script])
            .ok()
            .trim(),
        "1"
    );
    let accepted = std::thread::spawn(move || listener.accept().is_ok());
    assert_eq!(
        applet(&["--network", "host"], &["sh", "-c", &script])
            .ok()
            .trim(),
        "0"
    );
    assert!(accepted.join().unwrap());
}

#[test]
fn not_found() {
    let dir = tempdir();
    fails(&[], Path::new("/none/such"), 127, "/none/such");
    fails(
        &[],
        Path::new("no-such-program-anywhere"),
        127,
        "no-such-program-anywhere",
    );
    let plain = file(dir.path(), "plain", b"x", 0o755);
    fails(&[], &plain.join("below"), 126, "below");
    fails(
        &["--rootfs", "/none/such/tree"],
        Path::new("/bin/sh"),
        125,
        "/none/such/tree",
    );
    fails(
        &["--rootfs", plain.to_str().unwrap()],
        Path::new("/bin/sh"),
        125,
        "plain",
    );
    fails(
        &["--rootfs", dir.path().to_str().unwrap()],
        Path::new("/bin/sh"),
        127,
        "/bin/sh",
    );
    fails(
        &["-v", "/none/such:/x"],
        Path::new("/bin/sh"),
        125,
        "/none/such",
    );
}

#[test]
fn cannot_run() {
    let dir = tempdir();
    let path = dir.path();
    fails(&[], path, 126, "directory");
    fails(&[], &file(path, "noexec", b"\x7fELF", 0o644), 126, "noexec");
    fails(&[], &file(path, "empty", b"", 0o755), 126, "empty");
    fails(&[], &file(path, "text", b"just text\n", 0o755), 126, "text");
    fails(&[], &file(path, "magic", b"\x7fELF", 0o755), 126, "magic");
    fails(
        &[],
        &file(path, "script", b"#!/no/interpreter\n", 0o755),
        126,
        "/no/interpreter",
    );
    fails(&[], &file(path, "self", b"#!/self\n", 0o755), 126, "self");
    std::os::unix::fs::symlink("loop", path.join("loop")).unwrap();
    fails(&[], &path.join("loop"), 126, "loop");
    let fifo = path.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o777)).unwrap();
    fails(&[], &fifo, 126, "fifo");
}

#[test]
fn other_machines() {
    let Some(good) = guest("hello", Toolchain::Static) else {
        return skip("other_machines", "no gcc");
    };
    let good = fs::read(good).unwrap();
    let dir = tempdir();
    let change = |name: &str, edits: &[(usize, &[u8])]| {
        let mut bytes = good.clone();
        for (at, new) in edits {
            bytes[*at..at + new.len()].copy_from_slice(new);
        }
        file(dir.path(), name, &bytes, 0o755)
    };
    // e_machine is at 18, EI_CLASS at 4, e_type at 16
    fails(&[], &change("aarch64", &[(18, &[183, 0])]), 126, "aarch64");
    fails(
        &[],
        &change("i386", &[(4, &[1]), (18, &[3, 0])]),
        126,
        "i386",
    );
    fails(&[], &change("riscv", &[(18, &[243, 0])]), 126, "riscv");
    fails(&[], &change("object", &[(16, &[1, 0])]), 126, "object");
    fails(&[], &change("core", &[(16, &[4, 0])]), 126, "core");
    // no program headers; headers beyond the end; absurd sizes
    fails(
        &[],
        &change("no-headers", &[(56, &[0, 0])]),
        126,
        "no-headers",
    );
    fails(
        &[],
        &change("far-headers", &[(32, &[0xff; 8])]),
        126,
        "far-headers",
    );
    fails(
        &[],
        &change("many-headers", &[(56, &[0xff, 0xff])]),
        126,
        "many-headers",
    );
    fails(
        &[],
        &change("small-headers", &[(54, &[1, 0])]),
        126,
        "small-headers",
    );
    for size in [1, 16, 63, 64, 65, 119, 120, 200] {
        let path = file(dir.path(), &format!("cut-{size}"), &good[..size], 0o755);
        let output = duet_run(&[], &path, &[], b"");
        assert!(
            output.status == 126 && output.stderr.starts_with("duet: "),
            "{size}: {output:?}"
        );
    }
}

/// Programs whose segments are hostile end as they do natively or are refused; nothing else happens.
#[test]
fn hostile_segments() {
    let Some(good) = guest("hello", Toolchain::Static) else {
        return skip("hostile_segments", "no gcc");
    };
    let good = fs::read(good).unwrap();
    let dir = tempdir();
    let phoff = u64::from_le_bytes(good[32..40].try_into().unwrap()) as usize;
    let count = u16::from_le_bytes(good[56..58].try_into().unwrap()) as usize;
    let loads: Vec<_> = (0..count)
        .map(|i| phoff + i * 56)
        .filter(|&h| good[h..h + 4] == [1, 0, 0, 0])
        .collect();
    let values: [u64; 8] = [
        0,
        1,
        0xfff,
        0x7fff_ffff_f000,
        0x8000_0000_0000,
        0xffff_ffff_ffff_f000,
        u64::MAX,
        0xffff_ffff_8000_0000,
    ];
    let path = dir.path().join("hostile");
    for field in [8, 16, 32, 40, 48] {
        for value in values {
            let mut bytes = good.clone();
            bytes[loads[0] + field..loads[0] + field + 8].copy_from_slice(&value.to_le_bytes());
            let _ = fs::remove_file(&path);
            file(dir.path(), "hostile", &bytes, 0o755);
            let output = duet_run(&[], &path, &[], b"");
            let known = output.status == 0 || output.status == 126 || output.status > 128;
            assert!(
                known && !output.stderr.contains("panicked"),
                "field {field} = {value:#x}: {output:?}"
            );
        }
    }
    for entry in [0u64, 8, 0x7fff_ffff_ffff, u64::MAX] {
        let mut bytes = good.clone();
        bytes[24..32].copy_from_slice(&entry.to_le_bytes());
        let _ = fs::remove_file(&path);
        file(dir.path(), "hostile", &bytes, 0o755);
        let output = duet_run(&[], &path, &[], b"");
        assert!(
            output.status == 126 || output.status == 128 + 11,
            "entry {entry:#x}: {output:?}"
        );
    }
}

#[test]
fn dynamic_without_a_tree() {
    let Some(program) = guest("hello", Toolchain::Dynamic) else {
        return skip("dynamic_without_a_tree", "no gcc");
    };
    let output = duet_run(&[], &program, &[], b"");
    assert_eq!(output.status, 126, "{output:?}");
    for words in ["/lib64/ld-linux-x86-64.so.2", "--rootfs", "--host-root"] {
        assert!(output.stderr.contains(words), "{output:?} lacks {words}");
    }
    assert_eq!(
        duet_run(&["--host-root"], &program, &[], b"").ok(),
        "hello\n"
    );
}

#[test]
fn host_programs() {
    assert_eq!(
        duet_run(
            &["--host-root"],
            Path::new("/bin/sh"),
            &["-c", "echo $((6*7)) | cat"],
            b""
        )
        .ok(),
        "42\n"
    );
    let out = duet_run(
        &["--host-root"],
        Path::new("sh"),
        &["-c", "echo x > /etc/duet-test && cat /etc/duet-test"],
        b"",
    )
    .ok();
    assert_eq!(out, "x\n");
    assert!(!Path::new("/etc/duet-test").exists());
}

#[test]
fn every_kind_of_build_says_hello() {
    for toolchain in [Toolchain::Static, Toolchain::StaticPie, Toolchain::Musl] {
        match guest("hello", toolchain) {
            Some(program) => assert_eq!(duet_run(&[], &program, &[], b"").ok(), "hello\n"),
            None => skip(
                "every_kind_of_build_says_hello",
                &format!("no compiler for {toolchain:?}"),
            ),
        }
    }
}

/// The layer goes when duet goes, however it goes.
#[test]
fn nothing_is_left_behind() {
    let Some(program) = busybox("nothing_is_left_behind") else {
        return;
    };
    let marker = format!("3{:07}.5", std::process::id());
    let script =
        format!("sleep {marker} & sleep {marker} & setsid sleep {marker} & exec sleep {marker}");
    let mut command = duet_command::<&str>(&[]);
    command.arg(&program).args(["sh", "-c", &script]);
    let mut child = command.spawn().unwrap();
    let alive = || {
        fs::read_dir("/proc").unwrap().flatten().any(|e| {
            fs::read(e.path().join("cmdline")).is_ok_and(|c| {
                c.starts_with(b"sleep") && c.windows(marker.len()).any(|w| w == marker.as_bytes())
            })
        })
    };
    let wait_until = |want: bool| {
        (0..500).any(|_| {
            alive() == want || {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        })
    };
    assert!(wait_until(true), "the guest does not start");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait_until(false), "guests outlive a killed duet");
    // background jobs of a program that ends are ended too
    let output = duet_run(
        &[],
        &program,
        &[
            "sh",
            "-c",
            &format!("sleep {marker} >/dev/null 2>&1 & exit 3"),
        ],
        b"",
    );
    assert_eq!(output.status, 3);
    assert!(wait_until(false), "a background job outlives the layer");
}

/// A signal to duet goes to the program.
#[test]
fn signals_are_passed_on() {
    let Some(program) = busybox("signals_are_passed_on") else {
        return;
    };
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("USR1", 10)] {
        let dir = tempdir();
        let volume = format!("{}:/v", dir.path().display());
        let mut command = duet_command(&["-v", &volume]);
        command.arg(&program).args(["sh", "-c", &format!("trap 'echo got > /v/got; exit 9' {name}; echo up > /v/up; while :; do sleep 0.02; done")]);
        // What is ignored from the start (by nohup, say) cannot be trapped.
        // SAFETY: async-signal-safe, and no handler.
        unsafe {
            command.pre_exec(move || {
                libc::signal(number, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        for _ in 0..1000 {
            if dir.path().join("up").exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(number).unwrap()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(9), "{name}");
        assert!(dir.path().join("got").exists(), "{name}");
    }
}

#[test]
fn bad_usage() {
    let usage = |args: &[&str]| {
        let mut command = duet_command::<&str>(&[]);
        command.args(args);
        command_output(command, b"")
    };
    for args in [
        &[][..],
        &["--nonsense", "x"],
        &["-v", "nocolon", "/bin/true"],
        &["--network", "maybe", "/bin/true"],
        &["--rw", "/bin/true"],
    ] {
        let output = usage(args);
        assert!(
            matches!(output.status, 2 | 125) && !output.stderr.is_empty(),
            "{args:?}: {output:?}"
        );
    }
}

#[test]
fn busy_programs_get_an_agent() {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    if processors < 2 {
        return skip("busy_programs_get_an_agent", "one processor");
    }
    let Some(program) = guest("busy", Toolchain::Static) else {
        return skip("busy_programs_get_an_agent", "no C compiler");
    };
    let calls = |options: &[&str]| {
        let mut command = std::process::Command::new(duet_tests::duet());
        command.args(["-v", "run", "-w", "/tmp"]);
        command.args(options).arg(&program);
        let output = command_output(command, b"");
        assert_eq!(output.status, 0, "{output:#?}");
        output.stderr.lines().find_map(|l| {
            let (before, _) = l.split_once(" calls came by agents")?;
            before.rsplit(' ').next()?.parse::<u64>().ok()
        })
    };
    assert!(calls(&[]).is_some_and(|n| n > 0));
    assert_eq!(calls(&["--no-accelerator"]), None);
    assert_eq!(calls(&["--engine", "ptrace"]), None);
}

#[test]
fn twenty_at_once() {
    let Some(program) = busybox("twenty_at_once") else {
        return;
    };
    let runs: Vec<_> = (0..20)
        .map(|i| {
            let program = program.clone();
            std::thread::spawn(move || {
                duet_run(
                    &[],
                    &program,
                    &[
                        "sh",
                        "-c",
                        &format!("echo {i} > /tmp/f; sleep 0.2; cat /tmp/f; exit {i}"),
                    ],
                    b"",
                )
            })
        })
        .collect();
    for (i, run) in runs.into_iter().enumerate() {
        let output = run.join().unwrap();
        assert_eq!(
            (output.stdout.trim(), output.status),
            (i.to_string().as_str(), i as i32),
            "{output:?}"
        );
    }
}

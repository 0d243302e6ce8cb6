//! The VM mode with libkrunfw's kernel, which takes no initramfs, knows no serial port and no ACPI: programs and
//! options are the same on it. Needs QEMU, and the library of the package libkrunfw5.

use std::path::Path;

use duet_tests::{
    Libkrunfw, MACHINE_LIMIT, Output, Toolchain, assert_same, busybox, command_output_within,
    duet_command, guest, host_tool, is_root, libkrunfw, native_run, skip, tempdir,
};

/// `duet run --mode vm --kernel IMAGE OPTIONS PROGRAM ARGS`.
fn vm(kernel: &Path, options: &[&str], program: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = duet_command(&["--mode", "vm", "--monitor", "qemu", "--kernel"]);
    command.arg(kernel).args(options).arg(program).args(args);
    command_output_within(command, input, MACHINE_LIMIT)
}

#[track_caller]
fn same(name: &str) {
    let test = format!("libkrunfw {name}");
    let Some(program) = guest(name, Toolchain::Static) else {
        return skip(&test, "no C compiler");
    };
    if !is_root() {
        return skip(&test, "its native side needs root, which the guest is");
    }
    let Some(kernel) = libkrunfw(&test) else {
        return;
    };
    let options = ["-w", "/tmp", "-e", "LANG=C", "-e", "HOME=/tmp"];
    assert_same(
        name,
        &native_run(&program, &[], b""),
        &vm(&kernel.image, &options, &program, &[], b""),
    );
}

macro_rules! guests {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            same(stringify!($name));
        }
    )*};
}

guests! { files meta mmap signals unixsock pty exec procfs system }

#[test]
fn streams_files_and_options() {
    let test = "libkrunfw streams_files_and_options";
    let (Some(kernel), Some(program)) = (libkrunfw(test), busybox(test)) else {
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
        "-w",
        "/data",
        "--memory",
        "256m",
        "--cpus",
        "2",
        "--pids",
        "50",
    ];
    let script = "cat; hostname; id; cat note; nproc; echo made >out; echo x >/ro/out2; touch /scratch/z; \
                  ls /scratch; ls / | grep -c init; head -c 3000000 /dev/zero | wc -c; echo error >&2; exit 7";
    let args = ["sh", "-c", script];
    let output = vm(&kernel.image, &options, &program, &args, b"one\ntwo\n");
    assert_eq!(
        output.stdout, "one\ntwo\nbox\nuid=12 gid=34\nfrom the host\n2\nz\n0\n3000000\n",
        "{output:?}"
    );
    assert_eq!(output.status, 7);
    assert!(
        output.stderr.contains("Read-only file system") && output.stderr.ends_with("error\n"),
        "{output:?}"
    );
    let made = std::fs::read_to_string(dir.path().join("out")).unwrap();
    assert_eq!(made, "made\n");
    assert!(!dir.path().join("out2").exists());
}

#[test]
fn a_library_is_used_as_it_is() {
    let test = "libkrunfw a_library_is_used_as_it_is";
    let (Some(Libkrunfw { library, .. }), Some(program)) = (libkrunfw(test), busybox(test)) else {
        return;
    };
    let output = vm(library, &[], &program, &["uname", "-r"], b"");
    assert!(
        output.status == 0 && output.stdout.len() > 3 && !output.stdout.contains("cloud"),
        "{output:?}"
    );
    // Cut short, it is refused.
    let dir = tempdir();
    let cut = dir.path().join("libkrunfw.so.5");
    let bytes = std::fs::read(library).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let mut command = std::process::Command::new(duet_tests::duet());
    command.args(["kernel", "add"]).arg(&cut);
    command.env("XDG_CACHE_HOME", dir.path());
    let output = command_output_within(command, b"", MACHINE_LIMIT);
    assert_eq!(output.status, 125, "{output:?}");
    assert!(
        output.stderr.contains("cannot be read as a library"),
        "{output:?}"
    );
    let mut command = std::process::Command::new(duet_tests::duet());
    command.args(["kernel", "add", "--modules", "/lib", "--name", "new"]);
    command.arg(library).env("XDG_CACHE_HOME", dir.path());
    let output = command_output_within(command, b"", MACHINE_LIMIT);
    assert!(
        output.status == 125 && output.stderr.contains("no modules"),
        "{output:?}"
    );
}

#[test]
fn a_kernels_messages_come_by_its_console() {
    let test = "libkrunfw a_kernels_messages_come_by_its_console";
    let (Some(kernel), Some(program)) = (libkrunfw(test), busybox(test)) else {
        return;
    };
    let output = vm(&kernel.image, &["--console"], &program, &["true"], b"");
    assert!(
        output.status == 0 && output.stderr.contains("Mounted root (virtiofs"),
        "{output:?}"
    );
    // One that cannot go on: the machine ends, and what the kernel said is shown.
    let output = vm(
        &kernel.image,
        &["--append", "root=nowhere"],
        &program,
        &["true"],
        b"",
    );
    assert_eq!(output.status, 125, "{output:?}");
    assert!(output.stderr.contains("Kernel panic"), "{output:?}");
}

#[test]
fn a_machine_without_a_power_off_is_not_halted() {
    let test = "libkrunfw a_machine_without_a_power_off_is_not_halted";
    let (Some(kernel), Some(program)) = (libkrunfw(test), busybox(test)) else {
        return;
    };
    let script = "poweroff -f; echo $?";
    let output = vm(&kernel.image, &[], &program, &["sh", "-c", script], b"");
    assert_eq!(
        (output.stdout.as_str(), output.status),
        ("1\n", 0),
        "{output:?}"
    );
}

#[test]
fn a_network() {
    let test = "libkrunfw a_network";
    let (Some(kernel), Some(program)) = (libkrunfw(test), busybox(test)) else {
        return;
    };
    if host_tool("passt").is_none() {
        return skip(test, "no passt (package passt)");
    }
    let script = "ip -o -4 addr show eth0 | grep -o '10[0-9.]*/24'; cat /etc/resolv.conf";
    let options = ["--network", "user"];
    let output = vm(
        &kernel.image,
        &options,
        &program,
        &["sh", "-c", script],
        b"",
    );
    assert_eq!(
        output.stdout, "10.0.2.100/24\nnameserver 10.0.2.3\n",
        "{output:?}"
    );
}

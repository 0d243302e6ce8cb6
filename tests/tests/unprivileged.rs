//! Duet needs no privilege: the core of the tests once more as user `nobody`. (When the whole suite
//! runs as another user than root, every test already shows this.)

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use duet_tests::{
    Known, Output, Toolchain, command_output, copy_program, duet, expected, guest, host_tool,
    is_root, known, skip, tempdir,
};

const NOBODY: u32 = 65534;

/// `duet run` as nobody, from copies that nobody can reach; `None` (and a skip) unless root.
fn as_nobody(test: &str, options: &[&str], program: &Path, args: &[&str]) -> Option<Output> {
    as_nobody_at(Path::new("/tmp"), test, options, program, args)
}

/// The same with this home directory.
fn as_nobody_at(
    home: &Path,
    test: &str,
    options: &[&str],
    program: &Path,
    args: &[&str],
) -> Option<Output> {
    if !is_root() {
        skip(
            test,
            "not root, so the other tests already run unprivileged",
        );
        return None;
    }
    let dir = tempdir();
    let copy = |from: &Path| {
        let to = dir.path().join(from.file_name().unwrap());
        copy_program(from, &to);
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    let mut command = Command::new(copy(duet()));
    command.arg("run").args(options);
    if options.contains(&"--rootfs") {
        command.arg(program);
    } else {
        command.arg(copy(program));
    }
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .current_dir("/");
    command.uid(NOBODY).gid(NOBODY);
    Some(command_output(command, b""))
}

#[track_caller]
fn same(name: &str, needs_root: bool) {
    let Some(program) = guest(name, Toolchain::Static) else {
        return skip(name, "no gcc");
    };
    let user = format!("{NOBODY}:{NOBODY}");
    let mut options = vec!["-w", "/tmp", "-e", "LANG=C"];
    if !needs_root {
        options.extend(["-u", &user]);
    }
    let Some(layer) = as_nobody(name, &options, &program, &[]) else {
        return;
    };
    let dir = tempdir();
    let copy = dir.path().join(name);
    copy_program(&program, &copy);
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    let work = tempdir();
    let mut command = Command::new(copy);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LANG", "C")
        .current_dir(work.path());
    if !needs_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let native = expected(command_output(command, b""), known(name));
    let native = expected(native, known_of_nobody(name, needs_root));
    let different: Vec<_> = native
        .stdout
        .lines()
        .zip(layer.stdout.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert!(
        native == layer,
        "{different:#?}\nnative: {native:?}\nlayer: {layer:?}"
    );
}

/// What differs for nobody alone.
fn known_of_nobody(name: &str, needs_root: bool) -> &'static [Known] {
    match (name, needs_root) {
        ("files", false) => &[Known {
            native: "mode 107777",
            layer: "mode 101777",
            why: "set-id bits are cleared when a file is opened for writing, as writes are not seen",
        }],
        _ => &[],
    }
}

#[test]
fn guests_as_nobody() {
    for name in [
        "files", "tmpfile", "rename", "meta", "fifo", "unixsock", "procs", "threads", "ipc",
    ] {
        same(name, false);
    }
}

/// Inside, nobody's layer has a root that may do all that root does natively.
#[test]
fn guests_as_the_root_of_a_layer_of_nobody() {
    for name in ["perms", "dirs", "signals"] {
        same(name, true);
    }
}

#[test]
fn shell() {
    let Some(busybox) = host_tool("busybox") else {
        return skip("shell", "no busybox (package busybox-static)");
    };
    let script = "id -u; echo x > /tmp/f; chown 5:6 /tmp/f; stat -c %u:%g /tmp/f; seq 100 | wc -l; sleep 0.01 & wait; ls /proc/self/fd | wc -l; exit 7";
    if let Some(output) = as_nobody("shell", &[], &busybox, &["sh", "-c", script]) {
        assert_eq!(
            (output.stdout.as_str(), output.status),
            ("0\n5:6\n100\n4\n", 7),
            "{output:?}"
        );
    }
}

/// A tree that nobody owns can be changed by nobody's fake root, owners and devices included, and is so again.
#[test]
fn tree_of_nobody() {
    let Some(busybox) = host_tool("busybox") else {
        return skip("tree_of_nobody", "no busybox (package busybox-static)");
    };
    let (dir, home) = (tempdir(), tempdir());
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    copy_program(&busybox, bin.join("busybox"));
    if is_root() {
        for path in [dir.path(), home.path(), &bin, &bin.join("busybox")] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let root = dir.path().to_str().unwrap();
    let script = "b=/bin/busybox; $b echo x > /f; $b chown 12:34 /f; $b chmod 4711 /f; $b mknod /d c 1 3; \
        $b ln -s f /l; $b chown -h 5:6 /l; $b mkfifo /p; $b chown 7:8 /p; $b ln -s f /gone; $b chown -h 9:9 /gone; \
        $b rm /gone; $b mv /l /m; $b stat -c '%u:%g %a %F' /f /d /m /p /bin";
    let run = |rw: &[&str], script: &str| {
        let options: Vec<_> = ["--rootfs", root].iter().chain(rw).copied().collect();
        as_nobody_at(
            home.path(),
            "tree_of_nobody",
            &options,
            Path::new("/bin/busybox"),
            &["sh", "-c", script],
        )
    };
    let Some(first) = run(&["--rw"], script) else {
        return;
    };
    assert_eq!(
        first.stdout,
        "12:34 4711 regular file\n0:0 644 character special file\n5:6 777 symbolic link\n7:8 644 fifo\n0:0 755 directory\n",
        "{first:?}"
    );
    // Without --rw too. A new link has nothing of an old one.
    let script = "b=/bin/busybox; $b ln -s f /gone; $b stat -c '%u:%g %a %F' /f /d /m /p /gone";
    for rw in [&[][..], &["--rw"]] {
        let again = run(rw, script).unwrap();
        assert_eq!(
            again.stdout,
            "12:34 4711 regular file\n0:0 644 character special file\n5:6 777 symbolic link\n7:8 644 fifo\n\
             0:0 777 symbolic link\n",
            "{again:?}"
        );
    }
}

#[test]
fn escapes_as_nobody() {
    let Some(program) = guest("escape", Toolchain::Static) else {
        return skip("escapes_as_nobody", "no gcc");
    };
    let dir = tempdir();
    std::fs::write(dir.path().join("secret"), "HOST-SECRET\n").unwrap();
    let vol = dir.path().join("vol");
    std::fs::create_dir(&vol).unwrap();
    std::fs::set_permissions(&vol, PermissionsExt::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink("../secret", vol.join("rel")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), vol.join("abs")).unwrap();
    let volume = format!("{}:/vol", vol.display());
    let secret = dir.path().join("secret");
    let pid = std::process::id().to_string();
    let args = [secret.to_str().unwrap(), "/vol", &pid, "no-such-name", "0"];
    if let Some(output) = as_nobody("escapes_as_nobody", &["-v", &volume], &program, &args) {
        let bad: Vec<_> = output
            .stdout
            .lines()
            .filter(|l| !l.contains(": refused") && *l != "end")
            .collect();
        assert!(
            bad.is_empty() && output.stdout.ends_with("end\n"),
            "{bad:#?} {output:?}"
        );
    }
}

/// What a run writes to its directory it can write in every mode, and a program reads what is its user's own.
#[test]
fn nobody_compares() {
    let test = "nobody_compares";
    if !is_root() {
        return skip(
            test,
            "not root, so the other tests already run unprivileged",
        );
    }
    let dir = tempdir();
    let program = dir.path().join("duet");
    copy_program(duet(), &program);
    let start = dir.path().join("start");
    std::fs::create_dir(&start).unwrap();
    std::fs::write(start.join("a"), "one\n").unwrap();
    let own = dir.path().join("own");
    std::fs::write(&own, "private\n").unwrap();
    std::fs::set_permissions(&own, PermissionsExt::from_mode(0o600)).unwrap();
    for path in [dir.path(), &program, &start, &start.join("a"), &own] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let script = format!(
        "echo x >f; echo two >>a; chmod 600 a; stat -c '%u %a %n' a f; cat {}",
        own.display()
    );
    let mut command = Command::new(&program);
    command
        .args([
            "compare",
            "--modes",
            "native,layer:seccomp",
            "--runs",
            "1",
            "--dir",
        ])
        .arg(&start)
        .args(["--host-root", "--", "sh", "-c", &script])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir.path())
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY);
    let output = command_output(command, b"");
    assert_eq!(output.status, 0, "{output:#?}");
    assert!(output.stdout.contains("files written"), "{output:#?}");
    assert!(!output.stdout.contains("DIFFERS"), "{output:#?}");
}

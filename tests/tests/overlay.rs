//! Trees and volumes: what is thrown away, what is written through, and what survives.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use duet_tests::{
    Output, command_output, copy_program, duet_command, duet_run, host_tool, skip, tempdir,
};
use tempfile::TempDir;

/// A small tree with a busybox in it; `None` (and a skip) if there is no busybox.
fn tree(test: &str) -> Option<TempDir> {
    let Some(busybox) = host_tool("busybox") else {
        skip(test, "no busybox (package busybox-static)");
        return None;
    };
    let dir = tempdir();
    for name in ["bin", "etc", "tmp", "data", "data/sub"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::set_permissions(dir.path().join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    copy_program(busybox, dir.path().join("bin/busybox"));
    std::os::unix::fs::symlink("busybox", dir.path().join("bin/sh")).unwrap();
    fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(dir.path().join("data/file"), "original\n").unwrap();
    fs::write(dir.path().join("data/sub/deep"), "deep\n").unwrap();
    Some(dir)
}

fn sh(options: &[&str], script: &str) -> Output {
    let script = format!("PATH=/bin; b=/bin/busybox; {script}");
    duet_run(options, Path::new("/bin/sh"), &["-e", "-c", &script], b"")
}

/// Everything below a directory, with contents and times.
fn snapshot(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let m = fs::symlink_metadata(&path).unwrap();
        let content = if m.is_file() && m.len() < 1000 {
            fs::read_to_string(&path).unwrap()
        } else {
            String::new()
        };
        let size = if m.is_dir() { 0 } else { m.size() };
        all.push(format!(
            "{} {} {:o} {size} {}:{} {}.{} {content:?}",
            path.display(),
            m.ino(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.mtime(),
            m.mtime_nsec()
        ));
        if m.is_dir() {
            all.extend(snapshot(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn throw_away() {
    let Some(dir) = tree("throw_away") else {
        return;
    };
    let before = snapshot(dir.path());
    let root = dir.path().to_str().unwrap();
    let out = sh(
        &["--rootfs", root],
        "echo changed > /data/file; echo more >> /data/sub/deep; $b rm /etc/passwd; $b mkdir /new; echo x > /new/x
         $b mv /data/sub /data/moved; $b chmod 0 /data/file; $b chown 12:34 /data/file; $b ln -s a /l; $b ln /data/file /hard
         $b cat /data/file /data/moved/deep; $b ls /etc | $b wc -l; $b stat -c '%u:%g %h %a' /hard; $b touch -d @5 /bin/busybox",
    );
    assert_eq!(
        out.ok().split_whitespace().collect::<Vec<_>>().join(" "),
        "changed deep more 0 12:34 2 0"
    );
    assert_eq!(snapshot(dir.path()), before);
    // and the next run starts from the same tree
    assert_eq!(
        sh(
            &["--rootfs", root],
            "$b cat /data/file /data/sub/deep; $b ls /"
        )
        .ok(),
        "original\ndeep\nbin\ndata\ndev\netc\nproc\nsys\ntmp\n"
    );
}

#[test]
fn written_through() {
    let Some(dir) = tree("written_through") else {
        return;
    };
    let root = dir.path().to_str().unwrap();
    sh(&["--rootfs", root, "--rw"], "echo changed > /data/file; $b rm /etc/passwd; $b mkdir /new; echo x > /new/x; $b mv /data/sub /data/moved").ok();
    assert_eq!(
        fs::read_to_string(dir.path().join("data/file")).unwrap(),
        "changed\n"
    );
    assert!(!dir.path().join("etc/passwd").exists());
    assert_eq!(fs::read_to_string(dir.path().join("new/x")).unwrap(), "x\n");
    assert_eq!(
        fs::read_to_string(dir.path().join("data/moved/deep")).unwrap(),
        "deep\n"
    );
}

#[test]
fn ownership_survives() {
    let Some(dir) = tree("ownership_survives") else {
        return;
    };
    let root = dir.path().to_str().unwrap();
    let options = ["--rootfs", root, "--rw"];
    sh(
        &options,
        "$b chown 1234:5678 /data/file; $b chmod 4751 /data/file; $b mknod /data/null c 1 3; $b mknod /blk b 77 88; $b mkfifo /fifo
         $b chown 9:9 /data/sub /data/null; $b ln -s x /link; $b chown -h 5:6 /link",
    )
    .ok();
    let look = "$b stat -c '%n %u:%g %a %F %t,%T' /data/file /data/null /blk /fifo /data/sub /link; echo x > /data/null; $b cat /data/null";
    let out = sh(&options, look).ok();
    assert_eq!(
        out,
        "/data/file 1234:5678 4751 regular file 0,0\n/data/null 9:9 644 character special file 1,3\n/blk 0:0 644 block special file 4d,58\n\
         /fifo 0:0 644 fifo 0,0\n/data/sub 9:9 755 directory 0,0\n/link 5:6 777 symbolic link 0,0\n"
    );
    // the host's own files have not become set-id or devices
    assert_eq!(
        fs::metadata(dir.path().join("data/file")).unwrap().mode() & 0o6000,
        0
    );
    assert!(fs::metadata(dir.path().join("data/null")).unwrap().rdev() == 0);
    // and a throw-away layer over the tree sees the same
    assert_eq!(sh(&["--rootfs", root], look).ok(), out);
}

#[test]
fn volumes() {
    let Some(dir) = tree("volumes") else { return };
    let root = dir.path().to_str().unwrap();
    let (rw, ro) = (tempdir(), tempdir());
    fs::write(rw.path().join("in"), "rw\n").unwrap();
    fs::write(ro.path().join("in"), "ro\n").unwrap();
    let (a, b) = (
        format!("{}:/mnt/rw", rw.path().display()),
        format!("{}:/ro:ro", ro.path().display()),
    );
    let options = ["--rootfs", root, "-v", &a, "-v", &b];
    let out = sh(
        &options,
        "$b cat /mnt/rw/in /ro/in; echo made > /mnt/rw/new; $b mv /mnt/rw/in /mnt/rw/renamed
         (echo x > /ro/new) 2>/dev/null || echo refused; $b rm /ro/in 2>&1 || :; $b touch /ro/in 2>&1 || :; $b chmod 777 /ro 2>&1 || :
         $b mv /mnt/rw/new /data/ && $b cat /data/new; $b ls /; $b grep -c ' /ro ' /proc/mounts; echo back > /mnt/rw/back",
    );
    let out = out.ok();
    assert!(out.starts_with("rw\nro\nrefused\n"), "{out}");
    assert_eq!(out.matches("Read-only file system").count(), 3, "{out}");
    assert!(out.contains("made\nbin\n") && out.ends_with("1\n"), "{out}");
    assert_eq!(
        fs::read_to_string(rw.path().join("renamed")).unwrap(),
        "rw\n"
    );
    assert_eq!(
        fs::read_to_string(rw.path().join("back")).unwrap(),
        "back\n"
    );
    assert!(!rw.path().join("in").exists() && !rw.path().join("new").exists());
    assert_eq!(fs::read_dir(ro.path()).unwrap().count(), 1);
}

#[test]
fn file_volume() {
    let Some(dir) = tree("file_volume") else {
        return;
    };
    let root = dir.path().to_str().unwrap();
    let host = tempdir();
    fs::write(host.path().join("f"), "from the host\n").unwrap();
    let volume = format!("{}:/etc/f:ro", host.path().join("f").display());
    assert_eq!(
        sh(&["--rootfs", root, "-v", &volume], "$b cat /etc/f").ok(),
        "from the host\n"
    );
}

#[test]
fn temporary_trees() {
    let Some(dir) = tree("temporary_trees") else {
        return;
    };
    let root = dir.path().to_str().unwrap();
    let before = snapshot(dir.path());
    let out = sh(
        &[
            "--rootfs",
            root,
            "--rw",
            "--tmpfs",
            "/data",
            "--tmpfs",
            "/scratch/deep",
        ],
        "$b ls /data; echo x > /data/x; echo y > /scratch/deep/y; $b cat /data/x /scratch/deep/y",
    );
    assert_eq!(out.ok(), "x\ny\n");
    let mut after = snapshot(dir.path());
    after.retain(|l| !l.contains("/scratch"));
    let strip = |v: Vec<String>| {
        v.into_iter()
            .filter(|l| l.contains("/data"))
            .collect::<Vec<_>>()
    };
    assert_eq!(strip(after), strip(before));
}

#[test]
fn read_by_another_user() {
    let Some(dir) = tree("read_by_another_user") else {
        return;
    };
    let root = dir.path().to_str().unwrap();
    fs::set_permissions(
        dir.path().join("data/file"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let mut command = duet_command(&["--rootfs", root, "-u", "1000:1000"]);
    command.args(["/bin/busybox", "sh", "-c", "id -u; id -g; cat /data/file; echo x > /data/new; touch /tmp/mine && stat -c %u:%g /tmp/mine"]);
    let out = command_output(command, b"");
    assert!(out.stdout.starts_with("1000\n1000\n"), "{out:?}");
    assert!(out.stdout.ends_with("1000:1000\n"), "{out:?}");
    assert_eq!(out.stderr.matches("ermission denied").count(), 2, "{out:?}");
}

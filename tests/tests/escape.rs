//! A hostile guest tries every known way out of a layer, and each must be refused. The host's side
//! (a secret file, a process, sockets, a FIFO) stands ready and is looked at afterwards.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use duet_tests::{
    Output, Toolchain, command_output, copy_program, duet, duet_command, guest, skip, tempdir,
};
use tempfile::TempDir;

/// Everything of the host that a guest might reach, in a directory of its own.
struct Host {
    dir: TempDir,
    canary: Child,
    name: String,
    abstract_stream: UnixListener,
    abstract_datagram: UnixDatagram,
    file_listener: UnixListener,
    fifo: fs::File,
}

impl Host {
    fn new() -> Host {
        let dir = tempdir();
        let base = dir.path();
        let volume = base.join("vol");
        fs::create_dir(&volume).unwrap();
        fs::write(base.join("secret"), "HOST-SECRET\n").unwrap();
        fs::write(volume.join("ok"), "harmless\n").unwrap();
        if let Some(hello) = guest("hello", Toolchain::Static) {
            copy_program(hello, base.join("program"));
        }
        let climb = format!("../../../../../../../..{}/secret", base.display());
        for (name, target) in [
            ("abs", base.join("secret")),
            ("rel", PathBuf::from("../secret")),
            ("deep", PathBuf::from(climb)),
            ("dirup", PathBuf::from("..")),
            ("rootlink", PathBuf::from("/")),
        ] {
            symlink(target, volume.join(name)).unwrap();
        }
        // A process whose parent is outside the layer and which notes a SIGURG.
        let script = format!(
            "trap 'echo hit >> {0}/canary' URG; echo ready > {0}/ready; while :; do sleep 0.05; done",
            base.display()
        );
        let canary = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        while !base.join("ready").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let name = format!("duet-escape-{}-{}", std::process::id(), canary.id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_stream = UnixListener::bind_addr(&address).unwrap();
        let address = SocketAddr::from_abstract_name(format!("{name}-dgram")).unwrap();
        let abstract_datagram = UnixDatagram::bind_addr(&address).unwrap();
        let file_listener = UnixListener::bind(volume.join("host-socket")).unwrap();
        nix::unistd::mkfifo(
            &volume.join("host-fifo"),
            nix::sys::stat::Mode::from_bits_truncate(0o666),
        )
        .unwrap();
        let fifo = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(volume.join("host-fifo"))
            .unwrap();
        abstract_stream.set_nonblocking(true).unwrap();
        abstract_datagram.set_nonblocking(true).unwrap();
        file_listener.set_nonblocking(true).unwrap();
        Host {
            dir,
            canary,
            name,
            abstract_stream,
            abstract_datagram,
            file_listener,
            fifo,
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the guest with `options`; `volume` is where it finds the planted directory.
    fn run(&self, options: &[&str], volume: &str, only: &[&str]) -> Option<Output> {
        let mut program = guest("escape", Toolchain::Static)?;
        if options.contains(&"--rootfs") {
            let copy = self.path().join("vol/escape");
            if !copy.exists() {
                copy_program(&program, copy);
            }
            program = PathBuf::from("/escape");
        }
        let mut command = duet_command(options);
        command
            .arg(program)
            .arg(self.path().join("secret"))
            .arg(volume);
        command.arg(self.canary.id().to_string()).arg(&self.name);
        command
            .arg(fs::metadata("/").unwrap().dev().to_string())
            .args(only);
        Some(command_output(command, b""))
    }

    /// What the host sees afterwards.
    fn check(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut say = |happened: bool, what: &str| {
            if happened {
                wrong.push(what.to_string());
            }
        };
        say(
            self.path().join("canary").exists(),
            "a signal reached a process outside",
        );
        say(
            self.canary.try_wait().unwrap().is_some(),
            "a process outside was killed",
        );
        say(
            self.abstract_stream.accept().is_ok(),
            "the host's abstract stream socket was reached",
        );
        let mut byte = [0];
        say(
            self.abstract_datagram.recv(&mut byte).is_ok(),
            "the host's abstract datagram socket was reached",
        );
        say(
            self.file_listener.accept().is_ok(),
            "the host's socket file was reached",
        );
        say(
            self.path().join("moved").exists(),
            "a directory was moved out of the volume",
        );
        let secret = fs::metadata(self.path().join("secret")).unwrap();
        say(secret.nlink() != 1, "the secret was linked");
        for entry in fs::read_dir(self.path().join("vol")).unwrap() {
            let entry = entry.unwrap();
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            let name = entry.file_name();
            say(
                meta.file_type().is_block_device(),
                &format!("{name:?} is a real block device"),
            );
            say(
                meta.file_type().is_char_device() && meta.rdev() != 0,
                &format!("{name:?} is a real device"),
            );
            say(
                meta.is_file() && meta.mode() & 0o6000 != 0,
                &format!("{name:?} is really set-id"),
            );
        }
        wrong
    }

    /// The sockets of a volume are shared on purpose, read-only or not, as a mount shares them.
    fn shares_sockets(&self, mut output: Output) -> Output {
        while self.file_listener.accept().is_ok() {}
        output.stdout = output
            .stdout
            .replace("host_socket_file: escaped", "host_socket_file: refused");
        output
    }

    fn fifo_got(&mut self) -> bool {
        let mut byte = [0];
        self.fifo.read(&mut byte).is_ok_and(|n| n == 1)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.canary.kill();
        let _ = self.canary.wait();
    }
}

#[track_caller]
/// The ptrace engine keeps a socket in each process, by which that gets its descriptors.
fn is_engines(line: &str) -> bool {
    line == "stray_descriptors: escaped"
        && std::env::var_os("DUET_TEST_ENGINE").is_some_and(|e| e == "ptrace")
}

fn all_refused(output: Option<Output>, wrong: Vec<String>, test: &str) {
    let Some(output) = output else {
        return skip(test, "no gcc");
    };
    let bad: Vec<_> = output
        .stdout
        .lines()
        .filter(|l| !l.contains(": refused") && *l != "end" && !is_engines(l))
        .collect();
    assert!(
        bad.is_empty()
            && wrong.is_empty()
            && output.stdout.ends_with("end\n")
            && output.status == 0,
        "not refused: {bad:#?}\non the host: {wrong:#?}\nstatus {}\nstdout:\n{}\nstderr:\n{}",
        output.status,
        output.stdout,
        output.stderr
    );
}

#[test]
fn volume() {
    let mut host = Host::new();
    let volume = format!("{}:/vol", host.path().join("vol").display());
    let output = host.run(&["-v", &volume], "/vol", &[]);
    let output = output.map(|o| host.shares_sockets(o));
    let wrong = host.check();
    all_refused(output, wrong, "volume");
}

#[test]
fn read_only_volume() {
    let mut host = Host::new();
    let volume = format!("{}:/vol:ro", host.path().join("vol").display());
    let before = listing(&host.path().join("vol"));
    let output = host
        .run(&["-v", &volume], "/vol", &[])
        .map(|o| host.shares_sockets(o));
    let mut wrong = host.check();
    if listing(&host.path().join("vol")) != before {
        wrong.push("the read-only volume changed".into());
    }
    all_refused(output, wrong, "read_only_volume");
}

#[test]
fn throw_away_tree() {
    let mut host = Host::new();
    let tree = host.path().join("vol").display().to_string();
    let program = guest("escape", Toolchain::Static);
    let _ = program.map(|p| copy_program(p, host.path().join("vol/escape")));
    let before = listing(&host.path().join("vol"));
    let output = host.run(&["--rootfs", &tree], "/", &[]);
    let mut wrong = host.check();
    if host.fifo_got() {
        wrong.push("the host's FIFO was written to".into());
    }
    if listing(&host.path().join("vol")) != before {
        wrong.push("the tree under a throw-away layer changed".into());
    }
    all_refused(output, wrong, "throw_away_tree");
}

#[test]
fn writable_tree() {
    let mut host = Host::new();
    let tree = host.path().join("vol").display().to_string();
    let output = host.run(&["--rootfs", &tree, "--rw"], "/", &[]);
    let output = output.map(|o| host.shares_sockets(o));
    let wrong = host.check();
    all_refused(output, wrong, "writable_tree");
}

/// With the host's tree in view its files may be read, but not its sockets, FIFOs and devices.
#[test]
fn host_root() {
    let mut host = Host::new();
    let volume = host.path().join("vol").display().to_string();
    let only = [
        "host_socket_file",
        "host_abstract_socket",
        "host_fifo",
        "memory_devices",
        "made_device",
        "set_id_file",
        "hard_link",
        "rename_out",
        "sees_host_process",
        "traces",
        "memory_of_others",
        "descriptors_of_others",
        "signals_everyone",
        "init_survives",
        "joins_namespace",
        "kernel_settings",
        "privileged_calls",
        "file_handle",
        "stops_the_supervisor",
    ];
    let before = listing(&host.path().join("vol"));
    let output = host.run(&["--host-root"], &volume, &only);
    let output = output.map(|mut o| {
        // Linked in the throw-away layer: the copy there is readable, as the file itself is.
        o.stdout = o.stdout.replace("hard_link: escaped", "hard_link: refused");
        o
    });
    let mut wrong = host.check();
    if host.fifo_got() {
        wrong.push("the host's FIFO was written to".into());
    }
    if listing(&host.path().join("vol")) != before {
        wrong.push("the host's tree changed".into());
    }
    all_refused(output, wrong, "host_root");
}

#[test]
fn host_network() {
    let mut host = Host::new();
    let volume = format!("{}:/vol:ro", host.path().join("vol").display());
    let only = [
        "host_abstract_socket",
        "odd_sockets",
        "signals_everyone",
        "host_socket_file",
    ];
    let output = host
        .run(&["--network", "host", "-v", &volume], "/vol", &only)
        .map(|o| host.shares_sockets(o));
    let wrong = host.check();
    all_refused(output, wrong, "host_network");
}

/// `kill(0)` of a guest ends at the layer: the caller's process group is not reached.
#[test]
fn own_group() {
    let host = Host::new();
    let Some(program) = guest("escape", Toolchain::Static) else {
        return skip("own_group", "no gcc");
    };
    let mark = host.path().join("group-hit");
    let mut command = Command::new("sh");
    let script = "trap 'echo hit > \"$1\"' URG; shift; \"$@\"; true";
    command
        .args(["-c", script, "sh"])
        .arg(&mark)
        .arg(duet())
        .arg("run")
        .arg(program);
    command.args([
        "/none",
        "/none",
        &host.canary.id().to_string(),
        "none",
        "0",
        "signals_everyone",
    ]);
    let output = command_output(command, b"");
    assert_eq!(
        output.stdout, "signals_everyone: refused\nend\n",
        "{}",
        output.stderr
    );
    assert!(!mark.exists(), "the caller's group got the guest's signal");
}

/// Descriptors that the caller of duet left open are not the guest's.
#[test]
fn callers_descriptors() {
    let host = Host::new();
    let secret = fs::File::open(host.path().join("secret")).unwrap();
    let fd = secret.as_raw_fd();
    nix::fcntl::fcntl(
        &secret,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .unwrap();
    let output = host.run(&[], "/none", &["stray_descriptors"]);
    assert!(fd > 2);
    all_refused(output, vec![], "callers_descriptors");
}

/// Names, types, sizes, modes and owners below a directory.
fn listing(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let m = fs::symlink_metadata(&path).unwrap();
        let (ino, mode, size, uid, time) = (m.ino(), m.mode(), m.size(), m.uid(), m.mtime_nsec());
        let size = if m.is_dir() { 0 } else { size };
        // Who opens and writes a FIFO changes its times.
        let time = if m.file_type().is_fifo() { 0 } else { time };
        all.push(format!(
            "{} {ino} {mode:o} {size} {uid} {time}",
            path.display()
        ));
        if m.is_dir() {
            all.extend(listing(&path));
        }
    }
    all.sort();
    all
}

//! The world that the program sees: the tree as root, `/dev`, `/proc`, `/sys`, host name, network.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use duet_vm_protocol::Start;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::{chdir, chroot, sethostname};

use crate::{Named, Step, network};

/// Where the root is mounted before it becomes the root.
const NEW_ROOT: &str = "/root";

/// Mounts the tree and makes it the root of this process and its children.
pub fn enter(start: &Start) -> Step<()> {
    set_clock(start.time).named("setting the clock")?;
    let tag = start.root_tag.as_str();
    mount_at(tag, NEW_ROOT, "virtiofs", MsFlags::empty(), "")?;
    chdir(NEW_ROOT).named("entering the root")?;
    // As switch_root(8); an initramfs has no mount to pivot from.
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).named("moving the root")?;
    chroot(".").named("entering the root")?;
    chdir("/").named("entering the root")?;
    umask(Mode::empty());
    devices()?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at("proc", "/proc", "proc", plain, "")?;
    if start.sysfs {
        mount_at("sysfs", "/sys", "sysfs", plain | MsFlags::MS_RDONLY, "")?;
    }
    for path in &start.tmpfs {
        let at = OsStr::from_bytes(path);
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=1777"))
            .named(&format!("mounting a tmpfs at {}", at.to_string_lossy()))?;
    }
    if let Some(processes) = start.processes {
        limit_processes(processes)?;
    }
    sethostname(OsStr::from_bytes(&start.hostname)).named("setting the host name")?;
    network::up(start.network)?;
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

/// The host's time: a machine's own clock has seconds only.
fn set_clock(nanoseconds: u64) -> nix::Result<()> {
    const SECOND: u64 = 1_000_000_000;
    let seconds = i64::try_from(nanoseconds / SECOND).unwrap_or(i64::MAX);
    let rest = (nanoseconds % SECOND) as i64;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, rest))
}

fn mount_at(source: &str, at: &str, kind: &str, flags: MsFlags, data: &str) -> Step<()> {
    mount(Some(source), at, Some(kind), flags, Some(data))
        .named(&format!("mounting {kind} at {at}"))
}

/// Character devices that every program may expect, and their numbers
/// (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// A `/dev` like the layer's: nothing of the machine itself.
fn devices() -> Step<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_at("devtmpfs", "/dev", "tmpfs", flags, "mode=755,size=1m")?;
    for (name, major, minor) in DEVICES {
        let path = format!("/dev/{name}");
        let mode = Mode::from_bits_truncate(0o666);
        mknod(path.as_str(), SFlag::S_IFCHR, mode, makedev(major, minor)).named(&path)?;
    }
    for (target, name) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ] {
        symlink(target, name).named(name)?;
    }
    for name in ["/dev/pts", "/dev/shm"] {
        fs::create_dir(name).named(name)?;
    }
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount_at("devpts", "/dev/pts", "devpts", flags, options)?;
    let shm = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at("shm", "/dev/shm", "tmpfs", shm, "mode=1777")
}

/// Allows so many more processes and threads than there are: the kernel's own count too
/// (`/proc/sys/kernel/threads-max`).
fn limit_processes(more: u64) -> Step<()> {
    // The fourth field: runnable and all scheduling entities.
    let loadavg = fs::read_to_string("/proc/loadavg").named("/proc/loadavg")?;
    let all = loadavg.split(' ').nth(3).and_then(|f| f.split_once('/'));
    let present: u64 = all
        .and_then(|(_, all)| all.parse().ok())
        .ok_or("/proc/loadavg: has another form")?;
    // The agent's own threads come on top.
    let max = present.saturating_add(more).saturating_add(4);
    let path = "/proc/sys/kernel/threads-max";
    // The kernel has a ceiling of its own, which is then the limit.
    match fs::write(path, max.to_string()) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other.named(path),
    }
}

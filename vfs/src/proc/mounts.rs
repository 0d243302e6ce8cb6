//! `mounts`, `mountinfo` and `mountstats` in the kernel's formats (fs/proc_namespace.c, proc_mounts(5)).

use std::io::Write;

use crate::mount::{MountFlags, MountInfo};
use crate::walk::{Location, PathState};

/// Which of the three files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `/proc/PID/mounts`, the format of fstab(5).
    Mounts,
    /// `/proc/PID/mountinfo`
    MountInfo,
    /// `/proc/PID/mountstats`
    MountStats,
}

/// The mounts below `root`, one a line.
pub(super) fn render(format: Format, mounts: &[MountInfo], root: &Location) -> Vec<u8> {
    let mut out = Vec::with_capacity(mounts.len() * 64);
    for mount in mounts {
        let (path, PathState::Reachable) = mount.location.path(root) else {
            continue;
        };
        render_line(&mut out, format, mount, &path);
    }
    out
}

fn render_line(out: &mut Vec<u8>, format: Format, mount: &MountInfo, path: &[u8]) {
    let read_only = mount.flags.contains(MountFlags::RDONLY);
    let access = if read_only { "ro" } else { "rw" };
    let options = Options(mount.flags);
    let kind = mount.type_name;
    // Writing to a Vec cannot fail.
    let _ = match format {
        Format::Mounts => {
            escape(out, mount.source.as_bytes(), b" \t\n\\#");
            out.push(b' ');
            escape(out, path, b" \t\n\\");
            writeln!(out, " {kind} {access}{options},relatime 0 0")
        }
        Format::MountInfo => {
            let (major, minor) = (libc::major(mount.dev), libc::minor(mount.dev));
            let _ = write!(out, "{} {} {major}:{minor} ", mount.id, mount.parent);
            escape(out, &mount.root, b" \t\n\\");
            out.push(b' ');
            escape(out, path, b" \t\n\\");
            let _ = write!(out, " {access}{options},relatime - {kind} ");
            escape(out, mount.source.as_bytes(), b" \t\n\\#");
            writeln!(out, " {access}")
        }
        Format::MountStats => {
            out.extend_from_slice(b"device ");
            escape(out, mount.source.as_bytes(), b" \t\n\\#");
            out.extend_from_slice(b" mounted on ");
            escape(out, path, b" \t\n\\");
            writeln!(out, " with fstype {kind}")
        }
    };
}

/// The options behind `rw` or `ro`, each with its comma.
struct Options(MountFlags);

impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (flag, name) in [
            (MountFlags::NOSUID, ",nosuid"),
            (MountFlags::NODEV, ",nodev"),
            (MountFlags::NOEXEC, ",noexec"),
        ] {
            if self.0.contains(flag) {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

/// Writes `text` with the bytes of `special` as three octal digits behind a backslash.
fn escape(out: &mut Vec<u8>, text: &[u8], special: &[u8]) {
    for &b in text {
        if special.contains(&b) {
            let _ = write!(out, "\\{b:03o}");
        } else {
            out.push(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::tests::Sandbox;

    #[test]
    fn lines_are_the_kernels() {
        let sandbox = Sandbox::new();
        let mut mount = sandbox.vfs.mounts().remove(0);
        mount.id = 22;
        mount.parent = 27;
        mount.dev = libc::makedev(0, 21);
        mount.flags = MountFlags::NOSUID | MountFlags::RDONLY;
        mount.source = "a b#".into();
        mount.type_name = "tmpfs";
        let line = |format| {
            let mut out = Vec::new();
            render_line(&mut out, format, &mount, b"/with\\ \n");
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            line(Format::Mounts),
            "a\\040b\\043 /with\\134\\040\\012 tmpfs ro,nosuid,relatime 0 0\n"
        );
        assert_eq!(
            line(Format::MountInfo),
            "22 27 0:21 / /with\\134\\040\\012 ro,nosuid,relatime - tmpfs a\\040b\\043 ro\n"
        );
        assert_eq!(
            line(Format::MountStats),
            "device a\\040b\\043 mounted on /with\\134\\040\\012 with fstype tmpfs\n"
        );
    }

    #[test]
    fn only_what_the_root_reaches_is_listed() {
        let sandbox = Sandbox::new();
        let text = |root: &Location| {
            String::from_utf8(render(Format::Mounts, &sandbox.vfs.mounts(), root)).unwrap()
        };
        let all = text(&sandbox.vfs.root());
        assert!(all.contains(" / ") && all.contains(" /proc proc "), "{all}");
        let below = text(&sandbox.at("/proc/sys"));
        assert_eq!(below, "");
    }
}

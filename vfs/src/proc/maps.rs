//! `/proc/PID/maps` and `smaps` (proc_pid_maps(5)): host files appear as the nodes of the tree that
//! they back, and what the guest has no business with does not appear.

use std::io::Write;

use crate::inode::BackingId;

/// What the guest is told of a file that it has open or mapped and that is no node of the tree.
pub(super) enum HostText {
    /// The kernel's text: it names nothing of the host's tree.
    Harmless,
    /// Duet's own: not mentioned at all where that is possible.
    Duet,
    /// A path of the host: not told.
    Path,
}

/// Judges the text of a descriptor's link or of a mapping.
pub(super) fn judge(text: &[u8]) -> HostText {
    if text.starts_with(b"/memfd:duet") {
        return HostText::Duet;
    }
    let path = text.strip_suffix(b" (deleted)").unwrap_or(text);
    let deleted = path.len() != text.len();
    let harmless = match path {
        b"/dev/null" | b"/dev/zero" | b"/dev/full" | b"/dev/random" | b"/dev/urandom"
        | b"/dev/tty" | b"/dev/ptmx" | b"/dev/pts/ptmx" | b"/dev/console" => true,
        b"/[aio]" | b"/anon_hugepage" => deleted,
        _ => {
            let digits = |rest: &[u8]| rest.iter().all(u8::is_ascii_digit);
            deleted && path.starts_with(b"/memfd:")
                || path.strip_prefix(b"/dev/pts/").is_some_and(digits)
                || deleted
                    && path
                        .strip_prefix(b"/SYSV")
                        .is_some_and(|r| r.len() == 8 && r.iter().all(u8::is_ascii_hexdigit))
                || path.starts_with(b"anon_inode:")
                || is_kernel_object(path)
        }
    };
    if harmless {
        HostText::Harmless
    } else {
        HostText::Path
    }
}

/// Whether `text` is of the form `pipe:[123]`.
fn is_kernel_object(text: &[u8]) -> bool {
    let Some(at) = text.iter().position(|&b| b == b':') else {
        return false;
    };
    let (kind, id) = text.split_at(at);
    let number = id.strip_prefix(b":[").and_then(|id| id.strip_suffix(b"]"));
    kind.iter().all(|b| b.is_ascii_lowercase() || *b == b'_')
        && number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
}

/// A mapped node of the tree.
#[derive(Clone)]
pub(super) struct Mapped {
    /// `st_dev`
    pub(super) dev: u64,
    /// `st_ino`
    pub(super) ino: u64,
    /// The path that the reader sees.
    pub(super) path: Vec<u8>,
}

/// The head of one mapping: `start-end perms offset dev inode  path`.
struct Header<'a> {
    /// Up to and with the blank before the device.
    place: &'a [u8],
    id: BackingId,
    path: &'a [u8],
}

/// Rewrites the text of `maps` or `smaps`; `locate` tells which node a host file backs, known by
/// its identity and the path that the kernel shows.
pub(super) fn rewrite(
    host: &[u8],
    locate: &mut dyn FnMut(BackingId, &[u8]) -> Option<Mapped>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(host.len() + 64);
    let mut hidden = false;
    // The segments of a file follow one another.
    let mut last: Option<(BackingId, Option<Mapped>)> = None;
    for line in host.split_inclusive(|&b| b == b'\n') {
        let Some(header) = parse(line.strip_suffix(b"\n").unwrap_or(line)) else {
            // A line of `smaps` about the mapping before.
            if !hidden {
                out.extend_from_slice(line);
            }
            continue;
        };
        hidden = false;
        if header.id.ino == 0 {
            // Anonymous memory: `[heap]`, `[anon:NAME]` or nothing.
            out.extend_from_slice(line);
            continue;
        }
        let mapped = match &last {
            Some((id, mapped)) if *id == header.id => mapped,
            _ => &last.insert((header.id, locate(header.id, header.path))).1,
        };
        match (mapped, judge(header.path)) {
            (Some(m), _) => write_header(&mut out, header.place, m.dev, m.ino, &m.path),
            (None, HostText::Harmless) => out.extend_from_slice(line),
            (None, HostText::Duet) => hidden = true,
            (None, HostText::Path) => write_header(&mut out, header.place, 0, 0, b"/[unknown]"),
        }
    }
    out
}

/// Writes a head as the kernel's `show_map_vma` does: the path stands in column 73.
fn write_header(out: &mut Vec<u8>, place: &[u8], dev: u64, ino: u64, path: &[u8]) {
    let start = out.len();
    out.extend_from_slice(place);
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{major:02x}:{minor:02x} {ino} ");
    let width = out.len() - start;
    out.resize(out.len() + 72usize.saturating_sub(width) + 1, b' ');
    for &b in path {
        if b == b'\n' {
            out.extend_from_slice(b"\\012");
        } else {
            out.push(b);
        }
    }
    out.push(b'\n');
}

/// Splits the head of a mapping; `None` if `line` is none.
fn parse(line: &[u8]) -> Option<Header<'_>> {
    let (range, rest) = token(line)?;
    let at = range.iter().position(|&b| b == b'-')?;
    hex(range.get(..at)?)?;
    hex(range.get(at + 1..)?)?;
    let (perms, rest) = token(rest)?;
    if perms.len() != 4 {
        return None;
    }
    let (_offset, rest) = token(rest)?;
    let place = line.get(..line.len() - rest.len())?;
    let (dev, rest) = token(rest)?;
    let at = dev.iter().position(|&b| b == b':')?;
    let major = u32::try_from(hex(dev.get(..at)?)?).ok()?;
    let minor = u32::try_from(hex(dev.get(at + 1..)?)?).ok()?;
    let (ino, path) = token(rest).unwrap_or((rest, b""));
    let ino = std::str::from_utf8(ino).ok()?.parse().ok()?;
    let id = BackingId {
        dev: libc::makedev(major, minor),
        ino,
    };
    Some(Header {
        place,
        id,
        path: path.trim_ascii_start(),
    })
}

/// What stands before the first blank, and what behind it.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&b| b == b' ')?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBC: BackingId = BackingId {
        dev: libc::makedev(0xfe, 0),
        ino: 42,
    };

    fn locate(id: BackingId, _path: &[u8]) -> Option<Mapped> {
        (id == LIBC).then(|| Mapped {
            dev: libc::makedev(0, 0x20),
            ino: 7,
            path: b"/lib/li\nbc.so".to_vec(),
        })
    }

    fn rewritten(host: &str) -> String {
        String::from_utf8(rewrite(host.as_bytes(), &mut locate)).unwrap()
    }

    #[test]
    fn the_columns_are_the_kernels() {
        let line = "55fe99d2c000-55fe99d2e000 r--p 00000000 fe:00 42 \
                    \x20                       /home/me/root/lib/libc.so\n";
        assert_eq!(
            rewritten(line),
            "55fe99d2c000-55fe99d2e000 r--p 00000000 00:20 7                          \
             /lib/li\\012bc.so\n"
        );
        // A head rewritten to itself is unchanged.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let exe = maps.lines().next().unwrap();
        let header = parse(exe.as_bytes()).unwrap();
        let mut same = Vec::new();
        write_header(
            &mut same,
            header.place,
            header.id.dev,
            header.id.ino,
            header.path,
        );
        assert_eq!(String::from_utf8(same).unwrap(), format!("{exe}\n"));
    }

    #[test]
    fn host_paths_and_the_stub_do_not_show() {
        let text = rewritten(
            "1000-2000 r-xp 00000000 fe:00 9                                /home/me/secret\n\
             Size:                  4 kB\n\
             2000-3000 r-xp 00000000 00:01 10                               /memfd:duet-stub (deleted)\n\
             Size:                  8 kB\n\
             3000-4000 rw-p 00000000 00:00 0 \n\
             Size:                 16 kB\n\
             4000-5000 rw-p 00000000 00:00 0                                [heap]\n\
             5000-6000 rw-s 00000000 00:01 11                               /memfd:mine (deleted)\n",
        );
        assert!(!text.contains("secret") && !text.contains("stub") && !text.contains(" 8 kB"));
        assert!(text.contains("/[unknown]") && text.contains("16 kB") && text.contains("[heap]"));
        assert!(text.contains("/memfd:mine (deleted)") && text.contains(" 4 kB"));
    }

    #[test]
    fn only_harmless_texts_pass() {
        for good in [
            "pipe:[1]",
            "socket:[77]",
            "net:[4026531840]",
            "anon_inode:[eventfd]",
            "/dev/null",
            "/dev/pts/3",
            "/dev/pts/3 (deleted)",
            "/memfd:x (deleted)",
            "/SYSV0000002a (deleted)",
            "/dev/zero (deleted)",
            "pid_for_children:[1]",
        ] {
            assert!(
                matches!(judge(good.as_bytes()), HostText::Harmless),
                "{good}"
            );
        }
        for bad in [
            "/etc/passwd",
            "/dev/sda",
            "/dev/pts/../sda",
            "/memfd:x",
            "/SYSVx (deleted)",
            "pipe:[]",
            "/a:[1]",
            "",
            "/anon_hugepage",
            "/home/x (deleted)",
        ] {
            assert!(matches!(judge(bad.as_bytes()), HostText::Path), "{bad}");
        }
    }

    #[test]
    fn random_bytes_do_no_harm() {
        super::super::tests::for_random_bytes(b"0123-af :rwxp\n/memfd:duet[]", |bytes| {
            rewrite(bytes, &mut locate);
            judge(bytes);
        });
    }
}

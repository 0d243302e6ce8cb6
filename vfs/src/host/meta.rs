//! Virtual ownership: what the host user may not set on a node is kept beside it.
//!
//! The record stands in the extended attribute `user.duet.meta` of a regular file or directory, as
//! text: `1:MODE:UID:GID:MAJOR:MINOR`, the mode in octal and with its type bits, the rest decimal.

use std::ffi::CStr;
use std::io::Write;

use super::sys::Stat;

/// The attribute's name.
pub(super) const META: &CStr = c"user.duet.meta";

/// Mark on a directory in which regular files may be stand-ins of other types.
pub(super) const NODES: &CStr = c"user.duet.nodes";

/// Longest record accepted.
pub(super) const MAX: usize = 96;

/// Owner, mode and device of a node as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// `S_IFMT | 07777`
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u64,
}

impl Meta {
    /// The record as text, in `buf`.
    pub(super) fn encode(self, buf: &mut [u8; MAX]) -> &[u8] {
        let (major, minor) = (libc::major(self.rdev), libc::minor(self.rdev));
        let mut rest = &mut buf[..];
        // Six numbers of at most 11 characters and five separators always fit.
        let _ = write!(
            rest,
            "1:{:o}:{}:{}:{major}:{minor}",
            self.mode, self.uid, self.gid
        );
        let left = rest.len();
        &buf[..MAX - left]
    }

    /// Reads a record; `None` if it is of another version or malformed.
    pub(super) fn decode(text: &[u8]) -> Option<Meta> {
        let mut fields = std::str::from_utf8(text).ok()?.split(':');
        if fields.next()? != "1" {
            return None;
        }
        let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
        let mut number = || fields.next()?.parse::<u32>().ok();
        let (uid, gid, major, minor) = (number()?, number()?, number()?, number()?);
        let known = mode & !(libc::S_IFMT | 0o7777) == 0;
        (known && fields.next().is_none()).then(|| Meta {
            mode,
            uid,
            gid,
            rdev: libc::makedev(major, minor),
        })
    }
}

/// Which host owner is shown to the guest as somebody else, by default as root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Host user shown as another.
    pub uid: Option<u32>,
    /// Host group shown as another.
    pub gid: Option<u32>,
    /// The user and group that they are shown as.
    pub shown: (u32, u32),
}

impl IdMap {
    /// The invoking user, unless it is root, is the guest's root.
    pub fn invoking_user() -> IdMap {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        if uid.is_root() {
            IdMap::default()
        } else {
            IdMap {
                uid: Some(uid.as_raw()),
                gid: Some(gid.as_raw()),
                shown: (0, 0),
            }
        }
    }

    /// The same owner, shown as this user and group.
    pub fn shown_as(self, uid: u32, gid: u32) -> IdMap {
        IdMap {
            shown: (uid, gid),
            ..self
        }
    }

    /// What a node without a record is shown as.
    pub(super) fn natural(&self, stat: &Stat) -> Meta {
        Meta {
            mode: stat.mode,
            uid: if self.uid == Some(stat.uid) {
                self.shown.0
            } else {
                stat.uid
            },
            gid: if self.gid == Some(stat.gid) {
                self.shown.1
            } else {
                stat.gid
            },
            rdev: stat.rdev,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_round_trip_and_hostile_text_does_not() {
        let meta = Meta {
            mode: 0o104755,
            uid: u32::MAX,
            gid: 7,
            rdev: libc::makedev(4095, 1 << 19),
        };
        let mut buf = [0; MAX];
        assert_eq!(Meta::decode(meta.encode(&mut buf)), Some(meta));
        let bad: [&[u8]; 8] = [
            b"",
            b"1",
            b"2:100644:0:0:0:0",
            b"1:9:0:0:0:0",
            b"1:100644:0:0:0:0:0",
            b"1:100644:-1:0:0:0",
            b"1:777777777:0:0:0:0",
            b"\xff:1",
        ];
        for text in bad {
            assert_eq!(Meta::decode(text), None, "{text:?}");
        }
    }
}

//! What a run wrote: a description of each file, small enough to keep, with which two runs are compared.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use sha2::{Digest, Sha256};

use crate::session;

/// Bytes of a file's beginning that are kept, for showing what differs.
const HEAD: usize = 64 << 10;
/// Files that are kept by name; of those beyond, it is known whether they are the same.
const MOST: usize = 20_000;
/// Bytes kept of all files together, and as many of their names: a program can make paths as long as it
/// likes.
const KEPT: usize = 8 << 20;

/// A SHA-256.
pub type Sum = [u8; 32];

/// Bytes of which the whole is known by its sum, and the beginning as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Its length.
    pub length: u64,
    /// SHA-256 of all; of a file, of what is not zero in it.
    pub sum: Sum,
    /// As much of it as is kept.
    pub head: Vec<u8>,
}

impl Content {
    /// Equal for equal bytes.
    pub fn digest(&self) -> Sum {
        let sum = Sha256::new().chain_update(self.length.to_le_bytes());
        sum.chain_update(self.sum).finalize().into()
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It was there and is no more.
    Removed,
    /// It is there.
    There {
        /// Type and permissions, as stat(2) has them.
        mode: u32,
        /// Owner and group.
        owner: (u32, u32),
        /// Major and minor number of a device.
        device: Option<(u32, u32)>,
        /// Of a regular file.
        content: Option<Content>,
        /// Of a symbolic link.
        target: Option<PathBuf>,
    },
    /// It cannot be read: why.
    Unreadable(String),
}

/// Adds bytes of any length, so that two texts are not taken for one.
fn feed(sum: &mut Sha256, bytes: &[u8]) {
    sum.update((bytes.len() as u64).to_le_bytes());
    sum.update(bytes);
}

impl Entry {
    fn feed(&self, sum: &mut Sha256) {
        match self {
            Entry::Removed => sum.update([0]),
            Entry::Unreadable(why) => {
                sum.update([1]);
                feed(sum, why.as_bytes());
            }
            Entry::There {
                mode,
                owner,
                device,
                content,
                target,
            } => {
                sum.update([2]);
                for n in [*mode, owner.0, owner.1] {
                    sum.update(n.to_le_bytes());
                }
                sum.update([u8::from(device.is_some())]);
                let (major, minor) = device.unwrap_or_default();
                sum.update(major.to_le_bytes());
                sum.update(minor.to_le_bytes());
                sum.update([u8::from(content.is_some())]);
                if let Some(content) = content {
                    sum.update(content.digest());
                }
                sum.update([u8::from(target.is_some())]);
                if let Some(target) = target {
                    feed(sum, target.as_os_str().as_bytes());
                }
            }
        }
    }

    /// Whether both are the same for a comparison; of contents the kept beginning does not count.
    pub fn same(&self, other: &Entry) -> bool {
        let digest = |e: &Entry| {
            let mut sum = Sha256::new();
            e.feed(&mut sum);
            sum.finalize()
        };
        digest(self) == digest(other)
    }
}

/// All that a run wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    entries: BTreeMap<PathBuf, Entry>,
    /// Those beyond the most: how many, and what they come to.
    more: u64,
    rest: Sum,
    kept: usize,
    names: usize,
}

impl Files {
    /// Notes a file.
    pub fn add(&mut self, path: PathBuf, mut entry: Entry) {
        let name = path.as_os_str().len();
        if self.entries.len() >= MOST || self.names + name > KEPT {
            self.more += 1;
            let mut sum = Sha256::new();
            feed(&mut sum, path.as_os_str().as_bytes());
            entry.feed(&mut sum);
            // In any order.
            let one = sum.finalize();
            self.rest.iter_mut().zip(one).for_each(|(a, b)| *a ^= b);
            return;
        }
        self.names += name;
        if let Entry::There {
            content: Some(c), ..
        } = &mut entry
        {
            if self.kept + c.head.len() > KEPT {
                c.head = Vec::new();
            }
            self.kept += c.head.len();
        }
        self.entries.insert(path, entry);
    }

    /// Equal for what is the same: names, types, modes, owners, contents, targets.
    pub fn digest(&self) -> Sum {
        let mut sum = Sha256::new();
        sum.update(self.more.to_le_bytes());
        sum.update(self.rest);
        for (path, entry) in &self.entries {
            feed(&mut sum, path.as_os_str().as_bytes());
            entry.feed(&mut sum);
        }
        sum.finalize().into()
    }

    /// By path.
    pub fn entries(&self) -> &BTreeMap<PathBuf, Entry> {
        &self.entries
    }

    /// How many were not kept.
    pub fn more(&self) -> u64 {
        self.more
    }
}

/// Gathers bytes as they come.
pub struct Gather {
    length: u64,
    sum: Sha256,
    head: Vec<u8>,
    most: usize,
}

impl Gather {
    /// Keeps at most that many bytes as they are.
    pub fn new(most: usize) -> Gather {
        Gather {
            length: 0,
            sum: Sha256::new(),
            head: Vec::new(),
            most,
        }
    }

    /// Takes more of them.
    pub fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.sum.update(bytes);
        let room = self.most.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(room));
    }

    /// All that came.
    pub fn finish(self) -> Content {
        Content {
            length: self.length,
            sum: self.sum.finalize().into(),
            head: self.head,
        }
    }
}

/// Describes a file.
pub fn describe(path: &Path, metadata: &Metadata) -> Entry {
    let Shown {
        mode,
        owner,
        device,
    } = shown(path, metadata);
    let is = |kind: u32| mode & libc::S_IFMT == kind;
    let device = (is(libc::S_IFCHR) || is(libc::S_IFBLK)).then_some(device);
    let content = match is(libc::S_IFREG) {
        true => match read(path) {
            Ok(content) => Some(content),
            Err(e) => return Entry::Unreadable(e.to_string()),
        },
        false => None,
    };
    let target = match metadata.is_symlink() {
        true => std::fs::read_link(path).ok(),
        false => None,
    };
    Entry::There {
        mode,
        owner,
        device,
        content,
        target,
    }
}

struct Shown {
    mode: u32,
    owner: (u32, u32),
    device: (u32, u32),
}

/// Type, mode and owner as a guest sees them: what Duet could not set is kept beside the file.
fn shown(path: &Path, metadata: &Metadata) -> Shown {
    let rdev = metadata.rdev();
    let own = Shown {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        device: (libc::major(rdev), libc::minor(rdev)),
    };
    if !metadata.is_file() && !metadata.is_dir() {
        return own;
    }
    let record = xattr::get(path, "user.duet.meta").ok().flatten();
    let record = record.and_then(|r| String::from_utf8(r).ok());
    let parsed = record.and_then(|r| {
        let mut fields = r.split(':').skip(1);
        let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
        let mut number = || fields.next()?.parse().ok();
        Some(Shown {
            mode,
            owner: (number()?, number()?),
            device: (number()?, number()?),
        })
    });
    parsed.unwrap_or(own)
}

/// Bytes of a file that are looked at together. Those that are all zero, in a hole or not, do not count.
const BLOCK: usize = 4096;

/// Reads a file. Its sum is of the blocks that are not zero, each behind its place, so that holes are not
/// read: two files have the same if they have the same bytes. Fails if a signal waits for this process.
fn read(path: &Path) -> std::io::Result<Content> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let mut head = vec![0; HEAD];
    let mut kept = 0;
    while let Some(room) = head.get_mut(kept..).filter(|r| !r.is_empty()) {
        match file.read_at(room, kept as u64)? {
            0 => break,
            n => kept += n,
        }
    }
    head.truncate(kept);
    let mut sum = Sha256::new();
    let mut blocks = vec![0; 16 * BLOCK];
    let mut at = 0;
    while let Some(data) = next_data(&file, at)? {
        if session::is_interrupted() {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        // Of a hole's end, which lies anywhere, the whole block.
        let data = at.max(data - data % BLOCK as u64);
        let mut length = 0;
        while let Some(room) = blocks.get_mut(length..).filter(|r| !r.is_empty()) {
            match file.read_at(room, data + length as u64)? {
                0 => break,
                n => length += n,
            }
        }
        if length == 0 {
            break;
        }
        for (i, block) in blocks[..length].chunks(BLOCK).enumerate() {
            if block.iter().any(|&b| b != 0) {
                sum.update((data + (i * BLOCK) as u64).to_le_bytes());
                sum.update(block);
            }
        }
        at = data + length as u64;
    }
    Ok(Content {
        length: file.metadata()?.len(),
        sum: sum.finalize().into(),
        head,
    })
}

/// The first byte at or behind `at` that is in no hole.
fn next_data(file: &File, at: u64) -> std::io::Result<Option<u64>> {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    match lseek(file, at, Whence::SeekData) {
        Ok(data) => Ok(u64::try_from(data).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_told_apart_by_its_sum() {
        let gather = |text: &[u8]| {
            let mut g = Gather::new(2);
            text.chunks(3).for_each(|c| g.add(c));
            g.finish()
        };
        let (a, b) = (gather(b"abcdefg"), gather(b"abcdefG"));
        assert_eq!((a.length, a.head.as_slice()), (7, &b"ab"[..]));
        assert_eq!(a.head, b.head);
        assert_ne!(a, b);
    }

    #[test]
    fn files_beyond_the_most_are_told_apart_too() {
        let of = |last: Entry, order: [&str; 2]| {
            let mut files = Files::default();
            let long = "x".repeat(KEPT - 10);
            files.add(long.into(), Entry::Removed);
            for name in order {
                files.add(format!("a long name {name}").into(), last.clone());
            }
            assert_eq!((files.entries().len(), files.more()), (1, 2));
            files.digest()
        };
        let first = of(Entry::Removed, ["1", "2"]);
        assert_eq!(first, of(Entry::Removed, ["2", "1"]));
        assert_ne!(first, of(Entry::Unreadable("why".into()), ["1", "2"]));
        assert_ne!(first, of(Entry::Removed, ["1", "3"]));
    }

    #[test]
    fn holes_are_zeros_and_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, pieces: &[(u64, &[u8])], length: u64| {
            let path = dir.path().join(name);
            let file = File::create(&path).unwrap();
            for (at, bytes) in pieces {
                file.write_all_at(bytes, *at).unwrap();
            }
            file.set_len(length).unwrap();
            read(&path).unwrap()
        };
        let holes = make("holes", &[(5000, b"x"), (1 << 20, b"end")], (1 << 20) + 3);
        let zeros = make(
            "zeros",
            &[(0, &[0; 1 << 20]), (5000, b"x"), (1 << 20, b"end")],
            (1 << 20) + 3,
        );
        assert_eq!(holes, zeros);
        assert_eq!((holes.head.len(), holes.head[5000]), (HEAD, b'x'));
        let moved = make("moved", &[(5001, b"x"), (1 << 20, b"end")], (1 << 20) + 3);
        assert_ne!(holes.sum, moved.sum);
        let later = make(
            "later",
            &[(5000 + 4096, b"x"), (1 << 20, b"end")],
            (1 << 20) + 3,
        );
        assert_ne!(holes.sum, later.sum);
        // More than can be read in a lifetime.
        let huge = make("huge", &[(3, b"x")], 1 << 42);
        assert_eq!(huge.length, 1 << 42);
        let small = make("small", &[(0, b"short")], 5);
        assert_eq!((small.length, small.head.as_slice()), (5, &b"short"[..]));
    }
}

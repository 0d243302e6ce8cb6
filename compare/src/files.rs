//! What a run wrote: a description of each file, small enough to keep, with which two runs are compared.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bytes of a file's beginning that are kept, for showing what differs.
const HEAD: usize = 64 << 10;
/// Files that are told apart by name; what is beyond is counted only.
const MOST: usize = 20_000;
/// Bytes kept of all files together.
const KEPT: usize = 8 << 20;

/// Bytes of which the whole is known by its sum, and the beginning as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Its length.
    pub length: u64,
    /// SHA-256 of all.
    pub sum: [u8; 32],
    /// As much of it as is kept.
    pub head: Vec<u8>,
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

/// All that a run wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    entries: BTreeMap<PathBuf, Entry>,
    /// Those beyond the most.
    more: u64,
    kept: usize,
}

impl Files {
    /// Notes a file.
    pub fn add(&mut self, path: PathBuf, mut entry: Entry) {
        if self.entries.len() >= MOST {
            self.more += 1;
            return;
        }
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

    /// By path.
    pub fn entries(&self) -> &BTreeMap<PathBuf, Entry> {
        &self.entries
    }

    /// How many were not noted.
    pub fn more(&self) -> u64 {
        self.more
    }

    /// Bytes in all of them.
    pub fn size(&self) -> u64 {
        let contents = self.entries.values().filter_map(|e| match e {
            Entry::There { content, .. } => content.as_ref(),
            _ => None,
        });
        contents.map(|c| c.length).sum()
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

fn read(path: &Path) -> std::io::Result<Content> {
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let mut gather = Gather::new(HEAD);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(gather.finish()),
            Ok(n) => gather.add(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
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
}

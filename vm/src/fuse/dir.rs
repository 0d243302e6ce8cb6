//! Listings of directories.

use duet_vfs::{DirEntry, Errno, Location, Result};
use zerocopy::IntoBytes;

use super::abi::*;
use super::args::Args;
use super::io::Segments;
use super::{Answer, MAX_WRITE, Server, is_exclusive};

/// Bytes that an entry with this name takes behind `fixed` bytes: entries are aligned to eight.
fn entry_size(fixed: usize, name: &[u8]) -> usize {
    (fixed + name.len()).next_multiple_of(8)
}

impl Server {
    /// Listings need no handle: they continue from the offset alone.
    pub(super) fn opendir(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let _: OpenIn = args.take()?;
        let place = self.directory(node)?;
        let open_flags = if is_exclusive(&place) {
            FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE
        } else {
            0
        };
        Ok(Answer::of(&OpenOut {
            fh: 0,
            open_flags,
            padding: 0,
        }))
    }

    /// The entries behind `offset` that fit into `room` bytes, `fixed` bytes each besides the name.
    fn list(
        &self,
        place: &Location,
        offset: u64,
        fixed: usize,
        room: usize,
    ) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        let mut left = room;
        let mut full = false;
        self.as_root(|cx| {
            self.vfs.read_dir(cx, place, offset, &mut |entry| {
                let size = entry_size(fixed, &entry.name);
                full |= size > left;
                if full {
                    return false;
                }
                left -= size;
                entries.push(entry);
                true
            })
        })?;
        if full && entries.is_empty() {
            return Err(Errno::EINVAL);
        }
        Ok(entries)
    }

    fn push(out: &mut Vec<u8>, entry: &DirEntry) {
        let dirent = Dirent {
            ino: entry.ino,
            off: entry.next,
            namelen: entry.name.len() as u32,
            kind: entry.kind.map_or(0, |k| u32::from(k.dirent_type())),
        };
        out.extend_from_slice(dirent.as_bytes());
        out.extend_from_slice(&entry.name);
        out.resize(out.len().next_multiple_of(8), 0);
    }

    pub(super) fn readdir(
        &self,
        node: u64,
        args: &mut Args<'_>,
        reply: &Segments<'_>,
    ) -> Result<Answer> {
        let read: ReadIn = args.take()?;
        let room = (read.size.min(MAX_WRITE) as usize).min(reply.len());
        let place = self.directory(node)?;
        let mut out = Vec::new();
        for entry in self.list(&place, read.offset, size_of::<Dirent>(), room)? {
            Server::push(&mut out, &entry);
        }
        Ok(Answer::Bytes(out))
    }

    pub(super) fn readdirplus(
        &self,
        node: u64,
        args: &mut Args<'_>,
        reply: &Segments<'_>,
    ) -> Result<Answer> {
        let read: ReadIn = args.take()?;
        let room = (read.size.min(MAX_WRITE) as usize).min(reply.len());
        let place = self.directory(node)?;
        let fixed = size_of::<EntryOut>() + size_of::<Dirent>();
        let mut out = Vec::new();
        for entry in self.list(&place, read.offset, fixed, room)? {
            let known = match &entry.name[..] {
                // The guest's kernel knows these, and passes over an entry without a node.
                b"." | b".." => EntryOut::default(),
                // So it does with what is gone by now, or cannot be looked up.
                name => self
                    .child(&place, name)
                    .and_then(|found| self.entry(&place, Some((node, name)), &found))
                    .unwrap_or_default(),
            };
            out.extend_from_slice(known.as_bytes());
            Server::push(&mut out, &entry);
        }
        Ok(Answer::Bytes(out))
    }
}

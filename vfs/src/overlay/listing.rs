//! Listing a directory.
//!
//! A directory with an upper part only is listed as that is. One with lower parts is read as a whole
//! and its entries numbered; a name keeps its number as long as it exists, so that a reader continues
//! at the right place whatever is made or removed meanwhile, by any number of readers.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::inode::OverlayInode;
use super::marks;
use crate::inode::{DentryPolicy, Inode, NoCaller};
use crate::types::*;

/// Entries handed on in one go, without the lock.
const BATCH: usize = 256;

/// One entry.
#[derive(Clone)]
struct Slot {
    ino: u64,
    kind: Option<FileType>,
    name: Arc<[u8]>,
}

/// The entries of a directory by number.
#[derive(Default)]
pub(super) struct Listing {
    slots: BTreeMap<u64, Slot>,
    numbers: HashMap<Arc<[u8]>, u64>,
    last: u64,
}

impl Listing {
    fn insert(&mut self, slot: Slot) {
        let number = *self.numbers.entry(slot.name.clone()).or_insert_with(|| {
            self.last += 1;
            self.last
        });
        self.slots.insert(number, slot);
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(number) = self.numbers.remove(name) {
            self.slots.remove(&number);
        }
    }

    /// Brings the listing to what has been read just now.
    fn update(&mut self, read: HashMap<Arc<[u8]>, Option<Slot>>, order: Vec<Arc<[u8]>>) {
        let shown = |name: &Arc<[u8]>| read.get(name).is_some_and(Option::is_some);
        let gone: Vec<_> = self
            .numbers
            .keys()
            .filter(|name| !shown(name))
            .cloned()
            .collect();
        for name in gone {
            self.remove(&name);
        }
        for name in order {
            if let Some(Some(slot)) = read.get(&name) {
                self.insert(slot.clone());
            }
        }
    }
}

/// Whether an entry of an underlying directory hides its name.
fn is_whiteout(dir: &dyn Inode, entry: &DirEntry, marked: bool) -> Result<bool> {
    match entry.kind {
        Some(FileType::CharDevice) | None => (),
        Some(FileType::Regular) if marked => (),
        _ => return Ok(false),
    }
    match dir.lookup(&entry.name, &NoCaller) {
        Ok(node) => marks::is_whiteout(&*node, marked),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

impl OverlayInode {
    /// Reads the entries of all parts. The caller holds `names` and `listing`.
    fn read_parts(&self, listing: &mut Listing) -> Result<()> {
        let mut read: HashMap<Arc<[u8]>, Option<Slot>> = HashMap::new();
        let mut order = Vec::new();
        let upper = self.upper().map(|dir| (dir, false));
        let lower = self
            .lower
            .iter()
            .map(|l| (l.dir.clone(), l.marked_whiteouts));
        let mut twice = Vec::new();
        for (dir, marked) in upper.into_iter().chain(lower) {
            let dev = dir.attr()?.dev;
            let mut failed = Ok(());
            dir.read_dir(0, &NoCaller, &mut |entry| {
                if let Some(known) = read.get(&entry.name[..]) {
                    if let Some(slot) = known {
                        twice.push(slot.name.clone());
                    }
                    return true;
                }
                let hidden = match is_whiteout(&*dir, &entry, marked) {
                    Ok(hidden) => hidden,
                    Err(e) => {
                        failed = Err(e);
                        return false;
                    }
                };
                let name: Arc<[u8]> = entry.name.into();
                let slot = (!hidden).then(|| Slot {
                    ino: self.layers.ino(dev, entry.ino),
                    kind: entry.kind,
                    name: name.clone(),
                });
                if slot.is_some() {
                    order.push(name.clone());
                }
                read.insert(name, slot);
                true
            })?;
            failed?;
        }
        // A node with several parts may show another number than its topmost part has.
        for name in twice {
            if let Some(child) = self.instantiate(&name)?
                && let Some(Some(slot)) = read.get_mut(&name)
            {
                slot.ino = child.attr()?.ino;
            }
        }
        listing.update(read, order);
        Ok(())
    }

    /// Gives `child` the inode number under which it has been listed: that of the lower file which it
    /// was copied from, if nobody has held the inode since.
    pub(super) fn keep_number(&self, name: &[u8], child: &OverlayInode) {
        if self.lower.is_empty() || child.kind == FileType::Directory {
            return;
        }
        let listing = self.listing.lock();
        if let Some(listing) = listing.as_ref()
            && let Some(slot) = listing.numbers.get(name).and_then(|n| listing.slots.get(n))
        {
            child.fix_number(slot.ino);
        }
    }

    /// Enters a name just made. The caller holds `names`.
    pub(super) fn note_entry(&self, name: &[u8], child: &OverlayInode) {
        let mut listing = self.listing.lock();
        if let Some(entries) = listing.as_mut() {
            match child.attr() {
                Ok(attr) => entries.insert(Slot {
                    ino: attr.ino,
                    kind: Some(child.kind),
                    name: name.into(),
                }),
                Err(_) => *listing = None,
            }
        }
    }

    /// Drops a name just removed. The caller holds `names`.
    pub(super) fn forget_entry(&self, name: &[u8]) {
        if let Some(listing) = self.listing.lock().as_mut() {
            listing.remove(name);
        }
    }

    /// Whether the directory shows no entry. The caller holds `names`.
    pub(super) fn is_empty(&self) -> Result<bool> {
        let mut empty = true;
        if self.lower.is_empty() {
            self.list_upper(0, &mut |_| {
                empty = false;
                false
            })?;
        } else {
            let mut listing = self.listing.lock();
            if listing.is_none() || self.changes_by_itself() {
                self.read_parts(listing.get_or_insert_default())?;
            }
            empty = listing.as_ref().is_none_or(|l| l.slots.is_empty());
        }
        Ok(empty)
    }

    /// Whether others may change the upper tree.
    fn changes_by_itself(&self) -> bool {
        self.layers.upper_fs.dentry_policy() != DentryPolicy::Exclusive
    }

    /// Lists a directory that has an upper part only.
    fn list_upper(&self, cookie: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        let dir = self.top()?;
        let dev = dir.attr()?.dev;
        let mut failed = Ok(());
        dir.read_dir(cookie, &NoCaller, &mut |mut entry| {
            match is_whiteout(&*dir, &entry, false) {
                Ok(true) => return true,
                Ok(false) => (),
                Err(e) => {
                    failed = Err(e);
                    return false;
                }
            }
            entry.ino = self.layers.ino(dev, entry.ino);
            sink(entry)
        })?;
        failed
    }

    /// Entries behind `cookie` until `sink` has enough.
    pub(super) fn list(&self, cookie: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if self.lower.is_empty() {
            return self.list_upper(cookie, sink);
        }
        {
            let _names = self.names.read();
            let mut listing = self.listing.lock();
            if listing.is_none() || cookie == 0 && self.changes_by_itself() {
                self.read_parts(listing.get_or_insert_default())?;
            }
        }
        let mut at = cookie;
        loop {
            let batch: Vec<(u64, Slot)> = match self.listing.lock().as_ref() {
                Some(listing) => listing
                    .slots
                    .range((Bound::Excluded(at), Bound::Unbounded))
                    .take(BATCH)
                    .map(|(number, slot)| (*number, slot.clone()))
                    .collect(),
                None => Vec::new(),
            };
            if batch.is_empty() {
                return Ok(());
            }
            for (number, Slot { ino, kind, name }) in batch {
                at = number;
                let name = name.to_vec();
                if !sink(DirEntry {
                    ino,
                    kind,
                    name,
                    next: number,
                }) {
                    return Ok(());
                }
            }
        }
    }
}

//! The entries of a directory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::inode::TmpInode;
use crate::types::*;

/// A name and what it leads to.
pub(super) type Slot = (Arc<[u8]>, Arc<TmpInode>);

/// Entries by name and by cookie. A cookie is never used twice, so a reader that goes by cookies
/// misses nothing and sees nothing twice while others add and remove.
#[derive(Default)]
pub(super) struct Dir {
    names: HashMap<Arc<[u8]>, u64>,
    slots: BTreeMap<u64, Slot>,
    last: u64,
    /// Removed: takes no new entries.
    dead: bool,
}

impl Dir {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<TmpInode>> {
        let cookie = self.names.get(name)?;
        self.slots.get(cookie).map(|(_, node)| node)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// ENOENT if the directory has been removed.
    pub(super) fn alive(&self) -> Result<()> {
        if self.dead {
            Err(Errno::ENOENT)
        } else {
            Ok(())
        }
    }

    pub(super) fn kill(&mut self) {
        self.dead = true;
    }

    /// Adds an entry whose name is free.
    pub(super) fn add(&mut self, name: &[u8], node: Arc<TmpInode>) {
        let name: Arc<[u8]> = Arc::from(name);
        self.last += 1;
        self.names.insert(name.clone(), self.last);
        self.slots.insert(self.last, (name, node));
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let cookie = self.names.remove(name)?;
        self.slots.remove(&cookie).map(|(_, node)| node)
    }

    /// Puts another node in the place of an entry.
    pub(super) fn replace(&mut self, name: &[u8], node: Arc<TmpInode>) {
        if let Some((_, slot)) = self
            .names
            .get(name)
            .and_then(|cookie| self.slots.get_mut(cookie))
        {
            *slot = node;
        }
    }

    /// Up to `max` entries behind `cookie`.
    pub(super) fn after(&self, cookie: u64, max: usize) -> Vec<(u64, Slot)> {
        self.slots
            .range(cookie.saturating_add(1)..)
            .take(max)
            .map(|(cookie, slot)| (*cookie, slot.clone()))
            .collect()
    }

    /// Takes all nodes out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<TmpInode>> + use<> {
        self.names.clear();
        std::mem::take(&mut self.slots)
            .into_values()
            .map(|(_, node)| node)
    }
}

//! Which place of the tree a node id of the guest is.
//!
//! The guest's kernel names nodes by numbers that it got from look-ups, and says when it has forgotten
//! one. A node that is *hot* holds its place, and so a descriptor of the host or two. The guest may
//! remember more nodes than Duet can hold descriptors, so those not used for a while *cool*: they keep
//! the node id of their directory and their name, and the way is walked again when they are asked for.
//! A node without a name (an open file that was removed) stays hot; so does one with several names, as
//! long as others can cool, since by its name alone it could not be told from another that cooled.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use duet_vfs::{BackingId, Errno, FileType, Location, Result};
use parking_lot::Mutex;

use super::abi::ROOT_ID;

/// Nodes of which the guest may know at once; a node takes some 300 bytes.
const MAX_NODES: usize = 1 << 19;
/// Longest way from a hot node to a cold one: no path has more components.
const MAX_DEPTH: usize = 2048;
/// Nodes looked at in order to cool one.
const CLOCK_STEPS: usize = 32;

/// What the open files of a node share.
#[derive(Default)]
pub(super) struct Content {
    /// Counts how often the host file behind the node has become another one (an overlay's copy-up).
    pub(super) epoch: AtomicU64,
    /// The host file last opened.
    backing: Mutex<Option<BackingId>>,
    /// Files open.
    pub(super) opens: AtomicU64,
    /// Whether the node is known to have no `security.capability`.
    pub(super) without_capability: AtomicBool,
}

impl Content {
    /// Notes the host file just opened.
    pub(super) fn opened(&self, id: BackingId) {
        let before = self.backing.lock().replace(id);
        if before.is_some_and(|before| before != id) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

struct Node {
    /// `None` while cold.
    place: Option<Location>,
    kind: FileType,
    /// As it was when last looked at: a cold node's must be the same afterwards.
    ino: u64,
    /// Whether there was more than one link.
    many_names: bool,
    /// Look-ups that the guest has not forgotten.
    nlookup: u64,
    /// Directory and name by which it was last found; `None` for the root, and once the name is gone.
    name: Option<(u64, Arc<[u8]>)>,
    used: bool,
    content: Arc<Content>,
}

#[derive(Default)]
struct Table {
    nodes: HashMap<u64, Node>,
    by_inode: HashMap<(u32, usize), u64>,
    by_name: HashMap<(u64, Arc<[u8]>), u64>,
    /// Hot nodes in the order of the clock; ids of others are passed over.
    clock: VecDeque<u64>,
    hot: usize,
    last_id: u64,
}

/// What `find` came to.
enum Found {
    Hot(Location),
    /// To be walked: from this place, along these (node, name) pairs.
    Cold(Location, Vec<(u64, Arc<[u8]>)>),
}

/// All nodes that the guest knows.
pub(super) struct Nodes {
    table: Mutex<Table>,
    root: Location,
    max_hot: usize,
}

/// Mount and inode. An address serves, as a hot node holds the inode.
fn key(place: &Location) -> (u32, usize) {
    let inode = Arc::as_ptr(place.inode()).cast::<()>() as usize;
    (place.mount.id(), inode)
}

impl Nodes {
    /// The root alone. At most about `max_hot` places are held.
    pub(super) fn new(root: Location, max_hot: usize) -> Nodes {
        let nodes = Nodes {
            table: Mutex::default(),
            root,
            max_hot,
        };
        nodes.clear();
        nodes
    }

    /// Forgets all but the root.
    pub(super) fn clear(&self) {
        let mut fresh = Table {
            last_id: ROOT_ID,
            ..Table::default()
        };
        fresh.by_inode.insert(key(&self.root), ROOT_ID);
        fresh.nodes.insert(
            ROOT_ID,
            Node {
                place: Some(self.root.clone()),
                kind: FileType::Directory,
                ino: 0,
                many_names: false,
                nlookup: 1,
                name: None,
                used: true,
                content: Arc::default(),
            },
        );
        let old = std::mem::replace(&mut *self.table.lock(), fresh);
        drop(old);
    }

    /// Nodes known, and those of them that are hot (the root does not count).
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let table = self.table.lock();
        (table.nodes.len() - 1, table.hot)
    }

    /// Notes that the guest has looked up `name` in the directory `parent` and found `place`; returns
    /// the node's id. ENFILE if the guest knows too many.
    pub(super) fn remember(
        &self,
        place: &Location,
        ino: u64,
        nlink: u32,
        name: Option<(u64, &[u8])>,
    ) -> Result<u64> {
        let name = name.map(|(parent, name)| (parent, Arc::<[u8]>::from(name)));
        // Places let go of are dropped after the lock: that may be the end of an inode.
        let mut dropped = Vec::new();
        let mut table = self.table.lock();
        let mut id = table.by_inode.get(&key(place)).copied();
        if id.is_none()
            && let Some(name) = &name
            && let Some(known) = table.by_name.get(name).copied()
            && let Some(node) = table.nodes.get(&known)
            && node.place.is_none()
            && node.ino == ino
            && node.kind == place.kind()
        {
            dropped.extend(table.heat(known, place));
            id = Some(known);
        }
        let id = match id {
            Some(id) => id,
            None => table.add(place, ino)?,
        };
        if id != ROOT_ID {
            if let Some(name) = name {
                table.rename(id, Some(name));
            }
            if let Some(node) = table.nodes.get_mut(&id) {
                node.nlookup = node.nlookup.saturating_add(1);
                node.many_names = nlink > 1 && node.kind != FileType::Directory;
                node.used = true;
                if node.place.as_ref().is_some_and(|p| p.dentry.is_deleted()) {
                    dropped.extend(node.place.replace(place.clone()));
                }
            }
        }
        while table.hot > self.max_hot {
            match table.cool() {
                Some(place) => dropped.push(place),
                None => break,
            }
        }
        drop(table);
        drop(dropped);
        Ok(id)
    }

    /// The place of a node: ESTALE if there is no such node, or no longer such a place. `step` looks a
    /// name up in a directory.
    pub(super) fn place(
        &self,
        id: u64,
        step: impl Fn(&Location, &[u8]) -> Result<Location>,
    ) -> Result<Location> {
        let found = self.table.lock().find(id)?;
        let (mut at, way) = match found {
            Found::Hot(place) => return Ok(place),
            Found::Cold(from, way) => (from, way),
        };
        for (id, name) in way {
            at = step(&at, &name).map_err(|e| match e {
                Errno::ENOENT | Errno::ENOTDIR => Errno::ESTALE,
                e => e,
            })?;
            let ino = at.attr()?.ino;
            let mut table = self.table.lock();
            let node = table.nodes.get(&id).ok_or(Errno::ESTALE)?;
            if node.ino != ino || node.kind != at.kind() {
                return Err(Errno::ESTALE);
            }
            let old = table.heat(id, &at);
            drop(table);
            drop(old);
        }
        let mut dropped = Vec::new();
        let mut table = self.table.lock();
        while table.hot > self.max_hot {
            match table.cool() {
                Some(place) => dropped.push(place),
                None => break,
            }
        }
        drop(table);
        drop(dropped);
        Ok(at)
    }

    /// What the open files of a node share. ESTALE if there is no such node.
    pub(super) fn content(&self, id: u64) -> Result<Arc<Content>> {
        let table = self.table.lock();
        Ok(table.nodes.get(&id).ok_or(Errno::ESTALE)?.content.clone())
    }

    /// The node last found as `name` of `parent`.
    pub(super) fn named(&self, parent: u64, name: &[u8]) -> Option<u64> {
        let table = self.table.lock();
        table.by_name.get(&(parent, Arc::from(name))).copied()
    }

    /// After `name` has been removed from `parent`.
    pub(super) fn removed(&self, parent: u64, name: &[u8]) {
        let mut table = self.table.lock();
        if let Some(id) = table.by_name.get(&(parent, Arc::from(name))).copied() {
            table.rename(id, None);
        }
    }

    /// After a rename that gave `new` what `old` was, or exchanged the two.
    pub(super) fn renamed(&self, old: (u64, &[u8]), new: (u64, &[u8]), exchanged: bool) {
        let old = (old.0, Arc::<[u8]>::from(old.1));
        let new = (new.0, Arc::<[u8]>::from(new.1));
        if old == new {
            return;
        }
        let mut table = self.table.lock();
        let moved = table.by_name.get(&old).copied();
        let replaced = table.by_name.get(&new).copied();
        if let Some(id) = replaced {
            table.rename(id, None);
        }
        if let Some(id) = moved {
            table.rename(id, Some(new));
        }
        if exchanged && let Some(id) = replaced {
            table.rename(id, Some(old));
        }
    }

    /// The guest has forgotten `count` look-ups of the node.
    pub(super) fn forget(&self, id: u64, count: u64) {
        if id == ROOT_ID {
            return;
        }
        let mut table = self.table.lock();
        let Some(node) = table.nodes.get_mut(&id) else {
            return;
        };
        node.nlookup = node.nlookup.saturating_sub(count);
        if node.nlookup > 0 {
            return;
        }
        let gone = table.remove(id);
        drop(table);
        drop(gone);
    }
}

impl Table {
    fn add(&mut self, place: &Location, ino: u64) -> Result<u64> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Errno::ENFILE);
        }
        self.last_id += 1;
        let id = self.last_id;
        self.nodes.insert(
            id,
            Node {
                place: None,
                kind: place.kind(),
                ino,
                many_names: false,
                nlookup: 0,
                name: None,
                used: true,
                content: Arc::default(),
            },
        );
        self.heat(id, place);
        Ok(id)
    }

    /// Gives a node its place; returns the one that it had.
    fn heat(&mut self, id: u64, place: &Location) -> Option<Location> {
        let node = self.nodes.get_mut(&id)?;
        node.used = true;
        let old = node.place.replace(place.clone());
        match &old {
            Some(old) => {
                self.by_inode.remove(&key(old));
            }
            None => {
                self.hot += 1;
                self.clock.push_back(id);
            }
        }
        self.by_inode.insert(key(place), id);
        old
    }

    /// Cools one node that has not been used since the clock's last visit; `None` if there is none
    /// near the hand.
    fn cool(&mut self) -> Option<Location> {
        for step in 0..CLOCK_STEPS {
            let id = self.clock.pop_front()?;
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            if node.place.is_none() {
                continue;
            }
            let last_resort = step > CLOCK_STEPS / 2;
            let stays = node.name.is_none()
                || node.content.opens.load(Ordering::Acquire) > 0
                || node.many_names && !last_resort
                || node.place.as_ref().is_some_and(|p| p.dentry.is_deleted());
            if std::mem::take(&mut node.used) || stays {
                self.clock.push_back(id);
                continue;
            }
            let place = node.place.take()?;
            self.hot -= 1;
            self.by_inode.remove(&key(&place));
            return Some(place);
        }
        None
    }

    fn find(&mut self, id: u64) -> Result<Found> {
        let mut way = Vec::new();
        let mut at = id;
        loop {
            let node = self.nodes.get_mut(&at).ok_or(Errno::ESTALE)?;
            node.used = true;
            if let Some(place) = &node.place {
                let place = place.clone();
                if way.is_empty() {
                    return Ok(Found::Hot(place));
                }
                way.reverse();
                return Ok(Found::Cold(place, way));
            }
            let (parent, name) = node.name.clone().ok_or(Errno::ESTALE)?;
            if way.len() == MAX_DEPTH {
                return Err(Errno::ESTALE);
            }
            way.push((at, name));
            at = parent;
        }
    }

    /// Gives a node another name, or none.
    fn rename(&mut self, id: u64, name: Option<(u64, Arc<[u8]>)>) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.name == name {
            return;
        }
        if let Some(old) = std::mem::replace(&mut node.name, name.clone())
            && self.by_name.get(&old) == Some(&id)
        {
            self.by_name.remove(&old);
        }
        if let Some(name) = name
            && let Some(other) = self.by_name.insert(name.clone(), id)
            && other != id
            && let Some(other) = self.nodes.get_mut(&other)
            && other.name.as_ref() == Some(&name)
        {
            // Whoever had the name has lost it without our doing: the host's, in a shared tree.
            other.name = None;
        }
    }

    fn remove(&mut self, id: u64) -> Option<Node> {
        self.rename(id, None);
        let node = self.nodes.remove(&id)?;
        if let Some(place) = &node.place {
            self.hot -= 1;
            self.by_inode.remove(&key(place));
        }
        // Ids of nodes gone are left in the clock; it must not grow by them.
        if self.clock.len() > 2 * self.hot + 64 {
            let nodes = &self.nodes;
            self.clock
                .retain(|id| nodes.get(id).is_some_and(|n| n.place.is_some()));
        }
        Some(node)
    }
}

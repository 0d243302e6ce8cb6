//! Looking names up through the layers.

use std::sync::Arc;

use super::Layers;
use super::inode::{Origin, OverlayInode, Parts};
use super::marks::{self, Below};
use crate::inode::{Inode, NoCaller};
use crate::types::*;

/// Redirects followed for one name; an honest tree needs one a layer at most.
const MAX_REDIRECTS: u32 = 64;

/// A node of a lower tree: one directory of a merged stack, or a file.
#[derive(Clone)]
pub(super) struct LowerDir {
    /// Position among the lower trees.
    pub(super) layer: usize,
    pub(super) dir: Arc<dyn Inode>,
    /// Whiteouts may be marked files here.
    pub(super) marked_whiteouts: bool,
}

/// What a name of an overlay directory is.
pub(super) enum Entry {
    /// Nothing, and nothing at all in the upper directory.
    Absent,
    /// Nothing, by a whiteout in the upper directory.
    Whiteout,
    /// Something in the upper directory, perhaps merged with lower directories.
    Upper(Parts),
    /// Something that only lower trees have.
    Lower(Vec<LowerDir>),
}

/// The child `name`, `None` if there is none.
pub(super) fn child(dir: &dyn Inode, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
    match dir.lookup(name, &NoCaller) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Layers {
    /// What `stack` has under `name`: directories to be merged, or one other node, or nothing.
    pub(super) fn lookup_lower(&self, stack: &[LowerDir], name: &[u8]) -> Result<Vec<LowerDir>> {
        self.lookup_counted(stack, name, &mut MAX_REDIRECTS.clone())
    }

    fn lookup_counted(
        &self,
        stack: &[LowerDir],
        name: &[u8],
        redirects: &mut u32,
    ) -> Result<Vec<LowerDir>> {
        let mut found = Vec::new();
        for (
            at,
            LowerDir {
                layer,
                dir,
                marked_whiteouts,
            },
        ) in stack.iter().enumerate()
        {
            let Some(node) = child(&**dir, name)? else {
                continue;
            };
            if marks::is_whiteout(&*node, *marked_whiteouts)? {
                break;
            }
            let directory = node.kind() == FileType::Directory;
            if !directory && !found.is_empty() {
                break;
            }
            // Marks of the bottom layer hide nothing.
            let last = layer + 1 >= self.lowers.len();
            found.push(LowerDir {
                layer: *layer,
                marked_whiteouts: directory && !last && marks::holds_marked_whiteouts(&*node),
                dir: node.clone(),
            });
            if !directory || last {
                break;
            }
            let rest = stack.get(at + 1..).unwrap_or_default();
            match marks::below(&*node)? {
                Below::SameName => continue,
                Below::Nowhere => (),
                redirect => found.extend(self.follow(redirect, rest, layer + 1, redirects)?),
            }
            break;
        }
        Ok(found)
    }

    /// The directories that a redirect leads to: a sibling in `stack`, or a path from the roots of the
    /// layers from `first` on.
    fn follow(
        &self,
        redirect: Below,
        stack: &[LowerDir],
        first: usize,
        redirects: &mut u32,
    ) -> Result<Vec<LowerDir>> {
        *redirects = redirects.checked_sub(1).ok_or(Errno::ELOOP)?;
        let found = match redirect {
            Below::Sibling(name) => self.lookup_counted(stack, &name, redirects)?,
            Below::Path(path) => {
                let mut at = self.lowers.get(first..).unwrap_or_default().to_vec();
                for name in path.split(|b| *b == b'/') {
                    at = self.lookup_counted(&at, name, redirects)?;
                }
                at
            }
            Below::SameName | Below::Nowhere => Vec::new(),
        };
        let directory = found
            .first()
            .is_some_and(|top| top.dir.kind() == FileType::Directory);
        Ok(if directory { found } else { Vec::new() })
    }
}

impl OverlayInode {
    /// What `name` is in this directory. The caller holds `names`.
    pub(super) fn find(&self, name: &[u8]) -> Result<Entry> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if let Some(dir) = self.upper()
            && let Some(upper) = child(&*dir, name)?
        {
            if marks::is_whiteout(&*upper, false)? {
                return Ok(Entry::Whiteout);
            }
            return self.merge(name, upper).map(Entry::Upper);
        }
        let lower = self.layers.lookup_lower(&self.lower, name)?;
        Ok(if lower.is_empty() {
            Entry::Absent
        } else {
            Entry::Lower(lower)
        })
    }

    /// The upper node `name` with what lies below it.
    fn merge(&self, name: &[u8], upper: Arc<dyn Inode>) -> Result<Parts> {
        if upper.kind() != FileType::Directory || self.layers.lowers.is_empty() {
            return Ok(Parts::alone(upper));
        }
        let below = marks::below(&*upper)?;
        let moved = below != Below::SameName;
        let (below, origin) = match below {
            Below::Nowhere => return Ok(Parts::alone(upper)),
            Below::Path(path) => (Below::Path(path.clone()), Origin::Path(path)),
            sibling => {
                let name = match sibling {
                    Below::Sibling(other) => other,
                    _ => name.to_vec(),
                };
                let parent = self.this().ok_or(Errno::ENOENT)?;
                (Below::Sibling(name.clone()), Origin::Under { parent, name })
            }
        };
        let redirects = &mut MAX_REDIRECTS.clone();
        let lower = self.layers.follow(below, &self.lower, 0, redirects)?;
        if lower.is_empty() {
            return Ok(Parts::alone(upper));
        }
        let origin = Some(origin);
        Ok(Parts {
            upper,
            lower,
            origin,
            moved,
        })
    }

    /// The inode of `name`, `None` if there is none. The caller holds `names`.
    pub(super) fn child(&self, name: &[u8]) -> Result<Option<Arc<OverlayInode>>> {
        let child = self.instantiate(name)?;
        if let Some(child) = &child {
            self.keep_number(name, child);
        }
        Ok(child)
    }

    /// As [`Self::child`], for a caller that holds `listing` too.
    pub(super) fn instantiate(&self, name: &[u8]) -> Result<Option<Arc<OverlayInode>>> {
        Ok(match self.find(name)? {
            Entry::Absent | Entry::Whiteout => None,
            Entry::Upper(parts) => Some(self.layers.instantiate_upper(parts)),
            Entry::Lower(lower) => Some(self.instantiate_lower(name, lower)?),
        })
    }

    /// Whether `name` would show a lower node if the upper directory had nothing there.
    pub(super) fn covers(&self, name: &[u8]) -> Result<bool> {
        Ok(!self.layers.lookup_lower(&self.lower, name)?.is_empty())
    }
}

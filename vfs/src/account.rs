//! What was done for one call: the walk of its paths, what was copied, the host calls and their time.
//!
//! An account is kept in the thread that serves the call, between [`begin`] and [`take`], and only once
//! somebody has asked for accounts with [`keep`]; until then each note costs a branch. Its size is bounded,
//! whatever a guest has the VFS do. Nothing here takes a lock.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::inode::{Inode, Layer};
use crate::types::*;
use crate::walk::Location;

/// Steps of one account at most; further ones are counted only.
const MAX_STEPS: usize = 64;
/// Bytes of a path or a link's text that are kept.
const MAX_TEXT: usize = 512;

static KEPT: AtomicBool = AtomicBool::new(false);

thread_local! {
    static CURRENT: RefCell<Option<Box<Account>>> = const { RefCell::new(None) };
}

/// Something that was done for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A path is resolved.
    Resolve {
        /// As the guest gave it.
        path: Vec<u8>,
        /// Where it starts, if it is relative.
        from: Option<Vec<u8>>,
    },
    /// The walk is at a node.
    At(Place),
    /// The walk has come onto another mount, there or from there.
    Mount {
        /// The mount's root in the tree.
        at: Vec<u8>,
        /// Type of its file system.
        fs: &'static str,
    },
    /// A symbolic link is followed by its text.
    Link {
        /// The link.
        path: Vec<u8>,
        /// Its text.
        text: Vec<u8>,
    },
    /// A link of `/proc` is followed, to where it leads without a path.
    Jump {
        /// The link.
        path: Vec<u8>,
    },
    /// A directory has no such name.
    Missing {
        /// The path that is none.
        path: Vec<u8>,
        /// Type of the file system that was asked.
        fs: &'static str,
    },
    /// A permission is missing.
    Denied(Denied),
    /// The mount can only be read.
    ReadOnly {
        /// Type of its file system.
        fs: &'static str,
    },
    /// A node of a lower layer is copied to the upper one.
    CopyUp {
        /// Its name.
        name: Vec<u8>,
        /// Bytes of contents that are copied.
        bytes: u64,
    },
    /// A node is made.
    Make {
        /// Its path.
        path: Vec<u8>,
        /// Type of the file system.
        fs: &'static str,
    },
    /// A name is removed.
    Remove {
        /// Its path.
        path: Vec<u8>,
        /// Type of the file system.
        fs: &'static str,
    },
    /// A descriptor of the caller is looked at.
    Descriptor {
        /// Its number.
        fd: i32,
        /// The node that it stands for; `None` if it is none of the tree's.
        place: Option<Place>,
    },
    /// A node is opened, with these flags of open(2).
    Open {
        /// The node.
        place: Place,
        /// `O_*`
        flags: i32,
    },
}

/// A node that a walk has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its path from the caller's root.
    pub path: Vec<u8>,
    /// Type of its file system.
    pub fs: &'static str,
    /// Which layer of it answers.
    pub layer: Layer,
}

/// A permission check that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What was wanted: 4 to read, 2 to write, 1 to run or search.
    pub wanted: u32,
    /// Permission bits of the node.
    pub mode: u32,
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// The user who asked.
    pub user: u32,
}

/// Calls of one name to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCalls {
    /// The name.
    pub name: &'static str,
    /// How many.
    pub count: u64,
    /// Time that they took together.
    pub time: Duration,
}

/// What was done for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The first steps.
    pub steps: Vec<Step>,
    /// How many more there were.
    pub dropped: usize,
    /// Host calls by name, in the order of the first of each. Descriptors that are closed, and what an
    /// engine does to bring the call and its answer, are not among them.
    pub host: Vec<HostCalls>,
    /// When it was begun.
    pub begun: Instant,
}

/// From now on accounts are kept, by all threads.
pub fn keep() {
    KEPT.store(true, Ordering::Relaxed);
}

/// Whether accounts are kept.
#[inline]
pub fn kept() -> bool {
    KEPT.load(Ordering::Relaxed)
}

/// Begins an account in this thread, if accounts are kept; an earlier one is gone.
pub fn begin() {
    if kept() {
        resume(Box::new(Account {
            steps: Vec::new(),
            dropped: 0,
            host: Vec::new(),
            begun: Instant::now(),
        }));
    }
}

/// Goes on with an account in this thread.
pub fn resume(account: Box<Account>) {
    CURRENT.with(|current| *current.borrow_mut() = Some(account));
}

/// Takes the account out of this thread; `None` if none was begun.
pub fn take() -> Option<Box<Account>> {
    if !kept() {
        return None;
    }
    CURRENT.with(|current| current.borrow_mut().take())
}

/// Adds to this thread's account, if there is one.
fn add(change: impl FnOnce(&mut Account)) {
    CURRENT.with(|current| {
        // What is noted is found before: nothing notes while it is added.
        if let Ok(mut current) = current.try_borrow_mut()
            && let Some(account) = current.as_mut()
        {
            change(account);
        }
    });
}

fn is_open() -> bool {
    CURRENT.with(|current| current.try_borrow().is_ok_and(|c| c.is_some()))
}

/// Notes a step, which is made up only if it is kept.
#[inline]
pub fn note(step: impl FnOnce() -> Step) {
    if kept() && is_open() {
        let step = step();
        add(|account| account.push(step));
    }
}

/// Makes a host call of this name, and counts it.
#[inline]
pub fn host<T>(name: &'static str, call: impl FnOnce() -> T) -> T {
    if !kept() {
        return call();
    }
    let start = Instant::now();
    let result = call();
    let time = start.elapsed();
    add(|account| account.count(name, time));
    result
}

/// A path or text, cut if it is long.
pub(crate) fn cut(text: &[u8]) -> Vec<u8> {
    text.get(..MAX_TEXT).unwrap_or(text).to_vec()
}

impl Place {
    /// The place of a location, seen from `root`.
    pub fn of(location: &Location, root: &Location) -> Place {
        Place {
            path: cut(&location.path(root).0),
            fs: location.sb().fs().type_name(),
            layer: location.inode().layer(),
        }
    }
}

impl Step {
    /// The node that a step begins at, if it says more of it than that the walk has come there.
    fn place(&self) -> Option<&Vec<u8>> {
        match self {
            Step::Open { place, .. } => Some(&place.path),
            Step::Link { path, .. } | Step::Jump { path } => Some(path),
            _ => None,
        }
    }

    /// The walk has come onto the mount of `location`.
    pub(crate) fn mount(location: &Location, root: &Location) -> Step {
        let top = Location {
            mount: location.mount.clone(),
            dentry: location.mount.root().clone(),
        };
        Step::Mount {
            at: cut(&top.path(root).0),
            fs: location.sb().fs().type_name(),
        }
    }

    /// A name that `dir` does not have.
    pub(crate) fn missing(dir: &Location, root: &Location, name: &[u8]) -> Step {
        Step::Missing {
            path: below(dir, root, name),
            fs: dir.sb().fs().type_name(),
        }
    }

    /// A node that is made in `dir`.
    pub(crate) fn make(dir: &Location, root: &Location, name: &[u8]) -> Step {
        Step::Make {
            path: below(dir, root, name),
            fs: dir.sb().fs().type_name(),
        }
    }

    /// A name that is removed from `dir`.
    pub(crate) fn remove(dir: &Location, root: &Location, name: &[u8]) -> Step {
        Step::Remove {
            path: below(dir, root, name),
            fs: dir.sb().fs().type_name(),
        }
    }

    /// A check that `creds` do not pass.
    pub(crate) fn denied(creds: &Creds, inode: &dyn Inode, wanted: u32) -> Step {
        let (mode, owner, group) = inode.owner().unwrap_or_default();
        Step::Denied(Denied {
            wanted,
            mode: mode & 0o7777,
            owner,
            group,
            user: creds.fsuid,
        })
    }
}

fn below(dir: &Location, root: &Location, name: &[u8]) -> Vec<u8> {
    let mut path = dir.path(root).0;
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    cut(&path)
}

impl Account {
    /// Adds a step. A node on the way to another is left out.
    fn push(&mut self, step: Step) {
        if let (Some(last @ Step::At(_)), Step::At(_) | Step::Missing { .. }) =
            (self.steps.last_mut(), &step)
        {
            *last = step;
        } else if let Some(Step::At(at)) = self.steps.last()
            && step.place() == Some(&at.path)
        {
            self.steps.pop();
            self.steps.push(step);
        } else if self.steps.len() < MAX_STEPS {
            self.steps.push(step);
        } else {
            self.dropped += 1;
        }
    }

    /// Counts a host call. There are no more entries than names in the source.
    fn count(&mut self, name: &'static str, time: Duration) {
        match self.host.iter_mut().find(|h| h.name == name) {
            Some(h) => {
                h.count += 1;
                h.time += time;
            }
            None => self.host.push(HostCalls {
                name,
                count: 1,
                time,
            }),
        }
    }
}

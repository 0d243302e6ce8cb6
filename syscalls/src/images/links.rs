//! Links to the start-up stub at the paths of programs.
//!
//! The kernel itself then executes the stub at the path that the caller named, in place of the program, and
//! Duet need not attach to the caller to have it execute another file. Whatever a path is changed to between
//! the check and the call, it leads to the stub, or nowhere.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use duet_vfs::counted::{linkat, unlinkat};
use duet_vfs::types::{Errno, Result};
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use nix::unistd::{LinkatFlags, UnlinkatFlags};

use super::{FileIds, Images, STUB};

/// Most links.
const MOST: usize = 4096;

/// Longest path, and most directories on it. Looking up what is longer takes as long as attaching.
const LONGEST: usize = 256;
const DEEPEST: usize = 32;

/// Most directories that are made, of which none is removed.
const MOST_DIRECTORIES: usize = 8192;

/// A link that was used within this time is not removed: a call may be on its way to it.
const IN_USE: Duration = Duration::from_secs(10);

/// The links, by the paths that lead there.
pub(super) type Links = HashMap<Vec<u8>, Link>;

pub(super) struct Link {
    /// Where it is on the tmpfs: several paths may lead there.
    at: Vec<u8>,
    used: Instant,
}

impl Images {
    /// Makes the kernel find the stub at `path`, which starts at the root, as every guest process stands
    /// there in the kernel's eyes. `Err` if something else is in its place, if there is no room, or if
    /// programs that the kernel is to load may be there too ([`Images::place`]).
    pub fn lead_to_stub(&self, path: &[u8]) -> Result<()> {
        let mut links = self.links.lock();
        let links = links.as_mut().ok_or(Errno::EBUSY)?;
        let now = Instant::now();
        if let Some(link) = links.get_mut(path) {
            link.used = now;
            return Ok(());
        }
        let deep = path.iter().filter(|&&b| b == b'/').count();
        if path.len() > LONGEST || deep > DEEPEST {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.directories.load(Ordering::Relaxed) >= MOST_DIRECTORIES {
            return Err(Errno::ENOSPC);
        }
        let _owner = FileIds::take(self.ids);
        if links.len() >= MOST {
            self.forget_unused(links, now)?;
        }
        let at = self.make_directories(path)?;
        match linkat(
            &self.top,
            STUB,
            &self.top,
            at.as_slice(),
            LinkatFlags::empty(),
        ) {
            Ok(()) => (),
            // It is there by another spelling of the path; or a directory is.
            Err(Errno::EEXIST) => {
                let there = fstatat(&self.top, at.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if (there.st_dev, there.st_ino) != (self.stub.dev, self.stub.ino) {
                    return Err(Errno::EEXIST);
                }
            }
            Err(e) => return Err(e),
        }
        links.insert(path.to_vec(), Link { at, used: now });
        Ok(())
    }

    /// Leads no more paths to the stub. Links that are there stay.
    pub fn stop_leading(&self) {
        *self.links.lock() = None;
    }

    /// Removes links that no call can be on its way to. `ENOSPC` if that are none.
    fn forget_unused(&self, links: &mut Links, now: Instant) -> Result<()> {
        let is_old = |link: &Link| now.duration_since(link.used) >= IN_USE;
        let (old, recent): (HashMap<_, _>, HashMap<_, _>) =
            links.drain().partition(|(_, link)| is_old(link));
        *links = recent;
        if old.is_empty() {
            return Err(Errno::ENOSPC);
        }
        let kept: HashSet<&[u8]> = links.values().map(|l| l.at.as_slice()).collect();
        for link in old.values().filter(|l| !kept.contains(l.at.as_slice())) {
            match unlinkat(&self.top, link.at.as_slice(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => (),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::images::ROOT;
    use crate::images::tests::images;

    #[test]
    fn every_path_leads_to_the_stub() {
        let (dir, images) = images();
        let root = dir.path().join(ROOT);
        for (path, at) in [
            (&b"/usr/bin/prog"[..], "usr/bin/prog"),
            (b"usr//bin/../bin/./prog", "usr/bin/prog"),
            (b"../prog", "prog"),
            (b"/no/such/../../other", "other"),
        ] {
            images.lead_to_stub(path).unwrap();
            images.lead_to_stub(path).unwrap();
            let stat = fs::metadata(root.join(at)).unwrap();
            assert_eq!(
                (stat.dev(), stat.ino()),
                (images.stub.dev, images.stub.ino),
                "{at}"
            );
            assert_eq!(fs::read(root.join(at)).unwrap(), b"stub");
        }
        assert!(root.join("no/such").is_dir());
    }

    #[test]
    fn a_directory_in_the_way_is_left_there() {
        let (_dir, images) = images();
        images.lead_to_stub(b"/a/b").unwrap();
        assert_eq!(images.lead_to_stub(b"/a"), Err(Errno::EEXIST));
        assert_eq!(images.lead_to_stub(b"/a/b/c"), Err(Errno::ENOTDIR));
        assert_eq!(images.lead_to_stub(b"/"), Err(Errno::EACCES));
        images.lead_to_stub(b"/a/b").unwrap();
    }

    #[test]
    fn old_links_make_room_and_recent_ones_stay() {
        let (dir, images) = images();
        for i in 0..MOST {
            images.lead_to_stub(format!("/{i}").as_bytes()).unwrap();
        }
        assert_eq!(images.lead_to_stub(b"/more"), Err(Errno::ENOSPC));
        images.lead_to_stub(b"/1").unwrap();
        {
            let mut links = images.links.lock();
            let links = links.as_mut().unwrap();
            for path in [&b"/2"[..], b"/3"] {
                links.get_mut(path).unwrap().used -= IN_USE;
            }
            // What an old spelling shares with a recent one stays.
            links.get_mut(&b"/3"[..]).unwrap().at = format!("{ROOT}/1").into_bytes();
        }
        images.lead_to_stub(b"/more").unwrap();
        let root = dir.path().join(ROOT);
        assert!(!root.join("2").exists() && root.join("1").exists() && root.join("more").exists());
    }

    #[test]
    fn nothing_leads_there_once_programs_are_placed() {
        let (_dir, images) = images();
        images.stop_leading();
        assert_eq!(images.lead_to_stub(b"/prog"), Err(Errno::EBUSY));
    }
}

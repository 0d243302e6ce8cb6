//! The records of nodes that can hold no attribute, kept in a file outside of the tree.
//!
//! An ordinary user's symbolic links, FIFOs and sockets have no `user.*` attributes. One file for each tree,
//! named after its root, tells whom they belong to from one run to the next. Its first line is [`FIRST`]; then
//! each line is a change: `INODE BIRTH RECORD`, where BIRTH is in nanoseconds since 1970, for another node may
//! come to have the number, and RECORD as in the attribute, or `-`. The last line of a node counts.
//!
//! Who adds to the file holds a read lock on it (an open file description's, fcntl(2)). Only who gets the write
//! lock writes it anew, without what no longer counts. A guest that can read the file can keep it from being
//! written anew, and no more: nobody waits for a lock.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use parking_lot::Mutex;

use super::meta::{MAX, Meta};
use super::sys::Stat;
use crate::types::Timespec;

const FIRST: &str = "duet: owners, version 1\n";

/// Longest file. At its end, records are kept for the run only.
const LONGEST: u64 = 64 << 20;

/// Lines that do not count any more, at most, before the file is written anew.
const SUPERFLUOUS: usize = 1000;

/// Nodes of one file system by number, with their births and records.
pub(super) type Records = HashMap<u64, (Timespec, Meta)>;

/// Where the records of one tree are kept.
pub(super) struct Journal {
    path: PathBuf,
    /// Device of the tree's root: numbers are of its file system alone.
    dev: u64,
    /// Open once there is something to write.
    file: Mutex<Option<File>>,
    /// Nothing can be written.
    failed: AtomicBool,
}

impl Journal {
    /// That of the tree whose root is `root`, below the directory `dir`, and what is in it. `None` if the root's
    /// birth is not known, by which trees are told apart.
    pub(super) fn open(dir: &Path, root: &Stat) -> io::Result<Option<(Journal, Records)>> {
        let Some(birth) = root.btime.and_then(nanoseconds) else {
            return Ok(None);
        };
        let journal = Journal {
            path: dir.join(format!("{:x}-{birth:x}", root.id.ino)),
            dev: root.id.dev,
            file: Mutex::new(None),
            failed: AtomicBool::new(false),
        };
        let records = match File::open(&journal.path) {
            Ok(file) => journal.read(file)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Records::new(),
            Err(e) => return Err(e),
        };
        Ok(Some((journal, records)))
    }

    /// Device of the file system whose nodes are kept.
    pub(super) fn dev(&self) -> u64 {
        self.dev
    }

    fn read(&self, file: File) -> io::Result<Records> {
        // Its mode of locking does not matter for reading: lines are complete.
        let (records, lines) = parse(&text(file)?);
        if lines > records.len() + SUPERFLUOUS {
            self.write_anew(&records)?;
        }
        Ok(records)
    }

    /// Replaces the file, unless somebody else has it open.
    fn write_anew(&self, records: &Records) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(&self.path)?;
        // Since it was read, somebody may have added lines, or replaced it.
        if lock(&file, libc::F_WRLCK).is_err() || !is_at(&file, &self.path)? {
            return Ok(());
        }
        let (now, _) = parse(&text(File::open(&self.path)?)?);
        if now.len() != records.len() {
            return Ok(());
        }
        let mut all = FIRST.to_owned();
        for (&ino, (birth, meta)) in &now {
            all.extend(line(ino, *birth, Some(*meta)));
        }
        let new = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut written = options.open(&new)?;
        written.write_all(all.as_bytes())?;
        written.sync_all()?;
        fs::rename(&new, &self.path)
    }

    /// Adds a change of the node with this number; with `None` it has no record any more. After an error, of which
    /// the first is told, nothing more is added.
    pub(super) fn add(&self, ino: u64, birth: Timespec, meta: Option<Meta>) -> io::Result<()> {
        if self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let added = self.try_to_add(ino, birth, meta);
        self.failed.store(added.is_err(), Ordering::Relaxed);
        added
    }

    fn try_to_add(&self, ino: u64, birth: Timespec, meta: Option<Meta>) -> io::Result<()> {
        let Some(line) = line(ino, birth, meta) else {
            return Ok(());
        };
        let mut file = self.file.lock();
        if file.is_none() {
            *file = Some(self.open_to_add()?);
        }
        match file.as_mut() {
            Some(file) if file.metadata()?.len() + line.len() as u64 > LONGEST => {
                Err(io::ErrorKind::FileTooLarge.into())
            }
            Some(file) => file.write_all(line.as_bytes()),
            None => Ok(()),
        }
    }

    fn open_to_add(&self) -> io::Result<File> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        loop {
            let mut file = options.open(&self.path)?;
            lock(&file, libc::F_RDLCK)?;
            if !is_at(&file, &self.path)? {
                continue;
            }
            if file.metadata()?.len() == 0 {
                file.write_all(FIRST.as_bytes())?;
            }
            return Ok(file);
        }
    }
}

/// Locks a file if nobody holds a lock on it that is against that.
fn lock(file: &File, kind: i32) -> io::Result<()> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole))?;
    Ok(())
}

/// Whether this file, not one that has taken its place, is at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn nanoseconds(t: Timespec) -> Option<i64> {
    t.sec.checked_mul(1_000_000_000)?.checked_add(t.nsec.into())
}

fn line(ino: u64, birth: Timespec, meta: Option<Meta>) -> Option<String> {
    let mut buf = [0; MAX];
    let record = meta.map_or(&b"-"[..], |m| m.encode(&mut buf));
    let birth = nanoseconds(birth)?;
    Some(format!(
        "{ino} {birth} {}\n",
        String::from_utf8_lossy(record)
    ))
}

/// The records in a file, and how many lines they come from. Lines that are no changes do not count.
fn parse(text: &str) -> (Records, usize) {
    let mut records = Records::new();
    let mut count = 0;
    for line in text.split_inclusive('\n') {
        let mut fields = line.strip_suffix('\n').unwrap_or_default().split(' ');
        let mut next = || fields.next();
        let (Some(ino), Some(birth), Some(record), None) = (next(), next(), next(), next()) else {
            continue;
        };
        let (Ok(ino), Ok(birth)) = (ino.parse::<u64>(), birth.parse::<i64>()) else {
            continue;
        };
        count += 1;
        let birth = Timespec {
            sec: birth.div_euclid(1_000_000_000),
            nsec: birth.rem_euclid(1_000_000_000) as u32,
        };
        match Meta::decode(record.as_bytes()) {
            Some(meta) => records.insert(ino, (birth, meta)),
            None => records.remove(&ino),
        };
    }
    (records, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sys;
    use std::os::fd::AsFd;

    const BORN: Timespec = Timespec { sec: -3, nsec: 7 };

    fn link(uid: u32) -> Meta {
        Meta {
            mode: libc::S_IFLNK | 0o777,
            uid,
            gid: 1,
            rdev: 0,
        }
    }

    /// A tree's root, and a directory for journals that is not there yet.
    fn site() -> (tempfile::TempDir, Stat, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let stat = sys::stat(root.as_fd(), b"").unwrap();
        let journals = dir.path().join("a/b");
        (dir, stat, journals)
    }

    #[test]
    fn what_was_added_last_is_found() {
        let (_dir, root, journals) = site();
        let (first, none) = Journal::open(&journals, &root).unwrap().unwrap();
        assert!(none.is_empty() && !journals.exists());
        first.add(5, BORN, Some(link(1))).unwrap();
        first.add(6, BORN, Some(link(2))).unwrap();
        first.add(7, BORN, Some(link(3))).unwrap();
        first.add(5, BORN, Some(link(4))).unwrap();
        first.add(6, BORN, None).unwrap();
        let (_, records) = Journal::open(&journals, &root).unwrap().unwrap();
        let want = [(5, (BORN, link(4))), (7, (BORN, link(3)))];
        assert_eq!(records, HashMap::from(want));
        let mut other = root;
        other.id.ino += 1;
        assert!(
            Journal::open(&journals, &other)
                .unwrap()
                .unwrap()
                .1
                .is_empty()
        );
    }

    #[test]
    fn what_does_not_count_goes_once_nobody_has_it_open() {
        let (_dir, root, journals) = site();
        let (first, _) = Journal::open(&journals, &root).unwrap().unwrap();
        for uid in 0..SUPERFLUOUS as u32 + 10 {
            first.add(5, BORN, Some(link(uid))).unwrap();
        }
        let path = first.path.clone();
        let size = || fs::metadata(&path).unwrap().len();
        let long = size();
        let read = || Journal::open(&journals, &root).unwrap().unwrap();
        assert_eq!(read().1[&5], (BORN, link(SUPERFLUOUS as u32 + 9)));
        assert_eq!(size(), long);
        drop(first);
        let (second, records) = read();
        assert_eq!(records[&5], (BORN, link(SUPERFLUOUS as u32 + 9)));
        assert!(size() < 100);
        second.add(6, BORN, Some(link(1))).unwrap();
        assert_eq!(read().1.len(), 2);
    }

    #[test]
    fn other_lines_do_no_harm() {
        let text = format!("{FIRST}1 2\n\n1 2 x 3\n5 7 1:120777:1:1:0:0\nx 2 -\n9 1 1:1");
        let (records, count) = parse(&text);
        assert_eq!((records.len(), count), (1, 1));
        assert_eq!(records[&5].0, Timespec { sec: 0, nsec: 7 });
    }
}

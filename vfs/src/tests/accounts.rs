//! Accounts of what is done for a call.

use std::os::fd::OwnedFd;

use super::Fixture;
use crate::account::{self, Account, Step};
use crate::inode::Layer;
use crate::types::*;
use crate::walk::{Lookup, OpenHow, Opened};

/// The account of what `work` does.
fn account_of(work: impl FnOnce()) -> Account {
    account::keep();
    account::begin();
    work();
    *account::take().expect("one was begun")
}

fn open(f: &Fixture, path: &str, flags: i32) -> Result<OwnedFd> {
    let how = OpenHow {
        flags,
        mode: 0o644,
        lookup: Lookup::empty(),
    };
    match f.vfs.open(&f.cx(), &f.root, path.as_bytes(), &how)? {
        Opened::File(fd) | Opened::Other(fd) => Ok(fd),
        Opened::Blocking(..) => Err(Errno::EAGAIN),
    }
}

#[test]
fn an_open_is_told_step_by_step() {
    let f = Fixture::new();
    f.vfs.mkdir(&f.cx(), &f.root, b"/dir", 0o755).unwrap();
    f.vfs.symlink(&f.cx(), b"/dir", &f.root, b"/way").unwrap();
    let account = account_of(|| {
        open(&f, "/way/new", libc::O_CREAT | libc::O_WRONLY).unwrap();
    });
    let words: Vec<String> = account
        .steps
        .iter()
        .map(|step| match step {
            Step::Resolve { path, from: None } => format!("walk {}", path.escape_ascii()),
            Step::Link { path, text } => {
                format!("link {} {}", path.escape_ascii(), text.escape_ascii())
            }
            Step::Missing { path, fs } => format!("none {} {fs}", path.escape_ascii()),
            Step::Make { path, fs } => format!("make {} {fs}", path.escape_ascii()),
            Step::Open { place, .. } => {
                assert_eq!((place.fs, place.layer), ("tmpfs", Layer::Only));
                format!("open {}", place.path.escape_ascii())
            }
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        words,
        [
            "walk /way/new",
            "link /way /dir",
            "none /dir/new tmpfs",
            "make /dir/new tmpfs",
            "open /dir/new"
        ]
    );
    // The file is made on the host.
    let opens = account.host.iter().find(|h| h.name == "openat");
    assert!(opens.is_some_and(|h| h.count >= 1), "{:?}", account.host);
}

#[test]
fn a_refusal_says_who_lacks_what() {
    let mut f = Fixture::new();
    f.vfs.mkdir(&f.cx(), &f.root, b"/shut", 0o700).unwrap();
    f.creds = Creds::user(1000, 100, [].into());
    let account = account_of(|| {
        assert_eq!(open(&f, "/shut/x", 0).err(), Some(Errno::EACCES));
    });
    let Some(Step::Denied(denied)) = account.steps.last() else {
        panic!("{:?}", account.steps);
    };
    assert_eq!((denied.user, denied.mode, denied.wanted), (1000, 0o700, 1));
}

#[test]
fn an_account_does_not_grow_without_end() {
    let f = Fixture::new();
    f.vfs.symlink(&f.cx(), b"loop", &f.root, b"/loop").unwrap();
    let long = "x/".repeat(1000);
    let account = account_of(|| {
        for _ in 0..1000 {
            let looped = f.vfs.resolve(&f.cx(), &f.root, b"/loop", Lookup::FOLLOW);
            assert_eq!(looped.err(), Some(Errno::ELOOP));
            let none = f
                .vfs
                .resolve(&f.cx(), &f.root, long.as_bytes(), Lookup::FOLLOW);
            assert_eq!(none.err(), Some(Errno::ENOENT));
        }
    });
    assert!(account.steps.len() <= 64 && account.dropped > 40_000);
    for step in &account.steps {
        if let Step::Resolve { path, .. } = step {
            assert!(path.len() <= 512);
        }
    }
}

#[test]
fn nothing_is_kept_where_none_was_begun() {
    account::keep();
    let f = Fixture::new();
    f.vfs.mkdir(&f.cx(), &f.root, b"/dir", 0o755).unwrap();
    assert!(account::take().is_none());
}

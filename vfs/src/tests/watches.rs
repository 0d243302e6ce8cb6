use std::os::fd::{AsFd, AsRawFd};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::*;
use crate::watch::watched_in;

fn inotify() -> Inotify {
    Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap()
}

/// Watches a place, as a guest does.
fn watch(f: &Fixture, inotify: &Inotify, path: &str) {
    let watched = f.vfs.watched_path(&f.at(path)).unwrap();
    let host = crate::host_call::proc_fd(watched.as_raw_fd());
    let all = AddWatchFlags::IN_ALL_EVENTS;
    inotify.add_watch(host.as_str(), all).unwrap();
}

fn forget_unwatched(f: &Fixture, inotify: &Inotify) {
    let fdinfo = format!("/proc/self/fdinfo/{}", inotify.as_fd().as_raw_fd());
    let fdinfo = std::fs::read_to_string(fdinfo).unwrap();
    f.vfs
        .forget_unwatched(|| Ok(watched_in(&fdinfo).collect()))
        .unwrap();
}

/// Host directories of watched ones.
fn shadows(f: &Fixture) -> usize {
    let names = std::fs::read_dir(f.store.path().join("files")).unwrap();
    let names = names.map(|e| e.unwrap().file_name());
    names
        .filter(|n| n.to_string_lossy().starts_with('w'))
        .count()
}

fn furnish(f: &Fixture) {
    for dir in ["dir", "files", "none"] {
        f.mkdir(dir);
        f.mkdir(&format!("{dir}/sub"));
        f.write(&format!("{dir}/file"), "text");
        f.vfs
            .link(
                &f.cx(),
                &f.at(&format!("{dir}/file")),
                &f.cwd,
                format!("{dir}/link").as_bytes(),
            )
            .unwrap();
        f.symlink("file", &format!("{dir}/symlink"));
    }
}

fn text(f: &Fixture, path: &str) -> String {
    let fd = f.open(path, libc::O_RDONLY).unwrap();
    let mut buf = [0; 16];
    let n = nix::unistd::read(&fd, &mut buf).unwrap();
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

#[test]
fn directories_that_nobody_watches_any_more() {
    let f = Fixture::new();
    furnish(&f);
    let (kept, gone) = (inotify(), inotify());
    watch(&f, &kept, "dir");
    watch(&f, &kept, "files/file");
    watch(&f, &gone, "none");
    watch(&f, &gone, "none/sub");
    assert_eq!(shadows(&f), 4);
    drop(gone);
    // Its watch may be made yet.
    let wanted = f.vfs.watched_path(&f.at("none/sub")).unwrap();
    forget_unwatched(&f, &kept);
    assert_eq!(shadows(&f), 3);
    drop(wanted);
    for dir in ["dir", "files", "none"] {
        assert_eq!(text(&f, &format!("{dir}/file")), "text");
        assert_eq!(text(&f, &format!("{dir}/link")), "text");
    }
    let _ = kept.read_events();
    f.write("dir/new", "text");
    f.unlink("dir/new").unwrap();
    f.unlink("files/file").unwrap();
    let events = kept.read_events().unwrap();
    let seen = |mask| events.iter().filter(|e| e.mask.contains(mask)).count();
    assert_eq!(seen(AddWatchFlags::IN_CREATE), 1);
    assert_eq!(seen(AddWatchFlags::IN_DELETE), 1);
    assert_eq!(seen(AddWatchFlags::IN_ATTRIB), 1);
    // And one of them is watched again.
    watch(&f, &kept, "none");
    f.unlink("none/file").unwrap();
    let events = kept.read_events().unwrap();
    assert!(
        events
            .iter()
            .any(|e| e.mask.contains(AddWatchFlags::IN_DELETE))
    );
    assert_eq!(text(&f, "none/link"), "text");
}

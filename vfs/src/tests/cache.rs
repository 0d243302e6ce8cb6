use std::sync::Arc;
use std::time::Instant;

use super::*;

#[test]
fn names_made_and_removed_are_seen_at_once() {
    let f = Fixture::new();
    for _ in 0..3 {
        assert_eq!(f.missing("x"), Errno::ENOENT);
        f.write("x", "1");
        assert!(f.find("x", Lookup::empty()).is_ok());
        f.vfs.link(&f.cx(), &f.at("x"), &f.cwd, b"y").unwrap();
        assert_eq!(f.at("y").attr().unwrap().nlink, 2);
        f.unlink("x").unwrap();
        f.unlink("y").unwrap();
    }
    f.write("x", "1");
    f.mkdir("d");
    f.rename("x", "d/z", 0).unwrap();
    assert_eq!(f.missing("x"), Errno::ENOENT);
    assert_eq!(f.path(&f.at("d/z")), "/d/z");
    f.write("w", "2");
    f.rename("w", "d/z", libc::RENAME_EXCHANGE).unwrap();
    f.rename("w", "d", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(f.at("d").kind(), FileType::Regular);
    assert_eq!(f.path(&f.at("w/z")), "/w/z");
}

#[test]
fn many_names_stay_findable() {
    let f = Fixture::new();
    f.mkdir("d");
    let kept = f.at("d");
    for n in 0..70_000 {
        let name = format!("d/n{n}");
        assert_eq!(f.missing(&name), Errno::ENOENT);
        if n % 10 == 0 {
            f.mkdir(&name);
        }
    }
    for n in (0..70_000).step_by(10) {
        f.at(&format!("d/n{n}"));
    }
    assert!(kept.same(&f.at("d")));
    assert_eq!(f.names("d").len(), 7002);
}

#[test]
fn a_directory_can_be_read_while_it_changes() {
    let f = Fixture::new();
    f.mkdir("d");
    for n in 0..1000 {
        f.write(&format!("d/{n}"), "");
    }
    let dir = f.at("d");
    let (mut cookie, mut seen) = (0, Vec::new());
    loop {
        let mut batch = 0;
        f.vfs
            .read_dir(&f.cx(), &dir, cookie, &mut |e| {
                if batch == 7 {
                    return false;
                }
                assert!(e.next > cookie);
                cookie = e.next;
                batch += 1;
                seen.push(String::from_utf8(e.name).unwrap());
                true
            })
            .unwrap();
        if batch == 0 {
            break;
        }
        for name in seen.iter().filter(|n| *n != "." && *n != "..") {
            let _ = f.unlink(&format!("d/{name}"));
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1002);
    f.rmdir("d").unwrap();
}

#[test]
fn threads_that_rename_make_and_remove_do_not_deadlock() {
    let f = Fixture::new();
    for d in ["a", "a/b", "a/b/c", "x", "x/y"] {
        f.mkdir(d);
    }
    let names = [
        "a/1", "a/b/1", "a/b/c/1", "x/1", "x/y/1", "x/y/2", "a/2", "1",
    ];
    let f = Arc::new(f);
    std::thread::scope(|s| {
        for t in 0..4u64 {
            let f = f.clone();
            s.spawn(move || {
                let mut rng = super::against_linux::Rng(t + 1);
                for _ in 0..3000 {
                    let (a, b) = (*rng.of(&names), *rng.of(&names));
                    match rng.below(5) {
                        0 => drop(f.vfs.mkdir(&f.cx(), &f.cwd, a.as_bytes(), 0o777)),
                        1 => drop(f.rmdir(a)),
                        2 => drop(f.rename(a, b, 0)),
                        3 => drop(f.rename(a, b, libc::RENAME_EXCHANGE)),
                        _ => drop(f.find(&format!("{a}/../{b}"), Lookup::FOLLOW)),
                    }
                }
            });
        }
    });
}

/// Not a benchmark, but a bound: a cached path must cost well under a microsecond of our own.
#[test]
fn a_cached_walk_is_fast() {
    let f = Fixture::new();
    f.mkdir("usr");
    f.mkdir("usr/lib");
    f.mkdir("usr/lib/x86_64-linux-gnu");
    f.mkdir("usr/lib/x86_64-linux-gnu/dir");
    let path = "/usr/lib/x86_64-linux-gnu/dir";
    let cx = f.cx();
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..1000 {
                let found = f.vfs.resolve(&cx, &f.cwd, path.as_bytes(), Lookup::FOLLOW);
                found.unwrap().attr().unwrap();
            }
            start.elapsed().as_nanos() / 1000
        })
        .min()
        .unwrap();
    eprintln!("walk of 4 components and attributes: {best} ns");
    assert!(best < 3000, "{best} ns");
}

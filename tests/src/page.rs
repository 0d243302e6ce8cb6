//! The page `docs/compatibility.md`: every program and suite that the tests run, with its verdict.

use crate::expectations::Expectations;
use crate::gallery::EXHIBITS;

/// A suite that others wrote, or a test of a whole system.
struct Suite {
    name: &'static str,
    what: &'static str,
    /// The test that runs it.
    test: &'static str,
    /// Its file in `tests/expectations`.
    expectations: Option<&'static str>,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "busybox's testsuite",
        what: "Debian's static busybox, all applets that it has",
        test: "busybox_testsuite.rs",
        expectations: None,
    },
    Suite {
        name: "CPython's test suite",
        what: "the modules os, posix, subprocess, signal, socket, threading, mmap, fcntl, select, asyncio, pathlib, \
               shutil, tempfile, pty, mailbox and multiprocessing (fork, spawn, forkserver): 3,600 tests, and with `DUET_TEST_FULL=1` 6,000",
        test: "cpython.rs",
        expectations: Some("cpython"),
    },
    Suite {
        name: "GNU sed",
        what: "Debian's source package: patched, configured, compiled by gcc and make, and tested by its own tests",
        test: "package.rs",
        expectations: None,
    },
    Suite {
        name: "stress-ng",
        what: "78 stressors of its classes of file systems, processes, signals, IPC and memory, and with \
               `DUET_TEST_FULL=1` 187, in verify mode; the supervisor holds no more descriptors, threads, memory and processes afterwards",
        test: "stress.rs",
        expectations: Some("stress"),
    },
    Suite {
        name: "a Debian tree",
        what: "debootstrap (bookworm, minbase) inside the layer for an ordinary user; in the tree, for that user and for \
               root: su, dpkg, apt-get install with maintainer scripts, useradd, adduser, chown, tar of devices, \
               update-alternatives; all entries of the tree when it is used again",
        test: "debian.rs",
        expectations: None,
    },
];

/// What is said of something with these known differences.
fn verdict(reasons: &[&str]) -> String {
    match reasons {
        [] => "the same".to_owned(),
        known => format!("the same but for {}: {}", known.len(), known.join("; ")),
    }
}

/// The page. The tests hold it true: an exhibit that prints something else than natively fails, and so
/// does a known difference that does not show.
///
/// `old`: the page as it is, whose matrix is kept; what `duet compare --suite` prints is not made here.
pub fn compatibility_page(old: &str) -> String {
    let mut page = String::from(
        "# What runs in the layer\n\n\
         Generated from the lists that the tests run (`tests/src/gallery.rs`, `tests/src/page.rs`,\n\
         `tests/expectations`); do not edit.\n\n\
         ## Programs\n\n\
         Each script in `tests/scripts` runs natively and in a layer over the host's tree, and must print the same\n\
         and end alike, but for what is named here.\n\n\
         | program | what it is made to do | against native |\n|---|---|---|\n",
    );
    for e in EXHIBITS {
        let reasons: Vec<&str> = e.known.iter().map(|k| k.why).collect();
        page += &format!("| {} | {} | {} |\n", e.program, e.what, verdict(&reasons));
    }
    page += "\n## Suites and systems\n\n\
             Each test of a suite must give the same verdict natively and in the layer.\n\n\
             | suite | what is run | by | against native |\n|---|---|---|---|\n";
    for s in SUITES {
        let known = s.expectations.map(Expectations::of);
        let reasons = known.as_ref().map_or(Vec::new(), Expectations::differences);
        page += &format!(
            "| {} | {} | `tests/tests/{}` | {} |\n",
            s.name,
            s.what,
            s.test,
            verdict(&reasons)
        );
    }
    page += "\nBeside these, the guests of `testbins/` print the same natively, in the layer with either engine and, \
             most of\nthem, in the VM mode (`tests/tests/guests.rs`, `tests/tests/vm.rs`).\n\n";
    let (_, kept, _) = around_matrix(old).unwrap_or_default();
    page + MATRIX.0 + kept + MATRIX.1
}

/// Marks before and behind the part of the page that `duet compare --suite` makes.
pub const MATRIX: (&str, &str) = ("<!-- duet compare --suite -->\n", "<!-- end -->\n");

/// What is before the matrix of a page, the matrix, and what is behind it.
pub fn around_matrix(page: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = page.split_once(MATRIX.0)?;
    let (matrix, after) = rest.split_once(MATRIX.1)?;
    Some((before, matrix, after))
}

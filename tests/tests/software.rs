//! Real programs print the same natively and in a layer over the host's tree: the exhibits of the gallery
//! (`tests/src/gallery.rs`), whose scripts lie in `tests/scripts`.

use duet_tests::{EXHIBITS, compatibility_page, duet_run, host_tool, show, skip, workspace_dir};

macro_rules! exhibits {
    ($($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                show(stringify!($test));
            }
        )*

        #[test]
        fn every_exhibit_is_shown() {
            let shown = [$(stringify!($test)),*];
            let hidden: Vec<_> = EXHIBITS.iter().map(|e| e.test).filter(|t| !shown.contains(t)).collect();
            assert!(hidden.is_empty(), "exhibits without a test: {hidden:?}");
        }
    };
}

exhibits! {
    bash_jobs coreutils text_tools archives
    perl python node go java
    git sqlite redis nginx postgres keys terminals agents messages inotify strace gdb
}

/// At the place that every program knows, which a test may not take natively.
#[test]
fn a_syslog_daemon_of_the_layers() {
    let test = "a_syslog_daemon_of_the_layers";
    let (Some(python), Some(_)) = (host_tool("python3"), host_tool("logger")) else {
        return skip(test, "no python3, or no logger");
    };
    let script = workspace_dir().join("tests/scripts/messages.py");
    let script = script.canonicalize().unwrap();
    let args = [script.to_str().unwrap(), "/dev/log"];
    let options = [
        "--host-root",
        "--tmpfs",
        "/run",
        "-w",
        "/run",
        "-e",
        "LANG=C",
    ];
    let output = duet_run(&options, &python, &args, b"").ok();
    for said in [
        "logger '<13>DATE shell: from logger' None right process 0:0 0",
        "syslog '<25>DATE libc[PID]: from the C library' None right process 0:0",
        "handler '<156>after a restart\\x00' None right process 0:0",
        "done",
    ] {
        assert!(output.lines().any(|l| l == said), "{said}: {output}");
    }
}

/// `DUET_RENEW_DOCS=1` writes it.
#[test]
fn the_page_is_up_to_date() {
    let path = workspace_dir().join("docs/compatibility.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let page = compatibility_page(&written);
    if std::env::var_os("DUET_RENEW_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/compatibility.md is stale: run this test with DUET_RENEW_DOCS=1"
    );
}

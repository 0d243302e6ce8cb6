//! Real programs print the same natively and in a layer over the host's tree: the exhibits of the gallery
//! (`tests/src/gallery.rs`), whose scripts lie in `tests/scripts`.

use duet_tests::{EXHIBITS, compatibility_page, show, workspace_dir};

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
    git sqlite redis nginx postgres keys terminals agents inotify strace gdb
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

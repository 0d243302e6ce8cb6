//! Real programs print the same natively and in a layer over the host's tree: the exhibits of the gallery
//! (`tests/src/gallery.rs`), whose scripts lie in `tests/scripts`.

use duet_tests::{EXHIBITS, show};

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
    git sqlite redis nginx postgres keys
}

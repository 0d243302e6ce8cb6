//! What guests are known to do otherwise in a layer than natively, each with its reason.

use crate::run::Known;

/// What is known to differ, and why.
pub fn known(guest: &str) -> &'static [Known] {
    const O_PATH: &str = "the kernel hands no O_PATH file over; its stand-in is a directory";
    const PROC: &str = "Duet's own /proc has no such operation";
    match guest {
        "files" => &[
            Known {
                native: "ftruncate(fd, 0): EBADF",
                layer: "ftruncate(fd, 0): EINVAL",
                why: O_PATH,
            },
            Known {
                native: "lseek(fd, 0, SEEK_SET): EBADF",
                layer: "lseek(fd, 0, SEEK_SET): 0",
                why: O_PATH,
            },
            Known {
                native: "(fcntl(fd, F_GETFL) & O_PATH) == O_PATH: 1",
                layer: "(fcntl(fd, F_GETFL) & O_PATH) == O_PATH: 0",
                why: O_PATH,
            },
        ],
        "procfs" => &[
            Known {
                native: "has_line(path, \"flags:\\t0100000\"): 1",
                layer: "has_line(path, \"flags:\\t0100000\"): 0",
                why: "Duet opens files without following links",
            },
            Known {
                native: "open \"/proc/new\" O_CREAT | O_WRONLY: ENOENT",
                layer: "open \"/proc/new\" O_CREAT | O_WRONLY: EACCES",
                why: PROC,
            },
            Known {
                native: "mkdir(\"/proc/new\", 0755): ENOENT",
                layer: "mkdir(\"/proc/new\", 0755): EPERM",
                why: PROC,
            },
            Known {
                native: "rename(\"/proc/self/comm\", \"/proc/self/x\"): ENOENT",
                layer: "rename(\"/proc/self/comm\", \"/proc/self/x\"): EPERM",
                why: PROC,
            },
        ],
        _ => &[],
    }
}

/// What is known to differ with an engine, and why.
pub fn known_with(engine: &str, guest: &str) -> Vec<Known> {
    let own_descriptor = Known {
        native: "count == expected: yes",
        layer: "count == expected: NO",
        why: "the engine's descriptor is there, but not listed",
    };
    let mut all = known(guest).to_vec();
    if (engine, guest) == ("ptrace", "procfs") {
        all.push(own_descriptor);
    }
    all
}

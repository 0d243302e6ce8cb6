//! Processes below this one: who they are, what memory they hold, and their end.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Most processes that are looked at: a program that forks without end is not followed for ever.
const MOST: usize = 4096;

/// The children of a process, by all its threads.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    let numbers = |text: String| {
        let all = text.split_ascii_whitespace().filter_map(|n| n.parse().ok());
        all.collect::<Vec<u32>>()
    };
    lists.flat_map(numbers).collect()
}

/// Everybody below a process, parents first; without itself.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut all = children(pid);
    let mut at = 0;
    while let Some(&next) = all.get(at) {
        at += 1;
        if all.len() > MOST {
            break;
        }
        all.extend(children(next));
    }
    all
}

/// Ends all processes below this one and reaps them. Those that they leave behind come to this process,
/// if it is a subreaper.
pub fn end_all() {
    loop {
        end_descendants();
        // Waits for one of those just killed, and takes what else there is.
        let mut how = None;
        loop {
            match waitpid(None, how) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => how = Some(WaitPidFlag::WNOHANG),
                Err(nix::errno::Errno::EINTR) => (),
                // There is none left.
                Err(_) => return,
            }
        }
    }
}

/// Asks the children of this process to end, by `SIGTERM`: a mode then leaves nothing of its own behind.
pub fn ask_children() {
    for pid in children(std::process::id()) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
}

/// Asks the children to end, and reaps those that do so within `patience`.
pub fn ask_to_end(patience: Duration) {
    const STEP: Duration = Duration::from_millis(2);
    ask_children();
    let end = Instant::now() + patience;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < end => std::thread::sleep(STEP),
            // There is none left, or those that are left do not want to.
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return,
            _ => (),
        }
    }
}

/// Kills all processes below this one, and leaves them to be reaped.
pub fn end_descendants() {
    for pid in descendants(std::process::id()) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
}

/// Makes orphans of descendants children of this process, so that they can be found and ended.
///
/// # Errors
/// See prctl(2).
pub fn adopt_orphans() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Which file a process runs: device and inode.
pub fn program_of(pid: u32) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/exe"))
        .ok()
        .map(|m| (m.dev(), m.ino()))
}

/// Memory that a process has resident, in bytes: its share of what it has in common with others where
/// that can be read.
pub fn resident(pid: u32) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
        let kib = line.and_then(|l| l.trim().strip_suffix("kB"));
        if let Some(kib) = kib.and_then(|n| n.trim().parse::<u64>().ok()) {
            return Some(kib.saturating_mul(1024));
        }
    }
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(4096))
}

/// Files of the host that a process has mapped, without those below `but`.
pub fn mapped(pid: u32, but: &Path, into: &mut BTreeSet<PathBuf>) {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/maps")) else {
        return;
    };
    for line in text.lines() {
        let Some(at) = line.find('/') else { continue };
        let path = Path::new(line.get(at..).unwrap_or_default());
        let named = !line.ends_with(" (deleted)") && !path.starts_with("/memfd:");
        if named && !path.starts_with(but) && path.is_file() {
            into.insert(path.to_owned());
        }
    }
}

/// Bytes read and written by calls so far, by this process and those it has waited for, without the
/// calling thread's own (proc(5), `io`). `None` where the kernel does not count them.
pub fn bytes_moved() -> Option<(u64, u64)> {
    let read = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line?.trim().parse().ok()
        };
        Some((field("rchar:")?, field("wchar:")?))
    };
    // Reading the one counts in the other, by a hundred bytes at most.
    let thread = read("/proc/thread-self/io")?;
    let all = read("/proc/self/io")?;
    Some((
        all.0.saturating_sub(thread.0),
        all.1.saturating_sub(thread.1),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_found_with_its_own() {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "cat; true"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let found = loop {
            let below = descendants(shell.id());
            if !below.is_empty() {
                break below;
            }
            std::thread::yield_now();
        };
        assert_eq!(found.len(), 1);
        assert!(resident(found[0]).is_some_and(|bytes| bytes >= 4096));
        assert!(program_of(shell.id()).is_some());
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}

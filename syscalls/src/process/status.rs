//! What the host's `/proc` says of a process.

use std::fs;
use std::io::Read;

use duet_intercept::Tid;
use duet_vfs::account::host;
use duet_vfs::counted::{read_file, read_text};
use duet_vfs::types::{Errno, Result};

/// Hands the first 4 KiB of a `/proc` file to `parse`: such a file gives all it has in one read.
pub(super) fn read_proc<T>(path: &str, parse: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let mut buf = [0; 4096];
    let read = || fs::File::open(path)?.read(&mut buf);
    let n = host("read a file", read).map_err(|_| Errno::ESRCH)?;
    Ok(parse(buf.get(..n).unwrap_or_default()))
}

/// Who traces a thread, in the supervisor's numbers: a process of the sandbox or of the host.
pub fn tracer_of(tid: Tid) -> Option<i32> {
    number_in_status(tid, "TracerPid:").filter(|&t| t != 0)
}

/// The parent of a thread's process, in the supervisor's numbers.
pub fn parent_of(tid: Tid) -> Option<i32> {
    number_in_status(tid, "PPid:")
}

fn number_in_status(tid: Tid, name: &str) -> Option<i32> {
    let find = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().parse().ok())
    };
    read_proc(&format!("/proc/{}/status", tid.0), find).ok()?
}

/// Whether a thread, given by its directory in `/proc`, is in one of these calls, or runs and may be in any
/// (proc_pid_syscall(5)).
pub(crate) fn may_be_in(thread: &str, calls: &[libc::c_long]) -> bool {
    let call = read_proc(&format!("{thread}/syscall"), |text| {
        let text = String::from_utf8_lossy(text);
        let first = text.split_ascii_whitespace().next().unwrap_or_default();
        first == "running" || first.parse().is_ok_and(|nr| calls.contains(&nr))
    });
    call.unwrap_or(false)
}

/// Clock ticks that a thread has spent in its program; `None` if it is gone.
pub(crate) fn user_ticks(tid: Tid) -> Option<u64> {
    // Field 14.
    field_of_stat(tid, 14)?.parse().ok()
}

/// Field `number`, counted from 1, of a thread's `stat` (proc_pid_stat(5)), one behind its name.
fn field_of_stat(tid: Tid, number: usize) -> Option<String> {
    let text = read_file(format!("/proc/{}/stat", tid.0)).ok()?;
    // The second field is a name in brackets that may hold anything; the first behind it is field 3.
    let close = text.iter().rposition(|&b| b == b')')?;
    let rest = String::from_utf8_lossy(text.get(close + 1..)?);
    let field = rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?;
    Some(field.into())
}

/// Device number of a thread's controlling terminal, as the host has it; `None` without one.
pub fn controlling_terminal(tid: Tid) -> Option<u64> {
    let terminal = field_of_stat(tid, 7)?.parse().ok()?;
    Some(terminal).filter(|&t| t != 0)
}

/// Children of a thread, in the host's numbers; none if it is gone.
pub(crate) fn children_of(tgid: i32, tid: i32) -> Vec<i32> {
    let text = read_text(format!("/proc/{tgid}/task/{tid}/children"));
    let text = text.unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|c| c.parse().ok())
        .collect()
}

/// The paths of what a directory of `/proc` lists; none if the process is gone, `ENOSPC` if it may not be
/// looked at.
pub(super) fn entries(dir: &str) -> Result<Vec<String>> {
    match host("read a directory", || fs::read_dir(dir)) {
        Ok(list) => {
            let names = list.flatten();
            let path = |e: fs::DirEntry| e.path().to_str().map(String::from);
            Ok(names.filter_map(path).collect())
        }
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        Err(_) => Err(Errno::ENOSPC),
    }
}

pub(super) fn is_gone(e: &std::io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

pub(super) fn thread_group(tid: i32) -> Result<i32> {
    let text = read_text(format!("/proc/{tid}/status")).map_err(|_| Errno::ESRCH)?;
    let line = text.lines().find_map(|l| l.strip_prefix("Tgid:"));
    line.and_then(|l| l.trim().parse().ok()).ok_or(Errno::ESRCH)
}

/// The last number of the `NSpid:` line of a `status` or `fdinfo` file; 0 if there is none.
pub(super) fn innermost_pid(text: &str) -> i32 {
    let line = text.lines().find_map(|l| l.strip_prefix("NSpid:"));
    let last = line.and_then(|l| l.split_ascii_whitespace().next_back());
    last.and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_pid_is_the_last() {
        assert_eq!(innermost_pid("Pid:\t7\nNSpid:\t7\t3\t2\n"), 2);
        assert_eq!(innermost_pid("Pid:\t7\n"), 0);
    }
}

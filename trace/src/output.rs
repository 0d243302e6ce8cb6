//! Where a trace goes: one stream, or a file for each thread.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The place of a thread's id in the name of its file.
const PID: &[u8] = b"%p";

/// Files that are open at once: a program may have more threads than a process descriptors.
const MOST_OPEN: usize = 256;

/// Where lines go.
pub enum Output {
    /// To one stream, a line at a time: somebody looks on.
    Stream(Box<dyn Write + Send>),
    /// To a file.
    File(BufWriter<File>),
    /// To a file for each thread.
    Separate {
        /// The name of each, with `%p` where the id stands.
        name: PathBuf,
        /// Whether what is there is kept.
        append: bool,
        /// Those of threads that have not ended, or some of them.
        open: HashMap<i32, BufWriter<File>>,
        /// Threads that have a file.
        known: HashSet<i32>,
    },
}

fn open(path: &Path, append: bool) -> io::Result<BufWriter<File>> {
    let mut options = OpenOptions::new();
    options.create(true).append(append);
    if !append {
        options.write(true).truncate(true);
    }
    options.open(path).map(BufWriter::new)
}

impl Output {
    /// To a file, or with `%p` in its name to one for each thread. `append`: behind what is there.
    pub fn file(name: &Path, append: bool) -> io::Result<Output> {
        if has_pid(name.as_os_str()) {
            return Ok(Output::separate(name, append));
        }
        open(name, append).map(Output::File)
    }

    /// To a file for each thread: `name.ID`, or with the id in place of `%p`.
    pub fn separate(name: &Path, append: bool) -> Output {
        let mut name = name.as_os_str().to_owned();
        if !has_pid(&name) {
            name.push(".%p");
        }
        Output::Separate {
            name: name.into(),
            append,
            open: HashMap::new(),
            known: HashSet::new(),
        }
    }

    /// Whether each thread has a file of its own.
    pub fn is_separate(&self) -> bool {
        matches!(self, Output::Separate { .. })
    }

    /// Whether the lines of several threads come together in a file.
    pub fn is_file(&self) -> bool {
        matches!(self, Output::File(_))
    }

    /// Writes what thread `pid` does.
    pub fn write(&mut self, pid: i32, text: &str) -> io::Result<()> {
        match self {
            Output::Stream(out) => out.write_all(text.as_bytes()),
            Output::File(out) => out.write_all(text.as_bytes()),
            Output::Separate {
                name,
                append,
                open: files,
                known,
            } => {
                if let Some(file) = files.get_mut(&pid) {
                    return file.write_all(text.as_bytes());
                }
                if files.len() >= MOST_OPEN {
                    files.values_mut().try_for_each(Write::flush)?;
                    files.clear();
                }
                let again = !known.insert(pid);
                let mut file = open(&with_pid(name, pid), *append || again)?;
                file.write_all(text.as_bytes())?;
                files.insert(pid, file);
                Ok(())
            }
        }
    }

    /// Thread `pid` does nothing more.
    pub fn end(&mut self, pid: i32) -> io::Result<()> {
        match self {
            Output::Separate { open, .. } => open.remove(&pid).map_or(Ok(()), |mut f| f.flush()),
            _ => Ok(()),
        }
    }

    /// Writes what is still kept back.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stream(out) => out.flush(),
            Output::File(out) => out.flush(),
            Output::Separate { open, .. } => open.values_mut().try_for_each(Write::flush),
        }
    }
}

fn has_pid(name: &OsStr) -> bool {
    name.as_bytes().windows(PID.len()).any(|w| w == PID)
}

/// The name with an id in place of each `%p`.
fn with_pid(name: &Path, pid: i32) -> PathBuf {
    let mut rest = name.as_os_str().as_bytes();
    let mut out = Vec::new();
    while let Some(at) = rest.windows(PID.len()).position(|w| w == PID) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(pid.to_string().as_bytes());
        rest = from.get(PID.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_a_file() {
        assert_eq!(
            with_pid(Path::new("/a/%p/t.%p"), 12),
            Path::new("/a/12/t.12")
        );
        let name = |o: Output| match o {
            Output::Separate { name, .. } => name,
            _ => PathBuf::new(),
        };
        assert_eq!(
            name(Output::separate(Path::new("t"), false)),
            Path::new("t.%p")
        );
        let dir = std::env::temp_dir().join(format!("duet-output-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mut many = Output::separate(&dir.join("t"), false);
        let threads = 2 * MOST_OPEN as i32;
        for round in ["a", "b"] {
            (0..threads).for_each(|pid| many.write(pid, round).unwrap());
        }
        many.flush().unwrap();
        let whole =
            |pid: i32| std::fs::read_to_string(dir.join(format!("t.{pid}"))).unwrap() == "ab";
        assert!((0..threads).all(whole));
        std::fs::remove_dir_all(&dir).unwrap();
        let of_file = Output::file(Path::new("%p.txt"), false).unwrap();
        assert_eq!(name(of_file), Path::new("%p.txt"));
    }
}

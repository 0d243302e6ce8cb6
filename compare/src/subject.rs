//! What is compared: a program and its world.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The tree that the program sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// In Duet's modes the program alone; natively the host's.
    Bare,
    /// The host's. What Duet's modes write outside the working directory is thrown away.
    Host,
    /// A copy of this directory, made anew for each run.
    Directory(PathBuf),
}

/// A file or directory of the host, shown in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// On the host.
    pub source: PathBuf,
    /// In the tree, absolute.
    pub target: PathBuf,
    /// Read-only ones are shown as they are, others as a copy that is made anew for each run.
    pub read_only: bool,
}

/// A program and its world.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The tree.
    pub tree: Tree,
    /// What the working directory holds at the start; `None`: nothing.
    pub dir: Option<PathBuf>,
    /// Another working directory than one of the comparison's own.
    pub workdir: Option<PathBuf>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// User and group.
    pub user: (u32, u32),
    /// Standard input; `None`: empty.
    pub input: Option<PathBuf>,
    /// Further options for `duet run`, in both of its modes.
    pub options: Vec<OsString>,
    /// Further options for `duet run --mode vm`.
    pub machine_options: Vec<OsString>,
}

impl Subject {
    /// The program's name as it was given.
    pub fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), |p| p)
    }

    /// Makes a relative path of a program mean the same wherever it is run from.
    ///
    /// # Errors
    /// There is no program, or no current directory.
    pub fn settle(&mut self) -> Result<()> {
        let current =
            std::env::current_dir().map_err(|e| Error::step("the current directory", e))?;
        let absolute = |path: &mut PathBuf| *path = current.join(&*path);
        if let Tree::Directory(dir) = &mut self.tree {
            absolute(dir);
        }
        self.dir.iter_mut().for_each(absolute);
        self.input.iter_mut().for_each(absolute);
        self.volumes
            .iter_mut()
            .for_each(|v| absolute(&mut v.source));
        let program = self
            .command
            .first_mut()
            .ok_or_else(|| Error::Failed("no program is named".into()))?;
        let is_path = program.as_bytes().contains(&b'/');
        if is_path && !matches!(self.tree, Tree::Directory(_)) {
            let path = current.join(&*program);
            // As it is, with its links: a program may look at its own name.
            let tidy: PathBuf = path.components().collect();
            *program = tidy.into();
        }
        Ok(())
    }

    /// Where the program runs in the tree. `own`: the comparison's own directory.
    pub fn working_directory<'a>(&'a self, own: &'a Path) -> &'a Path {
        match (&self.workdir, &self.tree) {
            (Some(dir), _) => dir,
            (None, Tree::Directory(_)) => Path::new("/"),
            (None, _) => own,
        }
    }
}

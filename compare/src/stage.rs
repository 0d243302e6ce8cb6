//! Where the runs take place: a directory of the comparison's own, the copies in it, and for native runs
//! what is mounted where.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::files::Files;
use crate::mirror::Mirror;
use crate::subject::{Subject, Tree};
use crate::tree;
use crate::{Error, Result};

/// The place of the runs, which goes with it.
pub struct Stage {
    place: TempDir,
    /// Each with the name that its files are shown under.
    mirrors: Vec<(PathBuf, Mirror)>,
    tree: Option<PathBuf>,
    /// In the subject's order, for those that are written to.
    volumes: Vec<Option<PathBuf>>,
    /// What is mounted for native runs.
    mounted: Vec<PathBuf>,
}

/// Why a native run cannot have the subject's tree, if it cannot.
pub fn native_missing(subject: &Subject) -> Option<String> {
    let root = nix::unistd::geteuid().is_root();
    let needs_mounts = !subject.volumes.is_empty() || matches!(subject.tree, Tree::Directory(_));
    if needs_mounts && !root {
        return Some("--rootfs and --volume natively need root (chroot and mounts)".into());
    }
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    if subject.user != own && !root {
        return Some("another user natively needs root".into());
    }
    if matches!(subject.tree, Tree::Directory(_)) {
        return None;
    }
    let absent = subject.volumes.iter().find(|v| !v.target.exists());
    absent.map(|v| format!("{} is not there to mount a volume at", v.target.display()))
}

impl Stage {
    /// Makes the place. With `native`, the calling process gets a mount namespace of its own where the
    /// subject needs one. `within`: another directory than that of temporary files.
    ///
    /// # Errors
    /// There is no room, or the namespace is not to be had.
    pub fn new(subject: &Subject, native: bool, within: Option<&Path>) -> Result<Stage> {
        let place = tempfile::Builder::new()
            .prefix("duet-compare-")
            .tempdir_in(within.map_or_else(std::env::temp_dir, Path::to_owned))
            .map_err(|e| Error::step("making a directory", e))?;
        // Another user of the subject's is to pass, not to look.
        fs::set_permissions(place.path(), PermissionsExt::from_mode(0o711))
            .map_err(|e| Error::on(place.path(), e))?;
        let within = |name: &str| place.path().join(name);
        let mut mirrors = Vec::new();
        let mut tree = None;
        if let Tree::Directory(source) = &subject.tree {
            let copy = within("tree");
            tree = Some(copy.clone());
            mirrors.push(("/".into(), Mirror::new(Some(source), copy, subject.user)));
        } else {
            let copy = within("work");
            let mirror = Mirror::new(subject.dir.as_deref(), copy, subject.user);
            mirrors.push((".".into(), mirror));
        }
        let mut volumes = Vec::new();
        for (i, volume) in subject.volumes.iter().enumerate() {
            let copy = (!volume.read_only).then(|| within(&format!("volume{i}")));
            if let Some(copy) = &copy {
                let mirror = Mirror::new(Some(&volume.source), copy.clone(), subject.user);
                mirrors.push((volume.target.clone(), mirror));
            }
            volumes.push(copy);
        }
        let stage = Stage {
            place,
            mirrors,
            tree,
            volumes,
            mounted: Vec::new(),
        };
        if native && (stage.tree.is_some() || !subject.volumes.is_empty()) {
            unshare(CloneFlags::CLONE_NEWNS)
                .map_err(|e| Error::step("making a mount namespace", e))?;
            let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, all, None::<&str>)
                .map_err(|e| Error::step("making mounts private", e))?;
        }
        Ok(stage)
    }

    /// The comparison's own working directory.
    pub fn work(&self) -> PathBuf {
        self.place.path().join("work")
    }

    /// The copy of the tree, if there is one.
    pub fn tree(&self) -> Option<&Path> {
        self.tree.as_deref()
    }

    /// What is shown as the subject's volume of that number: its source, or a copy.
    pub fn volume<'a>(&'a self, subject: &'a Subject, i: usize) -> Option<&'a Path> {
        let copy = self.volumes.get(i)?.as_deref();
        copy.or_else(|| subject.volumes.get(i).map(|v| v.source.as_path()))
    }

    /// Where a run of Duet's tells of its inside.
    pub fn inside(&self) -> PathBuf {
        self.place.path().join("inside.json")
    }

    /// A file or directory of its own.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The place itself.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Makes all as it was at the start.
    ///
    /// # Errors
    /// Names what cannot be copied.
    pub fn refresh(&mut self, subject: &Subject) -> Result<()> {
        for (_, mirror) in &mut self.mirrors {
            mirror.restore()?;
        }
        // Places to mount at, which all modes are to find alike.
        if let Some(tree) = &self.tree {
            let shown = subject.volumes.iter().map(|v| v.target.as_path());
            for place in ["/dev", "/proc", "/sys"]
                .map(Path::new)
                .into_iter()
                .chain(shown)
            {
                let place = tree.join(place.strip_prefix("/").unwrap_or(place));
                if fs::symlink_metadata(&place).is_err() {
                    fs::create_dir_all(&place).map_err(|e| Error::on(&place, e))?;
                }
            }
            if let Some((_, mirror)) = self.mirrors.first_mut() {
                mirror.note()?;
            }
        }
        match fs::remove_file(self.inside()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::on(&self.inside(), e)),
            _ => Ok(()),
        }
    }

    /// What was written since.
    ///
    /// # Errors
    /// A copy cannot be read.
    pub fn written(&self) -> Result<Files> {
        let mut files = Files::default();
        for (shown, mirror) in &self.mirrors {
            mirror.written(shown, &mut files)?;
        }
        Ok(files)
    }

    /// Mounts what a native run is to see.
    ///
    /// # Errors
    /// Names the place.
    pub fn mount(&mut self, subject: &Subject) -> Result<()> {
        let top = self.tree.clone().unwrap_or_else(|| "/".into());
        if self.tree.is_some() {
            for place in ["/dev", "/proc", "/sys"] {
                self.bind(Path::new(place), &top.join(&place[1..]), false)?;
            }
        }
        for (i, volume) in subject.volumes.iter().enumerate() {
            let target = volume.target.strip_prefix("/").unwrap_or(&volume.target);
            let source = self.volume(subject, i).map(Path::to_owned);
            let source = source.unwrap_or_else(|| volume.source.clone());
            self.bind(&source, &top.join(target), volume.read_only)?;
        }
        Ok(())
    }

    fn bind(&mut self, source: &Path, target: &Path, read_only: bool) -> Result<()> {
        let none = None::<&str>;
        let on = |e| Error::on(target, e);
        // One that leads elsewhere would be mounted over there.
        if fs::symlink_metadata(target).is_ok_and(|m| m.is_symlink()) {
            return Err(Error::on(
                target,
                "is a symbolic link; nothing is mounted there",
            ));
        }
        mount(
            Some(source),
            target,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )
        .map_err(on)?;
        self.mounted.push(target.to_owned());
        if read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, target, none, flags, none).map_err(on)?;
        }
        Ok(())
    }

    /// Takes that away again.
    ///
    /// # Errors
    /// Names the place; the directory is then left behind.
    pub fn unmount(&mut self) -> Result<()> {
        while let Some(target) = self.mounted.last() {
            umount2(target, MntFlags::MNT_DETACH).map_err(|e| Error::on(target, e))?;
            self.mounted.pop();
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Before the directory goes: nothing of the host's may be below it.
        if let Err(e) = self.unmount() {
            log::warn!("{e}; {} is left behind", self.place.path().display());
            self.place.disable_cleanup(true);
            return;
        }
        // What a run has made may be too deep for the ordinary way.
        if let Err(e) = tree::remove(self.place.path()) {
            log::warn!("{} is left behind: {e}", self.place.path().display());
        }
    }
}

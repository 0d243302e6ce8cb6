//! A Debian tree (bookworm, minbase): debootstrap itself makes it inside a layer, for an ordinary user, and
//! the tree's own tools work on it; each time the tree must be what real root's is.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use duet_tests::{
    Known, Output, assert_same, command_output_within, copy_program, duet, expected, host_tool,
    is_root, skip, tempdir, testbins_dir, workspace_dir,
};
use tempfile::TempDir;

const NOBODY: u32 = 65534;

const LIMIT: Duration = Duration::from_secs(900);

/// What the kernel lets no ordinary user attach an attribute to has its owner for one run only.
const OWNER_OF_A_FIFO: Known = Known {
    native: "./root/v/fifo p 644 1000:1000 1",
    layer: "./root/v/fifo p 644 0:0 1",
    why: "what is neither file nor directory holds no attribute, so its owner is known for one run only",
};

/// Somebody who has a tree.
struct Owner {
    tree: PathBuf,
    /// The `duet` that runs on it; `None`: the tree is used natively.
    duet: Option<PathBuf>,
    ordinary: bool,
    _dir: TempDir,
}

impl Owner {
    fn native() -> Owner {
        // Where devices work, which /tmp may not let them.
        let dir = tempfile::Builder::new()
            .prefix("debian-")
            .tempdir_in(testbins_dir());
        let dir = dir.expect("temporary directory");
        Owner {
            tree: dir.path().join("tree"),
            duet: None,
            ordinary: false,
            _dir: dir,
        }
    }

    fn of_layer(ordinary: bool) -> Owner {
        let dir = tempdir();
        let (tree, program) = (dir.path().join("tree"), dir.path().join("duet"));
        std::fs::create_dir(&tree).expect("mkdir");
        copy_program(duet(), &program);
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("chmod");
        if ordinary {
            chown(&tree, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        Owner {
            tree,
            duet: Some(program),
            ordinary,
            _dir: dir,
        }
    }

    fn run(&self, mut command: Command, input: &[u8]) -> Output {
        command
            .env_clear()
            .env("HOME", "/root")
            .env("LANG", "C")
            .current_dir("/");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if self.ordinary {
            command.uid(NOBODY).gid(NOBODY);
        }
        command_output_within(command, input, LIMIT)
    }

    /// Makes the tree from the packages in `debs`.
    fn debootstrap(&self, debs: &Path) {
        let volume = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let (program, debs, tree) = match &self.duet {
            None => (None, debs.to_path_buf(), self.tree.clone()),
            Some(duet) => {
                let mut command = Command::new(duet);
                command.args(["run", "--host-root", "-v", &volume(&self.tree, "/mnt")]);
                command.args(["-v", &volume(debs, "/srv:ro")]);
                (Some(command), "/srv".into(), "/mnt".into())
            }
        };
        let mut command = match program {
            None => Command::new("debootstrap"),
            Some(mut duet) => {
                duet.arg("debootstrap");
                duet
            }
        };
        let archive = std::fs::read_to_string(debs_dir().join("uri")).expect("the archive's name");
        command
            .args(["--variant=minbase", "--unpack-tarball"])
            .arg(debs.join("debs.tar"));
        command.args(["bookworm"]).arg(tree).arg(archive.trim());
        let output = self.run(command, b"");
        let last = output.stdout.lines().last().unwrap_or_default();
        assert!(
            output.status == 0 && last == "I: Base system installed successfully.",
            "{output:?}"
        );
    }

    /// Runs a script of `tests/scripts` in the tree with its own bash; what it writes stays if `keep`.
    fn script(&self, name: &str, keep: Keep) -> Output {
        let script = std::fs::read(workspace_dir().join("tests/scripts").join(name));
        let mut command;
        match &self.duet {
            Some(duet) => {
                command = Command::new(duet);
                command.args(["run", "--rootfs"]).arg(&self.tree);
                if keep == Keep::Yes {
                    command.arg("--rw");
                }
                command.args(["-e", "LANG=C"]);
            }
            None => {
                command = Command::new("unshare");
                let inside = "hostname duet; mount -t proc p $0/proc; mount -t sysfs s $0/sys; exec chroot $0 \"$@\"";
                command.args(["-mpfnu", "sh", "-c", inside]).arg(&self.tree);
            }
        }
        command.arg("bash");
        self.run(command, &script.expect("the script"))
    }
}

#[derive(PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// Where `.ci/deps` puts the packages.
fn debs_dir() -> PathBuf {
    testbins_dir()
        .parent()
        .expect("target directory")
        .join("debian")
}

/// The tree as it lies, to be seen with natively.
fn copy(from: &Owner, to: &Owner) {
    std::fs::remove_dir(&to.tree).expect("an empty directory");
    let status = Command::new("cp")
        .arg("-a")
        .args([&from.tree, &to.tree])
        .status();
    assert!(status.expect("cp").success());
}

#[test]
fn a_tree_of_debootstrap() {
    const NAME: &str = "debian";
    if host_tool("debootstrap").is_none() || !debs_dir().join("debs.tar").exists() {
        return skip(NAME, "no debootstrap, or no packages (run .ci/deps)");
    }
    let namespaces = || Command::new("unshare").args(["-mpfnu", "true"]).status();
    if !is_root() || !namespaces().is_ok_and(|s| s.success()) {
        return skip(NAME, "only root with namespaces can make the tree natively");
    }
    let (native, ordinary) = (Owner::native(), Owner::of_layer(true));
    std::thread::scope(|scope| {
        scope.spawn(|| native.debootstrap(&debs_dir()));
        ordinary.debootstrap(&debs_dir());
    });
    // The same tree in the hands of root, who needs no records of who owns what.
    let root = Owner::of_layer(false);
    copy(&native, &root);
    let everyone = [(&ordinary, "an ordinary user"), (&root, "root")];

    // What debootstrap made.
    let listed = native.script("tree_list.sh", Keep::No);
    assert!(
        listed.status == 0 && listed.stdout.lines().count() > 5000,
        "{listed:?}"
    );
    for (owner, who) in everyone {
        let here = owner.script("tree_list.sh", Keep::No);
        assert_same(&format!("debootstrap's tree of {who}"), &listed, &here);
    }
    // What its tools do.
    let said = native.script("debian.sh", Keep::Yes);
    assert!(
        said.status == 0 && said.stdout.ends_with("\nfinished\n"),
        "{said:?}"
    );
    for (owner, who) in everyone {
        let here = owner.script("debian.sh", Keep::Yes);
        assert_same(&format!("debian.sh of {who}"), &said, &here);
    }
    // What of that is there when the tree is used again.
    for (owner, who) in everyone {
        let listed = native.script("tree_list.sh", Keep::No);
        let known: &[Known] = if owner.ordinary {
            &[OWNER_OF_A_FIFO]
        } else {
            &[]
        };
        let here = owner.script("tree_list.sh", Keep::No);
        assert_same(
            &format!("the tree of {who}"),
            &expected(listed, known),
            &here,
        );
    }
}

//! Where programs come from: the `duet` under test, and the guests, each built once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

/// How a guest is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// C, `gcc -static`.
    Static,
    /// C, `gcc -static-pie`.
    StaticPie,
    /// C, `gcc`, which needs the C library of the tree it runs in.
    Dynamic,
    /// C, `musl-gcc -static`.
    Musl,
    /// C, `musl-gcc`, which needs musl in the tree it runs in.
    MuslDynamic,
    /// Rust, `rustc -C target-feature=+crt-static`.
    Rust,
    /// Go, `go build` with `CGO_ENABLED=0`.
    Go,
}

impl Toolchain {
    fn suffix(self) -> &'static str {
        match self {
            Toolchain::Static => "",
            Toolchain::StaticPie => "-pie",
            Toolchain::Dynamic => "-dynamic",
            Toolchain::Musl => "-musl",
            Toolchain::MuslDynamic => "-musl-dynamic",
            Toolchain::Rust => "-rust",
            Toolchain::Go => "-go",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Toolchain::Rust => "rs",
            Toolchain::Go => "go",
            _ => "c",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Toolchain::Musl | Toolchain::MuslDynamic => "musl-gcc",
            Toolchain::Rust => "rustc",
            Toolchain::Go => "go",
            _ => "gcc",
        }
    }

    /// `sources`: the main one, and in C others that belong to it.
    fn command(self, sources: &[PathBuf], to: &Path) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Toolchain::Rust => {
                command.args([
                    "--edition",
                    "2024",
                    "-C",
                    "opt-level=1",
                    "-C",
                    "target-feature=+crt-static",
                ]);
                command.arg("-o").arg(to).args(sources);
            }
            Toolchain::Go => {
                command
                    .env("CGO_ENABLED", "0")
                    .env("GOFLAGS", "-mod=mod")
                    .env("GO111MODULE", "off");
                if std::env::var_os("HOME").is_none() {
                    command.env("GOCACHE", testbins_dir().join("gocache"));
                }
                command.args(["build", "-o"]).arg(to).args(sources);
            }
            _ => {
                let link: &[&str] = match self {
                    Toolchain::StaticPie => &["-static-pie", "-fPIE"],
                    Toolchain::Dynamic | Toolchain::MuslDynamic => &[],
                    _ => &["-static"],
                };
                // Guests pass bad values on purpose.
                let quiet = [
                    "-Wno-nonnull",
                    "-Wno-stringop-overflow",
                    "-Wno-stringop-overread",
                ];
                command
                    .args(["-O1", "-g", "-Wall", "-Wextra", "-pthread"])
                    .args(quiet)
                    .args(link);
                command.arg("-o").arg(to).args(sources).arg("-lrt");
            }
        }
        command
    }
}

/// The root of the workspace's sources.
pub fn workspace_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo's output directory of the profile under test (`target/debug`), found from the running test.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    // target/debug/deps/run-1234
    exe.ancestors()
        .nth(2)
        .expect("a test runs from target/PROFILE/deps")
        .to_path_buf()
}

/// Where built guests are kept: `testbins` in cargo's target directory.
pub fn testbins_dir() -> PathBuf {
    let dir = profile_dir()
        .parent()
        .expect("a profile lies in a target directory")
        .join("testbins");
    std::fs::create_dir_all(&dir).expect("cannot make the directory of guests");
    dir
}

/// The program under test: `DUET_BIN`, else the one that cargo builds beside this test, brought up
/// to date first when cargo runs us (a test of a stale binary tests nothing).
pub fn duet() -> &'static Path {
    static DUET: OnceLock<PathBuf> = OnceLock::new();
    DUET.get_or_init(|| {
        if let Some(path) = std::env::var_os("DUET_BIN") {
            return path.into();
        }
        let profile = profile_dir();
        let path = profile.join("duet");
        if let Some(cargo) = std::env::var_os("CARGO") {
            let _lock = lock("duet");
            let mut command = Command::new(cargo);
            command.args([
                "build",
                "--quiet",
                "-p",
                "duet-cli",
                "--bin",
                "duet",
                "--target-dir",
            ]);
            command
                .arg(profile.parent().expect("target directory"))
                .current_dir(workspace_dir());
            if profile.ends_with("release") {
                command.arg("--release");
            }
            let status = command.status().expect("cannot run cargo");
            assert!(status.success(), "duet does not build");
        }
        assert!(
            path.exists(),
            "{} is not built; set DUET_BIN",
            path.display()
        );
        path
    })
}

/// One build at a time of the same thing, among all test processes.
fn lock(name: &str) -> Flock<File> {
    let file = File::create(testbins_dir().join(format!(".lock-{name}"))).expect("lock file");
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .expect("flock")
}

/// The path of an installed program, looked up as the shell does; `None` if there is none.
pub fn host_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

/// The files of a directory with this ending, sorted; none if there is no such directory.
fn files_with(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    all.retain(|f| f.extension().is_some_and(|e| e == extension));
    all.sort();
    all
}

/// The guest `testbins/NAME.{c,rs,go}`, in C with the files of `testbins/NAME/`, built with `toolchain`;
/// `None` if its compiler is not installed (the caller skips). A source that does not compile fails the test.
pub fn guest(name: &str, toolchain: Toolchain) -> Option<PathBuf> {
    host_tool(toolchain.program())?;
    let dir = workspace_dir().join("testbins");
    let source = dir.join(format!("{name}.{}", toolchain.extension()));
    let (mut sources, mut read) = (vec![source.clone()], vec![dir.join("check.h")]);
    if toolchain.extension() == "c" {
        sources.extend(files_with(&dir.join(name), "c"));
        read.extend(files_with(&dir.join(name), "h"));
    }
    let built = testbins_dir().join(format!("{name}{}", toolchain.suffix()));
    let _lock = lock(&format!("{name}{}", toolchain.suffix()));
    let newest = sources.iter().chain(&read).map(|f| modified(f)).max();
    assert!(source.exists(), "no source {}", source.display());
    if Some(modified(&built)) < newest {
        let new = built.with_extension("new");
        let output = toolchain
            .command(&sources, &new)
            .output()
            .expect("cannot run the compiler");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} does not build:\n{said}",
            source.display()
        );
        std::fs::rename(&new, &built).expect("cannot install the guest");
    }
    Some(built)
}

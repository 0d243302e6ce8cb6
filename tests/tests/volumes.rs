//! Directories of the host that both sides change: what the host has changed is what the guest finds, at once.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use duet_tests::{Toolchain, duet_command, guest, skip, tempdir};

/// A guest that says what it finds at paths.
struct Asker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Asker {
    fn start(program: &Path, dir: &Path, options: &[&str]) -> Asker {
        let volume = format!("{}:/data", dir.display());
        let mut command = duet_command(&[options, &["-v", &volume, "-w", "/data"]].concat());
        command.arg(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Asker {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn ask(&mut self, path: &str) -> String {
        writeln!(self.input, "{path}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

/// What it should find.
fn found(path: &Path) -> String {
    let m = match fs::symlink_metadata(path) {
        Ok(m) => m,
        Err(e) => {
            return format!(
                "{:?}",
                nix::errno::Errno::from_raw(e.raw_os_error().unwrap())
            );
        }
    };
    let text = match m.is_file() {
        true => fs::read_to_string(path).unwrap(),
        false => String::new(),
    };
    format!("{} {:o} {text}", m.ino(), m.mode())
        .trim_end()
        .to_owned()
}

/// xorshift64*
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(4);
        let names: Vec<_> = (0..depth).map(|_| ["a", "b", "c"][self.below(3)]).collect();
        names.join("/")
    }
}

fn change(rng: &mut Rng, root: &Path, n: usize) {
    let (one, two) = (root.join(rng.path()), root.join(rng.path()));
    let cwd = nix::fcntl::AT_FDCWD;
    let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
    match rng.below(9) {
        0 | 1 => drop(fs::create_dir_all(&one)),
        2 => drop(fs::write(&one, n.to_string())),
        3 => drop(fs::remove_dir_all(&one)),
        4 => drop(fs::remove_file(&one)),
        5 => drop(symlink(["a", "b", "c", "../b"][rng.below(4)], &one)),
        6 => drop(fs::set_permissions(
            &one,
            fs::Permissions::from_mode([0o755, 0o700][rng.below(2)]),
        )),
        7 => drop(fs::rename(&one, &two)),
        _ => drop(nix::fcntl::renameat2(cwd, &one, cwd, &two, exchange)),
    }
}

fn host_and_guest_agree(options: &[&str], test: &str, seed: u64) {
    let Some(program) = guest("asks", Toolchain::Static) else {
        return skip(test, "no C compiler");
    };
    let dir = tempdir();
    let mut asker = Asker::start(&program, dir.path(), options);
    let mut rng = Rng(seed);
    for n in 0..1500 {
        for _ in 0..rng.below(3) {
            change(&mut rng, dir.path(), n);
        }
        let path = rng.path();
        assert_eq!(asker.ask(&path), found(&dir.path().join(&path)), "{path}");
    }
    asker.end();
}

#[test]
fn what_the_host_changes_is_found_at_once() {
    host_and_guest_agree(
        &[],
        "what_the_host_changes_is_found_at_once",
        0x1234_5678_9abc_def1,
    );
}

#[test]
fn what_the_host_changes_is_found_at_once_by_notification() {
    let options = ["--no-accelerator"];
    let test = "what_the_host_changes_is_found_at_once_by_notification";
    host_and_guest_agree(&options, test, 0x9876_5432_1fed_cba9);
}

/// A directory that becomes a link to the outside, while the guest is busy in it.
#[test]
fn a_link_that_takes_a_directorys_place_leads_nowhere() {
    let Some(program) = guest("asks", Toolchain::Static) else {
        return skip(
            "a_link_that_takes_a_directorys_place_leads_nowhere",
            "no C compiler",
        );
    };
    let (dir, outside) = (tempdir(), tempdir());
    fs::create_dir(outside.path().join("b")).unwrap();
    fs::write(outside.path().join("b/file"), "secret").unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/file"), "own").unwrap();
    let mut asker = Asker::start(&program, dir.path(), &[]);
    for _ in 0..20 {
        assert!(asker.ask("a/b/file").ends_with("own"));
        fs::rename(at("a"), at("z")).unwrap();
        symlink(outside.path(), at("a")).unwrap();
        assert_eq!(asker.ask("a/b/file"), "ENOENT");
        fs::remove_file(at("a")).unwrap();
        fs::rename(at("z"), at("a")).unwrap();
    }
    asker.end();
}

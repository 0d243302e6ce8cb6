//! Pages of figures and of behaviour are what the commands beside them print.
//!
//! `DUET_RENEW_DOCS=1` writes them anew: the matrix by running every guest in every mode, the figures from
//! the kept results.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use duet_tests::{
    MATRIX, Toolchain, around_matrix, command_output_within, duet, guest, is_root, known_with,
    skip, tempdir, testbins_dir, workspace_dir,
};

/// All guests in all modes, one of which may translate every instruction.
const LIMIT: Duration = Duration::from_secs(1800);

/// Guests of `testbins/` that run without arguments.
const GUESTS: [&str; 24] = [
    "dirs", "exec", "fifo", "files", "inet", "ipc", "locks", "meta", "mknod", "mmap", "mounts",
    "opath", "openat2", "peers", "perms", "procfs", "procs", "pty", "rename", "signals", "system",
    "threads", "tmpfile", "unixsock",
];

/// Those that the test runs itself: quick, and with and without differences.
const QUICK: [&str; 5] = ["dirs", "files", "rename", "tmpfile", "unixsock"];

fn renew() -> bool {
    std::env::var_os("DUET_RENEW_DOCS").is_some()
}

/// A directory with these guests and nothing else; `None` without a compiler.
fn suite(name: &str, guests: &[&str]) -> Option<PathBuf> {
    let dir = testbins_dir().join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir(&dir).unwrap();
    for guest_name in guests {
        let program = guest(guest_name, Toolchain::Static)?;
        std::fs::hard_link(program, dir.join(guest_name)).unwrap();
    }
    Some(dir)
}

/// `duet compare --suite DIR --markdown`.
fn matrix(dir: &Path, modes: &str) -> String {
    let mut command = Command::new(duet());
    command.args(["compare", "--markdown", "--suite"]).arg(dir);
    command.args(["--modes", modes, "--timeout", "120"]);
    command.args(["-e", "LANG=C", "-e", "HOME=/tmp"]);
    let output = command_output_within(command, b"", LIMIT);
    // One, where some differ.
    assert!(output.status <= 1, "{output:?}");
    output.stdout
}

/// Cells of a table in Markdown, line by line.
fn cells(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().filter(|l| l.starts_with("| "));
    let cells = lines.map(|l| {
        l.trim_matches('|')
            .split('|')
            .map(|c| c.trim().to_owned())
            .collect()
    });
    cells.collect()
}

#[test]
fn behaviour() {
    if !is_root() {
        return skip("pages behaviour", "guests about root need root natively");
    }
    let page = workspace_dir().join("docs/compatibility.md");
    if renew() {
        let dir = suite("suite", &GUESTS).expect("a C compiler");
        let table = matrix(&dir, "native,layer:seccomp,layer:ptrace,vm");
        let old = std::fs::read_to_string(&page).unwrap();
        let (before, _, after) = around_matrix(&old).expect("the place of the matrix");
        let (begin, end) = MATRIX;
        let section = section(&table);
        std::fs::write(&page, format!("{before}{begin}{section}{end}{after}")).unwrap();
    }
    let Some(dir) = suite("quick-suite", &QUICK) else {
        return skip("pages behaviour", "no C compiler");
    };
    let text = std::fs::read_to_string(&page).unwrap();
    let (_, matrix_of_page, _) = around_matrix(&text).expect("the place of the matrix");
    let kept = cells(matrix_of_page);
    let found = cells(&matrix(&dir, "native,layer:seccomp"));
    assert_eq!(found.len(), QUICK.len() + 1, "{found:#?}");
    for line in &found[1..] {
        let on_page = kept.iter().find(|l| l[0] == line[0]);
        let on_page = on_page.unwrap_or_else(|| panic!("docs/compatibility.md has no {}", line[0]));
        assert_eq!(
            on_page[1], line[1],
            "docs/compatibility.md is old: {}",
            line[0]
        );
    }
}

fn section(table: &str) -> String {
    let mut page = String::from(
        "## Behaviour, mode by mode\n\n\
         The guests of `testbins/` print what they see of the system. Each runs natively, in the layer with either\n\
         engine, and in a virtual machine, from equal starts; \"same\" means the same exit status, output, errors and\n\
         files as natively. Made by `DUET_RENEW_DOCS=1 cargo test -p duet-tests --test pages`, which runs, over a\n\
         directory with these programs,\n\n\
         ```sh\n\
         duet compare --suite DIR --markdown -e LANG=C -e HOME=/tmp\n\
         ```\n\n\
         (without `--markdown` it shows the lines that differ).\n\n",
    );
    page += table;
    page += "\nWhat is known to differ in the layer, and why:\n\n";
    for guest in GUESTS {
        let why: BTreeSet<_> = known_with("ptrace", guest).iter().map(|k| k.why).collect();
        if !why.is_empty() {
            let why: Vec<_> = why.into_iter().collect();
            page += &format!("- `{guest}`: {}.\n", why.join("; "));
        }
    }
    page += "\nIn the VM it is the guest's kernel that differs: files of virtio-fs can be waited for with epoll (`ipc`), and\n\
             a thread that has been joined can be signalled a moment longer (`threads`).\n";
    page
}

/// `docs/performance.md` with the tables of `docs/bench.json`.
#[test]
fn performance() {
    let docs = workspace_dir().join("docs");
    let page = docs.join("performance.md");
    let kept = std::fs::read_to_string(&page).unwrap();
    let copy = tempdir();
    let made = copy.path().join("page.md");
    std::fs::write(&made, &kept).unwrap();
    let mut command = Command::new(duet());
    command
        .args(["bench", "--show"])
        .arg(docs.join("bench.json"));
    command.arg("--page").arg(&made);
    command_output_within(command, b"", LIMIT).ok();
    let made = std::fs::read_to_string(&made).unwrap();
    if renew() {
        std::fs::write(&page, &made).unwrap();
    }
    assert!(
        renew() || kept == made,
        "docs/performance.md is old; renew it with DUET_RENEW_DOCS=1"
    );
    // Every table is one of these: none is kept by hand.
    let mut generated = false;
    for (i, line) in made.lines().enumerate() {
        generated = match line {
            l if l.starts_with("<!-- duet bench: ") => true,
            "<!-- end -->" => false,
            _ => generated,
        };
        assert!(
            generated || !line.starts_with('|'),
            "docs/performance.md:{}: a table that nothing makes",
            i + 1
        );
    }
}

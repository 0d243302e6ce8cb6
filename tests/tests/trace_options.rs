//! The options of `duet trace`: what they choose, and how it looks.

use std::path::PathBuf;
use std::process::Command;

use duet_tests::{Output, Toolchain, busybox, command_output, duet, guest, skip, tempdir};

const SCRIPT: &str = "mkdir /tmp/d; cd /tmp/d; rmdir /none; echo x >/dev/null; (exit 3)";

/// `duet trace OPTIONS busybox sh -c SCRIPT`
fn trace(busybox: &PathBuf, options: &[&str], script: &str) -> Output {
    let mut command = Command::new(duet());
    command.arg("trace").args(options).arg(busybox);
    command.args(["sh", "-c", script]).env_remove("NO_COLOR");
    command_output(command, b"")
}

#[test]
fn expressions_choose_calls() {
    let Some(busybox) = busybox("expressions_choose_calls") else {
        return;
    };
    let calls = |options: &[&str]| -> Vec<String> {
        let output = trace(&busybox, options, SCRIPT);
        assert_eq!(output.status, 3, "{options:?}: {}", output.stderr);
        let lines = output.stderr.lines();
        let bare = lines.map(|l| l.split_once("] ").map_or(l, |(_, rest)| rest));
        let call = bare.filter_map(|l| l.split_once('('));
        call.filter(|(name, _)| !name.contains(' '))
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    assert_eq!(
        calls(&["-e", "trace=mkdir,chdir,rmdir"]),
        ["mkdir", "chdir", "rmdir"]
    );
    assert_eq!(calls(&["-e", "/^(mk|rm)dir$"]), ["mkdir", "rmdir"]);
    assert_eq!(calls(&["--trace", "mkdir,rmdir", "-Z"]), ["rmdir"]);
    assert_eq!(
        calls(&["-e", "t=mkdir,rmdir", "-e", "status=successful"]),
        ["mkdir"]
    );
    assert_eq!(
        calls(&["-e", "path=/tmp/*", "-e", "trace=%file"]),
        ["mkdir", "chdir"]
    );
    assert_eq!(calls(&["-P", "/none"]), ["rmdir"]);
    // A path that is relative counts from the working directory, a descriptor as its file.
    let output = trace(
        &busybox,
        &["-e", "path=/tmp/d/f"],
        "mkdir /tmp/d; cd /tmp/d; echo x >f",
    );
    for call in ["openat(AT_FDCWD, \"f\"", "write(", "close("] {
        assert!(
            output.stderr.contains(call),
            "no {call} in {}",
            output.stderr
        );
    }
    let all = calls(&[]);
    let without = calls(&["-e", "trace=!%file"]);
    assert!(all.iter().any(|c| c == "execve") && !without.iter().any(|c| c == "execve"));
    assert!(without.iter().any(|c| c == "brk"), "{without:?}");
    let signals = |options: &[&str]| trace(&busybox, options, "kill -USR1 $$").stderr;
    assert!(signals(&["-e", "trace=none"]).contains("--- SIGUSR1"));
    assert!(!signals(&["-e", "trace=none", "-e", "signal=!usr1"]).contains("--- SIGUSR1"));
    let quiet = trace(
        &busybox,
        &["-e", "none", "-e", "quiet=exit", "-e", "signal=none"],
        SCRIPT,
    );
    assert_eq!(quiet.stderr.lines().find(|l| l.contains("+++")), None);
}

#[test]
fn wrong_options_are_named() {
    let Some(busybox) = busybox("wrong_options_are_named") else {
        return;
    };
    for (options, word) in [
        (["-e", "trace=opne"], "opne"),
        (["-e", "A=b"], "-E"),
        (["-e", "status=fine"], "fine"),
        (["-e", "trace=/("], "/("),
        (["-e", "signal=SIGX"], "SIGX"),
        (["--color", "-ff"], "color"),
    ] {
        let output = trace(&busybox, &options, "true");
        assert!(
            output.status == 125 && output.stderr.contains(word),
            "{options:?}: {output:?}"
        );
    }
    // A trace that cannot be written is a failure, even if the program was fine.
    for options in [
        &["-o", "/none/x"][..],
        &["-ff", "-o", "/none/x"],
        &["-o", "/dev/full"],
    ] {
        let output = trace(&busybox, options, "true");
        assert!(
            output.status == 125 && output.stderr.contains("duet: "),
            "{options:?}: {output:?}"
        );
    }
    let output = trace(&busybox, &["-ff"], "true");
    assert!(
        output.status == 125 && output.stderr.contains("-o"),
        "{output:?}"
    );
}

#[test]
fn lines_have_times_names_and_colours() {
    let Some(busybox) = busybox("lines_have_times_names_and_colours") else {
        return;
    };
    let line = |options: &[&str], call: &str| {
        let output = trace(&busybox, options, SCRIPT);
        let found = output.stderr.lines().find(|l| l.contains(call));
        found
            .unwrap_or_else(|| panic!("no {call} in {}", output.stderr))
            .to_owned()
    };
    // Digits as zeros, so that only the form is left.
    let form = |options: &[&str], call: &str| -> String {
        let digit = |c: char| if c.is_ascii_digit() { '0' } else { c };
        line(options, call).chars().map(digit).collect()
    };
    assert_eq!(
        line(&[], "chdir("),
        "chdir(\"/tmp/d\")                         = 0"
    );
    assert_eq!(line(&["-a", "20"], "chdir("), "chdir(\"/tmp/d\")     = 0");
    assert!(form(&["-t"], "chdir(").starts_with("00:00:00 chdir("));
    assert!(form(&["-tt", "-T"], "chdir(").starts_with("00:00:00.000000 chdir("));
    assert!(form(&["-T"], "chdir(").ends_with(" = 0 <0.000000>"));
    assert!(form(&["-ttt"], "chdir(").starts_with("0000000000.000000 chdir("));
    assert!(form(&["-r"], "chdir(").starts_with("     0.000000 chdir("));
    assert!(line(&["-y"], "write(1").starts_with("write(1</dev/null>, \"x\\n\", 2)"));
    assert!(line(&["-yy"], "write(1").starts_with("write(1</dev/null<char 1:3>>, \"x\\n\", 2)"));
    let coloured = line(&["--color", "always"], "\x1b[36mrmdir");
    assert!(
        coloured.contains("] \x1b[36mrmdir\x1b[0m(\"/none\")  "),
        "{coloured:?}"
    );
    assert!(coloured.ends_with("\x1b[31m-1 ENOENT (No such file or directory)\x1b[0m"));
    assert!(line(&["-s", "3"], "execve").contains("..., \"sh\", \"-c\", \"mkd\"...]"));
    let variable = trace(&busybox, &["-e", "none", "-E", "WORD=said"], "echo $WORD");
    assert_eq!(variable.stdout, "said\n");
}

#[test]
fn calls_are_counted() {
    let Some(busybox) = busybox("calls_are_counted") else {
        return;
    };
    let output = trace(
        &busybox,
        &["-c", "-S", "name", "-e", "mkdir,chdir,rmdir"],
        SCRIPT,
    );
    let rows: Vec<Vec<&str>> = output
        .stderr
        .lines()
        .map(|l| l.split_ascii_whitespace().collect())
        .collect();
    let rows: Vec<_> = rows.into_iter().skip_while(|r| r[0] != "%").collect();
    assert_eq!(rows.len(), 7, "{}", output.stderr);
    let counted = |name: &str| -> Vec<&str> {
        let row = rows.iter().find(|r| r.last() == Some(&name));
        row.map(|r| r[3..r.len() - 1].to_vec()).unwrap_or_default()
    };
    assert_eq!(rows[0].last(), Some(&"syscall"));
    assert_eq!(rows[2].last(), Some(&"chdir"));
    assert_eq!(counted("mkdir"), ["1"]);
    assert_eq!(counted("rmdir"), ["1", "1"]);
    assert_eq!(counted("total"), ["3", "1"]);
    let output = trace(&busybox, &["-C", "-e", "mkdir"], SCRIPT);
    assert!(output.stderr.contains("mkdir(\"/tmp/d\"") && output.stderr.contains("% time"));
}

#[test]
fn threads_have_files_of_their_own() {
    let Some(busybox) = busybox("threads_have_files_of_their_own") else {
        return;
    };
    let dir = tempdir();
    let name = |n: &str| dir.path().join(n).to_string_lossy().into_owned();
    let read = |n: &str| std::fs::read_to_string(dir.path().join(n)).unwrap_or_default();
    let script = "(exit 3) & wait; mkdir /tmp/e";
    let output = trace(&busybox, &["-ff", "-o", &name("t")], script);
    assert_eq!(output.stderr, "");
    assert!(read("t.2").contains("\nmkdir(\"/tmp/e\"") && !read("t.2").contains("exited with 3"));
    assert!(
        read("t.3").ends_with("+++ exited with 3 +++\n"),
        "{}",
        read("t.3")
    );
    trace(&busybox, &["-o", &name("%p.txt"), "-e", "mkdir"], script);
    assert_eq!(read("2.txt").lines().count(), 3, "{}", read("2.txt"));
    trace(
        &busybox,
        &["-A", "-o", &name("2.txt"), "-e", "mkdir"],
        script,
    );
    let both = read("2.txt");
    assert_eq!(both.matches("mkdir(").count(), 2, "{both}");
    // In one file each line says whose it is.
    trace(&busybox, &["-o", &name("one")], script);
    let one = read("one");
    assert!(
        one.lines()
            .all(|l| l.starts_with("2     ") || l.starts_with("3     ")),
        "{one}"
    );
}

#[test]
fn fast_shows_what_comes_anyway() {
    let Some(busybox) = busybox("fast_shows_what_comes_anyway") else {
        return;
    };
    let script = "mkdir /tmp/d; (exit 3); rmdir /none; cat /proc/version >/dev/null";
    let output = trace(&busybox, &["--fast"], script);
    assert_eq!(output.status, 0, "{}", output.stderr);
    for wanted in [
        "execve(\"",
        "mkdir(\"/tmp/d\", 0777)                   = 0",
        "rmdir(\"/none\")                          = -1 ENOENT (No such file or directory)",
        "+++ exited with 3 +++",
        "+++ exited with 0 +++",
        "--- not seen: native calls",
        "signals, and ends by signals",
    ] {
        assert!(
            output.stderr.contains(wanted),
            "no {wanted} in {}",
            output.stderr
        );
    }
    assert!(!output.stderr.contains("brk("), "{}", output.stderr);
    // Native calls that are named are brought, without their results.
    let output = trace(&busybox, &["--fast", "-e", "mkdir,brk"], script);
    assert!(
        output.stderr.contains("mkdir(\"/tmp/d\", 0777)"),
        "{}",
        output.stderr
    );
    let brk = output.stderr.lines().find(|l| l.contains("brk("));
    assert!(brk.is_some_and(|l| l.ends_with("= ?")), "{}", output.stderr);
    assert!(!output.stderr.contains("rmdir("), "{}", output.stderr);
}

/// Calls that an agent hands over are shown as those that are notified: all, in their order, with all arguments and
/// results.
#[test]
fn fast_shows_what_agents_hand_over() {
    let test = "fast_shows_what_agents_hand_over";
    let Some(program) = guest("looks", Toolchain::Static) else {
        return skip(test, "no C compiler");
    };
    // Times of files and addresses differ from run to run.
    let varying = |line: &str| -> String {
        let pieces = line.split_inclusive([',', ' ']);
        let same = pieces.filter(|p| !(p.contains("0x") || p.contains("time")));
        same.collect()
    };
    let run = |processors: Option<&str>| -> (Vec<String>, u64) {
        let mut command = match processors {
            Some(list) => {
                let mut command = Command::new("taskset");
                command.args(["-c", list]).arg(duet());
                command
            }
            None => Command::new(duet()),
        };
        command.args(["-v", "trace", "--fast"]).arg(&program);
        let output = command_output(command, b"");
        assert_eq!(output.status, 0, "{}", output.stderr);
        let served = output.stderr.lines().find_map(|l| {
            let (before, _) = l.split_once(" calls came by agents")?;
            before.split_whitespace().next_back()?.parse().ok()
        });
        let of_program = |l: &&str| !l.contains("INFO") && !l.starts_with("---");
        let lines = output.stderr.lines().filter(of_program).map(&varying);
        (lines.collect(), served.unwrap_or(0))
    };
    let one = (0..64).map(|n| n.to_string()).find(|n| {
        let mut command = Command::new("taskset");
        command.args(["-c", n, "true"]);
        command.status().is_ok_and(|s| s.success())
    });
    let Some(one) = one else {
        return skip(test, "no taskset");
    };
    let (expected, none) = run(Some(&one));
    assert_eq!(none, 0);
    // Whether they find somebody who listens is up to what else the machine does.
    const TRIES: usize = 20;
    let mut by_agents = 0;
    for _ in 0..TRIES {
        let (lines, served) = run(None);
        let differs = expected.iter().zip(&lines).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{served} by agents");
        assert_eq!(expected.len(), lines.len());
        by_agents = by_agents.max(served);
        if by_agents > 100 {
            return;
        }
    }
    skip(
        test,
        &format!("agents handed over {by_agents} calls at most: no processor was free"),
    );
}

/// A program that says that it is the layer's loader hides none of its calls by that.
#[test]
fn nobody_passes_for_the_loader() {
    let Some(program) = guest("traced", Toolchain::Static) else {
        return skip("nobody_passes_for_the_loader", "no C compiler");
    };
    for options in [&[][..], &["--fast"]] {
        let mut command = Command::new(duet());
        command.args(["trace", "-e", "mkdir,rmdir"]).args(options);
        command.arg(&program).arg("pretends");
        let output = command_output(command, b"");
        for wanted in [
            "mkdir(\"/tmp/before\", 0755)              = 0",
            "mkdir(\"/tmp/behind\", 0755)              = 0",
            "rmdir(\"/tmp/behind\")                    = 0",
        ] {
            assert!(output.stderr.contains(wanted), "{output:?}");
        }
    }
}

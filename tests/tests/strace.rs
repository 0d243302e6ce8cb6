//! `duet trace` writes what Debian's strace writes for the same programs. Every difference is named, with its
//! reason, in `tests/strace-differences.txt`; one that does not show is to be taken off that list.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use duet_tests::{
    Toolchain, command_output, duet, guest, host_tool, skip, tempdir, without_stray_descriptors,
    workspace_dir,
};
use regex::Regex;

/// What differs from run to run, and what stands in its place.
const VARYING: &[(&str, &str)] = &[
    (r"0x[0-9a-f]{6,16}\b", "ADDR"),
    (r" +(= )", " $1"),
    // Processes.
    (
        r"(^(?:getpid|gettid|getppid|fork|vfork|clone|clone3|setsid|getpgrp|set_tid_address)\(.*\) = )\d+$",
        "${1}PID",
    ),
    (r"(^(?:getpgid|getsid)\(\d+\) = )\d+$", "${1}PID"),
    (r"(^wait(?:4|pid)\(.*\) = )[1-9]\d*$", "${1}PID"),
    (r"(^wait(?:4|pid)\()[1-9]\d*", "${1}PID"),
    (r"(^waitid\(P_PID, )\d+", "${1}PID"),
    (r"(^(?:kill|rt_sigqueueinfo)\()[1-9]\d*", "${1}PID"),
    (r"(^tgkill\()\d+, \d+", "${1}PID, PID"),
    (r"(si_pid=)\d+", "${1}PID"),
    (r"((?:parent|child)_tid=\[)\d+", "${1}PID"),
    (r"=> \{parent_tid=\[\d+\]\}", "=> {parent_tid=[PID]}"),
    // Times.
    (r"(si_[us]time=)\d+", "${1}N"),
    (r"(tms_[a-z]*=)\d+", "${1}N"),
    (r"(^times\(.*= )\d+", "${1}N"),
    (r"(^time\(NULL\) = )\d+.*", "${1}N"),
    (
        r"(^(?:clock_gettime|gettimeofday|getrusage|timerfd_gettime|timer_gettime|getitimer|wait4)\(.*)tv_sec=\d+, (tv_[nu]sec=)\d+",
        "${1}tv_sec=N, ${2}N",
    ),
    (
        r"(^(?:getrusage|wait4)\(.*)tv_sec=\d+, (tv_[nu]sec=)\d+",
        "${1}tv_sec=N, ${2}N",
    ),
    (r"(tv_sec=\d{10}|tv_nsec=\d{6,9}|tv_usec=\d{5,6})", "N"),
    (r"/\* \d+\.\d\d s \*/", "/* N s */"),
    (r"(si_[us]time=N) /\* N s \*/", "$1"),
    (r"(^rt_sigreturn\(.*\) = )\d+$", "${1}N"),
    (r"(sin_port=htons\()(3[2-9]|[456]\d)\d{3}\)", "${1}N)"),
    (r"(left \{tv_sec=0, tv_[nu]sec=)\d+", "${1}N"),
    (r"left \{tv_sec=0, N\}", "left {tv_sec=0, tv_usec=N}"),
    // Numbers of inodes and ports, and those peers of Unix sockets that only a question to the kernel tells.
    (
        r"((?:pipe|socket|TCP|TCPv6|UDP|UDPv6|NETLINK):\[)\d+\]",
        "${1}N]",
    ),
    (
        r#"UNIX(?:-STREAM)?:\[\d+(?:->\d+)?(?:,"[^"]*")?\]"#,
        "UNIX:[N]",
    ),
    (r"(127\.0\.0\.1:)(3[2-9]|[456]\d)\d{3}\b", "${1}N"),
    (r"</proc/\d+>", "</proc/PID>"),
    (r"(ru_[a-z]+=)\d+", "${1}N"),
    // Random bytes.
    (r#"(^getrandom\()"[^"]*""#, "${1}BYTES"),
    (r"(\\x[0-9a-f]{2})+", "BYTES"),
    // What the machine has at the moment.
    (r"(^sysinfo\(\{).*(\}\))", "$1...$2"),
    (r"(f_b?(?:locks|free|avail|files|free)=)\d+", "${1}N"),
    (r"(f_fsid=\{val=\[)[^]]*", "$1..."),
];

/// The lines of each thread in the order of their ids, without what varies.
fn threads(dir: &Path, prefix: &str) -> Vec<Vec<String>> {
    let varying: Vec<(Regex, &str)> = VARYING
        .iter()
        .map(|(r, s)| (Regex::new(r).unwrap(), *s))
        .collect();
    let mut by_id: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Some(id) = name.strip_prefix(prefix).and_then(|id| id.parse().ok()) else {
            continue;
        };
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let plain = |line: &str| {
            varying.iter().fold(line.to_owned(), |line, (regex, by)| {
                regex.replace_all(&line, *by).into_owned()
            })
        };
        by_id.insert(id, text.lines().map(plain).collect());
    }
    by_id.into_values().collect()
}

/// The lines that only one of two sequences has, by a longest common subsequence.
fn difference(theirs: &[String], ours: &[String]) -> Vec<String> {
    let (n, m) = (theirs.len(), ours.len());
    let mut longest = vec![vec![0u32; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            longest[i][j] = match theirs[i] == ours[j] {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < n || j < m {
        if i < n && j < m && theirs[i] == ours[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == m || i < n && longest[i + 1][j] >= longest[i][j + 1] {
            out.push(format!("- {}", theirs[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", ours[j]));
            j += 1;
        }
    }
    out
}

/// A difference that is known.
struct Known {
    /// In which programs.
    programs: Vec<String>,
    /// A line of strace's (`-`) or of Duet's (`+`).
    line: Regex,
    /// It does not show every time.
    may: bool,
    text: String,
}

/// The list: below each reason, which begins with `==`, lines `PROGRAM[,PROGRAM] -|+[?] REGEX`.
fn known() -> Vec<Known> {
    let text =
        std::fs::read_to_string(workspace_dir().join("tests/strace-differences.txt")).unwrap();
    let mut all = Vec::new();
    let mut reason = false;
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        if line.starts_with("== ") {
            reason = true;
            continue;
        }
        assert!(reason, "{line}: no reason stands above it");
        let mut words = line.splitn(3, ' ');
        let (programs, side, regex) = (words.next(), words.next(), words.next());
        let (Some(programs), Some(side), Some(regex)) = (programs, side, regex) else {
            panic!("{line}: PROGRAM -|+ REGEX");
        };
        let (sign, may) = match side {
            "-" | "+" => (side, false),
            "-?" | "+?" => (&side[..1], true),
            _ => panic!("{line}: neither - nor +"),
        };
        all.push(Known {
            programs: programs.split(',').map(str::to_owned).collect(),
            line: Regex::new(&format!("^[{sign}] (?:{regex})$")).unwrap(),
            may,
            text: line.to_owned(),
        });
    }
    all
}

#[test]
fn real_programs_as_strace_has_them() {
    let test = "real_programs_as_strace_has_them";
    let Some(strace) = host_tool("strace") else {
        return skip(test, "no strace");
    };
    let Some(traced) = guest("traced", Toolchain::Static) else {
        return skip(test, "no C compiler");
    };
    if !duet_tests::is_root() {
        return skip(test, "not root: who owns a file shows natively");
    }
    let traced = traced.to_string_lossy().into_owned();
    let part = |name: &'static str| (name, vec![traced.as_str(), name]);
    let mut programs = vec![
        ("ls", vec!["ls", "-l"]),
        (
            "sh",
            vec![
                "sh",
                "-c",
                "echo a >f; cat f | tr a b; ls /none; (exit 3); test -d /etc && cd /etc && pwd",
            ],
        ),
        (
            "python3",
            vec![
                "python3",
                "-I",
                "-S",
                "-c",
                "import os, sys; os.mkdir('d'); print(sorted(os.listdir('.'))); sys.exit(4)",
            ],
        ),
    ];
    for name in [
        "files", "memory", "signals", "times", "process", "polls", "threads", "forks", "network",
    ] {
        programs.push(part(name));
    }
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let known = known();
    let mut used = vec![false; known.len()];
    let mut unknown = Vec::new();
    let only = std::env::var("DUET_TEST_PROGRAM").ok();
    for (name, words) in &programs {
        // Whole structures of some, and the paths of their descriptors.
        let (native_options, layer_options): (&[&str], &[&str]) = match *name {
            "times" | "process" => (&["-v"], &["--no-abbrev"]),
            "files" | "polls" => (&["-y"], &["-y"]),
            "network" => (&["-yy"], &["-yy"]),
            _ => (&[], &[]),
        };
        if only.as_ref().is_some_and(|o| o != name)
            || host_tool(words[0]).is_none() && words[0] != traced
        {
            known
                .iter()
                .zip(&mut used)
                .filter(|(k, _)| k.programs.iter().any(|p| p == name))
                .for_each(|(_, u)| *u = true);
            continue;
        }
        let dir = tempdir();
        let logs = tempdir();
        let work = dir.path().join("work");
        let run = |tool: &Path, options: &[&str], prefix: &str| {
            let _ = std::fs::remove_dir_all(&work);
            std::fs::create_dir(&work).unwrap();
            std::fs::write(work.join("one"), "1").unwrap();
            let mut command = Command::new(tool);
            command
                .args(options)
                .arg(logs.path().join(prefix))
                .args(words);
            command
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("LC_ALL", "C")
                .current_dir(&work);
            without_stray_descriptors(&mut command);
            let output = command_output(command, b"");
            (output.stdout, output.status)
        };
        let native = run(
            &strace,
            &[native_options, &["-ff", "-o"]].concat(),
            "theirs",
        );
        let options = [
            "trace",
            "--host-root",
            "--env-host",
            "--hostname",
            &host,
            "-ff",
            "-o",
        ];
        let layer = run(
            duet(),
            &[&options[..1], layer_options, &options[1..]].concat(),
            "ours",
        );
        assert_eq!(native.1, layer.1, "{name}: status");
        let (theirs, ours) = (
            threads(logs.path(), "theirs."),
            threads(logs.path(), "ours."),
        );
        assert!(
            theirs.len() == ours.len() && !theirs.is_empty(),
            "{name}: {} threads and {}",
            theirs.len(),
            ours.len()
        );
        for (n, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
            for line in difference(theirs, ours) {
                let mut named = false;
                for (k, used) in known.iter().zip(&mut used) {
                    let here = k.programs.iter().any(|p| p == name || p == "*");
                    if here && k.line.is_match(&line) {
                        (named, *used) = (true, true);
                    }
                }
                if !named {
                    unknown.push(format!("{name}[{n}] {line}"));
                }
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "{} differences without a reason:\n{}",
        unknown.len(),
        unknown.join("\n")
    );
    if only.is_none() {
        let idle = known.iter().zip(used).filter(|(k, used)| !used && !k.may);
        let idle: Vec<&str> = idle.map(|(k, _)| k.text.as_str()).collect();
        assert!(
            idle.is_empty(),
            "differences that do not show any more:\n{}",
            idle.join("\n")
        );
    }
}

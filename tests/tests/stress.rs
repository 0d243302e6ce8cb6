//! stress-ng's classes of file systems, processes, signals, IPC and memory, natively and in a layer: in its
//! verify mode each stressor must end alike, but for what `tests/expectations/stress.txt` names; and the
//! supervisor holds afterwards what it held before.
//!
//! `DUET_TEST_FULL=1` runs them all.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use duet_tests::{
    Expectations, Verdicts, duet_command, host_tool, is_root, skip, tempdir, testbins_dir,
    workspace_dir,
};

/// Those of a short run.
const STRESSORS: &str = "\
    access chdir chmod chown dentry dir dup fallocate fcntl flock fpunch getdent inotify link locka lockofd mknod \
    open procfs rename symlink utime xattr \
    clone context exec fork kill pidfd pthread session spawn vfork wait zombie daemon \
    itimer sigchld sigfd sigio signest sigpending sigpipe sigq sigrt sigsegv sigsuspend timer timerfd \
    dev-shm epoll eventfd fifo futex memfd mq msg poll seal sem sem-sysv sendfile shm shm-sysv splice sock sockfd \
    sockpair tee madvise mincore mmapfork mprotect mremap msync remap stack vm-rw";

/// What a full run runs besides.
const REST: &str = "\
    copy-file filename fstat lockf touch close switch alarm signal pipe mmap munmap vm \
    chattr dirdeep dirmany dnotify fanotify fiemap file-ioctl fsize full handle hdd inode-flags io iomix ioprio \
    lease null readahead revio seek sync-file sysfs tmpfs udp verity bind-mount chroot umount \
    brk cap env exit-group forkheavy get nice personality prctl race-sched resched rlimit schedpolicy set vforkmany \
    yield affinity pty ptrace kcmp key nanosleep hrtimers landlock loadavg unshare seccomp \
    clock fault sigabrt sigfpe sigtrap sleep bad-altstack \
    mutex pipeherd ring-pipe sockabuse sockmany vm-splice netlink-proc netlink-task \
    malloc membarrier mlock mlockmany mmapaddr mmapfixed mmapmany msyncmany resources stackmmap userfaultfd \
    vm-addr vm-segv sysinfo sysinval sysbadaddr enosys vdso getrandom urandom syscall aio aiol numa pagemove";

/// A run of `tests/scripts/stress.sh` that waits to be told to go on.
struct Run {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Run {
    fn start(mut command: Command, log: &str, stressors: &[&str]) -> Run {
        let logs = testbins_dir().join("stress");
        std::fs::create_dir_all(&logs).expect("directory of logs");
        let log = std::fs::File::create(logs.join(log)).expect("log");
        let script = workspace_dir()
            .join("tests/scripts/stress.sh")
            .canonicalize();
        command
            .arg("bash")
            .arg(script.expect("the script"))
            .arg("1")
            .args(stressors)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().expect("a run");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Run { child, lines }
    }

    /// The verdicts of a round.
    fn round(&mut self) -> Verdicts {
        let mut all = Verdicts::new();
        for line in self.lines.by_ref() {
            match line.expect("a line").split_once(' ') {
                Some((verdict, name)) => all.insert(name.to_owned(), verdict.to_owned()),
                None => return all,
            };
        }
        panic!("the run ended after {:?}", all.keys().last());
    }

    fn say(&mut self, word: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{word}").expect("a run that listens");
    }

    /// Ends it; it must say nothing more, and end well.
    fn end(mut self) {
        self.say("end");
        let status = self.child.wait().expect("wait");
        assert!(self.lines.next().is_none() && status.success(), "{status}");
    }
}

/// What a supervisor and its sandbox hold.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// Processes of the sandbox, init included.
    processes: usize,
    /// Resident memory of the supervisor, in KiB.
    memory: u64,
}

fn held(supervisor: u32) -> Held {
    let proc = Path::new("/proc").join(supervisor.to_string());
    let count = |name: &str| std::fs::read_dir(proc.join(name)).expect("/proc").count();
    let status = std::fs::read_to_string(proc.join("status")).expect("/proc/PID/status");
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|r| r.split_whitespace().next()?.parse().ok());
    Held {
        descriptors: count("fd"),
        threads: count("task"),
        processes: descendants(supervisor),
        memory: rss.expect("VmRSS"),
    }
}

fn descendants(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let mut children = BTreeSet::new();
    for task in tasks.into_iter().flatten().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(
            list.split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
    }
    children
        .into_iter()
        .map(|child| 1 + descendants(child))
        .sum()
}

#[test]
fn stressors_end_as_natively_and_leave_nothing() {
    const NAME: &str = "stress";
    if host_tool("stress-ng").is_none() {
        return skip(NAME, "no stress-ng");
    }
    let namespaces = || {
        Command::new("unshare")
            .args(["-mpfn", "--mount-proc", "true"])
            .status()
    };
    if !is_root() || !namespaces().is_ok_and(|s| s.success()) {
        return skip(
            NAME,
            "only root can give the native run namespaces of its own",
        );
    }
    let known = Expectations::of("stress");
    let without: Vec<&str> = known.without().collect();
    let full = std::env::var_os("DUET_TEST_FULL").is_some();
    let rest = if full { REST } else { "" };
    let chosen: Vec<&str> = STRESSORS
        .split_whitespace()
        .chain(rest.split_whitespace())
        .collect();
    let chosen: Vec<&str> = chosen
        .into_iter()
        .filter(|s| !without.contains(s))
        .collect();

    let dirs = (tempdir(), tempdir());
    let start = |stressors: &[&str]| {
        let mut native = Command::new("unshare");
        native
            .args(["-mpfn", "--mount-proc"])
            .current_dir(dirs.0.path());
        let mut layer = duet_command(&["--host-root"]);
        layer.current_dir(dirs.1.path());
        let layer = Run::start(layer, "layer", stressors);
        (Run::start(native, "native", stressors), layer)
    };
    let (mut native, mut layer) = start(&chosen);
    let (mut outside, mut first) = (native.round(), layer.round());
    native.end();
    let judge = |outside: &Verdicts, first: &Verdicts| {
        let wrong = known.judge(outside, first, |name| chosen.contains(&name));
        wrong.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    // Some run out of time on a busy machine.
    for _ in 0..2 {
        let wrong = judge(&outside, &first);
        if wrong.is_empty() {
            break;
        }
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        let (mut native, mut layer) = start(&wrong);
        outside.extend(native.round());
        first.extend(layer.round());
        native.end();
        layer.end();
    }
    let wrong = judge(&outside, &first);
    let logs = testbins_dir().join("stress");
    assert!(wrong.is_empty(), "{wrong:?} differ, see {}", logs.display());

    // What it has once done, it may do again without holding more. Its tables of what was used last are bounded,
    // and may fill further.
    let before = held(layer.child.id());
    layer.say("again");
    layer.round();
    let after = held(layer.child.id());
    layer.end();
    println!("{} stressors; {before:?}, then {after:?}", chosen.len());
    assert_eq!(before.processes, after.processes, "processes stay behind");
    assert!(
        after.descriptors <= before.descriptors + 500,
        "{before:?} {after:?}"
    );
    assert!(after.threads <= before.threads + 8, "{before:?} {after:?}");
    assert!(
        after.memory <= before.memory + (48 << 10),
        "{before:?} {after:?}"
    );
}

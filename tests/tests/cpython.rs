//! CPython's own test suite (Debian's libpython3.11-testsuite), natively and in a layer over the host's
//! tree: each test must give the same verdict, but for what `tests/expectations/cpython.txt` names.
//!
//! Run is what may be run in two minutes; `DUET_TEST_FULL=1` runs every module that asks something of a
//! kernel.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use duet_tests::{
    Expectations, Verdicts, command_output_within, duet_command, is_root, native_command, skip,
    tempdir, testbins_dir, workspace_dir,
};
use tempfile::TempDir;

/// The modules of a short run, those first that take longest.
const MODULES: &[&str] = &[
    "test_signal",
    "test_subprocess",
    "test_socket",
    "test_os",
    "test_posix",
    "test_threading",
    "test_mmap",
    "test_fcntl",
    "test_select",
    "test_pathlib",
    "test_shutil",
    "test_tempfile",
    "test_pty",
    "test_mailbox",
    "test_multiprocessing_fork",
    "test_asyncio.test_subprocess",
    "test_asyncio.test_unix_events",
    "test_asyncio.test_sock_lowlevel",
    "test_asyncio.test_sendfile",
    "test_asyncio.test_streams",
    "test_asyncio.test_server",
    "test_asyncio.test_selector_events",
];

/// Tests that a short run leaves out, for the time they take.
const SLOW: &[&str] = &[
    "test_siginterrupt_off",
    "ProcessTestCaseNoPoll",
    "WithManager",
    "WithThreads",
];

/// What a full run runs as well.
const REST: &[&str] = &[
    "test_multiprocessing_spawn",
    "test_multiprocessing_forkserver",
    "test_asyncio.test_base_events",
    "test_asyncio.test_buffered_proto",
    "test_asyncio.test_context",
    "test_asyncio.test_events",
    "test_asyncio.test_futures",
    "test_asyncio.test_futures2",
    "test_asyncio.test_locks",
    "test_asyncio.test_pep492",
    "test_asyncio.test_proactor_events",
    "test_asyncio.test_protocols",
    "test_asyncio.test_queues",
    "test_asyncio.test_runners",
    "test_asyncio.test_ssl",
    "test_asyncio.test_sslproto",
    "test_asyncio.test_taskgroups",
    "test_asyncio.test_tasks",
    "test_asyncio.test_threads",
    "test_asyncio.test_timeouts",
    "test_asyncio.test_transports",
    "test_asyncio.test_waitfor",
];

const PYTHON: &str = "/usr/bin/python3.11";
const SUITE: &str = "/usr/lib/python3.11/test/test_os.py";

/// How often tests that differed are run again, on both sides: many wait for a time, and fail when the
/// machine is busy.
const AGAIN: usize = 3;

/// Runs modules with options of `tests/scripts/cpython.py`, natively and in a layer at the same time. What
/// the tests print goes to the files `native` and `layer` in `logs`.
fn run(modules: &[&str], options: &[String], logs: &Path) -> (Verdicts, Verdicts) {
    let script = workspace_dir().join("tests/scripts/cpython.py");
    let script = script.canonicalize().expect("the script");
    let run = |mut command: Command, dir: &TempDir, side: &str| {
        command
            .args(["setsid", "-w", PYTHON])
            .arg(&script)
            .args(options)
            .args(modules)
            .env("HOME", dir.path())
            .current_dir(dir.path());
        let output = command_output_within(command, b"", Duration::from_secs(2400));
        std::fs::write(logs.join(side), &output.stderr).expect("log");
        assert_eq!(output.status, 0, "{side}: {}", output.stderr);
        let lines = output.stdout.lines();
        let pairs = lines.filter_map(|line| line.split_once(' '));
        pairs
            .map(|(verdict, test)| (test.to_owned(), verdict.to_owned()))
            .collect()
    };
    let name = nix::unistd::gethostname().expect("host name");
    let name = name.to_str().expect("a plain name");
    let (here, inside) = (tempdir(), tempdir());
    let options = ["--host-root", "-e", "LANG=C", "--hostname", name];
    let layer = duet_command(&options);
    std::thread::scope(|scope| {
        let native = scope.spawn(|| run(native_command(), &here, "native"));
        let layer = run(layer, &inside, "layer");
        (native.join().expect("native"), layer)
    })
}

#[test]
fn passes_what_native_passes() {
    if !Path::new(PYTHON).exists() || !Path::new(SUITE).exists() {
        return skip("cpython", "no python3.11 and libpython3.11-testsuite");
    }
    if !is_root() {
        return skip("cpython", "what differs is known for root only");
    }
    let known = Expectations::of("cpython");
    let full = std::env::var_os("DUET_TEST_FULL").is_some();
    let rest: &[&str] = if full { REST } else { &[] };
    let modules: Vec<&str> = MODULES.iter().chain(rest).copied().collect();
    let slow: &[&str] = if full { &[] } else { SLOW };
    let mut options = vec!["-j4".to_owned()];
    options.extend(
        known
            .without()
            .chain(slow.iter().copied())
            .map(|name| format!("-x{name}")),
    );

    let logs = testbins_dir().join("cpython");
    std::fs::create_dir_all(&logs).expect("directory of logs");
    let (mut native, mut layer) = run(&modules, &options, &logs);
    let chosen = |test: &str| {
        let module = |m: &&&str| test.starts_with(&format!("test.{m}."));
        modules.iter().any(|m| module(&m)) && !slow.iter().any(|name| test.contains(name))
    };
    let passed = native.values().filter(|v| *v == "ok").count();
    assert!(passed > 2000, "only {passed} tests passed natively");
    let mut wrong = known.judge(&native, &layer, chosen);
    for turn in 0..AGAIN {
        if wrong.is_empty() || wrong.len() > 50 {
            break;
        }
        let again = logs.join(format!("again-{turn}"));
        std::fs::create_dir_all(&again).expect("directory of logs");
        let mut options = vec!["-j1".to_owned()];
        options.extend(wrong.iter().map(|(test, _)| format!("-o{test}")));
        let of = |m: &&&str| {
            wrong
                .iter()
                .any(|(test, _)| test.contains(&format!("test.{m}.")))
        };
        let modules: Vec<&str> = modules.iter().filter(of).copied().collect();
        let (n, l) = run(&modules, &options, &again);
        native.extend(n);
        layer.extend(l);
        wrong = known.judge(&native, &layer, chosen);
    }
    let wrong: Vec<String> = wrong
        .iter()
        .map(|(test, why)| format!("{test}: {why}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\nsee {}", logs.display());
    println!(
        "{} tests, {passed} passed natively, {} known to differ",
        native.len(),
        known.differences().len()
    );
}

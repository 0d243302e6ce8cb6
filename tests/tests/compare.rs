//! `duet compare`: it finds what differs between modes, and nothing where nothing does; it leaves nothing
//! behind; its page is drawn as meant.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use duet_tests::{
    Output, Scheme, Toolchain, busybox, command_output_within, copy_program, drawn, duet, guest,
    has_browser, host_tool, is_root, skip, tempdir, testbins_dir,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(400);
/// What a layer can be compared with everywhere.
const LAYERS: &str = "native,layer:seccomp,layer:ptrace";

fn compare(options: &[&str], command: &[&str]) -> Command {
    let mut all = Command::new(duet());
    all.args(["compare", "--runs", "2", "--warmup", "0", "--observed", "1"]);
    all.args(options).arg("--").args(command);
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into());
    all.env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home);
    all
}

fn run(options: &[&str], command: &[&str]) -> Output {
    command_output_within(compare(options, command), b"", LIMIT)
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// What is said of one mode.
#[track_caller]
fn mode<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["modes"].as_array().unwrap();
    all.iter()
        .find(|m| m["mode"] == name)
        .unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

#[test]
fn what_differs_on_purpose_is_reported() {
    let Some(busybox) = busybox("what_differs_on_purpose_is_reported") else {
        return;
    };
    // The layer's host name is its own; a process number is another one in each native run.
    let script = "hostname; echo $$ >&2; hostname >name; echo same >same; [ $(hostname) != box ]";
    let command = [busybox.to_str().unwrap(), "sh", "-c", script];
    let options = ["--modes", LAYERS, "--hostname", "box"];
    let output = run(&[&options[..], &["--json"]].concat(), &command);
    assert_eq!(output.status, 1, "{output:?}");
    let report = json(&output);
    assert_eq!(report["schema"], "duet-compare/1");
    assert_eq!(report["reference"], "native");
    let here = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for name in ["layer:seccomp", "layer:ptrace"] {
        let layer = mode(&report, name);
        assert_eq!(
            layer["agreement"],
            serde_json::json!({
                "exit status": "differs", "standard output": "differs",
                "standard error": "unsettled", "files written": "differs",
            })
        );
        let all = layer["differences"].as_array().unwrap();
        let diffs: BTreeMap<_, _> = all
            .iter()
            .map(|d| (d["aspect"].as_str().unwrap(), d["diff"].as_str().unwrap()))
            .collect();
        assert_eq!(diffs["status"], format!("-native: 0\n+{name}: 1\n"));
        assert!(
            diffs["stdout"].contains(&format!("-{here}\n+box\n")),
            "{diffs:#?}"
        );
        assert!(diffs["files"].contains("name\n"), "{diffs:#?}");
        assert!(!diffs["files"].contains("same"), "{diffs:#?}");
    }
    let text = run(&options, &command).stdout;
    for words in [
        "DIFFERS",
        "differs from run to run",
        "Not all behave as native does",
        "+box",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
}

#[test]
fn equal_runs_agree_and_are_measured() {
    let Some(busybox) = busybox("equal_runs_agree_and_are_measured") else {
        return;
    };
    let dir = tempdir();
    let (start, input) = (dir.path().join("start"), dir.path().join("input"));
    std::fs::create_dir(&start).unwrap();
    std::fs::write(start.join("old"), "old\n").unwrap();
    std::fs::write(&input, "given\n").unwrap();
    let script = "cat >new; cat old new; rm old; mkdir d; chmod 711 d; ln -s new link; \
                  dd if=/dev/zero of=big bs=1M count=20 2>/dev/null; sleep 0.05; echo odd >&2; exit 7";
    let output = run(
        &[
            "--modes",
            LAYERS,
            "--json",
            "--dir",
            start.to_str().unwrap(),
            "--input",
            input.to_str().unwrap(),
        ],
        &[busybox.to_str().unwrap(), "sh", "-c", script],
    );
    assert_eq!(output.status, 0, "{output:?}");
    // What the runs changed was a copy.
    assert_eq!(std::fs::read_dir(&start).unwrap().count(), 1);
    let report = json(&output);
    assert_eq!(report["interrupted"], false);
    for name in ["native", "layer:seccomp", "layer:ptrace"] {
        let of = mode(&report, name);
        assert_eq!(of["runs"], 2);
        assert_eq!(of["differences"], serde_json::json!([]));
        let median = |figure: &str| of["figures"][figure]["median"].as_f64();
        for figure in [
            "start",
            "first_output",
            "run",
            "total",
            "cpu_guest_user",
            "memory_guest",
        ] {
            assert!(median(figure).is_some(), "{name} {figure}: {of:#}");
        }
        assert!(
            median("start") < median("first_output") && median("first_output") <= median("total")
        );
        assert!(
            median("written") > Some(20e6),
            "{name}: {:?}",
            median("written")
        );
        let between = median("memory_mode").unwrap();
        assert_eq!(between > 0.0, name != "native", "{name}: {between}");
        assert_eq!(median("calls_native").is_some(), name != "native");
        if name != "native" {
            assert!(median("calls_native") > Some(20.0) && median("calls_emulated") > Some(5.0));
            assert!(median("disk") > Some(1e6));
        }
    }
}

/// Deeper than PATH_MAX, and names that would steer a terminal.
#[test]
fn what_no_path_reaches_is_compared_too() {
    let Some(deep) = guest("deep", Toolchain::Static) else {
        return skip("what_no_path_reaches_is_compared_too", "no C compiler");
    };
    let command = [deep.to_str().unwrap(), "700"];
    let here = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let of = |host: &str| run(&["--modes", LAYERS, "--hostname", host], &command);
    let output = of(&here);
    assert_eq!(output.status, 0, "{output:?}");
    let output = of("box");
    assert_eq!(output.status, 1, "{output:?}");
    let name = "/two\\nlines\\xe2\\x80\\xae\n";
    for text in [name, "+box", &format!("-{here}")] {
        assert!(output.stdout.contains(text), "{text:?} in {output:?}");
    }
    assert!(!output.stdout.contains("is missing"), "{output:?}");
    assert!(!output.stdout.contains('\u{202e}'), "{output:?}");
}

#[test]
fn each_run_gets_a_fresh_copy_of_the_tree() {
    let test = "each_run_gets_a_fresh_copy_of_the_tree";
    let Some(busybox) = busybox(test) else {
        return;
    };
    if !is_root() {
        return skip(test, "chroot needs root");
    }
    let tree = tempdir();
    let bin = tree.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    copy_program(&busybox, bin.join("busybox"));
    std::os::unix::fs::symlink("busybox", bin.join("sh")).unwrap();
    let volume = tempdir();
    std::fs::write(volume.path().join("note"), "note\n").unwrap();
    let volume = format!("{}:/data", volume.path().display());
    let script = "busybox cat /data/note; echo more >>/data/note; [ ! -e /new ] && echo x >/new; \
                  busybox rm /bin/sh; busybox chown 7:8 /new; busybox ls /";
    let output = run(
        &[
            "--modes",
            LAYERS,
            "--rootfs",
            tree.path().to_str().unwrap(),
            "-v",
            &volume,
            "--json",
        ],
        &["sh", "-c", script],
    );
    assert_eq!(output.status, 0, "{output:?}");
    assert!(bin.join("sh").exists() && !tree.path().join("new").exists());
}

/// Everybody below a process, by number.
fn below(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let texts = threads
        .flatten()
        .map(|t| std::fs::read_to_string(t.path().join("children")));
    let text: String = texts.map(Result::unwrap_or_default).collect();
    let own: Vec<u32> = text
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    own.iter()
        .flat_map(|&p| std::iter::once(p).chain(below(p)))
        .collect()
}

#[test]
fn an_interrupt_leaves_nothing_and_shows_what_there_is() {
    let Some(busybox) = busybox("an_interrupt_leaves_nothing_and_shows_what_there_is") else {
        return;
    };
    let dir = tempdir();
    let counter = dir.path().join("counter");
    std::fs::create_dir(&counter).unwrap();
    // The second native run does not end. The volume is shown as it is, as it is read-only, but natively
    // nothing is kept from writing beside it.
    let script = format!(
        "echo x >>{0}/runs; [ $(wc -l <{0}/runs) -lt 2 ] || {{ sleep 600 & sleep 600; }}",
        counter.display()
    );
    let mut child = compare(
        &["--modes", "native", "--json"],
        &[busybox.to_str().unwrap(), "sh", "-c", &script],
    )
    .stdin(Stdio::null())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let sleeping = loop {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        let all = below(child.id());
        let sleeps = all.iter().filter(|p| {
            let line = std::fs::read(format!("/proc/{p}/cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\x00600")
        });
        if sleeps.count() == 2 {
            break all;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_eq!(mode(&report, "native")["runs"], 1);
    for pid in sleeping {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is left"
        );
    }
}

#[test]
fn missing_modes_are_named_with_the_reason() {
    let Some(busybox) = busybox("missing_modes_are_named_with_the_reason") else {
        return;
    };
    let command = [busybox.to_str().unwrap(), "true"];
    let output = run(&["--modes", "native,vm", "--kernel", "/none"], &command);
    assert_eq!(output.status, 0, "{output:?}");
    assert!(
        output.stdout.contains("vm is missing: /none: "),
        "{output:?}"
    );
    let output = run(
        &["--modes", "layer", "--timeout", "0.2"],
        &[busybox.to_str().unwrap(), "sleep", "60"],
    );
    assert_eq!(output.status, 0, "{output:?}");
    for (options, words) in [
        (&["--modes", "wine"][..], "layer:ptrace"),
        (&["--rootfs", "/none"], "--rootfs /none"),
        (&["--input", "/none"], "--input /none"),
    ] {
        let output = run(options, &command);
        assert_eq!(output.status, 125, "{output:?}");
        assert!(output.stderr.contains(words), "{output:?} lacks {words:?}");
    }
}

#[test]
fn the_machine_is_compared_too() {
    let test = "the_machine_is_compared_too";
    let Some(busybox) = busybox(test) else {
        return;
    };
    let cache = testbins_dir().with_file_name("vm-cache");
    let kernel = |action: &str| {
        let mut command = Command::new(duet());
        command
            .args(["kernel", action])
            .env("XDG_CACHE_HOME", &cache);
        command_output_within(command, b"", LIMIT)
    };
    if kernel("list").stdout.is_empty() && kernel("fetch").status != 0 {
        return skip(test, "no kernel");
    }
    let script = "uname -r; echo x >made; exit 5";
    let mut command = compare(
        &["--modes", "native,vm", "--json"],
        &[busybox.to_str().unwrap(), "sh", "-c", script],
    );
    command.env("XDG_CACHE_HOME", &cache);
    let output = command_output_within(command, b"", LIMIT);
    let report = json(&output);
    let vm = mode(&report, "vm");
    if let Some(why) = vm["missing"].as_str() {
        return skip(test, why);
    }
    assert_eq!(output.status, 1, "{output:?}");
    let agreement = &vm["agreement"];
    assert_eq!(agreement["standard output"], "differs", "{vm:#}");
    for aspect in ["exit status", "standard error", "files written"] {
        assert_eq!(agreement[aspect], "same", "{vm:#}");
    }
    let median = |figure: &str| vm["figures"][figure]["median"].as_f64();
    assert!(median("start") > Some(0.0) && median("run") > Some(0.0));
    assert!(median("memory_mode") > median("memory_guest"));
    assert!(vm["monitor"].is_string());
}

#[test]
fn a_suite_shows_which_programs_behave_alike() {
    let dir = tempdir();
    let script = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    };
    script("alike", "echo same; echo x >file", 0o755);
    script("differs", "hostname", 0o755);
    script("unsettled", "echo $$", 0o755);
    script("no-program", "exit 9", 0o644);
    let suite = |more: &[&str]| {
        let mut command = Command::new(duet());
        command.args([
            "compare",
            "--suite",
            dir.path().to_str().unwrap(),
            "--host-root",
        ]);
        command
            .args(["--modes", "native,layer", "--hostname", "box"])
            .args(more);
        command_output_within(command, b"", LIMIT)
    };
    let output = suite(&["--json"]);
    assert_eq!(output.status, 1, "{output:?}");
    let matrix = json(&output);
    assert_eq!(matrix["schema"], "duet-suite/1");
    assert_eq!(matrix["modes"], serde_json::json!(["layer:seccomp"]));
    let lines = matrix["lines"].as_array().unwrap();
    let found: Vec<_> = lines
        .iter()
        .map(|l| {
            (
                l["program"].as_str().unwrap(),
                l["modes"]["layer:seccomp"]["odd"].clone(),
            )
        })
        .collect();
    let expected = [
        ("alike", serde_json::json!({})),
        ("differs", serde_json::json!({"standard output": "differs"})),
        (
            "unsettled",
            serde_json::json!({"standard output": "unsettled"}),
        ),
    ];
    assert_eq!(found, expected);
    let output = suite(&["--markdown"]);
    assert!(
        output
            .stdout
            .contains("| differs | differs: standard output |\n"),
        "{output:?}"
    );
    let output = suite(&[]);
    assert!(
        output.stdout.contains("layer:seccomp: 1 of 3 as native"),
        "{output:?}"
    );
    assert!(output.stdout.contains("    +box"), "{output:?}");
}

/// `duet bench OPTIONS`.
fn bench(options: &[&str]) -> Output {
    let mut command = Command::new(duet());
    command.arg("bench").args(options);
    command_output_within(command, b"", LIMIT)
}

#[test]
fn the_built_in_set_is_measured_kept_and_held_against_another() {
    let dir = tempdir();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    let peer = host_tool("bwrap")
        .filter(|_| is_root())
        .map_or("", |_| ",bwrap");
    let modes = format!("native,layer{peer}");
    let output = bench(&[
        "--modes", &modes, "--runs", "1", "--time", "0.001", "-o", old,
    ]);
    let text = output.ok();
    assert!(
        text.contains("WHOLE PROGRAMS") && text.contains("fork, exec and wait"),
        "{text}"
    );
    let mut results: Value = serde_json::from_slice(&std::fs::read(old).unwrap()).unwrap();
    assert_eq!(results["schema"], "duet-bench/1");
    for row in results["rows"].as_array().unwrap() {
        for mode in ["native", "layer:seccomp"] {
            if row["name"] == "notification" && mode != "native" {
                // Nobody inside has a filter with a listener of its own.
                assert!(row["values"][mode].is_null(), "{row:#}");
                continue;
            }
            assert!(
                row["values"][mode]["median"].as_f64() > Some(0.0),
                "{row:#}"
            );
        }
        // A peer may refuse to work here; then it says why.
        let missing = !results["columns"][2]["missing"].is_null();
        assert!(
            peer.is_empty() || missing || row["values"]["bwrap"].is_object(),
            "{row:#}"
        );
    }
    assert!(
        results["rows"].as_array().unwrap().len() >= 28,
        "{results:#}"
    );
    // As if there had been four runs, and in a second set one operation of the layer slower, and another
    // within the first's spread.
    for row in results["rows"].as_array_mut().unwrap() {
        let values = row["values"].as_object_mut().unwrap();
        for value in values.values_mut() {
            value["n"] = 4.into();
        }
    }
    std::fs::write(old, results.to_string()).unwrap();
    let rows = results["rows"].as_array_mut().unwrap();
    let mut scale = |name: &str, of: &[(&str, f64)]| {
        let row = rows.iter_mut().find(|r| r["name"] == name).unwrap();
        let value = &mut row["values"]["layer:seccomp"];
        for (key, factor) in of {
            value[key] = (value[key].as_f64().unwrap() * factor).into();
        }
    };
    scale("stat", &[("min", 1.9), ("median", 2.0), ("max", 2.1)]);
    scale("rename", &[("min", 0.9), ("median", 2.0), ("max", 2.1)]);
    std::fs::write(new, results.to_string()).unwrap();
    let text = bench(&["--show", new, "--against", old]).ok();
    let (_, changes) = text.split_once("what changed beyond the noise").unwrap();
    assert!(
        changes.contains("stat, four components") && changes.contains("+100 %"),
        "{changes}"
    );
    assert!(!changes.contains("rename"), "{changes}");
    assert!(changes.contains("1 changed, "), "{changes}");
    // Of kept results, one set, and in a page.
    let text = bench(&["--show", new, "--set", "memory"]).ok();
    assert!(
        text.contains("mmap, touch") && !text.contains("stat,"),
        "{text}"
    );
    let page = dir.path().join("page.md");
    std::fs::write(&page, "<!-- duet bench: calls -->\n<!-- end -->\n").unwrap();
    bench(&["--show", new, "--page", page.to_str().unwrap()]).ok();
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(
        text.contains("| getuid | ") && !text.contains("| rename | "),
        "{text}"
    );
    let output = bench(&["--show", "/etc/passwd"]);
    assert_eq!(output.status, 125);
    assert!(
        output.stderr.contains("no results of duet bench"),
        "{output:?}"
    );
}

/// Sets of software: every mode of each gives values, or it is said why not.
#[test]
fn software_is_measured_too() {
    let dir = tempdir();
    let kept = dir.path().join("kept");
    let kept = kept.to_str().unwrap();
    let sets = "trees,traces,servers";
    bench(&["--set", sets, "--runs", "1", "--time", "0.001", "-o", kept]).ok();
    let results: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    let failures = results["failures"].as_array().unwrap();
    let rows = results["rows"].as_array().unwrap();
    let of = |group: &str| {
        let all: Vec<_> = rows.iter().filter(|r| r["group"] == group).collect();
        assert!(!all.is_empty() || !failures.is_empty(), "{results:#}");
        all
    };
    for (group, modes) in [
        (
            "file systems of the layer",
            &["native", "layer:seccomp"][..],
        ),
        (
            "traces",
            &["native", "layer:seccomp", "trace", "trace:fast"],
        ),
        (
            "traces: processor time",
            &["native", "layer:seccomp", "trace", "trace:fast"],
        ),
        ("servers", &["native", "layer:seccomp", "layer:ptrace"]),
    ] {
        for row in of(group) {
            for mode in modes {
                let value = row["values"][mode]["median"].as_f64();
                assert!(value > Some(0.0), "{mode}: {row:#}\n{failures:#?}");
            }
        }
    }
    // What is part of every Linux that has a shell.
    let found = |name: &str| rows.iter().any(|r| r["name"] == name);
    for name in ["tmp_stat", "overlay_rename", "trace_calls", "trace_sh"] {
        assert!(found(name), "{name}: {failures:#?}");
    }
    for failure in failures {
        assert!(
            failure["mode"].is_null(),
            "not installed, or else it works: {failure:#}"
        );
    }
}

/// What stands in the page once it is drawn: the ground's colour, and texts that lie outside the charts.
const PROBE: &str = "<script>
const chart = document.querySelector('svg.chart'), box = chart.getBoundingClientRect();
const outside = [...chart.querySelectorAll('text')].filter(t => {
  const b = t.getBoundingClientRect();
  return b.left < box.left || b.right > box.right + 1 || b.bottom > box.bottom + 1 || b.width == 0;
});
const of = (e, p) => getComputedStyle(e).getPropertyValue(p);
document.title = ['PROBE', of(document.body, 'background-color'), of(chart.querySelector('text'), 'fill'),
  chart.querySelectorAll('rect').length > 4, outside.length].join('|');
</script>";

#[test]
fn the_page_is_drawn_in_light_and_dark() {
    let test = "the_page_is_drawn_in_light_and_dark";
    let Some(busybox) = busybox(test).filter(|_| has_browser(test)) else {
        return;
    };
    let dir = tempdir();
    let (page, picture) = (dir.path().join("page.html"), dir.path().join("picture.svg"));
    let output = run(
        &[
            "--modes",
            LAYERS,
            "--html",
            page.to_str().unwrap(),
            "--svg",
            picture.to_str().unwrap(),
            "--hostname",
            "box",
        ],
        &[
            busybox.to_str().unwrap(),
            "sh",
            "-c",
            "hostname; echo '<b>&amp;'",
        ],
    );
    assert_eq!(output.status, 1, "{output:?}");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(
        !text.contains("http://") && !text.contains("https://"),
        "the page needs others"
    );
    std::fs::write(&page, text.replace("</body>", &format!("{PROBE}</body>"))).unwrap();
    for (scheme, ground, ink) in [
        (Scheme::Light, "rgb(255, 255, 255)", "rgb(31, 35, 40)"),
        (Scheme::Dark, "rgb(13, 17, 23)", "rgb(230, 237, 243)"),
    ] {
        let page_drawn = drawn(&page, scheme);
        let expected = format!("<title>PROBE|{ground}|{ink}|true|0</title>");
        assert!(
            page_drawn.contains(&expected),
            "no {expected} in {page_drawn}"
        );
        assert!(page_drawn.contains("<ins>+box</ins>"), "{page_drawn}");
        assert!(
            page_drawn.contains("echo '&lt;b&gt;&amp;amp;'"),
            "{page_drawn}"
        );
    }
    let drawn = drawn(&picture, Scheme::Light);
    assert!(
        !drawn.contains("parsererror") && drawn.contains("layer:ptrace</text>"),
        "{drawn}"
    );
}

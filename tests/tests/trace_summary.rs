//! `duet trace --summary`: a run in one page, as text, JSON and HTML.

use std::path::Path;
use std::process::Command;

use duet_tests::{
    Output, Scheme, busybox, command_output, copy_program, drawn, duet, has_browser, tempdir,
};
use serde_json::Value;

/// A tree with busybox and a file.
fn tree(busybox: &Path) -> tempfile::TempDir {
    let dir = tempdir();
    for name in ["bin", "etc"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    copy_program(busybox, dir.path().join("bin/busybox"));
    std::fs::write(dir.path().join("etc/motd"), "hello\n").unwrap();
    dir
}

fn trace(tree: &Path, options: &[&str], script: &str) -> Output {
    let mut command = Command::new(duet());
    command.args(["trace", "--rootfs"]).arg(tree).args(options);
    command.args(["/bin/busybox", "sh", "-c", script]);
    command_output(command, b"")
}

const SCRIPT: &str = "echo more >>/etc/motd; /bin/busybox cat /etc/motd /none >/dev/null; \
    (exit 3); mkdir '/<b>&'; rmdir '/<b>&'; kill -TERM $$";

fn total(calls: &Value) -> u64 {
    let of = |kind: &str| calls[kind].as_u64().unwrap();
    of("native") + of("emulated") + of("refused")
}

/// The one entry of a list whose field has this value.
fn entry<'a>(list: &'a Value, field: &str, value: &str) -> &'a Value {
    let all = list.as_array().unwrap();
    let found: Vec<&Value> = all.iter().filter(|e| e[field] == value).collect();
    assert_eq!(found.len(), 1, "{field} {value} in {list:#}");
    found[0]
}

#[test]
fn the_json_adds_up() {
    let test = "trace_summary the_json_adds_up";
    let Some(busybox) = busybox(test) else {
        return;
    };
    let tree = tree(&busybox);
    let out = tempdir();
    let (json, calls) = (out.path().join("json"), out.path().join("calls"));
    let form = format!("json={}", json.display());
    let options = ["--summary", &form, "-o", calls.to_str().unwrap()];
    let output = trace(tree.path(), &options, SCRIPT);
    assert_eq!(output.status, 143, "{output:?}");
    let s: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(s["schema"], 1);
    assert_eq!(s["program"][1], "sh");
    for groups in ["families", "names"] {
        let groups = s[groups].as_array().unwrap();
        assert_eq!(
            groups.iter().map(|g| total(&g["calls"])).sum::<u64>(),
            total(&s["calls"])
        );
        let failed = groups.iter().map(|g| g["failed"].as_u64().unwrap());
        assert_eq!(failed.sum::<u64>(), s["failed"]);
    }
    let failures = s["failures"].as_array().unwrap();
    let failed = failures.iter().map(|f| f["count"].as_u64().unwrap());
    assert_eq!(failed.sum::<u64>(), s["failed"]);
    let over_time = s["activity"]["calls"].as_array().unwrap();
    assert_eq!(over_time.iter().map(total).sum::<u64>(), total(&s["calls"]));
    let by_process = s["processes"].as_array().unwrap();
    let by_process = by_process.iter().map(|p| p["calls"].as_u64().unwrap());
    assert_eq!(by_process.sum::<u64>(), total(&s["calls"]));
    // As many as the trace itself shows.
    let lines = std::fs::read_to_string(&calls).unwrap();
    let shown = lines
        .lines()
        .filter(|l| !l.contains("+++ ") && !l.contains("--- ") && !l.contains(" resumed>"));
    assert_eq!(shown.count() as u64, total(&s["calls"]));

    let processes = s["processes"].as_array().unwrap();
    let first = &processes[0];
    assert_eq!(
        (&first["pid"], &first["signal"]),
        (&2.into(), &"SIGTERM".into())
    );
    assert_eq!(first["programs"][0]["path"], "/bin/busybox");
    assert!(
        processes
            .iter()
            .any(|p| p["status"] == 3 && p["parent"] == 2)
    );
    let cat = processes.iter().find(|p| p["status"] == 1).unwrap();
    assert_eq!(cat["programs"].as_array().unwrap().len(), 2, "{cat:#}");
    for p in processes {
        assert!(p["started"].as_f64() <= p["ended"].as_f64());
        assert!(p["ended"].as_f64() <= s["seconds"].as_f64());
    }

    let motd = entry(&s["files"], "path", "/etc/motd");
    assert_eq!(motd["layer"], "overlay, upper layer");
    assert_eq!(
        (&motd["written"], &motd["opened"], &motd["copied"]),
        (&1.into(), &1.into(), &1.into())
    );
    let odd = entry(&s["files"], "path", "/<b>&");
    assert_eq!((&odd["made"], &odd["removed"]), (&1.into(), &1.into()));
    assert_eq!(entry(&s["files"], "path", "/none")["missing"], 1);
    assert!(entry(&s["layers"], "name", "nowhere")["missing"].as_u64() >= Some(1));
    let why = "the overlay has no \"/none\"";
    let failure = entry(&s["failures"], "why", why);
    assert_eq!(
        (&failure["call"], &failure["error"], &failure["count"]),
        (&"openat".into(), &"ENOENT".into(), &1.into())
    );
    assert!(entry(&s["host"], "call", "process_vm_readv")["count"].as_u64() > Some(5));
}

#[test]
fn the_text_stands_alone() {
    let test = "trace_summary the_text_stands_alone";
    let Some(busybox) = busybox(test) else {
        return;
    };
    let tree = tree(&busybox);
    let output = trace(tree.path(), &["--summary", "text"], "mkdir /new");
    assert_eq!(output.status, 0, "{output:?}");
    let text = &output.stderr;
    assert!(
        text.starts_with("/bin/busybox sh -c mkdir /new\n"),
        "{text}"
    );
    for part in [
        " native, ",
        "\nProcesses\n",
        "\nFamilies ",
        "\nFiles by layer",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("mkdir(\"/new\""), "calls are shown: {text}");
    // With --fast it has what is seen there.
    let output = trace(tree.path(), &["--summary", "text", "--fast"], "mkdir /new");
    assert!(output.stderr.contains("  mkdir "), "{output:?}");
    let wrong = trace(tree.path(), &["--summary", "html"], "true");
    assert_eq!(wrong.status, 125);
    assert!(wrong.stderr.contains("html=FILE"), "{wrong:?}");
}

/// Says in the title which colours the page has, whether all its charts have a size, and whether typing in
/// the field leaves the rows that match.
const PROBE: &str = "<script>
const style = getComputedStyle(document.body);
const charts = [...document.querySelectorAll('svg.chart')];
const drawn = charts.length == 6 && charts.every(c => c.getBoundingClientRect().height > 10);
const bar = getComputedStyle(document.querySelector('svg .emulated')).fill;
const field = document.querySelector('input[data-for=files]');
field.value = 'MOTD';
field.dispatchEvent(new Event('input'));
const left = [...document.querySelectorAll('#files tbody tr')].filter(r => !r.hidden).length;
const wide = document.documentElement.scrollWidth <= window.innerWidth;
document.title = ['PROBE', style.backgroundColor, style.color, bar, drawn, left, wide].join('|');
</script>";

#[test]
fn the_page_is_drawn_in_light_and_dark() {
    let test = "trace_summary the_page_is_drawn_in_light_and_dark";
    let Some(busybox) = busybox(test) else {
        return;
    };
    let tree = tree(&busybox);
    let out = tempdir();
    let page = out.path().join("page.html");
    let form = format!("html={}", page.display());
    let output = trace(tree.path(), &["--summary", &form], SCRIPT);
    assert_eq!(output.status, 143, "{output:?}");
    assert_eq!(
        output.stderr,
        "cat: can't open '/none': No such file or directory\n"
    );
    let text = std::fs::read_to_string(&page).unwrap();
    for other in ["http://", "https://", "src=", "<link", "@import", "url("] {
        assert!(!text.contains(other), "the page needs others: {other}");
    }
    assert!(text.contains("<td class=\"left\">/&lt;b&gt;&amp;</td>") && !text.contains("<b>&"));
    if !has_browser(test) {
        return;
    }
    std::fs::write(&page, text.replace("</body>", &format!("{PROBE}</body>"))).unwrap();
    for (scheme, colours) in [
        (
            Scheme::Light,
            "rgb(255, 255, 255)|rgb(31, 35, 40)|rgb(235, 104, 52)",
        ),
        (
            Scheme::Dark,
            "rgb(13, 17, 23)|rgb(230, 237, 243)|rgb(217, 89, 38)",
        ),
    ] {
        let drawn = drawn(&page, scheme);
        let expected = format!("<title>PROBE|{colours}|true|1|true</title>");
        let title = drawn.lines().find(|l| l.contains("<title>"));
        assert!(drawn.contains(&expected), "no {expected}, but {title:?}");
    }
}

//! `duet trace --json` writes what docs/trace.md says, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use duet_tests::{command_output, duet, host_tool, skip, tempdir, workspace_dir};
use serde_json::Value;

/// The fields of each type of line: name, type, and whether it may be missing.
type Schema = BTreeMap<String, Vec<(String, String, bool)>>;

fn documented() -> Schema {
    let page = std::fs::read_to_string(workspace_dir().join("docs/trace.md")).unwrap();
    let (_, page) = page.split_once("## JSON").expect("a section about JSON");
    let mut schema = Schema::new();
    let mut at = String::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("### `") {
            at = name.trim_end_matches('`').to_owned();
            schema.insert(at.clone(), Vec::new());
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", field, kind, ..] = cells[..]
            && let Some(field) = field.strip_prefix('`').and_then(|f| f.strip_suffix('`'))
        {
            let (kind, optional) = match kind.strip_suffix(", optional") {
                Some(kind) => (kind, true),
                None => (kind, false),
            };
            let fields = schema.get_mut(&at).expect("a field stands below its type");
            fields.push((field.to_owned(), kind.to_owned(), optional));
        }
    }
    schema
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.as_str().is_some_and(|s| s.is_ascii()),
        "list of strings" => value
            .as_array()
            .is_some_and(|l| l.iter().all(Value::is_string)),
        "explanation" => {
            let steps = |s: &Value| s["step"].is_string() && s["text"].is_string();
            let hosts = |h: &Value| {
                h["call"].is_string() && h["count"].is_u64() && h["seconds"].is_number()
            };
            let all = |key: &str, good: &dyn Fn(&Value) -> bool| {
                let list = value[key].as_array();
                list.is_some_and(|l| l.iter().all(good))
            };
            let known = ["function", "seconds", "steps", "host", "why"];
            let object = value.as_object().expect("an explanation is an object");
            object.keys().all(|k| known.contains(&k.as_str()))
                && all("steps", &steps)
                && all("host", &hosts)
        }
        "list of arguments" => value.as_array().is_some_and(|l| {
            l.iter().all(|a| {
                let text = |key: &str| a.get(key).and_then(Value::as_str).unwrap_or_default();
                a.as_object().is_some_and(|o| o.len() == 3)
                    && !text("name").is_empty()
                    && !text("text").is_empty()
                    && text("value")
                        .strip_prefix("0x")
                        .is_some_and(|v| u64::from_str_radix(v, 16).is_ok())
            })
        }),
        _ => panic!("docs/trace.md has no type {kind:?}"),
    }
}

/// Checks each line; returns them by type.
fn check(schema: &Schema, text: &str) -> BTreeMap<String, Vec<Value>> {
    let mut by_type: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let object = value.as_object().expect("each line is an object");
        let kind = object["type"].as_str().expect("each line has a type");
        let fields = schema
            .get(kind)
            .unwrap_or_else(|| panic!("{kind} is not documented"));
        let mut known = BTreeSet::from(["type"]);
        for (name, ty, optional) in fields {
            known.insert(name);
            match object.get(name) {
                Some(v) => assert!(is_of(v, ty), "{name} is no {ty}: {line}"),
                None => assert!(optional, "{name} is missing: {line}"),
            }
        }
        let all: BTreeSet<&str> = object.keys().map(String::as_str).collect();
        assert!(all.is_subset(&known), "a field is not documented: {line}");
        by_type.entry(kind.to_owned()).or_default().push(value);
    }
    by_type
}

#[test]
fn every_line_is_as_documented() {
    let test = "every_line_is_as_documented";
    let Some(busybox) = host_tool("busybox") else {
        return skip(test, "no busybox (package busybox-static)");
    };
    let schema = documented();
    let dir = tempdir();
    let file = dir.path().join("trace");
    let run = |options: &[&str], script: &str| {
        let mut command = Command::new(duet());
        command.args(["trace", "--json", "-o"]).arg(&file);
        command
            .args(options)
            .arg(&busybox)
            .args(["sh", "-c", script]);
        command_output(command, b"");
        check(&schema, &std::fs::read_to_string(&file).unwrap())
    };
    let script = "(sleep 0 & wait); mkdir /tmp/x; rmdir /none; head -c1 /dev/urandom >/dev/null; kill -TERM $$";
    let all = run(&["-C"], script);
    let begin = &all["begin"][0];
    assert_eq!(begin["schema"], 1);
    assert_eq!(begin["program"][1], "sh");
    let calls = &all["call"];
    let named = |name: &str| -> &Value {
        calls
            .iter()
            .find(|c| c["call"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(named("execve")["args"][1]["name"], "argv");
    let mkdir = named("mkdir");
    assert_eq!(
        (&mkdir["disposition"], &mkdir["result"]),
        (&"emulated".into(), &0.into())
    );
    assert_eq!(mkdir["args"][0]["text"], "\"/tmp/x\"");
    assert_eq!(mkdir["args"][1]["value"], "0x1ff");
    let rmdir = named("rmdir");
    assert_eq!(
        (&rmdir["status"], &rmdir["error"]),
        (&"failed".into(), &"ENOENT".into())
    );
    assert_eq!(
        (&rmdir["result"], &rmdir["text"]),
        (
            &(-2).into(),
            &"-1 ENOENT (No such file or directory)".into()
        )
    );
    assert_eq!(named("brk")["disposition"], "native");
    assert_eq!(named("exit_group")["status"], "unfinished");
    assert!(
        all["start"]
            .iter()
            .any(|s| s["tid"] == 3 && s["parent"] == 2)
    );
    assert!(
        all["end"]
            .iter()
            .any(|e| e["signal"] == "SIGTERM" && e["pid"] == 2)
    );
    assert!(all["end"].iter().any(|e| e["status"] == 0));
    assert!(all["signal"].iter().any(|s| s["signal"] == "SIGCHLD"));
    let count = all["count"]
        .iter()
        .find(|c| c["call"] == "rmdir")
        .expect("rmdir is counted");
    assert_eq!((&count["calls"], &count["errors"]), (&1.into(), &1.into()));

    let stopped = run(
        &[],
        "sh -c 'kill -STOP $$' & sleep 0.2; kill -CONT $!; wait",
    );
    assert!(stopped["stop"].iter().any(|s| s["signal"] == "SIGSTOP"));

    let explained = run(&["--explain", "-e", "trace=mkdir"], "mkdir /tmp/x");
    let explain = &explained["call"][0]["explain"];
    assert_eq!(
        explain["function"],
        "mkdir (syscalls/src/handlers/names.rs)"
    );
    assert_eq!(
        explain["steps"][0],
        serde_json::json!({"step": "walk", "text": "\"/tmp/x\""})
    );
    assert_eq!(explain["host"][0]["call"], "process_vm_readv");
    assert!(all["call"].iter().all(|c| c.get("explain").is_none()));

    let fast = run(&["--fast"], "mkdir /tmp/x; cat /proc/version >/dev/null");
    assert_eq!(fast["begin"][0]["engine"], "seccomp");
    assert!(
        fast["call"]
            .iter()
            .any(|c| c["status"] == "unavailable" && c.get("result").is_none())
    );
    assert_eq!(fast["unseen"].len(), 1);

    let seen: BTreeSet<&String> = all
        .keys()
        .chain(stopped.keys())
        .chain(fast.keys())
        .collect();
    assert_eq!(
        seen,
        schema.keys().collect(),
        "each type of line is made by this test"
    );
}

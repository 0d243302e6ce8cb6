//! A Debian source package (its sources come with `.ci/deps`) is configured, compiled and tested by its own
//! tests, natively and in a layer over the host's tree: each must give the same verdict.

use std::process::Command;
use std::time::Duration;

use duet_tests::{
    assert_same, command_output_within, duet_command, host_tool, native_command, skip, tempdir,
    testbins_dir, workspace_dir,
};

#[test]
fn sed_passes_its_own_tests() {
    let sources = testbins_dir()
        .parent()
        .expect("target directory")
        .join("sources");
    let tools = ["gcc", "make", "patch", "xz", "perl"];
    let missing = tools.iter().find(|tool| host_tool(tool).is_none());
    if missing.is_some() || !sources.is_dir() {
        return skip("sed", "no compiler, or no sources of sed (run .ci/deps)");
    }
    let sources = sources.canonicalize().expect("the sources");
    let script = workspace_dir().join("tests/scripts/sed_build.sh");
    let script = script.canonicalize().expect("the script");
    let dirs = (tempdir(), tempdir());
    let run = |mut command: Command, dir: &tempfile::TempDir, log: &str| {
        command.arg("bash").arg(&script).arg(&sources);
        command.current_dir(dir.path());
        let mut output = command_output_within(command, b"", Duration::from_secs(1200));
        std::fs::write(testbins_dir().join(log), &output.stderr).expect("log");
        output.stderr.clear();
        output
    };
    let layer = duet_command(&["--host-root", "-e", "LANG=C"]);
    let (layer, native) = std::thread::scope(|scope| {
        let native = scope.spawn(|| run(native_command(), &dirs.0, "sed.native.log"));
        (run(layer, &dirs.1, "sed.layer.log"), native.join())
    });
    let native = native.expect("native");
    assert_same("the tests of sed", &native, &layer);
    let passed = native.stdout.lines().filter(|l| l.starts_with("PASS "));
    assert!(passed.count() > 40 && native.status == 0, "{native:?}");
    let left = std::fs::read_dir(dirs.1.path()).expect("directory").count();
    assert_eq!(left, 0, "the layer wrote to the host's directory");
}

//! Duet's own monitor runs the distribution's kernel, unmodified, on a KVM of the processor's own
//! virtualization.
//!
//! So that this needs no such processor, it happens in a guest: QEMU translates a machine whose processor has
//! AMD's virtualization, Linux there loads its `kvm-amd`, and Duet in it boots the same kernel once more. The
//! outer guest sees the host's tree, with the same programs and the same cache of kernels.

use std::time::Duration;

use duet_tests::{
    Output, Toolchain, assert_same, command_output_within, duet, duet_command, guest, host_tool,
    is_root, kernel_cache, kvm_modules, libkrunfw, machine_possible, native_run, skip, tempdir,
};

/// Several machines in a translated one.
const LIMIT: Duration = Duration::from_secs(900);
/// Many of them.
const LONG: Duration = Duration::from_secs(1800);

/// Runs a shell's script in a guest that has a KVM, with more `options`. In it, `vm` is `duet run --mode vm
/// --monitor duet`. `None`: it cannot be.
fn with_kvm(test: &str, options: &[&str], script: &str, limit: Duration) -> Option<Output> {
    let Some(busybox) = host_tool("busybox") else {
        skip(test, "no busybox (package busybox-static)");
        return None;
    };
    if !machine_possible(test) {
        return None;
    }
    let modules = match kvm_modules() {
        Ok(modules) => modules,
        Err(why) => {
            skip(test, &why);
            return None;
        }
    };
    let busybox = busybox.display();
    let mut full = String::from("set -e\n");
    for module in modules {
        full += &format!("{busybox} insmod {}\n", module.display());
    }
    full += &format!(
        "{busybox} mknod /dev/kvm c 10 232\n\
         duet={}\nbusybox={busybox}\n\
         vm() {{ $duet run --mode vm --monitor duet --memory 192m \"$@\"; }}\n\
         {script}\n",
        duet().display(),
    );
    let mut command = duet_command(&["--mode", "vm", "--monitor", "qemu"]);
    command
        .args(["--host-root", "--memory", "1g"])
        .args(if host_tool("passt").is_some() {
            &["--network", "user"][..]
        } else {
            &[]
        })
        .arg("-e")
        .arg(format!("XDG_CACHE_HOME={}", kernel_cache().display()))
        .args(options)
        .args(["sh", "-c", &full]);
    command.env("XDG_CACHE_HOME", kernel_cache());
    Some(command_output_within(command, b"", limit))
}

#[test]
fn an_unmodified_kernel_runs_a_program_and_panics() {
    let test = "monitor an_unmodified_kernel_runs_a_program_and_panics";
    let script = r#"
        $duet doctor --json | grep -c '"check":"a KVM that can run a kernel.*"verdict":"present"'
        mkdir -m 777 /tmp/data; echo before >/tmp/data/note; chmod 666 /tmp/data/note
        echo input | vm --cpus 2 -v /tmp/data:/data -u 5:6 -w /data $busybox sh -c '
            cat; cat note; grep -c "cpu cores.*: 2" /proc/cpuinfo; id; echo error >&2; echo after >note
            head -c 2621440 /dev/zero | md5sum; exit 7' 2>/tmp/error || echo status $?
        cat /tmp/error /tmp/data/note
        if which passt >/dev/null; then
            $duet run --mode vm --monitor duet --memory 192m -p 127.0.0.1:8080:80 $busybox sh -c '
                ip -o addr show eth0 | grep -o "10[0-9.]*/24"; mkdir /tmp/w; echo page >/tmp/w/index.html
                httpd -f -p 80 -h /tmp/w' >/tmp/seen &
            for i in $(seq 300); do
                printf 'GET / HTTP/1.0\r\n\r\n' | $busybox nc -w 2 127.0.0.1 8080 2>/dev/null | grep page && break
                sleep 0.5
            done
            kill $!; wait $! || cat /tmp/seen
        fi
        vm $busybox sh -c 'echo c >/proc/sysrq-trigger; sleep 60' || echo status $?
    "#;
    let Some(output) = with_kvm(test, &[], script, LIMIT) else {
        return;
    };
    let network = match host_tool("passt") {
        Some(_) => "page\n10.0.2.100/24\n",
        None => {
            skip(&format!("{test}, its network"), "no passt (package passt)");
            ""
        }
    };
    assert_eq!(
        output.stdout,
        format!(
            "1\ninput\nbefore\n2\nuid=5 gid=6\n8354dcaa18a1ecb52d0895bf00888c44  -\nstatus 7\nerror\nafter\n{network}status 125\n"
        ),
        "{output:?}"
    );
    for words in ["Kernel panic - not syncing", "triple fault"] {
        assert!(
            output.stderr.contains(words),
            "{words:?} is not in {output:?}"
        );
    }
}

#[test]
fn a_kernel_that_takes_no_initramfs_mounts_its_root() {
    let test = "monitor a_kernel_that_takes_no_initramfs_mounts_its_root";
    let Some(kernel) = libkrunfw(test) else {
        return;
    };
    let script = format!(
        r#"
        vm() {{ $duet run --mode vm --monitor duet --kernel {} --memory 192m "$@"; }}
        mkdir -m 777 /tmp/data
        echo input | vm --cpus 2 -v /tmp/data:/data $busybox sh -c '
            cat; uname -r | grep -c cloud; nproc; echo made >/data/note; ls / | grep -c init
            exit 7' || echo status $?
        cat /tmp/data/note
        vm --append root=nowhere $busybox true || echo status $?
        "#,
        kernel.image.display()
    );
    let Some(output) = with_kvm(test, &[], &script, LIMIT) else {
        return;
    };
    assert_eq!(
        output.stdout, "input\n0\n2\n0\nstatus 7\nmade\nstatus 125\n",
        "{output:?}"
    );
    // By the console's port.
    assert!(
        output.stderr.contains("Kernel panic - not syncing"),
        "{output:?}"
    );
}

/// Guests of the suite of the VM mode, with an argument where they do much.
const GUESTS: [(&str, &str); 20] = [
    ("files", ""),
    ("dirs", "300"),
    ("rename", ""),
    ("meta", ""),
    ("perms", ""),
    ("mknod", ""),
    ("tmpfile", ""),
    ("fifo", ""),
    ("unixsock", ""),
    ("peers", ""),
    ("locks", ""),
    ("openat2", ""),
    ("opath", ""),
    ("mmap", ""),
    ("signals", ""),
    ("inet", ""),
    ("pty", ""),
    ("exec", ""),
    ("procfs", ""),
    ("system", ""),
];

#[test]
#[ignore = "some minutes: one machine in a machine for each guest of the suite"]
fn guests_print_the_same() {
    let test = "monitor guests_print_the_same";
    if !is_root() {
        return skip(test, "its native side needs root, which the guests are");
    }
    let results = tempdir();
    let mut script = String::new();
    let mut natives = Vec::new();
    for (name, arg) in GUESTS {
        let Some(program) = guest(name, Toolchain::Static) else {
            return skip(test, "no C compiler");
        };
        let args: Vec<&str> = Some(arg).into_iter().filter(|a| !a.is_empty()).collect();
        natives.push((name, native_run(&program, &args, b"")));
        script += &format!(
            "status=0; vm -w /tmp -e LANG=C -e HOME=/tmp {} {arg} </dev/null \
             >/results/{name}.out 2>/results/{name}.err || status=$?\n\
             echo $status >/results/{name}.status\n",
            program.display()
        );
    }
    let volume = format!("{}:/results", results.path().display());
    let Some(output) = with_kvm(test, &["-v", &volume], &script, LONG) else {
        return;
    };
    assert_eq!(output.status, 0, "{output:?}");
    for (name, native) in natives {
        let read = |what| {
            let path = results.path().join(format!("{name}.{what}"));
            String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
        };
        let machine = Output {
            stdout: read("out"),
            stderr: read("err"),
            status: read("status").trim().parse().unwrap(),
        };
        assert_same(name, &native, &machine);
    }
}

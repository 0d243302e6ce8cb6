//! `--network`: none, and a user-space network with published ports.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use duet_tests::{busybox, command_output, duet_command, duet_run, host_tool, in_place_of, skip};

/// What a user-space network needs of the host.
fn user_network(test: &str) -> bool {
    if host_tool("slirp4netns").is_none() {
        skip(test, "no slirp4netns (package slirp4netns)");
        return false;
    }
    let tun = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(e) = tun {
        skip(test, &format!("/dev/net/tun: {e}"));
        return false;
    }
    true
}

/// A port of the host's loopback that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn none_has_a_loopback_device_with_all_ports() {
    let Some(program) = busybox("none_has_a_loopback_device_with_all_ports") else {
        return;
    };
    let script = "ip -o link | grep -c .; ip route | grep -c .; nc -l -p 80 & \
        for i in 1 2 3 4 5 6 7 8 9; do sleep 0.3; echo hello | nc 127.0.0.1 80 2>/dev/null && break; done";
    let output = duet_run(&[], &program, &["sh", "-c", script], b"");
    assert_eq!(output.stdout, "1\n0\nhello\n", "{output:?}");
    let output = duet_run(&["-u", "1000"], &program, &["nc", "-l", "-p", "80"], b"");
    assert!(output.stderr.contains("Permission denied"), "{output:?}");
}

#[test]
fn published_ports_lead_inside() {
    let test = "published_ports_lead_inside";
    let Some(program) = busybox(test).filter(|_| user_network(test)) else {
        return;
    };
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let mut command = duet_command(&["-p", &publish, "--hostname", "box", "--timeout", "50"]);
    let script = "cat /etc/resolv.conf; grep box /etc/hosts; echo answer | nc -l -p 80";
    command
        .arg(&program)
        .args(["sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    let mut text = String::new();
    // Until it listens, the connection is accepted and ends at once, or is refused.
    while text.is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            let _ = stream.write_all(b"question\n");
            let _ = stream.read_to_string(&mut text);
        }
    }
    let mut seen = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut seen)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "answer\n");
    assert_eq!(seen, "nameserver 10.0.2.3\n10.0.2.100\tbox\nquestion\n");
    assert!(
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(),
        "still published"
    );
}

#[test]
fn the_hosts_loopback_is_closed() {
    let test = "the_hosts_loopback_is_closed";
    let Some(program) = busybox(test).filter(|_| user_network(test)) else {
        return;
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for address in ["127.0.0.1", "10.0.2.2"] {
        let args = ["nc", "-w", "2", address, &port];
        let output = duet_run(&["--network", "user"], &program, &args, b"");
        assert_ne!(output.status, 0, "{address}: {output:?}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(
        listener.accept().is_err(),
        "a connection came out of the sandbox"
    );
}

/// With the host's network, `/proc/net` lists the sandbox's own sockets, and none of the host's.
#[test]
fn sockets_of_the_host_are_not_listed() {
    let test = "sockets_of_the_host_are_not_listed";
    let Some(program) = busybox(test) else {
        return;
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let theirs = format!("{:04X}", listener.local_addr().unwrap().port());
    let port = free_port();
    let script = format!(
        "nc -l -p {port} & for i in $(seq 50); do \
            grep -hqE ':{port:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6 && break; sleep 0.1; done; \
        grep -hcE ':{port:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6 | sort -r | head -n 1; \
        grep -cE ':{theirs} .* 0A ' /proc/net/tcp; kill $!"
    );
    let output = duet_run(
        &["--network", "host"],
        &program,
        &["sh", "-c", &script],
        b"",
    );
    assert_eq!(output.stdout, "1\n0\n", "{output:?}");
}

#[test]
fn what_cannot_be_had_is_said() {
    let test = "what_cannot_be_had_is_said";
    let Some(program) = busybox(test) else {
        return;
    };
    let fails = |command: Command, words: &str| {
        let output = command_output(command, b"");
        assert_eq!(output.status, 125, "{output:?}");
        assert!(output.stderr.contains(words), "{output:?}");
    };
    let with = |options: &[&str]| {
        let mut command = duet_command(options);
        command.arg(&program).arg("true");
        command
    };
    let mut command = with(&["--network", "user"]);
    command.env("PATH", "/nowhere");
    fails(command, "install the package slirp4netns");
    // A program that fails at once, after it has shown that no signal is blocked.
    let bin = in_place_of("slirp4netns", "grep SigBlk /proc/self/status >&2; exit 1");
    let mut command = with(&["--network", "user"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.path().display()));
    fails(command, "SigBlk:\t0000000000000000");
    fails(with(&["--network", "host", "-p", "1:2"]), "--publish");
    fails(with(&["-p", "80"]), "HOST:GUEST");
    if user_network(test) {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let publish = format!("127.0.0.1:{}:1", taken.local_addr().unwrap().port());
        fails(with(&["-p", &publish]), "cannot be listened on");
    }
}

//! An interactive shell in a layer on a real pseudo-terminal: job control, keys, window size.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use duet_tests::{
    MACHINE_LIMIT, Toolchain, duet_command, guest, host_tool, kernel_cache, libkrunfw,
    machine_possible, skip,
};
use nix::pty::{Winsize, openpty};

/// A program on a terminal of its own.
struct Session {
    master: File,
    slave: OwnedFd,
    child: Child,
    seen: String,
    /// How long to wait for what is expected.
    patience: Duration,
}

impl Session {
    fn start(mut command: Command) -> Session {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&pty.master, flags).unwrap();
        let slave = || std::process::Stdio::from(pty.slave.try_clone().unwrap());
        command
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .env("TERM", "dumb");
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        Session {
            master: File::from(pty.master),
            slave: pty.slave,
            child,
            seen: String::new(),
            patience: Duration::from_secs(90),
        }
    }

    fn shell(test: &str, options: &[&str]) -> Option<Session> {
        let Some(busybox) = host_tool("busybox") else {
            skip(test, "no busybox (package busybox-static)");
            return None;
        };
        let mut options = options.to_vec();
        options.extend(["-e", "PS1=$ ", "-w", "/tmp"]);
        let mut command = duet_command(&options);
        command.arg(busybox).arg("sh");
        command.env("XDG_CACHE_HOME", kernel_cache());
        let mut session = Session::start(command);
        if options.contains(&"vm") {
            session.patience = MACHINE_LIMIT;
        }
        session.expect("$ ");
        Some(session)
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: TIOCSWINSZ reads one `Winsize`, which lives through the call.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0);
    }

    fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows `text`, and forgets all up to it.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + self.patience;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let mut buf = [0; 4096];
            match self.master.read(&mut buf) {
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&buf[..n])),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(
                Instant::now() < end,
                "no {text:?} on the terminal, but {:?}",
                self.seen
            );
        }
    }

    /// Types a command and waits for what it prints (not for its echo) and for the next prompt.
    #[track_caller]
    fn run(&mut self, command: &str, answer: &str) {
        self.send(&format!("{command}\n"));
        self.expect(&format!(
            "{}\r\n",
            &command[command.len().saturating_sub(20)..]
        ));
        self.expect(answer);
        self.expect("$ ");
    }

    #[track_caller]
    fn end(mut self, status: i32) {
        let end = Instant::now() + self.patience;
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                assert_eq!(ended.code(), Some(status));
                return;
            }
            let mut buf = [0; 4096];
            if let Ok(n) = self.master.read(&mut buf) {
                self.seen.push_str(&String::from_utf8_lossy(&buf[..n]));
            }
            assert!(
                Instant::now() < end,
                "does not end; terminal: {:?}",
                self.seen
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn commands_and_exit() {
    let Some(mut s) = Session::shell("commands_and_exit", &[]) else {
        return;
    };
    s.run("echo $((6*7))", "42\r\n");
    s.run("tty", "/dev/");
    s.run(
        "test -t 0 && test -t 1 && echo 'is a' terminal",
        "is a terminal\r\n",
    );
    s.run("stty size", "24 80\r\n");
    s.run(
        "[ $(ps -o pgid= -p $$ 2>/dev/null || echo $$) -gt 0 ] && echo group",
        "group\r\n",
    );
    s.run("echo x > /dev/tty", "x\r\n");
    s.send("exit 5\n");
    s.end(5);
}

#[test]
fn no_job_control_warning() {
    let Some(mut s) = Session::shell("no_job_control_warning", &[]) else {
        return;
    };
    s.run("echo ready", "ready\r\n");
    assert!(!s.seen.contains("job control"), "{}", s.seen);
    s.run("set -o | grep monitor", "on");
    s.send("exit\n");
    s.end(0);
}

#[test]
fn control_c() {
    let Some(mut s) = Session::shell("control_c", &[]) else {
        return;
    };
    s.send("sleep 100; echo status $?\n");
    s.expect("$?\r\n");
    std::thread::sleep(Duration::from_millis(300));
    s.send("\x03");
    s.expect("$ ");
    s.run("echo still here", "still here\r\n");
    s.send("cat\n");
    std::thread::sleep(Duration::from_millis(200));
    s.send("typed\n");
    s.expect("typed\r\ntyped\r\n");
    s.send("\x03");
    s.expect("$ ");
    s.send("cat\n");
    std::thread::sleep(Duration::from_millis(200));
    s.send("\x04");
    s.expect("$ ");
    s.send("\x04");
    s.end(0);
}

#[test]
fn control_z_fg_bg() {
    let Some(mut s) = Session::shell("control_z_fg_bg", &[]) else {
        return;
    };
    s.send("sleep 2.5\n");
    s.expect("2.5\r\n");
    std::thread::sleep(Duration::from_millis(300));
    s.send("\x1a");
    s.expect("Stopped");
    s.expect("$ ");
    s.run("jobs", "Stopped");
    s.run("bg", "sleep 2.5");
    s.run("jobs", "Running");
    s.send("fg\n");
    s.expect("sleep 2.5\r\n");
    s.expect("$ ");
    s.run("sleep 100 & echo started", "started\r\n");
    s.run("kill %1; wait %1; echo gone", "gone\r\n");
    s.run("cat & sleep 0.3; jobs", "Stopped");
    s.run("kill -9 %1; wait; echo end", "end\r\n");
    s.send("exit 0\nexit 0\n");
    s.end(0);
}

#[test]
fn window_size() {
    let Some(mut s) = Session::shell("window_size", &[]) else {
        return;
    };
    s.run("trap 'stty size' WINCH; echo set", "set\r\n");
    s.resize(40, 100);
    std::thread::sleep(Duration::from_millis(200));
    s.run("stty size", "40 100\r\n");
    s.send("exit\n");
    s.end(0);
}

/// A machine of its own has a terminal of its own, which the caller's is connected to.
#[test]
fn a_machines_terminal() {
    let test = "a_machines_terminal";
    if machine_possible(test) {
        machines_terminal(test, &["--mode", "vm"]);
    }
}

/// The same with a kernel whose own console is a port beside those of the program's streams.
#[test]
fn a_terminal_on_libkrunfws_kernel() {
    let test = "a_terminal_on_libkrunfws_kernel";
    if let Some(kernel) = libkrunfw(test) {
        let image = kernel.image.to_str().unwrap();
        machines_terminal(test, &["--mode", "vm", "--kernel", image]);
    }
}

fn machines_terminal(test: &str, options: &[&str]) {
    let Some(mut s) = Session::shell(test, options) else {
        return;
    };
    s.run("tty; echo $((6*7))", "42\r\n");
    s.run("stty size", "24 80\r\n");
    s.run("trap 'stty size' WINCH; echo set", "set\r\n");
    s.resize(40, 100);
    s.send("until stty size | grep 100; do sleep 0.1; done\n");
    s.expect("\r\n40 100\r\n");
    s.expect("$ ");
    s.send("trap - WINCH; echo slee''ps; sleep 100; echo status $?\n");
    s.expect("\r\nsleeps\r\n");
    // Until it has started, the shell has the keys.
    std::thread::sleep(Duration::from_secs(1));
    s.send("\x03");
    s.expect("$ ");
    s.send("echo c''at; cat\n");
    s.expect("\r\ncat\r\n");
    std::thread::sleep(Duration::from_secs(1));
    s.send("typed\n");
    s.expect("typed\r\ntyped\r\n");
    s.send("\x1a");
    s.expect("Stopped");
    s.expect("$ ");
    s.run("kill -9 %1; wait; stty -a | grep -c ' icanon'", "1\r\n");
    s.send("exit 5\n");
    s.end(5);
}

#[test]
fn raw_mode_program() {
    let Some(mut s) = Session::shell("raw_mode_program", &[]) else {
        return;
    };
    s.run("printf 'first\\nsecond\\n' > f", "");
    s.send("vi f\n");
    s.expect("second");
    s.send("dd:wq\n");
    s.expect("$ ");
    s.run("cat f", "second\r\n");
    s.run("stty -a | grep -c ' icanon'", "1\r\n");
    s.send("exit\n");
    s.end(0);
}

/// The caller's terminal is as it was when duet ends, even if the guest changed its modes.
#[test]
fn terminal_is_given_back() {
    let Some(mut s) = Session::shell("terminal_is_given_back", &[]) else {
        return;
    };
    let modes = |s: &Session| nix::sys::termios::tcgetattr(&s.slave).unwrap();
    s.run("stty raw -echo; stty sane; echo back", "back");
    s.send("exec sh -c 'stty raw -echo; kill -9 $$'\n");
    let end = Instant::now() + Duration::from_secs(90);
    while s.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    let after = modes(&s);
    assert!(
        after
            .local_flags
            .contains(nix::sys::termios::LocalFlags::ICANON | nix::sys::termios::LocalFlags::ECHO)
    );
    assert_eq!(s.child.try_wait().unwrap().unwrap().code(), Some(137));
}

#[test]
fn hang_up() {
    let Some(s) = Session::shell("hang_up", &[]) else {
        return;
    };
    let pid = nix::unistd::Pid::from_raw(s.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    let end = Instant::now() + Duration::from_secs(90);
    let mut s = s;
    while s.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "duet outlives its terminal");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nothing that a guest pushes into its terminal's input is left for the caller's shell to read.
#[test]
fn no_injected_input() {
    let Some(program) = guest("tiocsti", Toolchain::Static) else {
        return skip("no_injected_input", "no gcc");
    };
    let mut command = duet_command::<&str>(&[]);
    command.arg(program);
    let mut s = Session::start(command);
    s.expect("done");
    let end = Instant::now() + Duration::from_secs(90);
    while s.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&s.slave, flags).unwrap();
    let mut left = [0; 100];
    let read = nix::unistd::read(&s.slave, &mut left);
    assert_eq!(
        read,
        Err(nix::errno::Errno::EAGAIN),
        "the caller's terminal got {left:?}"
    );
}

#[test]
fn dynamic_shell_of_the_host() {
    if !Path::new("/bin/bash").exists() {
        return skip("dynamic_shell_of_the_host", "no bash");
    }
    let mut command = duet_command(&["--host-root", "-e", "PS1=$ "]);
    command.args(["/bin/bash", "--norc", "--noprofile", "--noediting"]);
    let mut s = Session::start(command);
    s.expect("$ ");
    s.run("sleep 100 & sleep 0.1; jobs; kill %1; wait", "Running");
    s.send("sleep 100\n");
    s.expect("100\r\n");
    std::thread::sleep(Duration::from_millis(300));
    s.send("\x1a");
    s.expect("Stopped");
    s.run("kill -9 %1; wait; echo ok", "ok\r\n");
    s.send("exit 4\n");
    s.end(4);
}

//! A kernel and the agent in it, in a machine with help.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duet_vfs::host::{HostFs, HostOptions};
use duet_vfs::{MountFlags, Store, Vfs};
use duet_vm_protocol::{
    CONTROL, FromGuest, FromHost, MAX_DATA, MAX_TO_HOST, STDERR, STDIN, STDOUT, Start, receive,
    receive_data, send, send_data,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::help::{COMMAND_LINE, Help};
use crate::host::TscSample;
use crate::kernel::Kernel;
use crate::machine::{Choice, Machine, Port, ROOT_TAG, Running};
use crate::monitor::{Monitor, prepare};
use crate::session::{Run, command_line, init_for};

/// How long it may take: many times what it takes on an idle machine.
const LIMIT: Duration = Duration::from_secs(600);

/// So much slower than the host's does the guest's time pass, that its timer leaves it time for work.
const SLOWER: u64 = 10;

/// A machine with a kernel and the agent in it.
pub struct Guest {
    machine: Monitor,
    help: Arc<Help>,
    start: Start,
    control: UnixStream,
    stdin: UnixStream,
    /// What comes as the program's standard output and error.
    outputs: [JoinHandle<Vec<u8>>; 2],
    began: Instant,
}

impl Guest {
    /// Starts a machine, to run `program` with `args` on the host's tree. `dir` is an empty directory.
    pub fn start(kernel: Kernel, program: &Path, args: &[&str], dir: &Path) -> Guest {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let start = Start {
            root_tag: ROOT_TAG.into(),
            program: program.as_os_str().as_bytes().to_vec(),
            args: args.iter().map(|&a| a.into()).collect(),
            workdir: b"/".to_vec(),
            hostname: b"duet".to_vec(),
            time: now.as_nanos() as u64,
            ..Start::default()
        };
        let khz = SLOWER * TscSample::take().khz();
        let run = Run {
            start,
            root: host_tree(dir),
            kernel,
            memory: 64 << 20,
            monitor: Choice::Duet,
            cpus: Some(1),
            append: format!("tsc_early_khz={khz} {COMMAND_LINE}"),
            console: true,
            timeout: None,
            forwards: Vec::new(),
            began: Instant::now(),
        };
        let mut ports = Vec::new();
        let [control, stdin, stdout, stderr] = [CONTROL, STDIN, STDOUT, STDERR].map(|name| {
            let (ours, stream) = UnixStream::pair().unwrap();
            ports.push(Port { name, stream });
            ours
        });
        let (messages, serial) = UnixStream::pair().unwrap();
        let machine = Machine {
            kernel: run.kernel.open().unwrap(),
            kernel_name: run.kernel.name.clone(),
            init: init_for(&run.kernel, &run.root, false).unwrap(),
            command_line: command_line(&run, None),
            cpus: 1,
            memory: run.memory,
            root: run.root,
            ports,
            serial,
            network: None,
        };
        let (parts, entry) = prepare(machine).unwrap();
        let help = Arc::new(Help::for_kernel(parts.vm.memory()).unwrap());
        // Help asks KVM for more than a processor's thread usually may.
        let machine = parts
            .start(1, entry, || Ok(()), Some(help.clone()))
            .unwrap();
        show(messages);
        Guest {
            machine,
            help,
            start: run.start,
            control,
            stdin,
            outputs: [stdout, stderr].map(collect),
            began: run.began,
        }
    }

    /// Has the agent run the program with this input, to its end.
    pub fn run(mut self, input: &[u8]) -> Output {
        self.note("the machine has started");
        let status = loop {
            match self.hear() {
                FromGuest::Hello { .. } => {
                    self.note("the agent has started");
                    let start = FromHost::Start(Box::new(self.start.clone()));
                    send(&mut self.control, &start).unwrap();
                }
                FromGuest::Started => {
                    self.note("the program has started");
                    send_data(&mut self.stdin, input).unwrap();
                    send_data(&mut self.stdin, &[]).unwrap();
                }
                FromGuest::Used(_) => (),
                FromGuest::Ended(status) => break ExitStatus::from_raw(status),
                other => panic!("{other:?}"),
            }
        };
        self.note(&format!("the program has ended: {status}"));
        self.machine.stop();
        self.machine.wait().unwrap();
        let exits = self.machine.work().unwrap().exits;
        self.note(&format!("exits: {exits:?}"));
        self.note(&format!("help: {:?}", self.help.done()));
        // With the machine, the other ends of its ports are gone.
        drop(self.machine);
        let [stdout, stderr] = self.outputs.map(|o| o.join().unwrap());
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// The guest's next message.
    fn hear(&mut self) -> FromGuest {
        let left = LIMIT.saturating_sub(self.began.elapsed());
        let mut fds = [
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.machine.ended(), PollFlags::POLLIN),
        ];
        poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
        let [control, ended] = fds.map(|fd| fd.any().unwrap());
        if !control && ended {
            panic!("{:?}", self.machine.wait().unwrap());
        }
        assert!(control, "nothing was heard for too long");
        receive(&mut self.control, MAX_TO_HOST).unwrap().unwrap()
    }

    fn note(&self, what: &str) {
        eprintln!("{:6.1} s: {what}", self.began.elapsed().as_secs_f64());
    }
}

/// The host's tree. Nothing can be changed in it.
fn host_tree(dir: &Path) -> Arc<Vfs> {
    let options = HostOptions {
        read_only: true,
        ..HostOptions::default()
    };
    let fs = HostFs::open(Path::new("/"), options).unwrap();
    let open = || File::open(dir).unwrap().into();
    let store = Store {
        files: open(),
        dirs: open(),
    };
    Vfs::new(store, fs, MountFlags::RDONLY, "host").unwrap()
}

/// Shows the kernel's messages.
fn show(mut messages: UnixStream) {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = messages.read(&mut bytes) {
            eprint!("{}", String::from_utf8_lossy(&bytes[..n]).replace('\r', ""));
        }
    });
}

/// Reads a stream of the program's to its end.
fn collect(mut stream: UnixStream) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut data = Vec::new();
        while receive_data(&mut stream, MAX_DATA, &mut data).unwrap() && !data.is_empty() {
            all.extend_from_slice(&data);
        }
        all
    })
}

//! Runs programs through the stub without Duet: ptrace stands in for the supervisor.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use duet_loader::stub::{BUFFER_SIZE, STUB_MAGIC, STUB_NR, stub_elf};
use duet_loader::{
    Ids, Image, LoadError, Plan, Script, StackError, StackFix, encode, records_for, rewrite_stack,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// What a run has come to.
#[derive(Debug)]
pub struct Outcome {
    pub status: WaitStatus,
    pub output: String,
}

impl Outcome {
    pub fn exit(&self) -> Option<i32> {
        match self.status {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    }

    pub fn end(&self) -> String {
        end(self.status)
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// How a process has ended, whichever it was.
pub fn end(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("{signal}"),
        other => format!("{other:?}"),
    }
}

/// Builds one of the programs in `tests/c`.
pub fn gcc(dir: &Path, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let out = dir.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/c")
        .join(source);
    let status = Command::new("gcc")
        .args(["-O1", "-w", "-o"])
        .arg(&out)
        .arg(source)
        .args(flags)
        .status()
        .expect("these tests need gcc");
    assert!(status.success(), "gcc {flags:?}");
    out
}

fn cstrings<T: AsRef<[u8]>>(items: &[T]) -> Vec<CString> {
    let cstring = |item: &T| CString::new(item.as_ref()).unwrap();
    items.iter().map(cstring).collect()
}

/// Runs the program (or script) at `path` through the stub.
pub fn run(path: &Path, argv: &[&str], envp: &[&str], aslr: bool) -> Result<Outcome, LoadError> {
    let mut path = path.to_owned();
    let execfn = path.clone();
    let mut prefix: Vec<Vec<u8>> = Vec::new();
    while let Some(script) = {
        let mut head = vec![0; 256];
        let n = FileExt::read_at(&open(&path)?.0, &mut head, 0).unwrap();
        Script::parse(&head[..n])?
    } {
        let mut argv = script.argv(path.as_os_str().as_bytes());
        argv.extend(prefix.drain(..).skip(1));
        prefix = argv;
        path = PathBuf::from(std::ffi::OsString::from(
            String::from_utf8(script.interpreter).unwrap(),
        ));
    }
    let (program, len) = open(&path)?;
    let image = Image::parse(&program, len)?;
    let interpreter = match &image.interpreter {
        Some(name) => {
            let (file, len) = open(Path::new(std::str::from_utf8(name).unwrap()))?;
            let image = Image::parse_interpreter(&file, len)?;
            Some((file, image))
        }
        None => None,
    };
    let mut urandom = File::open("/dev/urandom").unwrap();
    let mut random = || {
        let mut bytes = [0; 8];
        urandom.read_exact(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    };
    let aslr: Option<&mut dyn FnMut() -> u64> = match aslr {
        true => Some(&mut random),
        false => None,
    };
    let plan = Plan::new(&image, interpreter.as_ref().map(|(_, image)| image), aslr)?;

    let mut stub: File = memfd_create(c"stub", MFdFlags::MFD_CLOEXEC).unwrap().into();
    stub.write_all(stub_elf()).unwrap();
    let mut output = tempfile::tempfile().unwrap();
    let argv = cstrings(argv);
    let envp = cstrings(envp);
    let pid = spawn(
        &stub,
        &argv,
        &envp,
        &output,
        &program,
        interpreter.as_ref().map(|i| &i.0),
    );

    let status = loop {
        ptrace::syscall(pid, None).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => {}
            other => break other,
        }
        let mut regs = ptrace::getregs(pid).unwrap();
        if regs.orig_rax != u64::from(STUB_NR) {
            continue;
        }
        assert_eq!((regs.rdx, regs.r9), (BUFFER_SIZE, STUB_MAGIC));
        assert_eq!(regs.rdi, regs.rsp);
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .unwrap();
        let mut block = Vec::new();
        let fix = StackFix {
            plan: &plan,
            ids: Ids {
                uid: 1,
                euid: 2,
                gid: 3,
                egid: 4,
                secure: false,
            },
            execfn: execfn.as_os_str().as_bytes(),
            argv_prefix: &prefix,
            comm: b"a-name-that-is-too-long",
        };
        let stack = loop {
            let at = block.len();
            block.resize(at + 512, 0);
            let n = memory
                .read_at(&mut block[at..], regs.rdi + at as u64)
                .unwrap();
            block.truncate(at + n);
            match rewrite_stack(&block, regs.rdi, &fix) {
                Err(StackError::NeedMore) => {}
                other => break other.unwrap(),
            }
        };
        memory.write_all_at(&stack.bytes, stack.rsp).unwrap();
        let fd = |file: &File| file.as_raw_fd();
        let records = records_for(
            &plan,
            program.as_raw_fd(),
            interpreter.as_ref().map(|i| fd(&i.0)),
            &stack,
            false,
        );
        memory.write_all_at(&encode(&records), regs.rsi).unwrap();
        ptrace::syscall(pid, None).unwrap();
        waitpid(pid, None).unwrap();
        regs = ptrace::getregs(pid).unwrap();
        regs.rax = records.len() as u64;
        ptrace::setregs(pid, regs).unwrap();
        ptrace::detach(pid, None).unwrap();
        break waitpid(pid, None).unwrap();
    };
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    Ok(Outcome {
        status,
        output: text,
    })
}

/// A child that has executed the stub and stands before its first instruction.
fn spawn(
    stub: &File,
    argv: &[CString],
    envp: &[CString],
    output: &File,
    program: &File,
    interpreter: Option<&File>,
) -> Pid {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        let pointer = |s: &CString| s.as_ptr();
        strings
            .iter()
            .map(pointer)
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: the child makes system calls only, on what was prepared before the fork.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let empty: &CStr = c"";
            // SAFETY: as above; all pointers are to memory that outlives the calls.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::dup2(output.as_raw_fd(), 1);
                libc::dup2(output.as_raw_fd(), 2);
                for file in [Some(program), interpreter].into_iter().flatten() {
                    libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0);
                }
                libc::syscall(
                    libc::SYS_execveat,
                    stub.as_raw_fd(),
                    empty.as_ptr(),
                    argv.as_ptr(),
                    envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
                libc::_exit(126)
            }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).unwrap();
            assert_eq!(status, WaitStatus::Stopped(child, Signal::SIGTRAP));
            let options =
                ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
            ptrace::setoptions(child, options).unwrap();
            child
        }
    }
}

/// Executes `path` natively and says how that ended: `Err` with what `execve` returned, or the
/// signal or exit status.
pub fn native(path: &Path, argv: &[&str], envp: &[&str]) -> (Result<WaitStatus, i32>, String) {
    loop {
        // A child that another test has just forked may still hold the file open for writing.
        match native_once(path, argv, envp) {
            (Err(libc::ETXTBSY), _) => std::thread::yield_now(),
            outcome => return outcome,
        }
    }
}

fn native_once(path: &Path, argv: &[&str], envp: &[&str]) -> (Result<WaitStatus, i32>, String) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let (argv, envp) = (cstrings(argv), cstrings(envp));
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        let pointer = |s: &CString| s.as_ptr();
        strings
            .iter()
            .map(pointer)
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(&argv), pointers(&envp));
    let mut output = tempfile::tempfile().unwrap();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut read = File::from(read);
    // SAFETY: the child makes system calls only, on what was prepared before the fork.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: as above; all pointers are to memory that outlives the calls.
            unsafe {
                libc::dup2(output.as_raw_fd(), 1);
                libc::dup2(output.as_raw_fd(), 2);
                libc::execve(name.as_ptr(), argv.as_ptr(), envp.as_ptr());
                let errno = *libc::__errno_location();
                libc::write(write.as_raw_fd(), (&raw const errno).cast(), 4);
                libc::_exit(126)
            }
        }
        ForkResult::Parent { child } => child,
    };
    drop(write);
    let mut errno = Vec::new();
    read.read_to_end(&mut errno).unwrap();
    let status = waitpid(child, None).unwrap();
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    match errno.first_chunk() {
        Some(errno) => (Err(i32::from_ne_bytes(*errno)), text),
        None => (Ok(status), text),
    }
}

//! `execve` through Duet's own loader.
//!
//! 1. The call is notified. The program is resolved and parsed here, so that a bad one fails with the
//!    errno Linux would give, and a plan of its address space is made.
//! 2. The thread is made to exec the start-up stub instead, with its own `argv` and `envp`: the kernel
//!    ends the other threads, closes descriptors, resets signals and makes a new address space. Mostly the
//!    call runs as it stands, and the kernel finds the stub at the path ([`images`](crate::images)).
//! 3. The stub reports. The initial stack is corrected, the stub is handed the plan, and jumps.
//!
//! The stub's descriptor and the cookie that lets its `execveat` through the filter can become known
//! to the guest, by an `execve` that fails late. They let it start the stub (or any file that it holds
//! open) itself, under the same filter and in the same namespaces, which gains it nothing.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use duet_intercept::{Replacement, Tid, mem};
use duet_loader::stub::{BUFFER_SIZE, STUB_MAGIC};
use duet_loader::{
    HEAD_SIZE, Ids, Image, LoadError, MAX_BLOCK, MAX_DEPTH, Plan, ReadAt, Script, StackError,
    StackFix, encode, records_for, rewrite_stack,
};
use duet_vfs::account::host;
use duet_vfs::counted::read_text;
use duet_vfs::types::{Caps, Creds, Errno, FileType, Result};
use duet_vfs::walk::{Context, Location, Lookup};
use duet_vfs::{BackingId, MountFlags, NoCaller, Vfs};

use super::stat::{Target, target};
use crate::process::{PendingExec, Program, State, tracer_of, user_ticks};
use crate::task::{Reply, Task};
use crate::wait::{self, Blocked};

mod traced;

pub(crate) use traced::give_back;

/// What the stub is to do once it reports.
pub struct Launch {
    program: OwnedFd,
    interpreter: Option<OwnedFd>,
    /// Every file that the kernel would look up in turn, and what it would look for: scripts, the program,
    /// its interpreter.
    names: Vec<Named>,
    /// `Err`: the image is one that Linux would find bad past the point of no return.
    plan: std::result::Result<Plan, LoadError>,
    execfn: Vec<u8>,
    argv_prefix: Vec<Vec<u8>>,
    ids: Ids,
}

/// A file of the tree that takes part in an `execve`.
struct Named {
    path: Vec<u8>,
    location: Location,
    /// For scripts; the others are kept already.
    script: Option<OwnedFd>,
}

impl Launch {
    /// What the kernel needs to load it, with a path and a place for each file.
    fn files(&self) -> impl Iterator<Item = (&Named, BorrowedFd<'_>)> {
        let mut others = [Some(&self.program), self.interpreter.as_ref()]
            .into_iter()
            .flatten();
        self.names.iter().filter_map(move |n| {
            let fd = n.script.as_ref().or_else(|| others.next())?;
            Some((n, fd.as_fd()))
        })
    }
}

/// Whether set-id bits of the program count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SetId {
    /// They do.
    Honoured,
    /// Not of one that is traced: its tracer would hold it.
    Ignored,
}

/// Why a program cannot be started, with what a person must know.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It cannot be found or may not be run.
    #[error("{}", .0.desc())]
    Access(Errno),
    /// It is no program that can be run.
    #[error(transparent)]
    Load(LoadError),
    /// What it names as its interpreter is missing.
    #[error("needs {}, which is not in its tree", String::from_utf8_lossy(path))]
    Interpreter {
        /// The interpreter's path.
        path: Vec<u8>,
        /// Why it cannot be used.
        errno: Errno,
    },
}

impl ExecError {
    /// What `execve` returns.
    pub fn errno(&self) -> Errno {
        match self {
            ExecError::Access(e) => *e,
            ExecError::Load(e) => e.errno(),
            ExecError::Interpreter { errno, .. } => *errno,
        }
    }
}

impl From<Errno> for ExecError {
    fn from(e: Errno) -> ExecError {
        ExecError::Access(e)
    }
}

/// Resolves and parses what is to be run: `path` is what the caller calls it, `location` where it is.
/// Returns the state after a successful `execve` and what the stub has to do for it.
pub fn prepare(
    vfs: &Vfs,
    cx: &Context<'_>,
    state: &State,
    path: &[u8],
    location: Location,
    set_id: SetId,
) -> std::result::Result<PendingExec, ExecError> {
    let mut location = location;
    let mut name = path.to_vec();
    let mut names = Vec::new();
    let mut argv_prefix: Vec<Vec<u8>> = Vec::new();
    let mut depth = 0;
    let (file, head) = loop {
        let file = open_program(vfs, cx, &location)?;
        let head = read_head(&file)?;
        let line = head.get(..HEAD_SIZE).unwrap_or(&head);
        let Some(script) = Script::parse(line).map_err(ExecError::Load)? else {
            break (file, head);
        };
        if depth == MAX_DEPTH {
            return Err(Errno::ELOOP.into());
        }
        depth += 1;
        // The interpreter of an interpreter stands before it.
        let mut argv = script.argv(&name);
        if !argv_prefix.is_empty() {
            argv.extend(argv_prefix.drain(1..));
        }
        argv_prefix = argv;
        names.push(Named {
            path: std::mem::replace(&mut name, script.interpreter),
            location,
            script: Some(file.into()),
        });
        location = vfs
            .resolve(cx, cx.cwd, &name, Lookup::FOLLOW)
            .map_err(|errno| ExecError::Interpreter {
                path: name.clone(),
                errno,
            })?;
    };
    names.push(Named {
        path: name,
        location: location.clone(),
        script: None,
    });
    let headed = Headed {
        head: &head,
        file: &file,
    };
    let image = Image::parse(&headed, length(&file)?).map_err(ExecError::Load)?;
    if let Some(index) = image.truncated_segment() {
        log::debug!("segment {index} of the program ends beyond its file");
    }
    let interpreter = match &image.interpreter {
        None => None,
        Some(path) => {
            let missing = |errno| ExecError::Interpreter {
                path: path.clone(),
                errno,
            };
            let at = vfs
                .resolve(cx, cx.cwd, path, Lookup::FOLLOW)
                .map_err(missing)?;
            let file = open_program(vfs, cx, &at).map_err(missing)?;
            let headed = Headed {
                head: &read_head(&file)?,
                file: &file,
            };
            let length = length(&file)?;
            let image = Image::parse_interpreter(&headed, length).map_err(ExecError::Load)?;
            names.push(Named {
                path: path.clone(),
                location: at,
                script: None,
            });
            Some((file, image))
        }
    };
    let mut random = random_word;
    let plan = Plan::new(
        &image,
        interpreter.as_ref().map(|(_, i)| i),
        Some(&mut random),
    );

    let may_gain = set_id == SetId::Honoured && !state.no_new_privs;
    let creds = exec_creds(&state.creds, &location, may_gain)?;
    let secure = creds.euid != creds.uid || creds.egid != creds.gid;
    let ids = Ids {
        uid: creds.uid,
        euid: creds.euid,
        gid: creds.gid,
        egid: creds.egid,
        secure,
    };
    let cmdline_prefix = (!argv_prefix.is_empty()).then(|| {
        argv_prefix
            .iter()
            .flat_map(|s| s.iter().copied().chain(std::iter::once(0)))
            .collect()
    });
    let state = State {
        creds: Arc::new(creds),
        program: Some(Program {
            location,
            cmdline_prefix,
            auxv: None,
        }),
        keep_caps: false,
        ..state.clone()
    };
    let launch = Arc::new(Launch {
        program: file.into(),
        interpreter: interpreter.map(|(f, _)| f.into()),
        names,
        plan,
        execfn: path.to_vec(),
        argv_prefix,
        ids,
    });
    Ok(PendingExec {
        tid: Tid(0),
        state,
        launch,
        proven: false,
        named: false,
        native: None,
    })
}

fn random_word() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the buffer has the length that is announced.
    let n = host("getrandom", || unsafe {
        libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0)
    });
    if n != bytes.len() as isize {
        // Only before the host has any randomness at all: the image then lies where it always does.
        log::warn!("the host has no random numbers; addresses are not randomised");
    }
    u64::from_le_bytes(bytes)
}

/// What a program begins with: its headers, as a rule.
fn read_head(file: &File) -> Result<Vec<u8>> {
    const SIZE: usize = 4096;
    let mut head = vec![0; SIZE];
    let n = ReadAt::read_at(file, &mut head, 0).map_err(|_| Errno::EIO)?;
    head.truncate(n);
    Ok(head)
}

/// A file of which the first bytes have been read.
struct Headed<'a> {
    head: &'a [u8],
    file: &'a File,
}

impl ReadAt for Headed<'_> {
    fn read_at(&self, buf: &mut [u8], off: u64) -> std::io::Result<usize> {
        let from_head = ReadAt::read_at(self.head, buf, off)?;
        if from_head == buf.len() {
            return Ok(from_head);
        }
        ReadAt::read_at(self.file, buf, off)
    }
}

fn length(file: &File) -> Result<u64> {
    file.metadata().map(|m| m.len()).map_err(|_| Errno::EIO)
}

/// Opens a file that may be executed; reading is not asked for, as in execve(2).
fn open_program(vfs: &Vfs, cx: &Context<'_>, location: &Location) -> Result<File> {
    match location.kind() {
        FileType::Regular => (),
        FileType::Symlink => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if location.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    vfs.access(cx, location, libc::X_OK as u32)?;
    let opened = location
        .inode()
        .open(libc::O_RDONLY | libc::O_CLOEXEC, &NoCaller)?;
    if is_written_to(&opened.fd) {
        return Err(Errno::ETXTBSY);
    }
    // So that /proc/PID/maps can name what is mapped of it.
    if let Some(id) = opened.backing {
        vfs.adopt(id, location);
    }
    Ok(File::from(opened.fd))
}

/// Whether somebody has the file open for writing: the kernel then grants no read lease on it. Where
/// leases are not to be had (another's file, a file system without them) nobody is assumed to.
fn is_written_to(file: &OwnedFd) -> bool {
    let lease = |kind: i32| {
        // SAFETY: integers.
        host("fcntl", || unsafe {
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind)
        })
    };
    // Duet itself holds what it opens for a moment longer than the guest waits for it.
    const TRIES: u32 = 3;
    for _ in 0..TRIES {
        match Errno::result(lease(libc::F_RDLCK)) {
            Err(Errno::EAGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(_) => return false,
            Ok(_) => {
                lease(libc::F_UNLCK);
                return false;
            }
        }
    }
    true
}

/// Credentials after `execve` (capabilities(7), "Transformation of capabilities during execve").
fn exec_creds(old: &Creds, program: &Location, may_gain: bool) -> Result<Creds> {
    let mut new = old.clone();
    let (mode, uid, gid) = program.inode().owner()?;
    let may_gain = may_gain && !program.mount.flags().contains(MountFlags::NOSUID);
    if may_gain && mode & libc::S_ISUID != 0 {
        new.euid = uid;
    }
    if may_gain && mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP {
        new.egid = gid;
    }
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);
    if new.euid != old.euid || new.egid != old.egid {
        new.ambient = Caps::empty();
    }
    let root = new.euid == 0 || new.uid == 0;
    new.permitted = if root {
        new.bounding | new.inheritable
    } else {
        new.ambient
    };
    new.effective = if new.euid == 0 {
        new.permitted
    } else {
        new.ambient
    };
    Ok(new)
}

pub(super) fn execve(t: &Task) -> Result<Reply> {
    let path = t.path(0)?;
    let location = t
        .kernel
        .vfs
        .resolve(&t.cx(), &t.state.cwd, &path, Lookup::FOLLOW)?;
    let empty = t.arg(0).wrapping_add(path.len() as u64);
    start(t, &path, location, [empty, t.arg(1), t.arg(2)])
}

pub(super) fn execveat(t: &Task) -> Result<Reply> {
    /// Only asks whether it might be executed (Linux 6.14).
    const AT_EXECVE_CHECK: i32 = 0x10000;
    let (dirfd, flags) = (t.int(0), t.int(4));
    let only_asks = flags & AT_EXECVE_CHECK != 0;
    let flags = flags & !AT_EXECVE_CHECK;
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = t.path(1)?;
    let location = match target(t, dirfd, 1, flags)? {
        Target::Descriptor(fd) => t.descriptor(fd)?.location.ok_or(Errno::EACCES)?,
        Target::Node(l) => l,
    };
    let name = if path.is_empty() {
        format!("/dev/fd/{dirfd}").into_bytes()
    } else if dirfd == libc::AT_FDCWD || path.first() == Some(&b'/') {
        path.clone()
    } else {
        [format!("/dev/fd/{dirfd}/").as_bytes(), &path].concat()
    };
    if only_asks {
        return open_program(&t.kernel.vfs, &t.cx(), &location).map(|_| Reply::DONE);
    }
    let empty = t.arg(1).wrapping_add(path.len() as u64);
    if name.starts_with(b"/dev/fd/") && closes_on_exec(t, dirfd) && is_script(t, &location)? {
        // The interpreter could not open it by that name (execveat(2)).
        return Err(Errno::ENOENT);
    }
    start(t, &name, location, [empty, t.arg(2), t.arg(3)])
}

fn is_script(t: &Task, location: &Location) -> Result<bool> {
    let file = open_program(&t.kernel.vfs, &t.cx(), location)?;
    let mut head = [0; 2];
    let n = ReadAt::read_at(&file, &mut head, 0).map_err(|_| Errno::EIO)?;
    Ok(head.get(..n) == Some(b"#!"))
}

/// Whether the caller's descriptor is closed by `execve`.
fn closes_on_exec(t: &Task, fd: i32) -> bool {
    let path = format!("/proc/{}/fdinfo/{fd}", t.call.tid.0);
    let text = read_text(path).unwrap_or_default();
    let flags = text.lines().find_map(|l| l.strip_prefix("flags:"));
    let flags = flags.and_then(|f| i32::from_str_radix(f.trim(), 8).ok());
    flags.is_some_and(|f| f & libc::O_CLOEXEC != 0)
}

/// Step 2. `pointers` are guest addresses of an empty string, `argv` and `envp`.
fn start(t: &Task, path: &[u8], location: Location, pointers: [u64; 3]) -> Result<Reply> {
    match t.process.begin_exec(t.call.tid) {
        Ok(()) => begin(t, path, location, pointers),
        Err(other) => {
            let path = path.to_vec();
            wait::elsewhere(t, move |t| {
                after(t, other, || begin(t, &path, location.clone(), pointers))
            })
        }
    }
}

/// Does `execute` once the thread `other` of the process, which executes a program, has failed to. If it has not,
/// the caller is gone.
fn after(t: &Task, other: Tid, execute: impl Fn() -> Result<Reply>) -> Blocked {
    const PAUSE: Duration = Duration::from_millis(1);
    // Who spends time in its program is back there, whether that makes calls or not.
    const TICKS: u64 = 2;
    // Who has gone, and whose program does not start for that long, has come back and ended.
    const START: Duration = Duration::from_secs(1);
    let (ticks, since) = (user_ticks(other), Instant::now());
    while t.process.begin_exec(t.call.tid).is_err() {
        let is_back = user_ticks(other) > ticks.map(|n| n + TICKS);
        if is_back || since.elapsed() > START && !t.process.has_thread(other) {
            t.process.forget_failed_exec(other);
        } else if !t.kernel.engine.is_live(&t.call) {
            return Blocked::Ended(Err(Errno::ESRCH));
        } else if wait::pause(PAUSE).is_err() {
            return Blocked::Interrupted;
        }
    }
    // It is gone if it has executed one, and the caller with it, of which an engine may hear later.
    const LATER: u32 = 20;
    for _ in 0..LATER {
        if t.process.has_thread(other) || !t.kernel.engine.is_live(&t.call) {
            break;
        }
        if wait::pause(PAUSE).is_err() {
            return Blocked::Interrupted;
        }
    }
    Blocked::Ended(execute())
}

/// Step 2, of the only thread of its process that executes a program.
fn begin(t: &Task, path: &[u8], location: Location, pointers: [u64; 3]) -> Result<Reply> {
    // If another had executed one meanwhile, the caller would be gone: what that left is not to be touched.
    if !t.kernel.engine.is_live(&t.call) {
        t.process.end_exec(t.call.tid);
        return Err(Errno::ESRCH);
    }
    run_stub(t, path, location, pointers).inspect_err(|_| {
        // Nothing of it is left.
        t.process.forget_failed_exec(t.call.tid);
    })
}

fn run_stub(t: &Task, path: &[u8], location: Location, pointers: [u64; 3]) -> Result<Reply> {
    if is_traced(t) {
        return traced::start(t, path, location);
    }
    let mut pending = ready(t, path, &location, SetId::Honoured)?;
    let gains = gains(&t.state.creds, &pending.state.creds);
    let kernel = &t.kernel;
    // The kernel finds the stub where it looks for the program, unless it looks in a directory of the caller's.
    // Who gains something is attached to all the same, as nobody may trace it.
    let by_path =
        !gains && !is_relative_to_descriptor(t, path) && kernel.images.lead_to_stub(path).is_ok();
    pending.named = by_path;
    *t.process.pending_exec.lock() = Some(pending);
    // Who comes to trace it meanwhile is found below; who reads its memory, by nothing else.
    if gains && !kernel.lookers.are_done(t.process.serial(), LOOK) {
        return Err(Errno::EAGAIN);
    }
    if by_path {
        return Ok(Reply::Run);
    }
    let stub = inject_stub(t)?;
    let [empty, argv, envp] = pointers;
    let replacement = Replacement {
        nr: libc::SYS_execveat as u32,
        args: [
            stub as u64,
            empty,
            argv,
            envp,
            libc::AT_EMPTY_PATH as u64,
            kernel.exec_cookie,
        ],
    };
    let process = t.process.clone();
    let executed = Box::new(move || process.prove_exec());
    match kernel
        .engine
        .execute_instead(&t.call, replacement, executed)
    {
        Ok(()) | Err(Errno::ESRCH) => Ok(Reply::Deferred),
        // It has a tracer that came just now, or is none of the sandbox's.
        Err(Errno::EPERM) if kernel.engine.leaves_tracing() => traced::start(t, path, location),
        Err(e) => Err(e),
    }
}

/// Whether this is an execveat(2) of what a descriptor stands for, or of a path that starts there.
fn is_relative_to_descriptor(t: &Task, path: &[u8]) -> bool {
    i64::from(t.call.nr) == libc::SYS_execveat && path.starts_with(b"/dev/fd/")
}

/// How long a program that gains something waits for those who look into its process.
const LOOK: Duration = Duration::from_secs(1);

/// Whether `new` can do what `old` cannot.
fn gains(old: &Creds, new: &Creds) -> bool {
    new.euid != old.euid || new.egid != old.egid || !old.permitted.contains(new.permitted)
}

fn ready(t: &Task, path: &[u8], location: &Location, set_id: SetId) -> Result<PendingExec> {
    let location = location.clone();
    let pending = prepare(&t.kernel.vfs, &t.cx(), &t.state, path, location, set_id);
    let pending = pending.map_err(|e| {
        log::debug!("execve of {}: {e}", String::from_utf8_lossy(path));
        e.errno()
    })?;
    Ok(PendingExec {
        tid: t.call.tid,
        ..pending
    })
}

/// Whether another guest traces the caller.
fn is_traced(t: &Task) -> bool {
    t.kernel.traces.load(Ordering::Relaxed) && tracer_of(t.call.tid).is_some()
}

/// Where the caller gets the stub's descriptor: out of the way of the numbers that it uses itself.
const STUB_FD: i32 = 1023;

/// Gives the caller the stub. An `execve` that fails late, in the kernel, leaves the descriptor behind;
/// the next one finds it and does not add another.
fn inject_stub(t: &Task) -> Result<i32> {
    let engine = &t.kernel.engine;
    let stub = t.kernel.stub.as_fd();
    match t.descriptor(STUB_FD) {
        Ok(d)
            if t.kernel.stub_id
                == (BackingId {
                    dev: d.stat.st_dev,
                    ino: d.stat.st_ino,
                }) =>
        {
            Ok(STUB_FD)
        }
        // In use, or beyond the caller's limit.
        Ok(_) => engine.inject(&t.call, stub, None, true),
        Err(_) => engine
            .inject(&t.call, stub, Some(STUB_FD), true)
            .or_else(|_| engine.inject(&t.call, stub, None, true)),
    }
}

/// Bytes of the initial stack that are read at first: arguments and environment of most programs.
const STACK_CHUNK: u64 = 16 << 10;

/// Step 3: the stub's private call `(initial stack pointer, buffer, size, 0, 0, STUB_MAGIC)`. Its
/// result is the number of records in the buffer. An error ends the stub.
pub fn stub_report(t: &Task) -> Result<Reply> {
    let [rsp, buffer, size, ..] = t.call.args;
    if t.arg(5) != STUB_MAGIC || size < BUFFER_SIZE {
        return Err(Errno::ENOSYS);
    }
    // It stays where it is until the process has taken its state on: who wants to look into the process is told by
    // it.
    let pending = {
        let pending = t.process.pending_exec.lock();
        pending
            .as_ref()
            .map(|p| (p.state.clone(), p.launch.clone(), p.proven, p.named))
    };
    let first = || t.kernel.processes.take_first_launch();
    let (mut state, launch, proven, named) = match pending {
        Some(pending) => pending,
        None => first()
            .map(|p| (p.state, p.launch, true, false))
            .ok_or(Errno::EPERM)?,
    };
    // Any thread may make this call while another executes a program, or after that has failed, and which file it
    // executes is no proof: all that were started by the stub still do in the kernel's eyes.
    let gains = gains(&t.state.creds, &state.creds);
    let handed_over = match gains && (!proven || is_looked_into(t)) {
        true => Err(Errno::EPERM),
        false => hand_over(t, &launch, named, [rsp, buffer, size]),
    };
    match handed_over {
        Ok((count, auxv)) => {
            t.kernel.started.get_or_init(Instant::now);
            if let Some(program) = &mut state.program {
                program.auxv = Some(auxv);
            }
            if state.creds != t.state.creds {
                t.differ();
            }
            t.kernel.processes.replace_state(&t.process, state);
            t.process.has_executed();
            Ok(Reply::Value(count))
        }
        Err(e) => {
            t.process.has_executed();
            // The old program is gone: as Linux does past the point of no return.
            if let Err(e) = t.process.signal(libc::SIGSEGV) {
                log::debug!("process {}: {e}", t.process.host_pid());
            }
            Err(e)
        }
    }
}

/// Whether somebody traces the caller, or is about to look into it.
fn is_looked_into(t: &Task) -> bool {
    let is_traced = || tracer_of(t.call.tid).is_some();
    let looks = || !t.kernel.lookers.are_done(t.process.serial(), LOOK);
    // Else the engine traces it, and nobody else can.
    t.kernel.engine.leaves_tracing() && (is_traced() || looks())
}

/// Corrects the stack at `rsp` and writes the records to the buffer of this size. Returns the number of records,
/// and the auxiliary vector. `named`: as in [`PendingExec`].
fn hand_over(
    t: &Task,
    launch: &Launch,
    named: bool,
    [rsp, buffer, size]: [u64; 3],
) -> Result<(i64, Arc<[u8]>)> {
    let plan = launch.plan.as_ref().map_err(LoadError::errno)?;
    let comm = launch
        .execfn
        .rsplit(|&b| b == b'/')
        .next()
        .unwrap_or_default();
    let fix = StackFix {
        plan,
        ids: launch.ids,
        execfn: &launch.execfn,
        argv_prefix: &launch.argv_prefix,
        comm,
    };
    let mut len = STACK_CHUNK as usize;
    let stack = loop {
        let mut block = vec![0; len];
        let n = mem::read_some(t.call.tid, rsp, &mut block)?;
        block.truncate(n);
        match rewrite_stack(&block, rsp, &fix) {
            Err(StackError::NeedMore) if n == len && len < MAX_BLOCK => len *= 8,
            other => break other.map_err(StackError::errno)?,
        }
    };
    let engine = &t.kernel.engine;
    let program = launch.program.as_fd();
    let (program, interpreter) = match &launch.interpreter {
        Some(fd) => {
            let [program, interpreter] = engine.inject_pair(&t.call, [program, fd.as_fd()])?;
            (program, Some(interpreter))
        }
        None => (engine.inject(&t.call, program, None, true)?, None),
    };
    let mut records = records_for(plan, program, interpreter, &stack, named);
    for record in &mut records {
        record.change_args(|args| duet_intercept::marked(args, t.kernel.mark));
    }
    let script = encode(&records);
    if script.len() as u64 > size {
        return Err(Errno::ENOMEM);
    }
    t.write_both([(stack.rsp, &stack.bytes), (buffer, &script)])?;
    let auxv = stack.bytes.get(stack.auxv.clone()).unwrap_or_default();
    Ok((records.len() as i64, auxv.into()))
}

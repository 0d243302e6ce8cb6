//! The sandbox's init (pid 1 of its pid namespace) and the first guest process, up to its `execveat`.
//!
//! Both run in children of the supervisor made while it had a single thread. Init keeps its
//! capabilities inside the sandbox's own user namespace; the guest gives up all of them.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use duet_syscalls::states;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setpgid, setresgid, setresuid};

use crate::channel::{Channel, Message};
use crate::config::Engine;
use crate::landlock;
use crate::usage::Usage;

/// What init needs to know.
pub struct Plan<'a> {
    /// Host name inside.
    pub hostname: &'a [u8],
    /// Whether the network is the sandbox's own. Its loopback device must be brought up then.
    pub network: OwnNetwork,
    /// Whether to keep the guest from abstract sockets that are not its own.
    pub scope_abstract_sockets: bool,
    /// Arguments of the program, for `execveat`.
    pub argv: &'a [CString],
    /// Its environment.
    pub envp: &'a [CString],
    /// The filter.
    pub filter: &'a [libc::sock_filter],
    /// The start-up stub.
    pub stub: BorrowedFd<'a>,
    /// Marks Duet's own `execveat`.
    pub exec_cookie: u64,
    /// Signal mask to give the guest.
    pub mask: SigSet,
    /// Soft and hard limit of descriptors for the guest (the supervisor has raised its own).
    pub descriptor_limit: (u64, u64),
    /// What brings the calls.
    pub engine: Engine,
    /// The terminal to put the guest in the foreground of.
    pub terminal: Option<BorrowedFd<'a>>,
}

/// Whether the sandbox has a network namespace of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OwnNetwork {
    /// It has the host's.
    No,
    /// Init is in it.
    Made,
    /// Init makes it.
    ToBeMade,
}

type Step<T> = Result<T, (String, Errno)>;

trait Named<T> {
    fn named(self, what: &str) -> Step<T>;
}

impl<T> Named<T> for nix::Result<T> {
    fn named(self, what: &str) -> Step<T> {
        self.map_err(|e| (what.to_owned(), e))
    }
}

/// Runs init in the calling process, which must be the first of new namespaces. Never returns.
pub fn main(plan: &Plan<'_>, channel: &Channel) -> ! {
    let status = match set_up(plan, channel).and_then(|child| attend(channel, child)) {
        Ok(()) => 0,
        Err((what, e)) => {
            let text = format!("{what}: {}", e.desc());
            if let Err(e) = channel.send(&Message::Failed(text), &[]) {
                log::debug!("the supervisor is gone: {e}");
            }
            1
        }
    };
    // SAFETY: ends this process without running the supervisor's exit handlers.
    unsafe { libc::_exit(status) }
}

/// Makes the mounts that a run needs, says how that went, and ends. For `duet doctor`.
pub fn probe(channel: &Channel) -> ! {
    let tried = expect(channel, &Message::Mapped)
        .and_then(|()| become_root())
        .and_then(|()| private_mounts(channel))
        .and_then(|(_, leaving)| leaving.map_or(Ok(()), Meanwhile::done));
    if let Err((what, e)) = tried
        && let Err(e) = channel.send(&Message::Failed(format!("{what}: {}", e.desc())), &[])
    {
        log::debug!("the supervisor is gone: {e}");
    }
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(0) }
}

fn set_up(plan: &Plan<'_>, channel: &Channel) -> Step<Pid> {
    expect(channel, &Message::Mapped)?;
    become_root()?;
    // After the change of user, which would clear it.
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
        .named("asking to die with the supervisor")?;
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).named("making a process group")?;
    let network = match plan.network {
        OwnNetwork::ToBeMade => Some(Meanwhile::start(make_network)?),
        OwnNetwork::No | OwnNetwork::Made => None,
    };
    let (proc, leaving) = private_mounts(channel)?;
    nix::unistd::sethostname(std::ffi::OsStr::from_bytes(plan.hostname))
        .named("setting the host name")?;
    forbid_namespaces(proc.as_fd()).named("forbidding user namespaces inside")?;
    if plan.network == OwnNetwork::Made {
        loopback_up().named("bringing up the loopback device")?;
    }
    if let Some(network) = network {
        let namespace = network.done()?;
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)
            .named("entering the network namespace")?;
    }
    if plan.network != OwnNetwork::No {
        open_network(proc.as_fd()).named("opening the low ports")?;
    }
    leaving.map_or(Ok(()), Meanwhile::done)?;
    expect(channel, &Message::Start)?;
    let first = fork_first(proc.as_fd()).named("starting the program")?;
    drop(proc);
    match first {
        Some(child) => Ok(child),
        None => match guest(plan, channel) {
            Ok(never) => match never {},
            Err(failure) => Err(failure),
        },
    }
}

/// Forks the first process, whose number follows init's. Returns its number in init, `None` in the process.
///
/// Init's threads of before are gone, but the kernel may still count them (`--pids`) for a moment, or hold the number.
/// The calling process must have a single thread.
fn fork_first(proc: BorrowedFd<'_>) -> nix::Result<Option<Pid>> {
    let first: libc::pid_t = 2;
    const TRIES: u32 = 1000;
    // So that what comes later is numbered from there.
    if let Err(e) = write_setting(proc, c"sys/kernel/ns_last_pid", b"1") {
        log::debug!("processes are numbered as they come: {e}");
    }
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = (&raw const first) as u64;
    args.set_tid_size = 1;
    let mut tries = 0;
    loop {
        // SAFETY: as fork(2): no stack is given, so the child goes on on its copy of this one. The structure has the
        // size that is announced, and what it points to lives as long.
        let n = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
        match Errno::result(n) {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some(Pid::from_raw(pid as i32))),
            Err(Errno::EEXIST | Errno::EAGAIN) if tries < TRIES => tries += 1,
            Err(e) => return Err(e),
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn expect(channel: &Channel, wanted: &Message) -> Step<()> {
    match channel.receive().named("listening to the supervisor")? {
        Some((m, _)) if m == *wanted => Ok(()),
        // The supervisor gave up: there is nobody to tell.
        // SAFETY: ends this process at once.
        None => unsafe { libc::_exit(1) },
        Some(_) => Err(("listening to the supervisor".into(), Errno::EBADMSG)),
    }
}

/// Takes on id 0 of the namespace and drops the groups that came along.
fn become_root() -> Step<()> {
    let groups = nix::unistd::setgroups(&[]);
    // An ordinary user's namespace denies setgroups altogether.
    if groups.is_err() && groups != Err(Errno::EPERM) {
        groups.named("dropping groups")?;
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).named("becoming root of the namespace")?;
    setresuid(uid, uid, uid).named("becoming root of the namespace")
}

/// A step that another thread does meanwhile, as it takes longer than most of the rest. A process with such a
/// thread must not fork.
enum Meanwhile<T> {
    Begun(JoinHandle<Step<T>>),
    /// There may be no more threads.
    Done(T),
}

impl<T: Send + 'static> Meanwhile<T> {
    fn start(step: fn() -> Step<T>) -> Step<Meanwhile<T>> {
        match thread::Builder::new().spawn(step) {
            Ok(thread) => Ok(Meanwhile::Begun(thread)),
            Err(e) => {
                log::debug!("init does without a thread: {e}");
                step().map(Meanwhile::Done)
            }
        }
    }

    /// Waits until it is done and the thread is gone.
    fn done(self) -> Step<T> {
        let failed = |_| Err(("a thread of init's".to_owned(), Errno::EIO));
        match self {
            Meanwhile::Begun(thread) => thread.join().unwrap_or_else(failed),
            Meanwhile::Done(value) => Ok(value),
        }
    }
}

/// Takes the host's mounts out of init's namespace, once the working directory is the new root, and the old one
/// with the tmpfs of programs on it on top of that. They are gone at once, but the kernel then waits until no
/// processor uses them (`synchronize_rcu_expedited`).
fn leave_host() -> Step<()> {
    for _ in 0..2 {
        umount2(".", MntFlags::MNT_DETACH).named("leaving the host's root")?;
    }
    Ok(())
}

/// Makes a network namespace with a loopback device, of which the calling thread is part afterwards.
fn make_network() -> Step<OwnedFd> {
    /// ioctl(2) of a socket: its network namespace.
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).named("making a network namespace")?;
    let socket = loopback_up().named("bringing up the loopback device")?;
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) });
    let fd = fd.named("making a network namespace")?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts the private tmpfs, a procfs and the tmpfs of programs for the kernel to load, hands them to the
/// supervisor, and moves to a read-only root, empty but for such programs. Returns the procfs, and what is still
/// done to leave the host's mounts.
fn private_mounts(channel: &Channel) -> Step<(OwnedFd, Option<Meanwhile<()>>)> {
    let none = None::<&CStr>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .named("making mounts private")?;
    let store = store_mount().named("mounting a tmpfs")?;
    let proc = detached_mount(c"proc", &[], 0).named("mounting a procfs of the pid namespace")?;
    let (images, root) = images_and_root().named("mounting an empty root")?;
    attach_to_root(root.as_fd()).named("mounting an empty root")?;
    nix::unistd::fchdir(root.as_fd()).named("entering the empty root")?;
    let pivoted = match nix::unistd::pivot_root(".", ".") {
        Ok(()) => true,
        // The host runs from an initramfs, which cannot be pivoted away from.
        Err(Errno::EINVAL) => false,
        Err(e) => return Err(("leaving the host's root".into(), e)),
    };
    nix::unistd::chroot(".").named("entering the empty root")?;
    nix::unistd::chdir("/").named("entering the empty root")?;
    let leaving = match pivoted {
        true => Some(Meanwhile::start(leave_host)?),
        false => None,
    };
    // The supervisor has much to do from here on.
    channel
        .send(
            &Message::Mounts,
            &[store.as_fd(), proc.as_fd(), images.as_fd()],
        )
        .named("handing over the mounts")?;
    Ok((proc, leaving))
}

/// A tmpfs for Duet alone. One that init mounts belongs to the sandbox's user namespace, where root of
/// the host has no id and so cannot make files; a supervisor that is root mounts its own.
pub fn store_mount() -> nix::Result<OwnedFd> {
    detached_mount(c"tmpfs", &[(c"mode", c"0700")], 0)
}

const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const CLOEXEC: libc::c_uint = 1;

/// A mount that is attached nowhere (fsopen(2), fsmount(2)).
fn detached_mount(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: libc::c_uint,
) -> nix::Result<OwnedFd> {
    let owned = |n: libc::c_long| -> nix::Result<OwnedFd> {
        let fd = Errno::result(n)?;
        // SAFETY: the kernel has just returned this descriptor to us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    };
    // SAFETY: C strings and integers.
    let fs = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) })?;
    let config = |command: libc::c_uint, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: C strings or null, as the command wants them.
        let n =
            unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key, value, 0) };
        Errno::result(n).map(drop)
    };
    for (key, value) in options {
        config(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?;
    }
    config(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), CLOEXEC, attributes) })
}

/// The tmpfs of programs that the kernel is to load ([`duet_syscalls::images`]), and a mount of the one
/// directory of it that guests see, through which nothing is written. The first is attached to the root, the
/// other nowhere.
fn images_and_root() -> nix::Result<(OwnedFd, OwnedFd)> {
    const ROOM: [(&CStr, &CStr); 3] = [
        (c"mode", c"0755"),
        (c"size", c"512m"),
        (c"nr_inodes", c"32k"),
    ];
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const CLONE: libc::c_uint = 1 | libc::O_CLOEXEC as libc::c_uint;
    let images = detached_mount(c"tmpfs", &ROOM, 0)?;
    let name = CString::new(duet_syscalls::images::ROOT).map_err(|_| Errno::EINVAL)?;
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o755);
    nix::sys::stat::mkdirat(images.as_fd(), name.as_c_str(), mode)?;
    // Only what is attached can be cloned.
    attach_to_root(images.as_fd())?;
    // SAFETY: a C string and integers.
    let n = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            images.as_raw_fd(),
            name.as_ptr(),
            CLONE,
        )
    };
    // SAFETY: the kernel has just returned this descriptor to us.
    let root = unsafe { OwnedFd::from_raw_fd(Errno::result(n)? as RawFd) };
    let attributes: [u64; 4] = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: a C string, and a `struct mount_attr` (set, clear, propagation, user namespace) of the
    // length that is announced.
    let n = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            root.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(n)?;
    Ok((images, root))
}

fn attach_to_root(mount: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: C strings and integers.
    let n = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            c"/".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(n).map(drop)
}

/// No user namespace can be made within the sandbox's, and for any other kind the guest has no capability.
/// The flags of clone3(2) lie in memory, where no filter sees them.
fn forbid_namespaces(proc: BorrowedFd<'_>) -> nix::Result<()> {
    write_setting(proc, c"sys/user/max_user_namespaces", b"0")
}

fn write_setting(proc: BorrowedFd<'_>, file: &CStr, value: &[u8]) -> nix::Result<()> {
    use nix::fcntl::{OFlag, openat};
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let fd = openat(proc, file, flags, nix::sys::stat::Mode::empty())?;
    nix::unistd::write(&fd, value).map(drop)
}

/// In the sandbox's own network the guest may do what root may without a capability of the host's: use
/// every port (whether its ids allow that is for bind(2)'s handler), and ping.
fn open_network(proc: BorrowedFd<'_>) -> nix::Result<()> {
    write_setting(proc, c"sys/net/ipv4/ip_unprivileged_port_start", b"0")?;
    write_setting(proc, c"sys/net/ipv4/ping_group_range", b"0 0")
}

/// Returns a socket in the network of that device.
fn loopback_up() -> nix::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let s = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the structure that the request wants.
    Errno::result(unsafe { libc::ioctl(s.as_raw_fd(), libc::SIOCSIFFLAGS, &request) })?;
    Ok(s)
}

// ---- the first guest process ----

fn guest(plan: &Plan<'_>, channel: &Channel) -> Step<Infallible> {
    // A group of its own: what it sends to its group stays inside.
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).named("making a process group")?;
    if let Some(terminal) = plan.terminal {
        to_foreground(terminal).named("taking the terminal")?;
    }
    default_signals().named("resetting signals")?;
    let (soft, hard) = plan.descriptor_limit;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft, hard)
        .named("resetting the limit of descriptors")?;
    // The state of the first process, which its children inherit.
    states::stamp(0, states::FIRST).named("marking the first process")?;
    limit_processes().named("limiting processes")?;
    let (stub, channel) = keep_two(plan.stub, channel.as_fd()).named("closing descriptors")?;
    drop_privileges().named("dropping privileges")?;
    if plan.scope_abstract_sockets {
        landlock::scope_abstract_sockets().named("keeping to its own abstract sockets")?;
    }
    let argv = pointers(plan.argv);
    let envp = pointers(plan.envp);
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&plan.mask), None)
        .named("setting the signal mask")?;
    let channel = Channel::from(channel);
    match plan.engine {
        Engine::Seccomp => {
            let listener =
                duet_intercept::notify::install(plan.filter).named("installing the filter")?;
            channel
                .send(&Message::Listener, &[listener.as_fd()])
                .named("handing over the listener")?;
        }
        Engine::Ptrace => {
            wait_for_tracer(&channel).named("waiting to be traced")?;
            duet_intercept::notify::install_traced(plan.filter).named("installing the filter")?;
        }
    }
    drop(channel);
    // SAFETY: null-terminated arrays of C strings that live until the end of the call.
    let n = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            stub.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
            plan.exec_cookie,
        )
    };
    Err((
        "starting the stub".into(),
        Errno::result(n).err().unwrap_or(Errno::UnknownErrno),
    ))
}

/// Says which process is to be traced, and waits until it is.
fn wait_for_tracer(channel: &Channel) -> nix::Result<()> {
    // SAFETY: integers.
    let n = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    let n = Errno::result(n)?;
    // SAFETY: the kernel has just returned this descriptor to us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(n as RawFd) };
    let (wait, release) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    channel.send(&Message::Traceable, &[pidfd.as_fd(), release.as_fd()])?;
    drop(release);
    nix::unistd::read(&wait, &mut [0]).map(drop)
}

/// Processes and threads of the sandbox at most. The kernel counts them for its user namespace alone,
/// so the caller's other processes neither count nor suffer.
const MAX_PROCESSES: u64 = 8192;

fn limit_processes() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC)?;
    setrlimit(
        Resource::RLIMIT_NPROC,
        soft.min(MAX_PROCESSES),
        hard.min(MAX_PROCESSES),
    )
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let all = strings.iter().map(|s| s.as_ptr());
    all.chain(std::iter::once(std::ptr::null())).collect()
}

fn to_foreground(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTTOU);
    set.thread_block()?;
    nix::unistd::tcsetpgrp(terminal, nix::unistd::getpid())
}

/// What the Rust runtime and the supervisor changed.
fn default_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [
        Signal::SIGPIPE,
        Signal::SIGCHLD,
        Signal::SIGURG,
        Signal::SIGTTOU,
        Signal::SIGTTIN,
    ] {
        // SAFETY: the default action.
        unsafe { sigaction(signal, &default) }?;
    }
    Ok(())
}

/// Where the first guest process has the stub and its channel to the supervisor, until it execs.
const STUB_FD: RawFd = 512;
/// See `STUB_FD`.
pub const CHANNEL_FD: RawFd = 513;

/// Closes everything but standard input, output, error and these two, which are closed by exec.
fn keep_two(stub: BorrowedFd<'_>, channel: BorrowedFd<'_>) -> nix::Result<(OwnedFd, OwnedFd)> {
    let dup = |fd: BorrowedFd<'_>, to: RawFd| -> nix::Result<OwnedFd> {
        // SAFETY: integers. Whatever was at `to` is not used again: what follows ends in exec or exit.
        let n = Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), to, libc::O_CLOEXEC) })?;
        // SAFETY: a new descriptor of ours.
        Ok(unsafe { OwnedFd::from_raw_fd(n) })
    };
    let kept = (dup(stub, STUB_FD)?, dup(channel, CHANNEL_FD)?);
    for (first, last) in [(3, STUB_FD - 1), (CHANNEL_FD + 1, RawFd::MAX)] {
        // SAFETY: integers; as above.
        Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    }
    Ok(kept)
}

/// No capability is left, and none comes back by `execve`: the bounding set is empty.
fn drop_privileges() -> nix::Result<()> {
    let prctl = |option: i32, a: libc::c_ulong, b: libc::c_ulong| {
        // SAFETY: no pointers.
        Errno::result(unsafe { libc::prctl(option, a, b, 0, 0) })
    };
    let mut cap = 0;
    while prctl(libc::PR_CAPBSET_READ, cap, 0).is_ok() {
        prctl(libc::PR_CAPBSET_DROP, cap, 0)?;
        cap += 1;
    }
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
        0,
    )?;
    const SECBIT_NOROOT_LOCKED: libc::c_ulong = 0b11;
    const SECBIT_NO_SETUID_FIXUP_LOCKED: libc::c_ulong = 0b1100;
    // Needs CAP_SETPCAP, so before the capabilities go.
    prctl(
        libc::PR_SET_SECUREBITS,
        SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED,
        0,
    )?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    let header: [u32; 2] = [0x2008_0522, 0];
    let none = [0u32; 6];
    // SAFETY: header and data of version 3.
    let n = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    Errno::result(n)?;
    // Core dumps and /proc ownership as for any program.
    prctl(libc::PR_SET_DUMPABLE, 1, 0).map(drop)
}

// ---- init's loop ----

fn attend(channel: &Channel, child: Pid) -> Step<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // The supervisor does not want to hear of children that stop; init does.
    // SAFETY: the default action.
    unsafe { sigaction(Signal::SIGCHLD, &default) }.named("watching children")?;
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    // Blocked with all others since before the fork.
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .named("watching children")?;
    // Init holds nothing of the caller's: a pipe must end when the guest closes it.
    for fd in 0..3 {
        // SAFETY: nothing reads or writes these any more.
        unsafe { libc::close(fd) };
    }
    loop {
        let (readable, end) = wait_for_news(channel, &signals).named("waiting")?;
        if readable.signal {
            while signals.read_signal().named("watching children")?.is_some() {}
        }
        if let Some(status) = reap(channel, child)? {
            let used = Usage::of_children().named("asking what was used")?;
            channel
                .send(&Message::Used(used), &[])
                .named("reporting the end")?;
            return channel
                .send(&Message::Ended(status), &[])
                .named("reporting the end");
        }
        if readable.message && !obey(channel, child)? {
            return Ok(());
        }
        if end && !readable.message {
            return Ok(());
        }
    }
}

struct Readable {
    signal: bool,
    message: bool,
}

fn wait_for_news(channel: &Channel, signals: &SignalFd) -> nix::Result<(Readable, bool)> {
    let mut fds = [
        PollFd::new(channel.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => (),
        Err(e) => return Err(e),
    }
    let seen = |i: usize, flag| {
        fds.get(i)
            .and_then(PollFd::revents)
            .is_some_and(|r| r.intersects(flag))
    };
    let readable = Readable {
        message: seen(0, PollFlags::POLLIN),
        signal: seen(1, PollFlags::POLLIN),
    };
    Ok((readable, seen(0, PollFlags::POLLHUP)))
}

/// Reaps whoever ended; the program's own end is returned as a wait status.
fn reap(channel: &Channel, child: Pid) -> Step<Option<i32>> {
    let mut ended = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours.
        let n = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
        match Errno::result(n) {
            Ok(0) | Err(Errno::ECHILD) => return Ok(ended),
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(("reaping".into(), e)),
            Ok(pid) if pid == child.as_raw() && libc::WIFSTOPPED(status) => channel
                .send(&Message::Stopped(libc::WSTOPSIG(status)), &[])
                .named("reporting a stop")?,
            Ok(pid) if pid == child.as_raw() => ended = Some(status),
            Ok(_) => (),
        }
    }
}

/// Does what the supervisor asks. False: it is gone.
fn obey(channel: &Channel, child: Pid) -> Step<bool> {
    let Some((message, _)) = channel.receive().named("listening to the supervisor")? else {
        return Ok(false);
    };
    let send_signal = |pid: i32, signal: i32| {
        // SAFETY: integers.
        if let Err(e) = Errno::result(unsafe { libc::kill(pid, signal) }) {
            log::debug!("signal {signal} to {pid}: {e}");
        }
    };
    let result = match message {
        Message::Signal(s) => {
            send_signal(child.as_raw(), s);
            return Ok(true);
        }
        Message::SignalGroup(s) => {
            send_signal(-child.as_raw(), s);
            return Ok(true);
        }
        Message::HostName(n) => set_name(libc::SYS_sethostname, &n),
        Message::DomainName(n) => set_name(libc::SYS_setdomainname, &n),
        _ => Err(Errno::EBADMSG),
    };
    let errno = result.err().map_or(0, |e| e as i32);
    channel
        .send(&Message::Done(errno), &[])
        .named("answering the supervisor")?;
    Ok(true)
}

fn set_name(call: libc::c_long, name: &[u8]) -> nix::Result<()> {
    // SAFETY: the buffer has the length that is announced.
    Errno::result(unsafe { libc::syscall(call, name.as_ptr(), name.len()) }).map(drop)
}

/// Waits for a child that is expected to end at once; used when set-up failed.
pub fn reap_quietly(pid: Pid) {
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => (),
        other => log::debug!("init ended oddly: {other:?}"),
    }
}

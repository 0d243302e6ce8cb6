//! Calls 424 to 469: from here on all architectures number calls alike.

use super::prelude::*;

calls! {
    424 pidfd_send_signal(pidfd: Fd, sig: Signal, info: input(Siginfo), flags: Flags(PIDFD)) -> Zero, Signal, Emulated, "Permission follows the virtual credentials.";
    425 io_uring_setup(entries: UInt, p: inout(IoUringParams)) -> Fd, Descriptor, Refused(ENOSYS), "A ring makes calls that no filter sees.";
    426 io_uring_enter(fd: Fd, to_submit: UInt, min_complete: UInt, flags: Flags(IORINGENTER), argp: Word, argsz: Size) -> Count, Descriptor, Refused(ENOSYS), "A ring makes calls that no filter sees.";
    427 io_uring_register(fd: Fd, opcode: One(IORINGREGISTER), arg: Addr, nr_args: UInt) -> Value, Descriptor, Refused(ENOSYS), "A ring makes calls that no filter sees.";
    428 open_tree(dirfd: DirFd, path: Path, flags: Flags(OPENTREE)) -> Fd, File, Refused(EPERM), "The sandbox's mount tree is not the kernel's.";
    429 move_mount(from_dirfd: DirFd, from_path: Path, to_dirfd: DirFd, to_path: Path, flags: Flags(MOVEMOUNT)) -> Zero, File, Refused(EPERM), "The sandbox's mount tree is not the kernel's.";
    430 fsopen(fsname: Str, flags: Flags(FSOPEN)) -> Fd, File, Refused(EPERM), "The sandbox's mount tree is not the kernel's.";
    431 fsconfig(fd: Fd, cmd: One(FSCONFIG), key: Str, value: Addr, aux: Int) -> Zero, File, Refused(EPERM), "The sandbox's mount tree is not the kernel's.";
    432 fsmount(fsfd: Fd, flags: Flags(FSMOUNT), attr_flags: UInt) -> Fd, File, Refused(EPERM), "The sandbox's mount tree is not the kernel's.";
    433 fspick(dirfd: DirFd, path: Path, flags: Flags(FSPICK)) -> Fd, File, Refused(EPERM), "The sandbox's mount tree is not the kernel's.";
    434 pidfd_open(pid: Pid, flags: Flags(PIDFD)) -> Fd, Process, Native, "The sandbox has its own pid namespace.";
    435 clone3(cl_args: inouts(CloneArgs, Sized(1)), size: Size) -> Pid, Process, Native, "Its flags lie in memory, where no filter sees them; but the sandbox's user namespace allows no other within it, and without one the guest may make no namespace.";
    436 close_range(first: UInt, last: UInt, flags: Flags(CLOSERANGE)) -> Zero, Descriptor, Native;
    437 openat2(dirfd: DirFd, path: Path, how: inouts(OpenHow, Sized(3)), size: Size) -> Fd, File, Emulated, "Resolved in the sandbox's tree; a host descriptor is injected.";
    438 pidfd_getfd(pidfd: Fd, targetfd: Fd, flags: UInt) -> Fd, Process, Emulated, "Native for processes of the sandbox that the virtual credentials allow to trace.";
    439 faccessat2(dirfd: DirFd, path: Path, mode: Flags(ACCESS), flags: Flags(AT)) -> Zero, File, Emulated, "Checked against the virtual owners, modes and credentials.";
    440 process_madvise(pidfd: Fd, iovec: inputs(Iovec, Count(2)), vlen: Size, advice: One(MADV), flags: UInt) -> Bytes, Memory, Native;
    441 epoll_pwait2(epfd: Fd, events: outputs(EpollEvent, Count(2)), maxevents: Int, timeout: input(Timespec), sigmask: input(Sigset), sigsetsize: Size) -> Count, Descriptor, Native;
    442 mount_setattr(dirfd: DirFd, path: Path, flags: Flags(AT), attr: inputs(MountAttr, Sized(4)), size: Size) -> Zero, File, Refused(EPERM), "The sandbox's mount tree is not the kernel's.";
    443 quotactl_fd(fd: Fd, op: One(QUOTA), id: Int, addr: Addr) -> Zero, System, Refused(EPERM), "Quotas are the host's.";
    444 landlock_create_ruleset(attr: inputs(LandlockAttr, Sized(1)), size: Size, flags: Flags(LANDLOCK)) -> Fd, Credentials, Refused(ENOSYS), "Its rules name host files, which the guest never holds.";
    445 landlock_add_rule(ruleset_fd: Fd, rule_type: One(LANDLOCKRULE), rule_attr: Addr, flags: UInt) -> Zero, Credentials, Refused(ENOSYS), "Its rules name host files, which the guest never holds.";
    446 landlock_restrict_self(ruleset_fd: Fd, flags: Flags(LANDLOCK)) -> Zero, Credentials, Refused(ENOSYS), "Its rules name host files, which the guest never holds.";
    447 memfd_secret(flags: Flags(MFD)) -> Fd, Memory, Refused(ENOSYS), "The supervisor could not read arguments that lie in such memory.";
    448 process_mrelease(pidfd: Fd, flags: UInt) -> Zero, Memory, Native;
    449 futex_waitv(waiters: inputs(FutexWaitv, Count(1)), nr_futexes: UInt, flags: UInt, timeout: input(Timespec), clockid: One(CLOCK)) -> Value, Ipc, Native;
    450 set_mempolicy_home_node(start: Addr, len: Size, home_node: ULong, flags: ULong) -> Zero, Memory, Native;
    451 cachestat(fd: Fd, range: input(CachestatRange), cstat: output(Cachestat), flags: UInt) -> Zero, Descriptor, Native;
    452 fchmodat2(dirfd: DirFd, path: Path, mode: Mode, flags: Flags(AT)) -> Zero, File, Emulated, "The mode is stored with the node; the host's file keeps one that its user may set.";
    453 map_shadow_stack(addr: Addr, size: Size, flags: Flags(SHADOWSTACK)) -> Addr, Memory, Native;
    454 futex_wake(uaddr: inout(U32), mask: ULong, nr: Int, flags: Flags(FUTEX2)) -> Count, Ipc, Native;
    455 futex_wait(uaddr: input(U32), val: ULong, mask: ULong, flags: Flags(FUTEX2), timeout: input(Timespec), clockid: One(CLOCK)) -> Zero, Ipc, Native;
    456 futex_requeue(waiters: input(FutexWaitv), flags: UInt, nr_wake: Int, nr_requeue: Int) -> Count, Ipc, Native;
    457 statmount(req: input(MntIdReq), buf: outputs(Statmount, Sized(2)), bufsize: Size, flags: UInt) -> Zero, File, Refused(ENOSYS), "The sandbox's mount tree is not the kernel's; read /proc/self/mountinfo.";
    458 listmount(req: input(MntIdReq), mnt_ids: outputs(U64, Count(2)), nr_mnt_ids: Size, flags: UInt) -> Count, File, Refused(ENOSYS), "The sandbox's mount tree is not the kernel's; read /proc/self/mountinfo.";
    459 lsm_get_self_attr(attr: One(LSMATTR), ctx: outputs(LsmCtx, SizedAt(2)), size: inout(U32), flags: UInt) -> Count, Credentials, Refused(ENOSYS), "Security modules are the host's.";
    460 lsm_set_self_attr(attr: One(LSMATTR), ctx: inputs(LsmCtx, Sized(2)), size: UInt, flags: UInt) -> Zero, Credentials, Refused(ENOSYS), "Security modules are the host's.";
    461 lsm_list_modules(ids: outputs(U64, SizedAt(1)), size: inout(U32), flags: UInt) -> Count, Credentials, Refused(ENOSYS), "Security modules are the host's.";
    462 mseal(addr: Addr, len: Size, flags: ULong) -> Zero, Memory, Native;
    463 setxattrat(dirfd: DirFd, path: Path, at_flags: Flags(AT), name: Str, args: inputs(XattrArgs, Sized(5)), size: Size) -> Zero, File, Emulated, "Answered by the sandbox's tree; names that Duet keeps for itself are hidden.";
    464 getxattrat(dirfd: DirFd, path: Path, at_flags: Flags(AT), name: Str, args: inputs(XattrArgs, Sized(5)), size: Size) -> Bytes, File, Emulated, "Answered by the sandbox's tree; names that Duet keeps for itself are hidden.";
    465 listxattrat(dirfd: DirFd, path: Path, at_flags: Flags(AT), list: outputs(Bytes, Sized(4)), size: Size) -> Bytes, File, Emulated, "Answered by the sandbox's tree; names that Duet keeps for itself are hidden.";
    466 removexattrat(dirfd: DirFd, path: Path, at_flags: Flags(AT), name: Str) -> Zero, File, Emulated, "Answered by the sandbox's tree; names that Duet keeps for itself are hidden.";
    467 open_tree_attr(dirfd: DirFd, path: Path, flags: Flags(OPENTREE), attr: inputs(MountAttr, Sized(4)), size: Size) -> Fd, File, Refused(ENOSYS), "The sandbox's mount tree is not the kernel's.";
    468 file_getattr(dirfd: DirFd, path: Path, attr: outputs(FileAttr, Sized(3)), size: Size, at_flags: Flags(AT)) -> Zero, File, Refused(ENOSYS), "Flags of the host's file systems are not part of the sandbox's.";
    469 file_setattr(dirfd: DirFd, path: Path, attr: inputs(FileAttr, Sized(3)), size: Size, at_flags: Flags(AT)) -> Zero, File, Refused(ENOSYS), "Flags of the host's file systems are not part of the sandbox's.";
}

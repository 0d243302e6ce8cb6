//! What a row of the table says about a call: its arguments, its result, its family.

use nix::errno::Errno;

use super::disposition::Disposition;

/// One system call.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Number in the x86-64 list.
    pub nr: u32,
    /// The kernel's name.
    pub name: &'static str,
    /// Arguments, in the order of the registers; at most six.
    pub args: &'static [Arg],
    /// What it returns when it succeeds.
    pub ret: Ret,
    /// What it is about.
    pub family: Family,
    /// What Duet does with it.
    pub disposition: Disposition,
    /// One sentence for the reader: what Duet does, or why it refuses. Empty where a native call has
    /// nothing to explain.
    pub note: &'static str,
    /// One sentence: what the call is for.
    pub sense: &'static str,
    /// Errors beside those that follow from its arguments, with the case in which each comes (empty: the
    /// usual one).
    pub own_errors: &'static [(Errno, &'static str)],
}

/// One argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The name the man page uses.
    pub name: &'static str,
    /// How the register is to be read.
    pub ty: Type,
}

/// How the kernel reads an argument register. All but the 64-bit ones look at the low half only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A descriptor (`int`).
    Fd,
    /// A descriptor of a directory to start from, or `AT_FDCWD` (`int`).
    DirFd,
    /// A pointer to a path that ends with NUL.
    Path,
    /// A pointer to a string that ends with NUL and names no file.
    Str,
    /// A pointer to an array of pointers to strings, ended by a null pointer (`argv`).
    StrArray,
    /// `int`.
    Int,
    /// `unsigned int`.
    UInt,
    /// `long`.
    Long,
    /// `unsigned long`.
    ULong,
    /// Any number of flags of a set.
    Flags(Set),
    /// One value of a set.
    One(Set),
    /// A pointer to memory of the caller; null where the call allows it.
    Ptr {
        /// What it points to.
        to: Struct,
        /// Who reads and writes there.
        dir: Dir,
        /// How many.
        len: Len,
    },
    /// `size_t`, bytes or elements.
    Size,
    /// `loff_t`.
    Offset,
    /// A signal number.
    Signal,
    /// A process, thread or process group.
    Pid,
    /// A user.
    Uid,
    /// A group.
    Gid,
    /// Type and permission bits of a file.
    Mode,
    /// A device number.
    Dev,
    /// An address that is used as a number (of a mapping, of code), or memory with no fixed shape.
    Addr,
    /// A whole register whose meaning hangs on another argument (`ioctl`, `fcntl`, `prctl`).
    Word,
}

/// Direction of the memory behind a pointer, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    /// The kernel reads it.
    In,
    /// The kernel writes it.
    Out,
    /// Both.
    InOut,
}

/// How much stands behind a pointer. Arguments are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Len {
    /// One element.
    Single,
    /// As many elements as this argument says (of a node mask: bits).
    Count(u8),
    /// As many bytes as this argument says.
    Sized(u8),
    /// As many bytes as the integer says that this argument points to.
    SizedAt(u8),
}

/// One value that the kernel reads.
pub(super) const fn input(to: Struct) -> Type {
    Type::Ptr {
        to,
        dir: Dir::In,
        len: Len::Single,
    }
}

/// One value that the kernel writes.
pub(super) const fn output(to: Struct) -> Type {
    Type::Ptr {
        to,
        dir: Dir::Out,
        len: Len::Single,
    }
}

/// One value that the kernel reads and writes.
pub(super) const fn inout(to: Struct) -> Type {
    Type::Ptr {
        to,
        dir: Dir::InOut,
        len: Len::Single,
    }
}

/// An array that the kernel reads.
pub(super) const fn inputs(to: Struct, len: Len) -> Type {
    Type::Ptr {
        to,
        dir: Dir::In,
        len,
    }
}

/// An array that the kernel writes.
pub(super) const fn outputs(to: Struct, len: Len) -> Type {
    Type::Ptr {
        to,
        dir: Dir::Out,
        len,
    }
}

/// An array that the kernel reads and writes.
pub(super) const fn inouts(to: Struct, len: Len) -> Type {
    Type::Ptr {
        to,
        dir: Dir::InOut,
        len,
    }
}

/// What a call returns when it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// 0.
    Zero,
    /// A descriptor.
    Fd,
    /// A number of bytes: of the output, that many are valid.
    Bytes,
    /// A number of elements: of the output, that many are valid.
    Count,
    /// A number whose meaning the man page gives.
    Value,
    /// A process, thread, process group or session.
    Pid,
    /// A user.
    Uid,
    /// A group.
    Gid,
    /// An address.
    Addr,
    /// Permission bits.
    Mode,
    /// It does not return.
    Never,
}

/// What a call is about; also the classes by which traces are filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Names files, or asks and sets their attributes.
    File,
    /// Works on descriptors that are open.
    Descriptor,
    /// Starts, ends, schedules and watches processes.
    Process,
    /// Users, groups, capabilities.
    Credentials,
    /// Sockets.
    Network,
    /// The caller's address space.
    Memory,
    /// Signals.
    Signal,
    /// Clocks and timers.
    Time,
    /// System V and POSIX message queues, semaphores, shared memory, futexes.
    Ipc,
    /// The machine and the kernel as a whole.
    System,
}

impl Family {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Family; 10] = [
        Family::File,
        Family::Descriptor,
        Family::Process,
        Family::Credentials,
        Family::Network,
        Family::Memory,
        Family::Signal,
        Family::Time,
        Family::Ipc,
        Family::System,
    ];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Family::File => "file",
            Family::Descriptor => "descriptor",
            Family::Process => "process",
            Family::Credentials => "credentials",
            Family::Network => "network",
            Family::Memory => "memory",
            Family::Signal => "signal",
            Family::Time => "time",
            Family::Ipc => "ipc",
            Family::System => "system",
        }
    }
}

/// An enum whose variants are documented by, and know, the name they have in C.
macro_rules! c_names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
        }

        impl $name {
            /// Its name in C.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }
    };
}

c_names! {
    /// A set of constants, of which an argument holds one ([`Type::One`]) or any ([`Type::Flags`]).
    Set {
        ACCESS = "R_OK|W_OK|X_OK",
        ADVICE = "POSIX_FADV_*",
        AF = "AF_*",
        ARCH = "ARCH_*",
        AT = "AT_*",
        BPF = "BPF_*",
        CLOCK = "CLOCK_*",
        CLONE = "CLONE_*",
        CLOSERANGE = "CLOSE_RANGE_*",
        DELETEMODULE = "O_NONBLOCK|O_TRUNC",
        EFD = "EFD_*",
        EPOLL = "EPOLL_CLOEXEC",
        EPOLLCTL = "EPOLL_CTL_*",
        FALLOC = "FALLOC_FL_*",
        FANCLASS = "FAN_CLASS_*|FAN_*",
        FANEVENT = "FAN_* (events)",
        FANMARK = "FAN_MARK_*",
        FCNTL = "F_*",
        FSCONFIG = "FSCONFIG_*",
        FSMOUNT = "FSMOUNT_*",
        FSOPEN = "FSOPEN_*",
        FSPICK = "FSPICK_*",
        FUTEX = "FUTEX_*",
        FUTEX2 = "FUTEX2_*",
        GRND = "GRND_*",
        IN = "IN_*",
        ININIT = "IN_CLOEXEC|IN_NONBLOCK",
        IOCTL = "ioctl request",
        IOPRIOWHO = "IOPRIO_WHO_*",
        IORINGENTER = "IORING_ENTER_*",
        IORINGREGISTER = "IORING_REGISTER_*",
        IPC = "IPC_*",
        IPCCMD = "IPC_* (commands)",
        IPPROTO = "IPPROTO_*",
        ITIMER = "ITIMER_*",
        KCMP = "KCMP_*",
        KEXEC = "KEXEC_*",
        KEXECFILE = "KEXEC_FILE_*",
        KEYCTL = "KEYCTL_*",
        LANDLOCK = "LANDLOCK_*",
        LANDLOCKRULE = "LANDLOCK_RULE_*",
        LOCK = "LOCK_*",
        LSMATTR = "LSM_ATTR_*",
        MADV = "MADV_*",
        MAP = "MAP_*",
        MCL = "MCL_*",
        MEMBARRIER = "MEMBARRIER_CMD_*",
        MFD = "MFD_*",
        MLOCK = "MLOCK_*",
        MODULEINIT = "MODULE_INIT_*",
        MOUNT = "MS_* (mount)",
        MOVEMOUNT = "MOVE_MOUNT_*",
        MPOL = "MPOL_*",
        MPOLF = "MPOL_F_*",
        MPOLMF = "MPOL_MF_*",
        MREMAP = "MREMAP_*",
        MSG = "MSG_*",
        MSYNC = "MS_* (msync)",
        OPEN = "O_*",
        OPENTREE = "OPEN_TREE_*",
        PERF = "PERF_FLAG_*",
        PERSONALITY = "personality",
        PIDFD = "PIDFD_*",
        PIDTYPE = "P_*",
        PIPE = "O_CLOEXEC|O_DIRECT|O_NONBLOCK",
        PKEY = "PKEY_*",
        PR = "PR_*",
        PRIOWHO = "PRIO_*",
        PROT = "PROT_*",
        PTRACE = "PTRACE_*",
        QUOTA = "Q_*",
        REBOOT = "LINUX_REBOOT_CMD_*",
        RENAME = "RENAME_*",
        RLIMIT = "RLIMIT_*",
        RSEQ = "RSEQ_FLAG_*",
        RUSAGE = "RUSAGE_*",
        RWF = "RWF_*",
        SCHED = "SCHED_*",
        SECCOMPFLAG = "SECCOMP_FILTER_FLAG_*",
        SECCOMPOP = "SECCOMP_SET_MODE_*",
        SEEK = "SEEK_*",
        SFD = "SFD_*",
        SHADOWSTACK = "SHADOW_STACK_*",
        SHUT = "SHUT_*",
        SIGHOW = "SIG_BLOCK|SIG_UNBLOCK|SIG_SETMASK",
        SO = "SO_*",
        SOCK = "SOCK_*",
        SOL = "SOL_*",
        SPLICE = "SPLICE_F_*",
        STATX = "STATX_*",
        SWAP = "SWAP_FLAG_*",
        SYNCRANGE = "SYNC_FILE_RANGE_*",
        SYSLOG = "SYSLOG_ACTION_*",
        TFD = "TFD_*",
        TIMER = "TIMER_ABSTIME",
        UFFD = "UFFD_*",
        UMOUNT = "MNT_*|UMOUNT_*",
        WAIT = "W*",
        XATTR = "XATTR_*",
    }
}

c_names! {
    /// What a pointer points to.
    Struct {
        BpfAttr = "union bpf_attr",
        Bytes = "bytes",
        Cachestat = "struct cachestat",
        CachestatRange = "struct cachestat_range",
        CapData = "struct __user_cap_data_struct",
        CapHeader = "struct __user_cap_header_struct",
        CloneArgs = "struct clone_args",
        CpuMask = "cpu_set_t",
        Dirent = "struct linux_dirent",
        Dirent64 = "struct linux_dirent64",
        EpollEvent = "struct epoll_event",
        FdPair = "int[2]",
        FdSet = "fd_set",
        FileAttr = "struct file_attr",
        FileHandle = "struct file_handle",
        FutexWaitv = "struct futex_waitv",
        Gids = "gid_t",
        I32 = "int",
        I64 = "long",
        IoEvent = "struct io_event",
        IoUringParams = "struct io_uring_params",
        IocbPtr = "struct iocb *",
        Iovec = "struct iovec",
        Itimerspec = "struct itimerspec",
        Itimerval = "struct itimerval",
        KexecSegment = "struct kexec_segment",
        LandlockAttr = "struct landlock_ruleset_attr",
        LsmCtx = "struct lsm_ctx",
        Mmsghdr = "struct mmsghdr",
        MntIdReq = "struct mnt_id_req",
        MountAttr = "struct mount_attr",
        MqAttr = "struct mq_attr",
        Msgbuf = "struct msgbuf",
        Msghdr = "struct msghdr",
        MsqidDs = "struct msqid_ds",
        NodeMask = "node mask",
        OpenHow = "struct open_how",
        PerfEventAttr = "struct perf_event_attr",
        Pollfd = "struct pollfd",
        Rlimit = "struct rlimit",
        RobustListHead = "struct robust_list_head",
        RseqArea = "struct rseq",
        Rusage = "struct rusage",
        SchedAttr = "struct sched_attr",
        SchedParam = "struct sched_param",
        Sembuf = "struct sembuf",
        ShmidDs = "struct shmid_ds",
        Sigaction = "struct sigaction",
        Sigevent = "struct sigevent",
        Siginfo = "siginfo_t",
        Sigset = "sigset_t",
        SigsetArg = "struct { sigset_t *, size_t }",
        Sockaddr = "struct sockaddr",
        Stack = "stack_t",
        Stat = "struct stat",
        Statfs = "struct statfs",
        Statmount = "struct statmount",
        Statx = "struct statx",
        Sysinfo = "struct sysinfo",
        Timespec = "struct timespec",
        TimespecPair = "struct timespec[2]",
        Timeval = "struct timeval",
        TimevalPair = "struct timeval[2]",
        Timex = "struct timex",
        Timezone = "struct timezone",
        Tms = "struct tms",
        U32 = "unsigned int",
        U64 = "unsigned long",
        UserDesc = "struct user_desc",
        Ustat = "struct ustat",
        Utimbuf = "struct utimbuf",
        Utsname = "struct utsname",
        XattrArgs = "struct xattr_args",
    }
}

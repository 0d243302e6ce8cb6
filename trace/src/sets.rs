//! Names of the constants that arguments hold, by the sets of the table. The order is that in which
//! strace(1) writes flags.

use duet_syscalls::table::Set;

/// A name and its value.
pub type Named = (&'static str, u64);

/// Constants of `libc` with their names; others are given with their value.
macro_rules! names {
    ($($name:ident $(= $value:expr)?),* $(,)?) => { &[$((stringify!($name), names!(@ $name $($value)?))),*] };
    (@ $name:ident) => { libc::$name as u32 as u64 };
    (@ $name:ident $value:expr) => { $value };
}
pub(crate) use names;

/// The constants of a set; empty if they are shown as numbers.
pub fn of(set: Set) -> &'static [Named] {
    match set {
        Set::ACCESS => names![F_OK, R_OK, W_OK, X_OK],
        Set::ADVICE => names![
            POSIX_FADV_NORMAL,
            POSIX_FADV_RANDOM,
            POSIX_FADV_SEQUENTIAL,
            POSIX_FADV_WILLNEED,
            POSIX_FADV_DONTNEED,
            POSIX_FADV_NOREUSE
        ],
        Set::AF => names![
            AF_UNSPEC,
            AF_UNIX,
            AF_INET,
            AF_INET6,
            AF_NETLINK,
            AF_PACKET,
            AF_VSOCK,
            AF_ALG,
            AF_BLUETOOTH,
            AF_CAN
        ],
        Set::ARCH => names![
            ARCH_SET_GS = 0x1001,
            ARCH_SET_FS = 0x1002,
            ARCH_GET_FS = 0x1003,
            ARCH_GET_GS = 0x1004,
            ARCH_CET_STATUS = 0x3001,
            ARCH_SHSTK_ENABLE = 0x5001
        ],
        Set::AT => names![
            AT_SYMLINK_NOFOLLOW,
            AT_REMOVEDIR,
            AT_SYMLINK_FOLLOW,
            AT_NO_AUTOMOUNT,
            AT_EMPTY_PATH,
            AT_STATX_FORCE_SYNC,
            AT_STATX_DONT_SYNC,
            AT_RECURSIVE
        ],
        Set::CLOCK => names![
            CLOCK_REALTIME,
            CLOCK_MONOTONIC,
            CLOCK_PROCESS_CPUTIME_ID,
            CLOCK_THREAD_CPUTIME_ID,
            CLOCK_MONOTONIC_RAW,
            CLOCK_REALTIME_COARSE,
            CLOCK_MONOTONIC_COARSE,
            CLOCK_BOOTTIME,
            CLOCK_REALTIME_ALARM,
            CLOCK_BOOTTIME_ALARM,
            CLOCK_TAI
        ],
        Set::CLONE => names![
            CLONE_VM,
            CLONE_FS,
            CLONE_FILES,
            CLONE_SIGHAND,
            CLONE_PIDFD,
            CLONE_PTRACE,
            CLONE_VFORK,
            CLONE_PARENT,
            CLONE_THREAD,
            CLONE_NEWNS,
            CLONE_SYSVSEM,
            CLONE_SETTLS,
            CLONE_PARENT_SETTID,
            CLONE_CHILD_CLEARTID,
            CLONE_UNTRACED,
            CLONE_CHILD_SETTID,
            CLONE_NEWCGROUP,
            CLONE_NEWUTS,
            CLONE_NEWIPC,
            CLONE_NEWUSER,
            CLONE_NEWPID,
            CLONE_NEWNET,
            CLONE_IO
        ],
        Set::CLOSERANGE => names![CLOSE_RANGE_UNSHARE = 2, CLOSE_RANGE_CLOEXEC = 4],
        Set::EFD => names![EFD_SEMAPHORE, EFD_CLOEXEC, EFD_NONBLOCK],
        Set::EPOLL => names![EPOLL_CLOEXEC],
        Set::EPOLLCTL => names![EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD],
        Set::FALLOC => names![
            FALLOC_FL_KEEP_SIZE,
            FALLOC_FL_PUNCH_HOLE,
            FALLOC_FL_COLLAPSE_RANGE,
            FALLOC_FL_ZERO_RANGE,
            FALLOC_FL_INSERT_RANGE,
            FALLOC_FL_UNSHARE_RANGE
        ],
        Set::FCNTL => names![
            F_DUPFD,
            F_GETFD,
            F_SETFD,
            F_GETFL,
            F_SETFL,
            F_GETLK,
            F_SETLK,
            F_SETLKW,
            F_SETOWN,
            F_GETOWN,
            F_OFD_GETLK,
            F_OFD_SETLK,
            F_OFD_SETLKW,
            F_SETLEASE,
            F_GETLEASE,
            F_NOTIFY,
            F_DUPFD_CLOEXEC,
            F_SETPIPE_SZ,
            F_GETPIPE_SZ,
            F_ADD_SEALS,
            F_GET_SEALS
        ],
        Set::FUTEX => names![
            FUTEX_WAIT,
            FUTEX_WAKE,
            FUTEX_FD,
            FUTEX_REQUEUE,
            FUTEX_CMP_REQUEUE,
            FUTEX_WAKE_OP,
            FUTEX_LOCK_PI,
            FUTEX_UNLOCK_PI,
            FUTEX_TRYLOCK_PI,
            FUTEX_WAIT_BITSET,
            FUTEX_WAKE_BITSET,
            FUTEX_WAIT_REQUEUE_PI,
            FUTEX_CMP_REQUEUE_PI,
            FUTEX_LOCK_PI2 = 13
        ],
        Set::GRND => names![GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE],
        Set::IN => names![
            IN_ACCESS,
            IN_MODIFY,
            IN_ATTRIB,
            IN_CLOSE_WRITE,
            IN_CLOSE_NOWRITE,
            IN_OPEN,
            IN_MOVED_FROM,
            IN_MOVED_TO,
            IN_CREATE,
            IN_DELETE,
            IN_DELETE_SELF,
            IN_MOVE_SELF,
            IN_ONLYDIR,
            IN_DONT_FOLLOW,
            IN_MASK_ADD,
            IN_ISDIR,
            IN_ONESHOT
        ],
        Set::ININIT => names![IN_NONBLOCK, IN_CLOEXEC],
        Set::IOCTL => names![
            TCGETS,
            TCSETS,
            TCSETSW,
            TCSETSF,
            TCSBRK,
            TCXONC,
            TCFLSH,
            TIOCEXCL,
            TIOCNXCL,
            TIOCSCTTY,
            TIOCGPGRP,
            TIOCSPGRP,
            TIOCOUTQ,
            TIOCSTI,
            TIOCGWINSZ,
            TIOCSWINSZ,
            TIOCMGET,
            FIONREAD,
            FIONBIO,
            TIOCNOTTY,
            TIOCGETD,
            TIOCGSID,
            TIOCGPTN = 0x8004_5430,
            TIOCSPTLCK = 0x4004_5431,
            TIOCGPTPEER = 0x5441,
            FIONCLEX,
            FIOCLEX,
            FIOASYNC,
            SIOCGIFCONF,
            SIOCGIFFLAGS,
            SIOCGIFADDR,
            FICLONE = 0x4004_9409,
            BTRFS_IOC_CLONE_RANGE = 0x4020_940d,
            FS_IOC_GETFLAGS = 0x8008_6601,
            FS_IOC_SETFLAGS = 0x4008_6602,
            FS_IOC_FIEMAP = 0xc020_660b
        ],
        Set::IPC => names![IPC_CREAT, IPC_EXCL, IPC_NOWAIT],
        Set::IPCCMD => names![IPC_RMID, IPC_SET, IPC_STAT],
        Set::IPPROTO => names![
            IPPROTO_IP,
            IPPROTO_ICMP,
            IPPROTO_TCP,
            IPPROTO_UDP,
            IPPROTO_IPV6,
            IPPROTO_RAW
        ],
        Set::ITIMER => names![ITIMER_REAL = 0, ITIMER_VIRTUAL = 1, ITIMER_PROF = 2],
        Set::LOCK => names![LOCK_SH, LOCK_EX, LOCK_UN, LOCK_NB],
        Set::MADV => names![
            MADV_NORMAL,
            MADV_RANDOM,
            MADV_SEQUENTIAL,
            MADV_WILLNEED,
            MADV_DONTNEED,
            MADV_FREE,
            MADV_REMOVE,
            MADV_DONTFORK,
            MADV_DOFORK,
            MADV_MERGEABLE,
            MADV_UNMERGEABLE,
            MADV_HUGEPAGE,
            MADV_NOHUGEPAGE,
            MADV_DONTDUMP,
            MADV_DODUMP,
            MADV_WIPEONFORK,
            MADV_KEEPONFORK,
            MADV_COLD,
            MADV_PAGEOUT
        ],
        Set::MAP => names![
            MAP_SHARED_VALIDATE,
            MAP_SHARED,
            MAP_PRIVATE,
            MAP_32BIT,
            MAP_FIXED,
            MAP_ANONYMOUS,
            MAP_NORESERVE,
            MAP_POPULATE,
            MAP_NONBLOCK,
            MAP_GROWSDOWN,
            MAP_DENYWRITE,
            MAP_LOCKED,
            MAP_STACK,
            MAP_HUGETLB,
            MAP_SYNC,
            MAP_FIXED_NOREPLACE
        ],
        Set::MCL => names![MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT],
        Set::MEMBARRIER => names![
            MEMBARRIER_CMD_QUERY = 0,
            MEMBARRIER_CMD_GLOBAL = 1,
            MEMBARRIER_CMD_PRIVATE_EXPEDITED = 8,
            MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED = 16
        ],
        Set::MFD => names![
            MFD_CLOEXEC,
            MFD_ALLOW_SEALING,
            MFD_HUGETLB,
            MFD_NOEXEC_SEAL = 8,
            MFD_EXEC = 16
        ],
        Set::MOUNT => names![
            MS_RDONLY,
            MS_NOSUID,
            MS_NODEV,
            MS_NOEXEC,
            MS_SYNCHRONOUS,
            MS_REMOUNT,
            MS_MANDLOCK,
            MS_DIRSYNC,
            MS_NOATIME,
            MS_NODIRATIME,
            MS_BIND,
            MS_MOVE,
            MS_REC,
            MS_SILENT,
            MS_UNBINDABLE,
            MS_PRIVATE,
            MS_SLAVE,
            MS_SHARED,
            MS_RELATIME,
            MS_STRICTATIME
        ],
        Set::MREMAP => names![MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP],
        Set::MSG => names![
            MSG_OOB,
            MSG_PEEK,
            MSG_DONTROUTE,
            MSG_CTRUNC,
            MSG_TRUNC,
            MSG_DONTWAIT,
            MSG_EOR,
            MSG_WAITALL,
            MSG_CONFIRM,
            MSG_ERRQUEUE,
            MSG_NOSIGNAL,
            MSG_MORE,
            MSG_WAITFORONE,
            MSG_FASTOPEN,
            MSG_CMSG_CLOEXEC
        ],
        Set::MSYNC => names![MS_ASYNC, MS_INVALIDATE, MS_SYNC],
        Set::OPEN => names![
            O_TMPFILE = 0o20_200_000,
            O_SYNC = 0o4_010_000,
            O_CREAT,
            O_EXCL,
            O_NOCTTY,
            O_TRUNC,
            O_APPEND,
            O_NONBLOCK,
            O_DSYNC,
            O_DIRECT,
            O_LARGEFILE = 0o100_000,
            O_NOFOLLOW,
            O_NOATIME,
            O_CLOEXEC,
            O_PATH,
            O_DIRECTORY,
            FASYNC = 0o20_000
        ],
        Set::PERSONALITY => names![PER_LINUX = 0, PER_LINUX32 = 8, ADDR_NO_RANDOMIZE = 0x40000],
        Set::PIDFD => names![PIDFD_NONBLOCK = 0o4000, PIDFD_THREAD = 0o200],
        Set::PIDTYPE => names![P_ALL, P_PID, P_PGID, P_PIDFD],
        Set::PIPE => names![O_NONBLOCK, O_DIRECT, O_CLOEXEC],
        Set::PR => names![
            PR_SET_PDEATHSIG,
            PR_GET_PDEATHSIG,
            PR_GET_DUMPABLE,
            PR_SET_DUMPABLE,
            PR_GET_KEEPCAPS,
            PR_SET_KEEPCAPS,
            PR_SET_NAME,
            PR_GET_NAME,
            PR_GET_SECCOMP,
            PR_SET_SECCOMP,
            PR_CAPBSET_READ,
            PR_CAPBSET_DROP,
            PR_GET_SECUREBITS,
            PR_SET_SECUREBITS,
            PR_SET_TIMERSLACK,
            PR_GET_TIMERSLACK,
            PR_SET_CHILD_SUBREAPER,
            PR_GET_CHILD_SUBREAPER,
            PR_SET_NO_NEW_PRIVS,
            PR_GET_NO_NEW_PRIVS,
            PR_SET_THP_DISABLE,
            PR_CAP_AMBIENT,
            PR_SET_PTRACER,
            PR_SET_VMA = 0x5356_4d41
        ],
        Set::PRIOWHO => names![PRIO_PROCESS, PRIO_PGRP, PRIO_USER],
        Set::PROT => names![
            PROT_NONE,
            PROT_READ,
            PROT_WRITE,
            PROT_EXEC,
            PROT_GROWSDOWN,
            PROT_GROWSUP
        ],
        Set::RENAME => names![RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT],
        Set::RLIMIT => names![
            RLIMIT_CPU,
            RLIMIT_FSIZE,
            RLIMIT_DATA,
            RLIMIT_STACK,
            RLIMIT_CORE,
            RLIMIT_RSS,
            RLIMIT_NPROC,
            RLIMIT_NOFILE,
            RLIMIT_MEMLOCK,
            RLIMIT_AS,
            RLIMIT_LOCKS,
            RLIMIT_SIGPENDING,
            RLIMIT_MSGQUEUE,
            RLIMIT_NICE,
            RLIMIT_RTPRIO,
            RLIMIT_RTTIME
        ],
        Set::RSEQ => names![RSEQ_FLAG_UNREGISTER = 1],
        Set::RUSAGE => names![RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD],
        Set::SCHED => names![SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE],
        Set::SECCOMPOP => names![
            SECCOMP_SET_MODE_STRICT,
            SECCOMP_SET_MODE_FILTER,
            SECCOMP_GET_ACTION_AVAIL,
            SECCOMP_GET_NOTIF_SIZES
        ],
        Set::SEEK => names![SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE],
        Set::SFD => names![SFD_CLOEXEC, SFD_NONBLOCK],
        Set::SHUT => names![SHUT_RD, SHUT_WR, SHUT_RDWR],
        Set::SIGHOW => names![SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK],
        Set::SO => names![
            SO_DEBUG,
            SO_REUSEADDR,
            SO_TYPE,
            SO_ERROR,
            SO_DONTROUTE,
            SO_BROADCAST,
            SO_SNDBUF,
            SO_RCVBUF,
            SO_KEEPALIVE,
            SO_OOBINLINE,
            SO_NO_CHECK,
            SO_PRIORITY,
            SO_LINGER,
            SO_REUSEPORT,
            SO_PASSCRED,
            SO_PEERCRED,
            SO_RCVLOWAT,
            SO_SNDLOWAT,
            SO_RCVTIMEO_OLD = 20,
            SO_SNDTIMEO_OLD = 21,
            SO_BINDTODEVICE,
            SO_ATTACH_FILTER,
            SO_ACCEPTCONN,
            SO_PROTOCOL,
            SO_DOMAIN
        ],
        Set::SOCK => names![SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET],
        Set::SOL => names![SOL_SOCKET, SOL_IP, SOL_TCP, SOL_UDP, SOL_IPV6, SOL_NETLINK],
        Set::SPLICE => names![
            SPLICE_F_MOVE,
            SPLICE_F_NONBLOCK,
            SPLICE_F_MORE,
            SPLICE_F_GIFT
        ],
        Set::STATX => names![
            STATX_ALL = 0xfff,
            STATX_BASIC_STATS,
            STATX_TYPE,
            STATX_MODE,
            STATX_NLINK,
            STATX_UID,
            STATX_GID,
            STATX_ATIME,
            STATX_MTIME,
            STATX_CTIME,
            STATX_INO,
            STATX_SIZE,
            STATX_BLOCKS,
            STATX_BTIME,
            STATX_MNT_ID,
            STATX_DIOALIGN
        ],
        Set::TFD => names![TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET],
        Set::TIMER => names![TIMER_ABSTIME],
        Set::UMOUNT => names![MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW],
        Set::WAIT => names![
            WNOHANG,
            WSTOPPED,
            WEXITED,
            WCONTINUED,
            WNOWAIT,
            __WNOTHREAD,
            __WALL,
            __WCLONE = 0x8000_0000
        ],
        Set::XATTR => names![XATTR_CREATE, XATTR_REPLACE],
        _ => crate::rare_sets::of(set),
    }
}

/// Options of TCP and of IPv6, which a level of its own gives a meaning.
pub const TCP: &[Named] = names![
    TCP_NODELAY,
    TCP_MAXSEG,
    TCP_CORK,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_KEEPCNT,
    TCP_SYNCNT,
    TCP_LINGER2,
    TCP_DEFER_ACCEPT,
    TCP_INFO,
    TCP_QUICKACK,
    TCP_CONGESTION,
    TCP_USER_TIMEOUT,
    TCP_FASTOPEN
];
/// Those of IP.
pub const IP: &[Named] = names![
    IP_TOS,
    IP_TTL,
    IP_HDRINCL,
    IP_RECVERR = 11,
    IP_MTU_DISCOVER,
    IP_PKTINFO,
    IP_RECVTTL,
    IP_MTU = 14
];
/// Those of IPv6.
pub const IPV6: &[Named] = names![
    IPV6_UNICAST_HOPS,
    IPV6_V6ONLY,
    IPV6_RECVPKTINFO,
    IPV6_RECVERR = 25
];
/// How a file is opened: the low bits of the flags of open(2).
pub const ACCESS_MODES: &[Named] = names![O_RDONLY, O_WRONLY, O_RDWR];
/// Events of poll(2).
pub const POLL: &[Named] = names![
    POLLIN, POLLPRI, POLLOUT, POLLRDNORM, POLLRDBAND, POLLWRNORM, POLLWRBAND, POLLERR, POLLHUP,
    POLLNVAL, POLLRDHUP
];
/// Events of epoll(7).
pub const EPOLL: &[Named] = names![
    EPOLLIN,
    EPOLLPRI,
    EPOLLOUT,
    EPOLLERR,
    EPOLLHUP,
    EPOLLRDNORM,
    EPOLLRDBAND,
    EPOLLWRNORM,
    EPOLLWRBAND,
    EPOLLMSG,
    EPOLLRDHUP,
    EPOLLEXCLUSIVE,
    EPOLLWAKEUP,
    EPOLLONESHOT,
    EPOLLET
];
/// `sa_flags`.
pub const SA: &[Named] = names![
    SA_RESTORER = 0x0400_0000,
    SA_ONSTACK,
    SA_RESTART,
    SA_INTERRUPT = 0x2000_0000,
    SA_NODEFER,
    SA_RESETHAND,
    SA_SIGINFO,
    SA_NOCLDSTOP,
    SA_NOCLDWAIT
];
/// `c_iflag`, as strace abbreviates them.
pub const SOCK_FLAGS: &[Named] = names![SOCK_CLOEXEC, SOCK_NONBLOCK];
/// Locks of fcntl(2).
pub const LOCKS: &[Named] = names![F_RDLCK, F_WRLCK, F_UNLCK];
/// `ss_flags`.
pub const SS: &[Named] = names![SS_ONSTACK, SS_DISABLE, SS_AUTODISARM = 0x8000_0000];

/// Capabilities, by their numbers.
pub const CAPABILITIES: &[Named] = names![
    CAP_CHOWN = 0,
    CAP_DAC_OVERRIDE = 1,
    CAP_DAC_READ_SEARCH = 2,
    CAP_FOWNER = 3,
    CAP_FSETID = 4,
    CAP_KILL = 5,
    CAP_SETGID = 6,
    CAP_SETUID = 7,
    CAP_SETPCAP = 8,
    CAP_LINUX_IMMUTABLE = 9,
    CAP_NET_BIND_SERVICE = 10,
    CAP_NET_BROADCAST = 11,
    CAP_NET_ADMIN = 12,
    CAP_NET_RAW = 13,
    CAP_IPC_LOCK = 14,
    CAP_IPC_OWNER = 15,
    CAP_SYS_MODULE = 16,
    CAP_SYS_RAWIO = 17,
    CAP_SYS_CHROOT = 18,
    CAP_SYS_PTRACE = 19,
    CAP_SYS_PACCT = 20,
    CAP_SYS_ADMIN = 21,
    CAP_SYS_BOOT = 22,
    CAP_SYS_NICE = 23,
    CAP_SYS_RESOURCE = 24,
    CAP_SYS_TIME = 25,
    CAP_SYS_TTY_CONFIG = 26,
    CAP_MKNOD = 27,
    CAP_LEASE = 28,
    CAP_AUDIT_WRITE = 29,
    CAP_AUDIT_CONTROL = 30,
    CAP_SETFCAP = 31,
    CAP_MAC_OVERRIDE = 32,
    CAP_MAC_ADMIN = 33,
    CAP_SYSLOG = 34,
    CAP_WAKE_ALARM = 35,
    CAP_BLOCK_SUSPEND = 36,
    CAP_AUDIT_READ = 37,
    CAP_PERFMON = 38,
    CAP_BPF = 39,
    CAP_CHECKPOINT_RESTORE = 40
];
/// Seals of a memfd.
pub const SEALS: &[Named] = names![
    F_SEAL_SEAL = 1,
    F_SEAL_SHRINK = 2,
    F_SEAL_GROW = 4,
    F_SEAL_WRITE = 8,
    F_SEAL_FUTURE_WRITE = 16
];
/// Flags of timerfd_create(2).
pub const TFD_CREATE: &[Named] = names![TFD_CLOEXEC, TFD_NONBLOCK];
/// Protocols of netlink(7).
pub const NETLINK: &[Named] = names![
    NETLINK_ROUTE = 0,
    NETLINK_USERSOCK = 2,
    NETLINK_SOCK_DIAG = 4,
    NETLINK_XFRM = 6,
    NETLINK_AUDIT = 9,
    NETLINK_NETFILTER = 12,
    NETLINK_KOBJECT_UEVENT = 15,
    NETLINK_GENERIC = 16
];
/// What membarrier(2) offers.
pub const BARRIERS: &[Named] = names![
    MEMBARRIER_CMD_GLOBAL = 1,
    MEMBARRIER_CMD_GLOBAL_EXPEDITED = 2,
    MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED = 4,
    MEMBARRIER_CMD_PRIVATE_EXPEDITED = 8,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED = 16,
    MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE = 32,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 64,
    MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ = 128,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ = 256
];

/// Names of signals 1 to 31.
const SIGNALS: [&str; 32] = [
    "0",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal; real-time ones count from `SIGRTMIN` (32, as the kernel has it).
pub fn signal(n: i64) -> String {
    match usize::try_from(n) {
        Ok(i) if i < SIGNALS.len() => SIGNALS[i].to_owned(),
        Ok(32) => "SIGRTMIN".into(),
        Ok(i) if i <= 64 => format!("SIGRT_{}", i - 32),
        _ => n.to_string(),
    }
}

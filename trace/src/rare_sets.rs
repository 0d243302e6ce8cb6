//! Names of the constants of calls that programs make rarely, or that only root makes.

use duet_syscalls::table::Set;

use crate::sets::{Named, names};

/// The constants of a set; empty if they are shown as numbers.
pub(crate) fn of(set: Set) -> &'static [Named] {
    match set {
        Set::BPF => names![
            BPF_MAP_CREATE = 0,
            BPF_MAP_LOOKUP_ELEM = 1,
            BPF_MAP_UPDATE_ELEM = 2,
            BPF_MAP_DELETE_ELEM = 3,
            BPF_MAP_GET_NEXT_KEY = 4,
            BPF_PROG_LOAD = 5,
            BPF_OBJ_PIN = 6,
            BPF_OBJ_GET = 7,
            BPF_PROG_ATTACH = 8,
            BPF_PROG_DETACH = 9,
            BPF_PROG_TEST_RUN = 10,
            BPF_PROG_GET_NEXT_ID = 11,
            BPF_MAP_GET_NEXT_ID = 12,
            BPF_PROG_GET_FD_BY_ID = 13,
            BPF_MAP_GET_FD_BY_ID = 14,
            BPF_OBJ_GET_INFO_BY_FD = 15,
            BPF_PROG_QUERY = 16,
            BPF_RAW_TRACEPOINT_OPEN = 17,
            BPF_BTF_LOAD = 18,
            BPF_BTF_GET_FD_BY_ID = 19,
            BPF_TASK_FD_QUERY = 20,
            BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21,
            BPF_MAP_FREEZE = 22,
            BPF_BTF_GET_NEXT_ID = 23,
            BPF_MAP_LOOKUP_BATCH = 24,
            BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25,
            BPF_MAP_UPDATE_BATCH = 26,
            BPF_MAP_DELETE_BATCH = 27,
            BPF_LINK_CREATE = 28,
            BPF_LINK_UPDATE = 29,
            BPF_LINK_GET_FD_BY_ID = 30,
            BPF_LINK_GET_NEXT_ID = 31,
            BPF_ENABLE_STATS = 32,
            BPF_ITER_CREATE = 33,
            BPF_LINK_DETACH = 34,
            BPF_PROG_BIND_MAP = 35
        ],
        Set::DELETEMODULE => names![O_NONBLOCK, O_TRUNC],
        Set::FANCLASS => names![
            FAN_CLASS_NOTIF,
            FAN_CLOEXEC,
            FAN_NONBLOCK,
            FAN_CLASS_CONTENT,
            FAN_CLASS_PRE_CONTENT,
            FAN_UNLIMITED_QUEUE,
            FAN_UNLIMITED_MARKS,
            FAN_ENABLE_AUDIT = 0x40,
            FAN_REPORT_PIDFD = 0x80,
            FAN_REPORT_TID = 0x100,
            FAN_REPORT_FID = 0x200,
            FAN_REPORT_DIR_FID = 0x400,
            FAN_REPORT_NAME = 0x800,
            FAN_REPORT_TARGET_FID = 0x1000
        ],
        Set::FANEVENT => names![
            FAN_ACCESS,
            FAN_MODIFY,
            FAN_ATTRIB = 0x4,
            FAN_CLOSE_WRITE,
            FAN_CLOSE_NOWRITE,
            FAN_OPEN,
            FAN_MOVED_FROM = 0x40,
            FAN_MOVED_TO = 0x80,
            FAN_CREATE = 0x100,
            FAN_DELETE = 0x200,
            FAN_DELETE_SELF = 0x400,
            FAN_MOVE_SELF = 0x800,
            FAN_OPEN_EXEC = 0x1000,
            FAN_Q_OVERFLOW,
            FAN_FS_ERROR = 0x8000,
            FAN_OPEN_PERM,
            FAN_ACCESS_PERM,
            FAN_OPEN_EXEC_PERM = 0x40000,
            FAN_EVENT_ON_CHILD,
            FAN_RENAME = 0x1000_0000,
            FAN_ONDIR
        ],
        Set::FANMARK => names![
            FAN_MARK_ADD,
            FAN_MARK_REMOVE,
            FAN_MARK_DONT_FOLLOW,
            FAN_MARK_ONLYDIR,
            FAN_MARK_MOUNT,
            FAN_MARK_IGNORED_MASK,
            FAN_MARK_IGNORED_SURV_MODIFY,
            FAN_MARK_FLUSH,
            FAN_MARK_FILESYSTEM = 0x100,
            FAN_MARK_EVICTABLE = 0x200,
            FAN_MARK_IGNORE = 0x400
        ],
        Set::FSCONFIG => names![
            FSCONFIG_SET_FLAG = 0,
            FSCONFIG_SET_STRING = 1,
            FSCONFIG_SET_BINARY = 2,
            FSCONFIG_SET_PATH = 3,
            FSCONFIG_SET_PATH_EMPTY = 4,
            FSCONFIG_SET_FD = 5,
            FSCONFIG_CMD_CREATE = 6,
            FSCONFIG_CMD_RECONFIGURE = 7,
            FSCONFIG_CMD_CREATE_EXCL = 8
        ],
        Set::FSMOUNT => names![FSMOUNT_CLOEXEC = 1],
        Set::FSOPEN => names![FSOPEN_CLOEXEC = 1],
        Set::FSPICK => names![
            FSPICK_CLOEXEC = 1,
            FSPICK_SYMLINK_NOFOLLOW = 2,
            FSPICK_NO_AUTOMOUNT = 4,
            FSPICK_EMPTY_PATH = 8
        ],
        Set::FUTEX2 => names![
            FUTEX2_SIZE_U32 = 2,
            FUTEX2_NUMA = 4,
            FUTEX2_MPOL = 8,
            FUTEX2_PRIVATE = 128
        ],
        Set::IOPRIOWHO => names![
            IOPRIO_WHO_PROCESS = 1,
            IOPRIO_WHO_PGRP = 2,
            IOPRIO_WHO_USER = 3
        ],
        Set::IORINGENTER => names![
            IORING_ENTER_GETEVENTS = 1,
            IORING_ENTER_SQ_WAKEUP = 2,
            IORING_ENTER_SQ_WAIT = 4,
            IORING_ENTER_EXT_ARG = 8,
            IORING_ENTER_REGISTERED_RING = 16
        ],
        Set::IORINGREGISTER => names![
            IORING_REGISTER_BUFFERS = 0,
            IORING_UNREGISTER_BUFFERS = 1,
            IORING_REGISTER_FILES = 2,
            IORING_UNREGISTER_FILES = 3,
            IORING_REGISTER_EVENTFD = 4,
            IORING_UNREGISTER_EVENTFD = 5,
            IORING_REGISTER_FILES_UPDATE = 6,
            IORING_REGISTER_EVENTFD_ASYNC = 7,
            IORING_REGISTER_PROBE = 8,
            IORING_REGISTER_PERSONALITY = 9,
            IORING_UNREGISTER_PERSONALITY = 10,
            IORING_REGISTER_RESTRICTIONS = 11,
            IORING_REGISTER_ENABLE_RINGS = 12
        ],
        Set::KCMP => names![
            KCMP_FILE = 0,
            KCMP_VM = 1,
            KCMP_FILES = 2,
            KCMP_FS = 3,
            KCMP_SIGHAND = 4,
            KCMP_IO = 5,
            KCMP_SYSVSEM = 6,
            KCMP_EPOLL_TFD = 7
        ],
        Set::KEXEC => names![KEXEC_ON_CRASH = 1, KEXEC_PRESERVE_CONTEXT = 2],
        Set::KEXECFILE => names![
            KEXEC_FILE_UNLOAD = 1,
            KEXEC_FILE_ON_CRASH = 2,
            KEXEC_FILE_NO_INITRAMFS = 4
        ],
        Set::KEYCTL => names![
            KEYCTL_GET_KEYRING_ID,
            KEYCTL_JOIN_SESSION_KEYRING,
            KEYCTL_UPDATE,
            KEYCTL_REVOKE,
            KEYCTL_CHOWN,
            KEYCTL_SETPERM,
            KEYCTL_DESCRIBE,
            KEYCTL_CLEAR,
            KEYCTL_LINK,
            KEYCTL_UNLINK,
            KEYCTL_SEARCH,
            KEYCTL_READ,
            KEYCTL_INSTANTIATE,
            KEYCTL_NEGATE,
            KEYCTL_SET_REQKEY_KEYRING,
            KEYCTL_SET_TIMEOUT,
            KEYCTL_ASSUME_AUTHORITY,
            KEYCTL_GET_SECURITY,
            KEYCTL_SESSION_TO_PARENT,
            KEYCTL_REJECT,
            KEYCTL_INSTANTIATE_IOV,
            KEYCTL_INVALIDATE,
            KEYCTL_GET_PERSISTENT
        ],
        Set::LANDLOCK => names![LANDLOCK_CREATE_RULESET_VERSION = 1],
        Set::LANDLOCKRULE => names![LANDLOCK_RULE_PATH_BENEATH = 1, LANDLOCK_RULE_NET_PORT = 2],
        Set::LSMATTR => names![
            LSM_ATTR_CURRENT = 100,
            LSM_ATTR_EXEC = 101,
            LSM_ATTR_FSCREATE = 102,
            LSM_ATTR_KEYCREATE = 103,
            LSM_ATTR_PREV = 104,
            LSM_ATTR_SOCKCREATE = 105
        ],
        Set::MLOCK => names![MLOCK_ONFAULT],
        Set::MODULEINIT => names![
            MODULE_INIT_IGNORE_MODVERSIONS = 1,
            MODULE_INIT_IGNORE_VERMAGIC = 2,
            MODULE_INIT_COMPRESSED_FILE = 4
        ],
        Set::MOVEMOUNT => names![
            MOVE_MOUNT_F_SYMLINKS = 0x1,
            MOVE_MOUNT_F_AUTOMOUNTS = 0x2,
            MOVE_MOUNT_F_EMPTY_PATH = 0x4,
            MOVE_MOUNT_T_SYMLINKS = 0x10,
            MOVE_MOUNT_T_AUTOMOUNTS = 0x20,
            MOVE_MOUNT_T_EMPTY_PATH = 0x40,
            MOVE_MOUNT_SET_GROUP = 0x100,
            MOVE_MOUNT_BENEATH = 0x200
        ],
        Set::MPOL => names![
            MPOL_DEFAULT,
            MPOL_PREFERRED,
            MPOL_BIND,
            MPOL_INTERLEAVE,
            MPOL_LOCAL,
            MPOL_PREFERRED_MANY = 5,
            MPOL_WEIGHTED_INTERLEAVE = 6
        ],
        Set::MPOLF => names![MPOL_F_NODE = 1, MPOL_F_ADDR = 2, MPOL_F_MEMS_ALLOWED = 4],
        Set::MPOLMF => names![MPOL_MF_STRICT = 1, MPOL_MF_MOVE = 2, MPOL_MF_MOVE_ALL = 4],
        Set::OPENTREE => names![
            OPEN_TREE_CLONE,
            OPEN_TREE_CLOEXEC,
            AT_EMPTY_PATH,
            AT_NO_AUTOMOUNT,
            AT_RECURSIVE,
            AT_SYMLINK_NOFOLLOW
        ],
        Set::PERF => names![
            PERF_FLAG_FD_NO_GROUP = 1,
            PERF_FLAG_FD_OUTPUT = 2,
            PERF_FLAG_PID_CGROUP = 4,
            PERF_FLAG_FD_CLOEXEC = 8
        ],
        Set::PKEY => names![PKEY_DISABLE_ACCESS = 1, PKEY_DISABLE_WRITE = 2],
        Set::PTRACE => names![
            PTRACE_TRACEME,
            PTRACE_PEEKTEXT,
            PTRACE_PEEKDATA,
            PTRACE_PEEKUSER,
            PTRACE_POKETEXT,
            PTRACE_POKEDATA,
            PTRACE_POKEUSER,
            PTRACE_CONT,
            PTRACE_KILL,
            PTRACE_SINGLESTEP,
            PTRACE_GETREGS,
            PTRACE_SETREGS,
            PTRACE_GETFPREGS,
            PTRACE_SETFPREGS,
            PTRACE_ATTACH,
            PTRACE_DETACH,
            PTRACE_SYSCALL,
            PTRACE_SETOPTIONS,
            PTRACE_GETEVENTMSG,
            PTRACE_GETSIGINFO,
            PTRACE_SETSIGINFO,
            PTRACE_GETREGSET,
            PTRACE_SETREGSET,
            PTRACE_SEIZE,
            PTRACE_INTERRUPT,
            PTRACE_LISTEN,
            PTRACE_PEEKSIGINFO,
            PTRACE_GET_SYSCALL_INFO
        ],
        Set::QUOTA => names![
            Q_SYNC,
            Q_QUOTAON,
            Q_QUOTAOFF,
            Q_GETFMT = 0x80_0004,
            Q_GETINFO = 0x80_0005,
            Q_SETINFO = 0x80_0006,
            Q_GETQUOTA,
            Q_SETQUOTA,
            Q_GETNEXTQUOTA = 0x80_0009
        ],
        Set::REBOOT => names![
            LINUX_REBOOT_CMD_CAD_OFF,
            LINUX_REBOOT_CMD_CAD_ON,
            LINUX_REBOOT_CMD_HALT,
            LINUX_REBOOT_CMD_KEXEC,
            LINUX_REBOOT_CMD_POWER_OFF,
            LINUX_REBOOT_CMD_RESTART,
            LINUX_REBOOT_CMD_RESTART2,
            LINUX_REBOOT_CMD_SW_SUSPEND
        ],
        Set::RWF => names![
            RWF_HIPRI,
            RWF_DSYNC,
            RWF_SYNC,
            RWF_NOWAIT,
            RWF_APPEND,
            RWF_NOAPPEND = 0x20,
            RWF_ATOMIC = 0x40,
            RWF_DONTCACHE = 0x80
        ],
        Set::SECCOMPFLAG => names![
            SECCOMP_FILTER_FLAG_TSYNC,
            SECCOMP_FILTER_FLAG_LOG,
            SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            SECCOMP_FILTER_FLAG_NEW_LISTENER,
            SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
            SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20
        ],
        Set::SHADOWSTACK => names![SHADOW_STACK_SET_TOKEN = 1],
        Set::SWAP => names![
            SWAP_FLAG_PREFER = 0x8000,
            SWAP_FLAG_DISCARD = 0x1_0000,
            SWAP_FLAG_DISCARD_ONCE = 0x2_0000,
            SWAP_FLAG_DISCARD_PAGES = 0x4_0000
        ],
        Set::SYNCRANGE => names![
            SYNC_FILE_RANGE_WAIT_BEFORE,
            SYNC_FILE_RANGE_WRITE,
            SYNC_FILE_RANGE_WAIT_AFTER
        ],
        Set::SYSLOG => names![
            SYSLOG_ACTION_CLOSE = 0,
            SYSLOG_ACTION_OPEN = 1,
            SYSLOG_ACTION_READ = 2,
            SYSLOG_ACTION_READ_ALL = 3,
            SYSLOG_ACTION_READ_CLEAR = 4,
            SYSLOG_ACTION_CLEAR = 5,
            SYSLOG_ACTION_CONSOLE_OFF = 6,
            SYSLOG_ACTION_CONSOLE_ON = 7,
            SYSLOG_ACTION_CONSOLE_LEVEL = 8,
            SYSLOG_ACTION_SIZE_UNREAD = 9,
            SYSLOG_ACTION_SIZE_BUFFER = 10
        ],
        Set::UFFD => names![UFFD_USER_MODE_ONLY = 1, O_NONBLOCK, O_CLOEXEC],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use duet_syscalls::table::{Type, rows};

    use crate::sets;

    #[test]
    fn every_set_of_the_table_has_names() {
        for row in rows() {
            for arg in row.args {
                if let Type::Flags(set) | Type::One(set) = arg.ty {
                    let names = sets::of(set);
                    assert!(!names.is_empty(), "{}: {}", row.name, set.name());
                }
            }
        }
    }
}

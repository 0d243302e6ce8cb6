/* Attempts of escape: the kernel, its devices and its sockets. */
#include "escape.h"
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stddef.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/sysmacros.h>

static int x32_call(void)
{
    return syscall(0x40000000 | SYS_getpid) > 0 ||
           fd_is_secret(syscall(0x40000000 | SYS_open, secret, O_RDONLY));
}
static int int80_call(void)
{
    char *low = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    int r;
    strcpy(low, secret);
    __asm__ volatile("int $0x80"
                     : "=a"(r)
                     : "a"(5), "b"((uint32_t)(uintptr_t)low), "c"(0), "d"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    if (fd_is_secret(r))
        return 1;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    return r > 0;
}
static int io_uring(void) { return syscall(SYS_io_uring_setup, 4, (char[256]) { 0 }) >= 0; }
static int bpf(void)
{
    struct {
        uint32_t type, key, value, entries;
        char more[100];
    } attr = { 2, 4, 4, 1, "" };
    return syscall(SYS_bpf, 0, &attr, 72) >= 0;
}
static int perf_events(void)
{
    struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
                                    .size = sizeof attr,
                                    .config = PERF_COUNT_SW_CPU_CLOCK };
    return syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0) >= 0 ||
           syscall(SYS_perf_event_open, &attr, 1, -1, -1, 0) >= 0;
}
static int keyring(void)
{
    return syscall(SYS_add_key, "user", "duet", "x", 1, KEY_SPEC_SESSION_KEYRING) > 0 ||
           syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) > 0;
}
static int user_faults(void) { return syscall(SYS_userfaultfd, 0) >= 0; }
static int fanotify(void) { return syscall(SYS_fanotify_init, 0, 0) >= 0; }
static int odd_sockets(void)
{
    int families[] = { 40 /* VSOCK */, 17 /* PACKET */,    38 /* ALG */, 44 /* XDP */,
                       15 /* KEY */,   31 /* BLUETOOTH */, 29 /* CAN */, 30 /* TIPC */ };
    for (unsigned i = 0; i < sizeof families / sizeof *families; i++)
        for (int type = 1; type <= 5; type++)
            if (socket(families[i], type, families[i] == 17 ? 0x0300 : 0) >= 0)
                return 1;
    return 0;
}
static int host_abstract_socket(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    strcpy(a.sun_path + 1, abstract_name);
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(abstract_name);
    int s = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0);
    strcat(a.sun_path + 1, "-dgram");
    int sent = sendto(d, "x", 1, 0, (void *)&a, len + 6) == 1;
    a.sun_path[len - 2] = 0;
    return sent || connect(s, (void *)&a, len) == 0;
}
static int host_socket_file(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (strlen(in("host-socket")) >= sizeof a.sun_path)
        return 0;
    strcpy(a.sun_path, in("host-socket"));
    return connect(s, (void *)&a, sizeof a) == 0;
}
/* The test looks whether anything arrives at the host's reader. */
static int host_fifo(void)
{
    int fd = open(in("host-fifo"), O_RDWR | O_NONBLOCK);
    if (fd >= 0 && write(fd, "from the layer", 14) != 14)
        return 0;
    return 0;
}
static int memory_devices(void)
{
    const char *paths[] = { "/dev/mem",     "/dev/kmem",           "/dev/port",
                            "/dev/kvm",     "/proc/kcore",         "/dev/vda",
                            "/dev/sda",     "/dev/loop-control",   "/dev/fuse",
                            "/dev/net/tun", "/proc/sysrq-trigger", "/dev/kmsg" };
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++)
        for (int flags = 0; flags < 2; flags++)
            if (open(paths[i], flags | O_NONBLOCK) >= 0)
                return 1;
    return 0;
}
static int made_device(void)
{
    char c;
    dev_t devices[] = { device,           makedev(1, 1), makedev(1, 4), makedev(10, 232),
                        makedev(10, 229), makedev(8, 0), makedev(7, 0) };
    const char *dirs[] = { volume, "/tmp" };
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        for (int k = 0; k < 2; k++) {
            char path[4200];
            snprintf(path, sizeof path, "%s/dev-%u", dirs[k], i);
            mknod(path, (i == 1 || i == 2 || i == 3 || i == 4 ? S_IFCHR : S_IFBLK) | 0666, devices[i]);
            int fd = open(path, O_RDWR | O_NONBLOCK);
            if (fd >= 0 && (read(fd, &c, 1) == 1 || i == 3 || i == 4))
                return 1;
        }
    return 0;
}
/* The test looks at the modes and owners that the host's files really have. */
static int set_id_file(void)
{
    int fd = open(in("suid"), O_CREAT | O_WRONLY, 0755);
    if (fd >= 0)
        close(fd);
    if (chown(in("suid"), 0, 0) == 0)
        chmod(in("suid"), 06755);
    return 0;
}
static int kernel_settings(void)
{
    const char *paths[] = { "/proc/sys/kernel/core_pattern",     "/proc/sys/kernel/modprobe",
                            "/proc/sys/vm/drop_caches",          "/proc/sys/kernel/hostname_x",
                            "/sys/kernel/uevent_helper",         "/sys/power/state",
                            "/proc/sys/fs/binfmt_misc/register", "/proc/irq/default_smp_affinity",
                            "/sys/fs/cgroup/cgroup.procs" };
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++)
        if (open(paths[i], O_WRONLY) >= 0)
            return 1;
    return 0;
}
static int privileged_calls(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return iopl(3) == 0 || ioperm(0x80, 1, 1) == 0 || syscall(SYS_init_module, "", 0, "") == 0 ||
           syscall(SYS_clock_settime, CLOCK_REALTIME, &now) == 0 ||
           sched_setscheduler(0, SCHED_FIFO, &(struct sched_param) { 1 }) == 0 ||
           klogctl(3, (char[64]) { 0 }, 64) > 0 || syscall(SYS_swapon, "/none", 0) == 0 ||
           syscall(SYS_acct, NULL) == 0 || syscall(SYS_quotactl, 0x800001 << 8, NULL, 0, NULL) == 0;
}
static int private_call(void)
{
    for (long a = -1; a < 8; a++)
        for (long b = 0; b < 3; b++)
            if (syscall(0x44756574, a, b * 4096, &a, b, a, b) != -1)
                return 1;
    return syscall(SYS_execveat, -1, "", NULL, NULL, AT_EMPTY_PATH, 0x44756574) == 0;
}
static int own_filter(void)
{
    /* BPF: allow everything; a filter of one's own must not lift Duet's */
    struct {
        uint16_t code;
        uint8_t jt, jf;
        uint32_t k;
    } allow[] = { { 6, 0, 0, 0x7fff0000 } };
    struct {
        uint16_t len;
        void *filter;
    } program = { 1, allow };
    syscall(SYS_prctl, 38 /* NO_NEW_PRIVS */, 1, 0, 0, 0);
    syscall(SYS_seccomp, 1, 0, &program);
    return syscall(SYS_seccomp, 1, 8 /* NEW_LISTENER */, &program) >= 0 || reads_secret(secret);
}
static int stops_the_supervisor(void)
{
    /* arguments that a careless server would trip over */
    static char name[1 << 16];
    memset(name, 'a', sizeof name - 1);
    for (int n = 0; n < 500; n++) {
        if (n == SYS_exit || n == SYS_exit_group || n == SYS_rt_sigreturn || n == SYS_pause ||
            n == SYS_vfork || n == SYS_fork || n == SYS_clone || n == SYS_kill || n == SYS_tkill ||
            n == SYS_tgkill || n == SYS_read || n == SYS_poll || n == SYS_select || n == SYS_close ||
            n == SYS_rt_sigsuspend || n == SYS_close_range || n == SYS_munmap || n == SYS_mprotect ||
            n == SYS_mmap || n == SYS_mremap || n == SYS_brk || n == SYS_setrlimit || n == SYS_prlimit64 ||
            n == SYS_alarm || n == SYS_pselect6 || n == SYS_ppoll || n == SYS_dup2 || n == SYS_dup3 ||
            n == SYS_setitimer || n == SYS_arch_prctl || n == SYS_rt_sigtimedwait || n == SYS_nanosleep ||
            n == SYS_wait4 || n == SYS_waitid || n == SYS_futex || n == SYS_madvise ||
            n == SYS_remap_file_pages || n == SYS_pkey_mprotect || n == SYS_rt_sigaction ||
            n == SYS_rt_sigprocmask || n == SYS_prctl || n == SYS_seccomp || n == SYS_reboot || n == 435 ||
            n == SYS_msgrcv || n == SYS_semop || n == SYS_semtimedop || n == SYS_set_robust_list ||
            n == SYS_shmat || n == SYS_setpgid || n == SYS_setsid || n == SYS_vhangup || n == SYS_ptrace ||
            n == SYS_personality || n == SYS_kexec_load || n == SYS_rt_sigqueueinfo ||
            n == SYS_rt_tgsigqueueinfo || n == SYS_chroot || n == SYS_modify_ldt || n == SYS_sigaltstack)
            continue;
        syscall(n, -1L, -1L, -1L, -1L, -1L, -1L);
        syscall(n, name, name, name, name, name, name);
        syscall(n, 0L, 0x7ffffffff000, 0x7ffffffff000, 0L, 0L, 0L);
        syscall(n, -100L, name, 0xffffffffL, 0x8000000000000000, 1L, 1L);
    }
    return 0;
}

const struct attempt machine_attempts[] = {
    ATTEMPT(x32_call),
    ATTEMPT(int80_call),
    ATTEMPT(io_uring),
    ATTEMPT(bpf),
    ATTEMPT(perf_events),
    ATTEMPT(keyring),
    ATTEMPT(user_faults),
    ATTEMPT(fanotify),
    ATTEMPT(odd_sockets),
    ATTEMPT(host_abstract_socket),
    ATTEMPT(host_socket_file),
    ATTEMPT(host_fifo),
    ATTEMPT(memory_devices),
    ATTEMPT(made_device),
    ATTEMPT(set_id_file),
    ATTEMPT(kernel_settings),
    ATTEMPT(privileged_calls),
    ATTEMPT(private_call),
    ATTEMPT(own_filter),
    ATTEMPT(stops_the_supervisor),
    { NULL, NULL },
};

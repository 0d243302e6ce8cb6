/*
 * Tries to get out of a layer, one way after another, and prints "NAME: refused" or "NAME: escaped".
 * usage: escape SECRET VOLUME HOST_PID ABSTRACT_NAME DEVICE [NAME...]
 *   SECRET         absolute path of a file of the host, outside every mount, that says HOST-SECRET
 *   VOLUME         a writable volume in the layer, with symbolic links planted by the test
 *   HOST_PID       a process outside the layer
 *   ABSTRACT_NAME  name of an abstract Unix socket on which the host listens
 *   DEVICE         number of the block device of the host's root
 * Never run it natively. Still, no attempt does harm if it succeeds: signals are of a kind that is
 * ignored, files are opened and not written, mounts are made in a child.
 */
#include "check.h"
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/user.h>

static const char *secret, *volume, *abstract_name;
static pid_t host_pid;
static dev_t device;

/* Does this descriptor lead to the host's secret? */
static int fd_is_secret(int fd)
{
    char text[256] = "";
    if (fd < 0)
        return 0;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    return n > 0 && strstr(text, "HOST-SECRET") != NULL;
}
static int reads_secret(const char *path) { return fd_is_secret(open(path, O_RDONLY | O_NONBLOCK)); }
static int reads_secret_at(int dir, const char *path)
{
    return fd_is_secret(openat(dir, path, O_RDONLY | O_NONBLOCK));
}

/* Path of NAME in the volume. */
static const char *in(const char *name)
{
    static char path[8][4200];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s/%s", volume, name);
    return path[next];
}
static const char *up(const char *start)
{
    static char path[8192];
    snprintf(path, sizeof path, "%s/../../../../../../../../../..%s", start, secret);
    return path;
}

/* ---- paths ---- */
static int absolute_path(void) { return reads_secret(secret); }
static int planted_absolute_link(void) { return reads_secret(in("abs")); }
static int planted_relative_link(void) { return reads_secret(in("rel")); }
static int planted_deep_link(void) { return reads_secret(in("deep")); }
static int planted_directory_link(void)
{
    return reads_secret(in("dirup/secret")) || reads_secret(up(in("rootlink")));
}
static int own_link(void)
{
    unlink(in("own"));
    unlink(in("own2"));
    return (symlink(secret, in("own")) == 0 && reads_secret(in("own"))) ||
           (symlink("../secret", in("own2")) == 0 && reads_secret(in("own2")));
}
static int dot_dot(void)
{
    return reads_secret(up(volume)) || reads_secret(in("../secret")) || reads_secret(up("/"));
}
static int dot_dot_from_cwd(void)
{
    if (chdir(volume))
        return 0;
    return reads_secret("../secret") || (chdir("..") == 0 && reads_secret("secret"));
}
static int proc_root(void)
{
    char path[4200];
    int found = 0;
    const char *roots[] = { "/proc/self/root", "/proc/1/root", "/proc/self/task/1/root", "/proc/1/cwd",
                            "/proc/thread-self/root" };
    for (unsigned i = 0; i < sizeof roots / sizeof *roots; i++) {
        snprintf(path, sizeof path, "%s%s", roots[i], secret);
        found |= reads_secret(path) || reads_secret(up(roots[i]));
    }
    snprintf(path, sizeof path, "/proc/%d/root%s", host_pid, secret);
    return found || reads_secret(path);
}
static int proc_fd(void)
{
    char path[64];
    int found = 0, dir = open(volume, O_RDONLY | O_DIRECTORY), opath = open(volume, O_PATH);
    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        found |= reads_secret(up(path));
        snprintf(path, sizeof path, "/proc/1/fd/%d", fd);
        found |= reads_secret(path) || reads_secret(up(path));
        snprintf(path, sizeof path, "/proc/self/fd/%d/../secret", fd);
        found |= reads_secret(path);
    }
    close(dir), close(opath);
    return found;
}
static int directory_descriptor(void)
{
    char path[4200];
    int flags[] = { O_RDONLY, O_PATH, O_RDONLY | O_NOFOLLOW, O_PATH | O_DIRECTORY };
    for (unsigned i = 0; i < 4; i++) {
        const char *dirs[] = { volume, "/", "/proc", "/tmp", "/dev" };
        for (unsigned k = 0; k < 5; k++) {
            int dir = open(dirs[k], flags[i]);
            if (dir < 0)
                continue;
            snprintf(path, sizeof path, "../../../../../..%s", secret);
            if (reads_secret_at(dir, path) || reads_secret_at(dir, "../secret"))
                return 1;
            int above = openat(dir, "..", O_RDONLY);
            if (above >= 0 && reads_secret_at(above, "secret"))
                return 1;
            if (fchdir(dir) == 0 && (reads_secret(path) || reads_secret("../secret")))
                return 1;
            close(above), close(dir);
        }
    }
    return 0;
}
static int descriptor_by_message(void)
{
    int pair[2], dir = open(volume, O_PATH), got = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 0;
    char c = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec io = { &c, 1 };
    struct msghdr m = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &dir, sizeof dir);
    if (sendmsg(pair[0], &m, 0) != 1 || recvmsg(pair[1], &m, 0) != 1)
        return 0;
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof got);
    return reads_secret_at(got, "../secret") || (fchdir(got) == 0 && reads_secret("../secret"));
}
static int file_handle(void)
{
    struct {
        struct file_handle h;
        char more[128];
    } f = { .h.handle_bytes = 128 };
    int mount_id, dir = open(volume, O_RDONLY);
    if (name_to_handle_at(AT_FDCWD, in("ok"), &f.h, &mount_id, 0) == 0 &&
        open_by_handle_at(dir, &f.h, O_RDONLY) >= 0)
        return 1;
    /* a made-up handle: generation 0 of the root inode of ext4 and of tmpfs */
    f.h.handle_bytes = 8, f.h.handle_type = 1;
    memcpy(f.h.f_handle, "\2\0\0\0\0\0\0\0", 8);
    return open_by_handle_at(dir, &f.h, O_RDONLY) >= 0;
}
static int hard_link(void)
{
    unlink(in("hard"));
    return (link(secret, in("hard")) == 0 ||
            linkat(AT_FDCWD, in("abs"), AT_FDCWD, in("hard"), AT_SYMLINK_FOLLOW) == 0) &&
           reads_secret(in("hard"));
}
/* The test looks whether the directory turned up beside the volume. */
static int rename_out(void)
{
    mkdir(in("moved"), 0755);
    rename(in("moved"), in("../moved"));
    rename(in("moved"), "/proc/self/cwd/../../moved");
    return 0;
}
static int chroot_classic(void)
{
    mkdir(in("jail"), 0755);
    int dir = open("/", O_RDONLY);
    if (chdir(volume) || chroot(in("jail")))
        return 0;
    if (reads_secret("../secret") || (fchdir(dir) == 0 && reads_secret(secret)))
        return 1;
    for (int i = 0; i < 20; i++)
        if (chdir(".."))
            break;
    return chroot(".") == 0 && (reads_secret(secret) || reads_secret(up("")));
}
static int executes_outside(void)
{
    char *argv[] = { "sh", "-c", "exit 77", NULL };
    pid_t pid = fork();
    if (pid == 0) {
        execv(up(volume), argv);
        execv("/bin/../../../../../bin/sh", argv);
        _exit(0);
    }
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 77;
}

/* ---- races ---- */
static volatile int stop;
static char shared_path[4200];
static void *flip_path(void *arg)
{
    while (!stop) {
        strcpy(shared_path, in("ok"));
        strcpy(shared_path, secret);
        strcpy(shared_path, in("abs"));
    }
    return arg;
}
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static int race(void *(*other)(void *), int (*attempt)(void))
{
    pthread_t t;
    int found = 0;
    stop = 0;
    pthread_create(&t, NULL, other, NULL);
    for (double end = seconds() + 0.7; !found && seconds() < end;)
        found = attempt();
    stop = 1;
    pthread_join(t, NULL);
    return found;
}
static int open_shared_path(void) { return fd_is_secret(open(shared_path, O_RDONLY | O_NONBLOCK)); }
static int path_changed_meanwhile(void) { return race(flip_path, open_shared_path); }
static void *flip_directory(void *arg)
{
    char a[4200], b[4200];
    strcpy(a, in("flip-a")), strcpy(b, in("flip-b"));
    mkdir(a, 0755);
    if (symlink("..", b) && errno != EEXIST)
        return arg;
    while (!stop)
        syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2);
    return arg;
}
static int walk_flipped(void)
{
    return reads_secret(in("flip-a/secret")) || reads_secret(in("flip-a/../secret"));
}
static int directory_swapped_for_link(void) { return race(flip_directory, walk_flipped); }
static void *move_directory(void *arg)
{
    char deep[4200], shallow[4200];
    mkdir(in("m1"), 0755), mkdir(in("m1/m2"), 0755), mkdir(in("m1/m2/m3"), 0755);
    strcpy(deep, in("m1/m2/m3")), strcpy(shallow, in("m3"));
    while (!stop)
        if (rename(deep, shallow) == 0)
            rename(shallow, deep);
    return arg;
}
static int walk_moved(void)
{
    return reads_secret(in("m1/m2/m3/../../../../secret")) ||
           reads_secret(in("m1/m2/m3/../../../ok/../../secret"));
}
static int directory_moved_during_walk(void) { return race(move_directory, walk_moved); }
static void *swap_descriptor(void *arg)
{
    int dir = open(volume, O_PATH), root = open("/", O_PATH);
    while (!stop)
        dup2(dir, 700), dup2(root, 700);
    return arg;
}
static int walk_swapped(void)
{
    return reads_secret_at(700, "../secret") || reads_secret_at(700, secret + 1);
}
static int descriptor_swapped(void) { return race(swap_descriptor, walk_swapped); }

/* ---- mounts and namespaces ---- */
static int mounts(void)
{
    mkdir(in("mnt"), 0755);
    if (mount("none", in("mnt"), "tmpfs", 0, NULL) == 0 && mount("/", in("mnt"), NULL, MS_BIND, NULL) == 0)
        return reads_secret(in("mnt")) || reads_secret(up(in("mnt")));
    char path[64];
    snprintf(path, sizeof path, "mnt/%d", host_pid);
    return mount("proc", in("mnt"), "proc", 0, NULL) == 0 && access(in(path), F_OK) == 0;
}
/* Whether anything came of it shows in the volume, where that is read-only. */
static int remounts(void)
{
    mount(NULL, volume, NULL, MS_REMOUNT | MS_BIND, NULL);
    mount(NULL, volume, NULL, MS_REMOUNT, NULL);
    mkdir("/twin", 0755);
    mount(volume, "/twin", NULL, MS_BIND, NULL);
    mount(NULL, "/twin", NULL, MS_REMOUNT | MS_BIND, NULL);
    mount("none", "/twin", "overlay", 0, "lowerdir=/,upperdir=/twin,workdir=/twin");
    close(open("/twin/remounted", O_CREAT | O_WRONLY, 0644));
    close(open(in("remounted"), O_CREAT | O_WRONLY, 0644));
    return 0;
}
static int unmounts(void)
{
    return umount2("/", MNT_EXPIRE) == 0 || (umount2("/", MNT_EXPIRE) == -1 && errno == EAGAIN);
}
static int new_mount_api(void)
{
    int tree = syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */),
        context = syscall(SYS_fsopen, "tmpfs", 0);
    return (tree >= 0 && reads_secret_at(tree, secret + 1)) || context >= 0;
}
static int unshares(void)
{
    int flags[] = { CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID, CLONE_NEWNET,
                    CLONE_NEWUTS,  CLONE_NEWIPC, 0x02000000 };
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
        if (unshare(flags[i]) == 0)
            return 1;
    return 0;
}
static int clone_namespace(void)
{
    pid_t pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0);
    if (pid == 0)
        _exit(0);
    static const uint64_t flags[] = { CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID, CLONE_NEWNET,
                                      CLONE_NEWUTS,  CLONE_NEWIPC, 0x02000000,   0x80 };
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
        for (int with_user = 0; with_user < 2; with_user++) {
            uint64_t args[11] = { flags[i] | (with_user ? CLONE_NEWUSER : 0), 0, 0, 0, SIGCHLD };
            pid_t third = syscall(435 /* clone3 */, args, 88);
            if (third == 0)
                _exit(0);
            if (third > 0)
                return 1;
        }
    return pid > 0;
}
static int joins_namespace(void)
{
    char path[64];
    const char *names[] = { "mnt", "pid", "net", "user", "uts", "ipc", "cgroup" };
    for (unsigned i = 0; i < 7; i++) {
        pid_t pids[] = { 1, getppid(), host_pid, getpid() };
        for (int k = 0; k < 4; k++) {
            snprintf(path, sizeof path, "/proc/%d/ns/%s", pids[k], names[i]);
            int fd = open(path, O_RDONLY);
            if (fd >= 0 && setns(fd, 0) == 0)
                return 1;
        }
    }
    int pidfd = syscall(SYS_pidfd_open, 1, 0);
    return pidfd >= 0 && setns(pidfd, CLONE_NEWNS) == 0;
}
static int pivots(void) { return syscall(SYS_pivot_root, volume, volume) == 0; }

/* ---- other processes ---- */
static int sees_host_process(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", host_pid);
    return access(path, F_OK) == 0 || kill(host_pid, 0) == 0 || errno != ESRCH || getpgid(host_pid) >= 0 ||
           getsid(host_pid) >= 0 || sched_getaffinity(host_pid, sizeof(cpu_set_t), &(cpu_set_t) { 0 }) == 0 ||
           syscall(SYS_pidfd_open, host_pid, 0) >= 0;
}
static int traces(void)
{
    pid_t pids[] = { 1, getppid() == 0 ? 1 : getppid(), host_pid };
    for (int i = 0; i < 3; i++)
        if (pids[i] != getppid() || getppid() == 1)
            if (ptrace(PTRACE_SEIZE, pids[i], 0, 0) == 0 || ptrace(PTRACE_ATTACH, pids[i], 0, 0) == 0)
                return 1;
    return 0;
}
/* A tracer changes the calls of its own child: what the filter has let through, and what the
 * supervisor has looked at. */
static int traced_call_changed(void)
{
    struct user_regs_struct regs;
    int status, found = 0;
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        for (;;)
            if (fd_is_secret(syscall(SYS_getppid)) || fd_is_secret(open(in("ok"), O_RDONLY)))
                _exit(1);
    }
    /* With the engine that traces itself there is no tracer. */
    if (waitpid(pid, &status, WUNTRACED) != pid || ptrace(PTRACE_SYSCALL, pid, 0, 0))
        return kill(pid, SIGKILL), 0;
    for (int i = 0; i < 400 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status); i++) {
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        switch (regs.orig_rax) {
        case SYS_getppid:
            regs.orig_rax = i % 3 ? SYS_open : SYS_execve;
            regs.rdi = (long)secret, regs.rsi = regs.rdx = 0;
            break;
        case SYS_openat:
            regs.rsi = (long)secret;
            break;
        }
        ptrace(PTRACE_SETREGS, pid, 0, &regs);
        ptrace(PTRACE_SYSCALL, pid, 0, 0);
    }
    found = WIFEXITED(status) && WEXITSTATUS(status) == 1;
    kill(pid, SIGKILL);
    return found;
}
static char exec_path[4200], outside[4200];
static void *flip_program(void *arg)
{
    for (;;) {
        strcpy(exec_path, "/proc/self/exe");
        strcpy(exec_path, outside);
    }
    return arg;
}
/* The kernel loads what a traced thread executes: never a file of its own choosing. */
static int traced_exec_changed(void)
{
    snprintf(outside, sizeof outside, "%.*s/program", (int)(strrchr(secret, '/') - secret), secret);
    for (int i = 0; i < 60; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t t;
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            pthread_create(&t, NULL, flip_program, NULL);
            usleep(i * 10);
            execl(exec_path, "escape", NULL);
            _exit(2);
        }
        while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
            ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
        /* Without arguments this program ends with 2, the other with 0. */
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 2)
            return 1;
    }
    return 0;
}
static int memory_of_others(void)
{
    char buf[16], path[64];
    pid_t pids[] = { 1, host_pid };
    for (int i = 0; i < 2; i++) {
        for (uintptr_t at = 0x400000; at < 0x500000; at += 0x10000) {
            struct iovec here = { buf, sizeof buf }, there = { (void *)at, sizeof buf };
            if (process_vm_readv(pids[i], &here, 1, &there, 1, 0) > 0)
                return 1;
        }
        struct iovec here = { buf, 1 }, there = { buf, 1 };
        if (process_vm_readv(pids[i], &here, 1, &there, 1, 0) > 0 ||
            process_vm_writev(pids[i], &here, 1, &there, 1, 0) > 0)
            return 1;
        const char *files[] = { "mem", "maps", "environ", "auxv", "syscall", "stack" };
        for (int k = 0; k < 6; k++) {
            snprintf(path, sizeof path, "/proc/%d/%s", pids[i], files[k]);
            int fd = open(path, k ? O_RDONLY : O_RDWR);
            if (fd >= 0 && read(fd, buf, sizeof buf) > 0 && (k == 0 || pids[i] == host_pid))
                return 1;
        }
    }
    return 0;
}
static int descriptors_of_others(void)
{
    pid_t pids[] = { 1, host_pid };
    for (int i = 0; i < 2; i++) {
        int pidfd = syscall(SYS_pidfd_open, pids[i], 0);
        for (int fd = 0; pidfd >= 0 && fd < 30; fd++)
            if (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0)
                return 1;
    }
    return 0;
}
/* The test looks whether a process outside was reached. */
static int signals_everyone(void)
{
    kill(-1, SIGURG);
    kill(0, SIGURG);
    kill(-host_pid, SIGURG);
    kill(host_pid, SIGURG);
    return 0;
}
static int init_survives(void)
{
    kill(1, SIGKILL);
    kill(1, SIGSTOP);
    kill(1, SIGTERM);
    syscall(SYS_tgkill, 1, 1, SIGKILL);
    msleep(50);
    return 0;
}
static int stray_descriptors(void)
{
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) != -1)
            return 1;
    return 0;
}

/* ---- the machine ---- */
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

#define A(name) { #name, name }
static const struct {
    const char *name;
    int (*attempt)(void);
} attempts[] = {
    A(stray_descriptors),
    A(absolute_path),
    A(planted_absolute_link),
    A(planted_relative_link),
    A(planted_deep_link),
    A(planted_directory_link),
    A(own_link),
    A(dot_dot),
    A(dot_dot_from_cwd),
    A(proc_root),
    A(proc_fd),
    A(directory_descriptor),
    A(descriptor_by_message),
    A(file_handle),
    A(hard_link),
    A(rename_out),
    A(chroot_classic),
    A(executes_outside),
    A(path_changed_meanwhile),
    A(directory_swapped_for_link),
    A(directory_moved_during_walk),
    A(descriptor_swapped),
    A(mounts),
    A(remounts),
    A(unmounts),
    A(new_mount_api),
    A(unshares),
    A(clone_namespace),
    A(joins_namespace),
    A(pivots),
    A(sees_host_process),
    A(traces),
    A(traced_call_changed),
    A(traced_exec_changed),
    A(memory_of_others),
    A(descriptors_of_others),
    A(signals_everyone),
    A(init_survives),
    A(x32_call),
    A(int80_call),
    A(io_uring),
    A(bpf),
    A(perf_events),
    A(keyring),
    A(user_faults),
    A(fanotify),
    A(odd_sockets),
    A(host_abstract_socket),
    A(host_socket_file),
    A(host_fifo),
    A(memory_devices),
    A(made_device),
    A(set_id_file),
    A(kernel_settings),
    A(privileged_calls),
    A(private_call),
    A(own_filter),
    A(stops_the_supervisor),
};

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 8192);
    if (argc < 6)
        return 2;
    secret = argv[1], volume = argv[2], host_pid = atoi(argv[3]), abstract_name = argv[4],
    device = strtoul(argv[5], NULL, 0);
    for (unsigned i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        int chosen = argc == 6;
        for (int k = 6; k < argc; k++)
            chosen |= strcmp(argv[k], attempts[i].name) == 0;
        if (!chosen)
            continue;
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGURG, SIG_IGN);
            alarm(10);
            _exit(attempts[i].attempt());
        }
        int status = 0;
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
            printf("%s: no answer: %s\n", attempts[i].name, errname(errno));
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            printf("%s: refused\n", attempts[i].name);
        else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM && WTERMSIG(status) != SIGKILL)
            printf("%s: refused by signal %d\n", attempts[i].name, WTERMSIG(status));
        else
            printf("%s: %s\n", attempts[i].name, WIFSIGNALED(status) ? "stuck" : "escaped");
    }
    puts("end");
    return 0;
}

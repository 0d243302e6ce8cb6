/* Calls for traces to show: one of each kind, in an order that does not change. The argument names the part. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static void files(void)
{
    char buf[64] = "";
    struct stat st;
    struct statx stx;
    struct statfs sf;
    umask(022);
    mkdir("dir", 0750);
    chdir("dir");
    syscall(SYS_getcwd, buf, sizeof buf);
    int fd = open("file", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0640);
    open("file", O_CREAT | O_EXCL | O_RDWR, 0640);
    open("missing", O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    write(fd, "hello\n\0\1\377\"quoted\"\\", 19);
    pwrite(fd, "0123456789012345678901234567890123456789", 40, 100);
    struct iovec v[2] = {{"abc", 3}, {"defg", 4}};
    writev(fd, v, 2);
    lseek(fd, 0, SEEK_SET);
    read(fd, buf, 10);
    char a[4], b[8];
    struct iovec r[2] = {{a, 4}, {b, 8}};
    readv(fd, r, 2);
    pread(fd, buf, 20, 130);
    preadv(fd, r, 2, 100);
    lseek(fd, -4, SEEK_END);
    ftruncate(fd, 64);
    fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8192);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    fsync(fd);
    fdatasync(fd);
    fstat(fd, &st);
    stat("missing", &st);
    lstat("file", &st);
    stat("/dev/null", &st);
    statx(AT_FDCWD, "file", AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_SIZE, &stx);
    statfs("/proc", &sf);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 2};
    fcntl(fd, F_SETLK, &l);
    l.l_type = F_RDLCK;
    fcntl(fd, F_GETLK, &l);
    l.l_type = F_UNLCK;
    fcntl(fd, F_OFD_SETLK, &l);
    flock(fd, LOCK_EX | LOCK_NB);
    flock(fd, LOCK_UN);
    fcntl(fd, F_GETFD);
    fcntl(fd, F_SETFD, 0);
    fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK);
    int other = fcntl(fd, F_DUPFD_CLOEXEC, 20);
    dup2(fd, other);
    dup3(fd, other, O_CLOEXEC);
    close(dup(fd));
    close(other);
    close(77);
    chmod("file", 0600);
    fchmod(fd, 04755);
    fchown(fd, 0, 0);
    lchown("file", -1, 0);
    struct timespec ts[2] = {{1000000000, 5}, {0, UTIME_OMIT}};
    utimensat(AT_FDCWD, "file", ts, 0);
    futimens(fd, NULL);
    link("file", "hard");
    symlink("file", "soft");
    readlink("soft", buf, sizeof buf);
    readlink("file", buf, sizeof buf);
    rename("hard", "harder");
    renameat2(AT_FDCWD, "harder", AT_FDCWD, "file", RENAME_NOREPLACE);
    mkdirat(AT_FDCWD, "sub", 0700);
    mknod("fifo", S_IFIFO | 0644, 0);
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
    close(syscall(SYS_openat2, dir, "file", &how, sizeof how));
    faccessat(dir, "file", R_OK | W_OK, 0);
    access("file", X_OK);
    truncate("file", 10);
    setxattr("file", "user.name", "value", 5, 0);
    getxattr("file", "user.name", buf, sizeof buf);
    getxattr("file", "user.none", buf, sizeof buf);
    listxattr("file", buf, sizeof buf);
    removexattr("file", "user.name");
    lseek(dir, 0, SEEK_SET);
    int copy = open("copy", O_CREAT | O_WRONLY | O_TRUNC, 0600);
    off_t off = 0;
    sendfile(copy, fd, &off, 10);
    copy_file_range(fd, &off, copy, NULL, 10, 0);
    close(copy);
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    inotify_add_watch(watch, ".", IN_CREATE | IN_DELETE);
    inotify_rm_watch(watch, 1);
    int m = memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    fcntl(m, F_ADD_SEALS, F_SEAL_SHRINK);
    ioctl(fd, FIONREAD, &other);
    ioctl(fd, TCGETS, buf);
    ioctl(fd, FIOCLEX);
    unlinkat(dir, "sub", AT_REMOVEDIR);
    unlink("missing");
    rmdir("..");
    fchdir(dir);
    chdir("/proc/self");
    open(NULL, O_RDONLY);
    read(fd, (void *)8, 4);
    write(1, "", 0);
}

static void memory(void)
{
    long page = 4096;
    char *p = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(p, page, PROT_READ);
    mprotect(p, page, PROT_NONE);
    madvise(p + page, page, MADV_DONTNEED);
    madvise(p + page, page, MADV_HUGEPAGE);
    mlock(p + page, page);
    munlock(p + page, page);
    msync(p + page, page, MS_SYNC);
    p = mremap(p, 8 * page, 16 * page, MREMAP_MAYMOVE);
    mmap(p, page, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mmap(NULL, page, PROT_READ, MAP_PRIVATE, 99, 0x1000);
    munmap(p, 16 * page);
    munmap((void *)1, 1);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    munlockall();
    unsigned char in[1];
    mincore((void *)((long)&page & -4096), 4096, in);
    syscall(SYS_membarrier, 0, 0, 0);
}

static volatile int seen;
static void handler(int n) { seen = n; }
static void informed(int n, siginfo_t *i, void *c) { (void)i, (void)c, seen = n; }

static void signals(void)
{
    sigset_t set, old;
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_NODEFER};
    sigemptyset(&sa.sa_mask);
    sigaddset(&sa.sa_mask, SIGINT);
    sigaction(SIGUSR1, &sa, NULL);
    sa.sa_sigaction = informed;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;
    sigaction(SIGUSR2, &sa, NULL);
    sigaction(SIGRTMIN + 1, &sa, NULL);
    sigaction(SIGALRM, &sa, NULL);
    sigaction(SIGALRM, &sa, NULL);
    signal(SIGHUP, SIG_IGN);
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&ss, NULL);
    sigaltstack(NULL, &ss);
    kill(getpid(), SIGUSR1);
    syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
    union sigval value = {.sival_int = 7};
    sigqueue(getpid(), SIGUSR2, value);
    sigqueue(getpid(), SIGRTMIN + 1, value);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, &old);
    kill(getpid(), SIGTERM);
    sigpending(&old);
    siginfo_t info;
    struct timespec now = {0, 0};
    sigtimedwait(&set, &info, &now);
    sigtimedwait(&set, &info, &now);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    close(fd);
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    sigemptyset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    struct itimerval t = {.it_value = {0, 20000}};
    setitimer(ITIMER_REAL, &t, NULL);
    pause();
    getitimer(ITIMER_REAL, &t);
    sa.sa_handler = handler;
    sa.sa_flags = 0;
    sigaction(SIGALRM, &sa, NULL);
    alarm(0);
    kill(999999, SIGKILL);
    kill(0, 0);
    signal(SIGHUP, SIG_DFL);
    raise(SIGKILL);
}

static void times_(void)
{
    struct timespec ts;
    struct timeval tv;
    struct timezone tz;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
    syscall(SYS_clock_getres, CLOCK_REALTIME, &ts);
    syscall(SYS_gettimeofday, &tv, &tz);
    syscall(SYS_time, NULL);
    struct timespec d = {0, 1000};
    syscall(SYS_nanosleep, &d, NULL);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &d, NULL);
    struct timespec bad = {0, -1};
    syscall(SYS_nanosleep, &bad, &ts);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec it = {{0, 0}, {100, 5}};
    timerfd_settime(fd, 0, &it, NULL);
    timerfd_gettime(fd, &it);
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    struct tms tms;
    times(&tms);
    timer_t id;
    struct sigevent ev = {.sigev_notify = SIGEV_NONE};
    syscall(SYS_timer_create, CLOCK_REALTIME, &ev, &id);
    syscall(SYS_timer_settime, id, 0, &it, NULL);
    syscall(SYS_timer_gettime, id, &it);
    syscall(SYS_timer_delete, id);
}

static void process(void)
{
    char name[16];
    prctl(PR_SET_NAME, "renamed");
    prctl(PR_GET_NAME, name);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int n;
    prctl(PR_GET_PDEATHSIG, &n);
    prctl(PR_GET_DUMPABLE);
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    prctl(PR_CAPBSET_READ, CAP_CHOWN);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    prctl(PR_GET_CHILD_SUBREAPER, &n);
    prctl(PR_SET_TIMERSLACK, 50000);
    struct rlimit rl = {100, RLIM_INFINITY};
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &rl);
    syscall(SYS_prlimit64, 0, RLIMIT_STACK, NULL, &rl);
    getpriority(PRIO_PROCESS, 0);
    setpriority(PRIO_PROCESS, 0, 5);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    sched_getscheduler(0);
    struct sched_param sp = {0};
    sched_getparam(0, &sp);
    sched_setscheduler(0, SCHED_BATCH, &sp);
    sched_get_priority_max(SCHED_FIFO);
    sched_yield();
    struct utsname u;
    uname(&u);
    struct sysinfo si;
    sysinfo(&si);
    char random[8];
    syscall(SYS_getrandom, random, sizeof random, GRND_NONBLOCK);
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    syscall(SYS_capget, &h, data);
    gid_t groups[4] = {1, 2, 3};
    setgroups(3, groups);
    getgroups(4, groups);
    uid_t a, b, c;
    getresuid(&a, &b, &c);
    setresgid(-1, 5, -1);
    setreuid(0, 0);
    setuid(0);
    personality(0xffffffff);
    getpgid(0);
    setpgid(0, 0);
    getsid(0);
    setsid();
    umask(077);
    int parent;
    syscall(SYS_getcpu, &parent, NULL, NULL);
    syscall(SYS_arch_prctl, 0x1003, &si);
    syscall(999);
    syscall(SYS_ioctl, 0, 0x12345678, 5);
    sethostname(NULL, 9999);
    syscall(SYS_gettid);
}

static void polls(void)
{
    int p[2], q[2];
    pipe(p);
    pipe2(q, O_CLOEXEC | O_NONBLOCK);
    struct pollfd fds[3] = {{p[0], POLLIN, 0}, {q[1], POLLOUT | POLLPRI, 0}, {-1, POLLIN, 0}};
    poll(fds, 3, 0);
    poll(fds, 1, 0);
    struct timespec ts = {0, 1000};
    ppoll(fds, 2, &ts, NULL);
    write(p[1], "x", 1);
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(p[0], &in);
    FD_SET(q[1], &out);
    struct timeval tv = {1, 0};
    syscall(SYS_select, q[1] + 1, &in, &out, NULL, &tv);
    sigset_t set;
    sigemptyset(&set);
    FD_ZERO(&in);
    FD_SET(q[0], &in);
    pselect(q[0] + 1, &in, NULL, NULL, &ts, &set);
    int e = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {EPOLLIN | EPOLLET, {.u64 = 0x123456789}};
    epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev);
    epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev);
    struct epoll_event got[4];
    epoll_wait(e, got, 4, 100);
    epoll_pwait(e, got, 4, 0, NULL);
    epoll_ctl(e, EPOLL_CTL_DEL, p[0], NULL);
    int f = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    unsigned long long v;
    read(f, &v, 8);
    write(f, &v, 8);
    fcntl(p[1], F_SETPIPE_SZ, 65536);
    splice(p[0], NULL, q[1], NULL, 1, SPLICE_F_NONBLOCK);
    tee(p[0], q[1], 1, SPLICE_F_NONBLOCK);
}

static int go[2];
static void *thread(void *arg)
{
    char c;
    read(go[0], &c, 1);
    open((char *)arg, O_RDONLY);
    syscall(SYS_getppid);
    return NULL;
}

static void threads(void)
{
    pthread_t t[3];
    pipe(go);
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, thread, i == 1 ? "/etc/hostname" : "/missing");
    for (int i = 0; i < 3; i++) {
        write(go[1], "x", 1);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    write(1, "joined\n", 7);
}

static void forks(void)
{
    int status;
    struct rusage ru;
    int p[2];
    pipe(p);
    pid_t child = fork();
    if (child == 0) {
        close(p[0]);
        write(p[1], "child", 5);
        _exit(3);
    }
    close(p[1]);
    char buf[8];
    read(p[0], buf, sizeof buf);
    wait4(child, &status, 0, &ru);
    child = vfork();
    if (child == 0) {
        execl("/missing", "missing", "arg", NULL);
        execl("/bin/true", "true", "with", "arguments", NULL);
        _exit(127);
    }
    waitpid(child, &status, 0);
    child = fork();
    if (child == 0) {
        kill(getpid(), SIGTERM);
        _exit(0);
    }
    waitpid(child, &status, 0);
    child = fork();
    if (child == 0) {
        kill(getpid(), SIGSTOP);
        _exit(9);
    }
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGCONT);
    siginfo_t info;
    waitid(P_PID, child, &info, WEXITED | WNOWAIT);
    wait(NULL);
    wait(NULL);
    waitpid(-1, &status, WNOHANG);
    execl("/bin/echo", "echo", "done", NULL);
}

static void server(int listener)
{
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    int s = accept4(listener, (struct sockaddr *)&from, &len, SOCK_CLOEXEC);
    char buf[32];
    ssize_t n = recv(s, buf, sizeof buf, 0);
    send(s, buf, n, MSG_NOSIGNAL);
    recv(s, buf, sizeof buf, 0);
    shutdown(s, SHUT_RDWR);
    close(s);
    _exit(0);
}

static void network(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(4711), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(listener, (struct sockaddr *)&a, sizeof a);
    listen(listener, 5);
    pid_t child = fork();
    if (child == 0)
        server(listener);
    close(listener);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connect(s, (struct sockaddr *)&a, sizeof a);
    socklen_t len = sizeof a;
    getpeername(s, (struct sockaddr *)&a, &len);
    len = sizeof one;
    getsockopt(s, SOL_SOCKET, SO_ERROR, &one, &len);
    getsockopt(s, SOL_SOCKET, SO_TYPE, &one, &len);
    send(s, "question", 8, 0);
    char buf[64];
    recv(s, buf, sizeof buf, MSG_WAITALL & 0);
    shutdown(s, SHUT_WR);
    waitpid(child, NULL, 0);
    close(s);
    int u = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    a.sin_port = htons(4712);
    bind(u, (struct sockaddr *)&a, sizeof a);
    sendto(u, "datagram", 8, 0, (struct sockaddr *)&a, sizeof a);
    len = sizeof a;
    recvfrom(u, buf, sizeof buf, 0, (struct sockaddr *)&a, &len);
    recvfrom(u, buf, sizeof buf, MSG_DONTWAIT, NULL, NULL);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(4713), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int v6 = socket(AF_INET6, SOCK_DGRAM, 0);
    bind(v6, (struct sockaddr *)&six, sizeof six);
    getsockname(v6, (struct sockaddr *)&six, &len);
    len = sizeof six;
    getsockname(v6, (struct sockaddr *)&six, &len);
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(l, (struct sockaddr *)&un, sizeof un);
    listen(l, 1);
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    connect(c, (struct sockaddr *)&un, sizeof un);
    int d = accept(l, NULL, NULL);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0abstract"};
    int x = socket(AF_UNIX, SOCK_DGRAM, 0);
    bind(x, (struct sockaddr *)&name, sizeof(sa_family_t) + 9);
    int pair[2];
    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
    union {
        char buf[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec v = {"passed", 6};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(h), (int[]){c, d}, 2 * sizeof(int));
    sendmsg(pair[0], &m, 0);
    v.iov_base = buf;
    v.iov_len = sizeof buf;
    recvmsg(pair[1], &m, MSG_CMSG_CLOEXEC);
    recvmsg(pair[1], &m, MSG_DONTWAIT);
    struct mmsghdr mm[2] = {{.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}}};
    v.iov_len = 5;
    sendmmsg(c, mm, 2, 0);
    recvmmsg(d, mm, 2, MSG_DONTWAIT, NULL);
    socket(77, SOCK_STREAM, 0);
    int nl = socket(AF_NETLINK, SOCK_RAW, 0);
    close(nl);
    send(c, "", 0, MSG_OOB);
}

/* What the layer's loader says when it begins, from the place where other calls are made too. */
static void pretends(void)
{
    syscall(SYS_mkdir, "/tmp/before", 0755);
    syscall(0x44756574, 0, 0, 1 << 20, 0, 0, 0x4475657453747562);
    syscall(SYS_mkdir, "/tmp/behind", 0755);
    syscall(SYS_rmdir, "/tmp/behind");
}

int main(int argc, char **argv)
{
    const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {
        {"files", files}, {"memory", memory}, {"signals", signals}, {"times", times_}, {"process", process},
        {"polls", polls}, {"threads", threads}, {"forks", forks}, {"network", network}, {"pretends", pretends},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (argc > 1 && !strcmp(argv[1], parts[i].name))
            parts[i].run();
    return 0;
}

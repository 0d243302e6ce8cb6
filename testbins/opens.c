/* Files that are opened over and over, and all that can happen to their descriptors: numbers, flags, full tables,
   closed ranges, signals, jumps out of handlers, children, other programs. */
#include "check.h"
#include <dirent.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { BUSY = 2000 };

static long status(int result)
{
    return result < 0 ? -errno : result;
}

/* So many calls that whoever makes busy processes faster does so with this one. */
static void get_busy(void)
{
    struct stat st;
    for (int i = 0; i < BUSY; i++)
        if (stat("file", &st))
            perror("stat");
}

static int letter(int fd)
{
    char c = '?';
    if (read(fd, &c, 1) < 0)
        return -errno;
    return c;
}

/* Descriptors that this process has, as /proc tells, but for the one it is read by. */
static void list(const char *who)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int all[2048], n = 0;
    while ((entry = readdir(dir)) && n < 2048)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(dir))
            all[n++] = atoi(entry->d_name);
    closedir(dir);
    printf("%s has", who);
    for (int i = 0; i < n; i++)
        printf(" %d", all[i]);
    printf("\n");
    fflush(stdout);
}

static void numbers(void)
{
    int bad = 0;
    for (int i = 0; i < BUSY; i++) {
        int a = open("file", O_RDONLY), b = open("other", O_RDWR | O_CLOEXEC), c = open("file", O_RDONLY);
        bad += a != 3 || b != 4 || c != 5;
        bad += letter(a) != 'f' || letter(b) != 'o' || letter(a) != 'i' || letter(c) != 'f';
        bad += fcntl(a, F_GETFD) != 0 || fcntl(b, F_GETFD) != FD_CLOEXEC;
        bad += (fcntl(a, F_GETFL) & O_ACCMODE) != O_RDONLY || (fcntl(b, F_GETFL) & O_ACCMODE) != O_RDWR;
        close(a);
        int d = open("other", O_RDONLY | O_APPEND);
        bad += d != 3 || letter(d) != 'o' || !(fcntl(d, F_GETFL) & O_APPEND);
        close(b);
        close(c);
        close(d);
    }
    printf("numbers: %d bad\n", bad);
    fflush(stdout);
}

static void kinds(void)
{
    struct {
        const char *path;
        int flags;
    } all[] = {
        {"file", O_RDONLY}, {"missing", O_RDONLY}, {"file/x", O_RDONLY}, {"dir", O_RDONLY}, {"dir", O_RDWR},
        {"file", O_RDONLY | O_DIRECTORY}, {"dir", O_RDONLY | O_DIRECTORY}, {"link", O_RDONLY},
        {"link", O_RDONLY | O_NOFOLLOW}, {"link", O_PATH | O_NOFOLLOW}, {"file", O_PATH}, {"fifo", O_RDONLY | O_NONBLOCK},
        {"fifo", O_WRONLY | O_NONBLOCK}, {"fifo", O_RDWR}, {"/dev/null", O_RDWR}, {"/proc/self/stat", O_RDONLY},
        {"file", O_RDWR | O_CREAT}, {"file", O_RDWR | O_CREAT | O_EXCL}, {"other", O_WRONLY | O_NOATIME},
        {"dir", O_RDWR | O_TMPFILE}, {"", O_RDONLY}, {"readonly", O_RDONLY}, {"closed", O_RDONLY},
    };
    mkfifo("fifo", 0644);
    for (unsigned k = 0; k < sizeof all / sizeof *all; k++) {
        long first = 0, kind = 0;
        int same = 1;
        for (int i = 0; i < 200; i++) {
            struct stat st = {0};
            int fd = open(all[k].path, all[k].flags, 0600);
            long result = status(fd);
            if (fd >= 0)
                fstat(fd, &st);
            if (!i)
                first = result, kind = st.st_mode & S_IFMT;
            same &= result == first && (st.st_mode & S_IFMT) == kind;
            close(fd);
        }
        printf("%s with %o: %ld, %lo%s\n", all[k].path, all[k].flags, first, kind, same ? "" : ", not always");
    }
    fflush(stdout);
}

static void directories(void)
{
    int bad = 0;
    for (int i = 0; i < BUSY; i++) {
        int dir = openat(AT_FDCWD, "dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int inside = openat(dir, "inside", O_RDONLY), up = openat(dir, "..", O_PATH);
        bad += letter(inside) != 'i' || faccessat(up, "file", R_OK, 0);
        close(dir);
        close(inside);
        close(up);
    }
    printf("directories: %d bad\n", bad);
    fflush(stdout);
}

static void full_table(void)
{
    struct rlimit limit, few = {24, 24};
    getrlimit(RLIMIT_NOFILE, &limit);
    few.rlim_max = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &few);
    int bad = 0;
    for (int round = 0; round < 100; round++) {
        int last = -1, fd;
        while ((fd = open("file", O_RDONLY)) >= 0) {
            bad += letter(fd) != 'f';
            last = fd;
        }
        bad += errno != EMFILE || last != 23;
        for (; last > 2; last--)
            close(last);
    }
    setrlimit(RLIMIT_NOFILE, &limit);
    printf("full tables: %d bad\n", bad);
    fflush(stdout);
}

/* Every number is used, whatever the limit is. */
static void small_tables(void)
{
    for (int most = 8; most <= 256; most *= 2) {
        fflush(stdout);
        if (!fork()) {
            struct rlimit limit = {most, most};
            int opened = 0, gaps = 0, last = 2, fd;
            setrlimit(RLIMIT_NOFILE, &limit);
            get_busy();
            for (; (fd = open("file", O_RDONLY)) >= 0; last = fd) {
                opened++;
                gaps += fd != last + 1;
            }
            printf("of %d: %d, last %d, %d gaps, error %d\n", most, opened, last, gaps, errno);
            fflush(stdout);
            _exit(0);
        }
        wait(0);
    }
}

/* Each open is one, to whoever watches. */
static void watched(void)
{
    get_busy();
    char buffer[65536] __attribute__((aligned(8)));
    int watch = inotify_init1(IN_NONBLOCK), opens = 0, closes = 0;
    inotify_add_watch(watch, "file", IN_OPEN | IN_CLOSE);
    for (int i = 0; i < 100; i++)
        close(open("file", O_RDONLY));
    usleep(10000);
    for (long n; (n = read(watch, buffer, sizeof buffer)) > 0;)
        for (char *at = buffer; at < buffer + n;) {
            struct inotify_event *event = (struct inotify_event *)at;
            opens += (event->mask & IN_OPEN) != 0;
            closes += (event->mask & IN_CLOSE) != 0;
            at += sizeof *event + event->len;
        }
    close(watch);
    printf("watched: %d opens, %d closes\n", opens, closes);
    fflush(stdout);
}

/* Handlers that open files as well, and that jump out of whatever they have interrupted. */
static volatile sig_atomic_t ticks, wrong, jumps;
static sigjmp_buf out;

static void tick(int sig)
{
    (void)sig;
    int old = errno, fd = open("other", O_RDONLY);
    ticks++;
    wrong += fd < 3 || letter(fd) != 'o';
    close(fd);
    errno = old;
    if (jumps)
        siglongjmp(out, 1);
}

static void every(int microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, 0);
}

static void signals(void)
{
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    every(300);
    for (int i = 0; i < 5 * BUSY || ticks < 20; i++) {
        int fd = open("file", O_RDONLY);
        wrong += fd != 3 || letter(fd) != 'f';
        close(fd);
    }
    every(0);
    printf("signals: %d wrong\n", wrong);
    jumps = 1;
    for (volatile int round = 0; round < 50; round++)
        if (!sigsetjmp(out, 1)) {
            every(400);
            for (;;) {
                int fd = open(round % 2 ? "file" : "third", O_RDONLY);
                wrong += letter(fd) != (round % 2 ? 'f' : 't');
                close(fd);
            }
        } else {
            every(0);
        }
    /* What a jump has cost: a descriptor that nobody knows. */
    for (int fd = 3; fd < 200; fd++)
        close(fd);
    printf("jumps: %d wrong\n", wrong);
    fflush(stdout);
}

/* A child that goes on by itself, and one that does not; neither sees more than it should. */
static void children(void)
{
    list("parent");
    fflush(stdout);
    if (!fork()) {
        list("child");
        get_busy();
        numbers();
        list("busy child");
        if (!fork()) {
            numbers();
            list("grandchild");
            _exit(0);
        }
        wait(0);
        numbers();
        _exit(0);
    }
    wait(0);
    for (int i = 0; i < 5; i++) {
        char *argv[] = {"opens", "list", 0};
        pid_t pid;
        posix_spawn(&pid, "/proc/self/exe", 0, 0, argv, environ);
        waitpid(pid, 0, 0);
    }
    numbers();
}

/* All descriptors closed, and others in their places: what is in those is nobody else's to read. */
static void closed(void)
{
    int pair[2];
    syscall(SYS_close_range, 3, ~0u, 0);
    list("closed");
    numbers();
    get_busy();
    numbers();
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    int top = limit.rlim_cur < 1024 ? limit.rlim_cur : 1024, lost = 0, bad = 0;
    for (int fd = 990; fd < top; fd++)
        dup2(pair[0], fd);
    write(pair[1], "message", 7);
    for (int i = 0; i < BUSY; i++) {
        int fd = open("file", O_RDONLY);
        bad += fd != 5 || letter(fd) != 'f';
        close(fd);
    }
    char text[8] = "";
    lost += recv(pair[0], text, 7, MSG_DONTWAIT) != 7 || strcmp(text, "message");
    printf("in other places: %d bad, %d lost\n", bad, lost);
    for (int fd = 990; fd < top; fd++)
        close(fd);
    close(pair[0]);
    close(pair[1]);
    numbers();
}

static void make(const char *path, const char *text)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    write(fd, text, strlen(text));
    close(fd);
}

/* A child that may do less takes what it can get of what its parent opens. */
static void less_privileged(void)
{
    if (geteuid())
        return;
    make("secret", "secret");
    chmod("secret", 0600);
    get_busy();
    pid_t pid = fork();
    if (!pid) {
        int taken = 0;
        if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
            perror("setresuid");
        /* What was on its way before is nothing that it might not have had. */
        usleep(50000);
        for (int i = 0; i < 100000; i++) {
            char text[8], control[64];
            struct iovec vector = {text, sizeof text};
            struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control,
                                     .msg_controllen = sizeof control};
            taken += recvmsg(1000, &message, MSG_DONTWAIT) >= 0;
        }
        printf("taken: %d\n", taken);
        fflush(stdout);
        _exit(0);
    }
    int bad = 0;
    while (waitpid(pid, 0, WNOHANG) != pid) {
        int fd = open("secret", O_RDONLY);
        bad += letter(fd) != 's';
        close(fd);
    }
    printf("secret: %d bad\n", bad);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        list("another program");
        return 0;
    }
    make("file", "file");
    make("other", "other");
    make("third", "third");
    make("readonly", "readonly");
    chmod("readonly", 0444);
    mkdir("dir", 0755);
    make("dir/inside", "inside");
    symlink("file", "link");
    list("at first");
    get_busy();
    numbers();
    kinds();
    directories();
    full_table();
    small_tables();
    list("busy");
    children();
    less_privileged();
    signals();
    numbers();
    closed();
    watched();
    list("at last");
    return 0;
}

/* Calls that change something, over and over: what each gives, and that each is made once, whatever comes in
   between: signals, jumps out of their handlers, children of these, threads, ends. */
#include "check.h"
#include <pthread.h>
#include <setjmp.h>

enum { BUSY = 300, PAGE = 4096 };

/* How often each result came, in the order in which they first came; errors are negative. */
static struct {
    long value[8];
    int count[8], n;
} t;

static void add(long value)
{
    int i = 0;
    while (i < t.n && t.value[i] != value)
        i++;
    if (i == 8)
        return;
    if (i == t.n)
        t.value[t.n++] = value;
    t.count[i]++;
}

static void show(const char *what)
{
    printf("%s:", what);
    for (int i = 0; i < t.n; i++)
        printf(" %ld x%d", t.value[i], t.count[i]);
    printf("\n");
    fflush(stdout);
    memset(&t, 0, sizeof t);
}

static long status(long result)
{
    return result < 0 ? -errno : result;
}

#define MANY(what, expr) do { \
    for (int i = 0; i < BUSY; i++) \
        add(status(expr)); \
    show(what); \
} while (0)

static int make(const char *name, int flags)
{
    int fd = open(name, O_CREAT | O_WRONLY | flags, 0644);
    return fd < 0 || close(fd) ? -1 : 0;
}

static const char *numbered(const char *prefix, int i)
{
    static char name[32];
    snprintf(name, sizeof name, "%s%d", prefix, i);
    return name;
}

static int there(const char *name)
{
    struct stat st;
    return !lstat(name, &st);
}

static void results(void)
{
    struct stat st;
    char *two = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *end = two + 2 * PAGE;
    munmap(end, PAGE);
    make("file", 0);
    mkdir("full", 0755);
    make("full/x", 0);
    MANY("open with O_EXCL", make(numbered("e", i / 2), O_EXCL));
    MANY("unlink", unlink(numbered("e", i)));
    MANY("creat and unlinkat", (close(creat("c", 0600)), unlinkat(AT_FDCWD, "c", 0)));
    MANY("open of a directory", make("full", 0));
    MANY("open below nothing", make("nothing/x", 0));
    MANY("mkdir", mkdir(numbered("d", i / 2), 0700));
    MANY("rmdir", i % 2 ? rmdir(numbered("d", i / 2)) : unlinkat(AT_FDCWD, numbered("d", i / 2), AT_REMOVEDIR));
    MANY("rmdir of a full one", rmdir("full"));
    MANY("rename", i % 2 ? rename("g", "file") : rename("file", "g"));
    MANY("rename of nothing", rename("g", "h"));
    MANY("rename below nothing", renameat(AT_FDCWD, "file", AT_FDCWD, "nothing/x"));
    MANY("renameat2", syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, i % 2 ? "full" : "file", 1));
    MANY("link", i % 3 ? unlink("l") : link("file", "l"));
    MANY("symlink", i % 3 ? unlink("s") : symlink("text", "s"));
    MANY("symlink to nothing", symlink("", "s"));
    MANY("mknod", i % 2 ? unlink("p") : mknod("p", S_IFIFO | 0600, 0));
    MANY("chmod", chmod("file", i % 2 ? 0600 : 0640) ?: stat("file", &st) ?: (int)st.st_mode & 07777);
    int fd = open("file", O_RDWR), ends[2], dir = open("full", O_RDONLY | O_DIRECTORY);
    MANY("fchmod", fchmod(i % 2 ? fd : 77, 0600));
    if (pipe(ends))
        return;
    MANY("fchmod of a pipe", fchmod(ends[0], 0600));
    MANY("chown", i % 2 ? chown("file", -1, -1) : lchown("nothing", -1, -1));
    struct timespec *times = (struct timespec *)(two + PAGE - 16);
    for (int i = 0; i < 3; i++)
        times[i] = (struct timespec){1000 + i, 5};
    MANY("utimensat", utimensat(AT_FDCWD, "file", times + 1 - i % 2, 0) ?: stat("file", &st) ?: st.st_mtime);
    MANY("futimens", futimens(fd, i % 2 ? times : 0) ?: stat("file", &st) ?: st.st_mtime == 1001);
    char *volatile nowhere = 0;
    MANY("utimensat at a bad address", utimensat(AT_FDCWD, "file", (void *)(nowhere + 8), 0));
    times[0].tv_nsec = -1;
    MANY("utimensat of no time", utimensat(AT_FDCWD, "file", times, 0));
    struct timeval parts[2] = {{7, 1}, {9, 2}};
    MANY("utimes", utimes("file", i % 2 ? parts : 0) ?: stat("file", &st) ?: st.st_mtime == 9);
    MANY("truncate", truncate("file", i % 100 - 1) ?: stat("file", &st) ?: st.st_size > 5);
    MANY("open with O_TRUNC", make("file", O_TRUNC) ?: stat("file", &st) ?: st.st_size);
    MANY("chdir", i % 2 ? chdir("..") : chdir("full"));
    MANY("fchdir", i % 2 ? chdir("..") : fchdir(dir));
    MANY("unlinkat", i % 2 ? unlinkat(dir, "y", 0) : mkdirat(dir, "y", 0) ?: unlinkat(dir, "y", AT_REMOVEDIR));
    MANY("umask", umask(i % 2 ? 022 : 027));
    umask(022);
    MANY("at no address", mkdir(nowhere, 0) + rename("file", nowhere));
    MANY("at a bad address", mkdir(nowhere + 8, 0));
    MANY("to a bad address", rename("file", nowhere + 8));
    strcpy(end - 3, "dd");
    MANY("path at the end", i % 2 ? rmdir(end - 3) : mkdir(end - 3, 0700));
    strcpy(end - 12, "of two");
    MANY("path before the end", i % 2 ? rename(end - 12, "file") : rename("file", end - 12));
    strcpy(two + PAGE - 3, "across");
    MANY("path across pages", i % 2 ? rename(two + PAGE - 3, "file") : rename("file", two + PAGE - 3));
    char name[2000];
    memset(name, 'n', sizeof name);
    for (int length = 100; length < 1900; length += 10) {
        name[length] = 0;
        add(status(link("file", name)));
        add(status(unlink(name)));
        name[length] = 'n';
    }
    show("long names");
    /* Rights of what has been made are no matter of who has made it. */
    MANY("made unreadable", (fd = open("u", O_CREAT | O_EXCL | O_RDWR, 0)) < 0 ? -1 : write(fd, "x", 1) + close(fd) + unlink("u"));
    for (int i = 0; i < BUSY; i++) {
        fd = open("o", O_CREAT | O_TRUNC | O_RDWR | (i % 2 ? O_CLOEXEC : 0), 0600);
        add((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        close(fd);
    }
    show("flags of descriptors");
    struct rlimit { unsigned long now, most; } limit, none = {0, 0};
    syscall(SYS_prlimit64, 0, 7, 0, &limit);
    none = (struct rlimit){3, limit.most};
    syscall(SYS_prlimit64, 0, 7, &none, 0);
    MANY("no descriptor left", make("o", 0));
    syscall(SYS_prlimit64, 0, 7, &limit, 0);
}

static volatile sig_atomic_t ticks, wrong, forks, in_child, seen;
static char handlers[32], current[32];
static sigjmp_buf out;

static void every(int microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, 0);
}

/* Makes and removes a file of its own. */
static void tick(int sig)
{
    (void)sig;
    int old = errno;
    ticks++;
    wrong += make(handlers, O_EXCL) || make(handlers, O_EXCL) != -1 || errno != EEXIST || unlink(handlers);
    errno = old;
}

static void handle(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
}

static void one_round(int i)
{
    char a[32], b[32];
    snprintf(a, sizeof a, "a%d", i % 50);
    snprintf(b, sizeof b, "b%d", i % 50);
    wrong += make(a, O_EXCL) != 0;
    wrong += link(a, b) != 0;
    wrong += unlink(a) != 0;
    wrong += rename(b, a) != 0;
    wrong += mkdir(b, 0700) != 0;
    wrong += rmdir(b) != 0;
    wrong += symlink(a, b) != 0;
    wrong += unlink(b) != 0;
    wrong += unlink(a) != 0;
    wrong += unlink(a) != -1 || errno != ENOENT;
}

static void signals(void)
{
    snprintf(handlers, sizeof handlers, "handlers");
    handle(tick);
    every(1000);
    int i = 0;
    while (i < 2 * BUSY || ticks < 30)
        one_round(i++);
    every(0);
    printf("signals: %d wrong\n", wrong);
    sigset_t none, now;
    sigemptyset(&none);
    sigprocmask(SIG_BLOCK, 0, &now);
    printf("mask as it was: %d\n", !memcmp(&now, &none, 8));
    fflush(stdout);
}

/* What a handler that does not return finds is what remains. */
static void jump(int sig)
{
    (void)sig;
    seen = there(current);
    siglongjmp(out, 1);
}

static void jumping(void)
{
    /* In children, as a jump leaves the busy parts of a process for good. */
    for (int round = 0; round < 30; round++) {
        pid_t pid = fork();
        if (pid) {
            int end;
            waitpid(pid, &end, 0);
            wrong += end != 0;
            continue;
        }
        handle(jump);
        volatile int i = 0;
        for (; i < 100; i++)
            one_round(i);
        if (!sigsetjmp(out, 1)) {
            every(1000 + 17 * round);
            for (;; i++) {
                snprintf(current, sizeof current, "j%d", i);
                make(current, O_EXCL);
                unlink(current);
            }
        }
        every(0);
        struct timespec moment = {0, 2000000};
        nanosleep(&moment, 0);
        int bad = there(current) != seen;
        if (seen)
            bad |= unlink(current) != 0;
        _exit(bad);
    }
    printf("jumps: %d wrong\n", wrong);
    fflush(stdout);
}

static volatile sig_atomic_t calling, by_child;

/* Forks a child that comes back from here first, into the call that has been interrupted or to behind it. */
static void fork_in_handler(int sig)
{
    (void)sig;
    if (!calling || by_child || in_child || forks >= 30)
        return;
    int old = errno, before = there(current);
    pid_t pid = fork();
    if (!pid) {
        in_child = 1;
    } else {
        int end;
        waitpid(pid, &end, 0);
        wrong += end != 0;
        forks++;
        by_child |= !before;
    }
    errno = old;
}

static void forking(void)
{
    handle(fork_in_handler);
    for (int i = 0; i < 100; i++)
        one_round(i);
    every(700);
    for (int i = 0; forks < 30; i++) {
        by_child = 0;
        snprintf(current, sizeof current, "k%d", i);
        calling = 1;
        int result = mkdir(current, 0700);
        calling = 0;
        if (in_child)
            _exit(result != 0 || !there(current));
        wrong += by_child ? result != -1 || errno != EEXIST : result != 0;
        wrong += rmdir(current) != 0;
    }
    every(0);
    printf("forks in handlers: %d wrong\n", wrong);
    fflush(stdout);
}

static int files(void)
{
    int n = 0;
    DIR *dir = opendir(".");
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] == 'x';
    closedir(dir);
    return n;
}

/* Nothing is made any more by whoever has been waited for. */
static void ends(void)
{
    int changed = 0;
    for (int round = 0; round < 12; round++) {
        pid_t pid = fork();
        if (!pid)
            for (int i = 0;; i++) {
                char name[32];
                snprintf(name, sizeof name, "x%d", i);
                make(name, O_EXCL);
                if (i >= 20) {
                    snprintf(name, sizeof name, "x%d", i - 20);
                    unlink(name);
                }
            }
        usleep(3000 + 811 * round);
        kill(pid, SIGKILL);
        waitpid(pid, 0, 0);
        int before = files();
        usleep(1000);
        changed += files() != before;
        if (system("rm -f x*"))
            for (int i = 0; i < 20000; i++)
                unlink(numbered("x", i));
    }
    printf("ends: %d changed\n", changed);
    fflush(stdout);
}

static volatile int made[2];

static void *racer(void *arg)
{
    int self = arg != 0;
    for (int i = 0; i < 2 * BUSY; i++) {
        char name[32];
        snprintf(name, sizeof name, "r%d", i);
        made[self] += make(name, O_EXCL) == 0;
    }
    return 0;
}

static void threads(void)
{
    pthread_t other;
    pthread_create(&other, 0, racer, (void *)1);
    racer(0);
    pthread_join(other, 0);
    int gone = 0;
    for (int i = 0; i < 2 * BUSY; i++)
        gone += unlink(numbered("r", i)) == 0;
    printf("threads: %d made, %d gone\n", made[0] + made[1], gone);
    fflush(stdout);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    mkdir("once", 0755);
    if (chdir("once"))
        return 2;
    for (int i = 0; i < 200; i++)
        there("nothing");
    results();
    signals();
    jumping();
    forking();
    ends();
    threads();
    return 0;
}

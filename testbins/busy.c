/* Call sites that are used over and over, and all that can happen to a call at one: bad pointers, pages' ends,
   signals, jumps out of handlers, children, threads, other programs, filters, registers. */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

enum { BUSY = 3000, PAGE = 4096 };

/* How often each result came, in the order in which they first came; errors are negative. */
struct tally {
    long value[8];
    int count[8], n;
};

static void add(struct tally *t, long value)
{
    for (int i = 0; i < t->n; i++)
        if (t->value[i] == value) {
            t->count[i]++;
            return;
        }
    if (t->n < 8) {
        t->value[t->n] = value;
        t->count[t->n++] = 1;
    }
}

static void show(const char *what, struct tally *t)
{
    printf("%s:", what);
    for (int i = 0; i < t->n; i++)
        printf(" %ld x%d", t->value[i], t->count[i]);
    printf("\n");
    fflush(stdout);
    memset(t, 0, sizeof *t);
}

static struct tally t;

static long status(int result)
{
    return result < 0 ? -errno : result;
}

/* Two pages, and nothing behind them. */
static char *pages(void)
{
    char *p = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(p + 2 * PAGE, PAGE);
    return p;
}

static void pointers(void)
{
    struct stat st;
    char *two = pages(), *end = two + 2 * PAGE;
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat("file", &st)));
    show("stat", &t);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat("missing", &st)));
    show("stat of nothing", &t);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat((char *)8, &st)));
    show("stat at a bad address", &t);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat("file", (struct stat *)16)));
    show("stat to a bad address", &t);
    strcpy(end - 5, "file");
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat(end - 5, &st)));
    show("path up to the end", &t);
    memcpy(end - 4, "file", 4);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat(end - 4, &st)));
    show("path beyond the end", &t);
    strcpy(two + PAGE - 2, "file");
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat(two + PAGE - 2, &st)));
    show("path across pages", &t);
    for (int i = 0; i < BUSY; i++) {
        struct stat *at = (struct stat *)(two + PAGE - 8 - i % 128);
        memset(at, 0x55, sizeof *at);
        add(&t, status(stat("file", at)) ?: at->st_size);
    }
    show("result across pages", &t);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat("file", (struct stat *)(end - sizeof st + 8))));
    show("result beyond the end", &t);
    mprotect(two, PAGE, PROT_READ);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat("file", (struct stat *)two)));
    show("result to read-only memory", &t);
    char name[2000];
    memset(name, 'n', sizeof name);
    for (int length = 200; length < 1400; length += 10)
        for (int i = 0; i < 20; i++) {
            name[length] = 0;
            add(&t, status(stat(name, &st)));
            name[length] = 'n';
        }
    show("long names", &t);
    char text[16] = "................";
    for (int i = 0; i < BUSY; i++)
        add(&t, status(readlink("link", text + i % 4, i % 6)));
    show("readlink", &t);
    printf("%.16s\n", text);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(access("file", i % 2 ? R_OK : X_OK)));
    show("access", &t);
    int fd = open("file", O_RDONLY);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(fstat(i % 3 ? fd : 77, &st)));
    show("fstat", &t);
    close(fd);
}

static volatile sig_atomic_t ticks, wrong;
static sigjmp_buf out;
static int jumps;

static void tick(int sig)
{
    (void)sig;
    struct stat st;
    int old = errno;
    ticks++;
    wrong += stat("missing", &st) != -1 || errno != ENOENT || stat("file", &st) || st.st_size != 5;
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
    struct stat st;
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    every(300);
    for (int i = 0; i < 20 * BUSY || ticks < 20; i++)
        wrong += stat("file", &st) || st.st_size != 5 || access("missing", F_OK) != -1 || errno != ENOENT;
    every(0);
    printf("signals: %d wrong\n", wrong);
    jumps = 1;
    volatile int left = 0;
    for (volatile int round = 0; round < 20; round++)
        if (!sigsetjmp(out, 1)) {
            every(500);
            for (;;)
                wrong += stat("file", &st) || st.st_size != 5;
        } else {
            every(0);
            left++;
        }
    printf("jumps: %d, %d wrong\n", left, wrong);
    fflush(stdout);
}

static volatile sig_atomic_t forked, in_child;

static void fork_in_handler(int sig)
{
    (void)sig;
    if (forked >= 20)
        return;
    forked++;
    pid_t pid = fork();
    if (!pid)
        in_child = 1;
}

/* Handlers that fork; the children go on where the call was interrupted. */
static void forks_in_handlers(void)
{
    struct stat st;
    struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    every(700);
    while (forked < 20 && !in_child)
        wrong += stat("file", &st) || st.st_size != 5;
    if (in_child) {
        for (int i = 0; i < 200; i++)
            wrong += stat("file", &st) || st.st_size != 5;
        _exit(wrong != 0);
    }
    every(0);
    int end, bad = 0;
    while (wait(&end) > 0)
        bad += end != 0;
    /* A layer may lose one that was forked between two certain instructions. */
    printf("forks in handlers: %s\n", bad < 5 ? "good" : "bad");
    fflush(stdout);
}

/* Signals that come while a process gets busy, real-time ones among them, and one that is blocked all the time. */
static void count(int sig)
{
    (void)sig;
    ticks++;
}

static void signals_at_first(void)
{
    for (int i = 0; i < 30; i++) {
        if (!fork()) {
            struct stat st;
            struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
            sigaction(SIGRTMIN + 1, &action, 0);
            sigaction(SIGTRAP, &action, 0);
            sigset_t trap, now;
            sigemptyset(&trap);
            sigaddset(&trap, SIGTRAP);
            sigprocmask(SIG_BLOCK, &trap, 0);
            struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
            struct itimerspec often = {{0, 50000}, {0, 50000}};
            timer_t timer;
            timer_create(CLOCK_MONOTONIC, &event, &timer);
            timer_settime(timer, 0, &often, 0);
            int bad = 0;
            for (int k = 0; k < 400; k++)
                bad |= stat("file", &st) != 0;
            sigprocmask(SIG_BLOCK, 0, &now);
            bad |= !sigismember(&now, SIGTRAP) << 1 | sigismember(&now, SIGRTMIN + 1) << 2;
            bad |= (fcntl(3, F_GETFD) != -1) << 3;
            _exit(bad);
        }
        int end;
        wait(&end);
        add(&t, end);
    }
    show("signals at first", &t);
}

static void children(void)
{
    struct stat st;
    mkdir("dir", 0755);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat("file", &st)));
    if (!fork()) {
        /* Its own directory, which its parent does not share. */
        for (int i = 0; i < BUSY; i++) {
            add(&t, status(chdir("dir")));
            add(&t, status(stat("file", &st)));
            add(&t, status(chdir("..")));
            add(&t, status(stat("file", &st)));
        }
        show("child", &t);
        if (!fork()) {
            for (int i = 0; i < BUSY; i++)
                add(&t, status(stat("missing", &st)));
            show("grandchild", &t);
            _exit(0);
        }
        wait(0);
        _exit(0);
    }
    wait(0);
    for (int i = 0; i < BUSY; i++)
        add(&t, status(stat("file", &st)));
    show("parent", &t);
    for (int i = 0; i < 20; i++) {
        pid_t pid = vfork();
        if (!pid) {
            /* It has its own descriptors and directory, and its parent's memory. */
            dup2(open("dir", O_RDONLY), 9);
            chdir("dir");
            for (int k = 0; k < 100; k++)
                add(&t, status(stat("file", &st)) + status(fstatat(9, ".", &st, 0)));
            _exit(0);
        }
        waitpid(pid, 0, 0);
        add(&t, status(stat("file", &st)));
        add(&t, status(fstatat(9, ".", &st, 0)));
    }
    show("vfork", &t);
    for (int i = 0; i < 20; i++) {
        char *argv[] = {"busy", "child", 0};
        pid_t pid;
        int end = 0;
        add(&t, posix_spawn(&pid, "/proc/self/exe", 0, 0, argv, environ));
        waitpid(pid, &end, 0);
        add(&t, WEXITSTATUS(end));
    }
    show("spawned", &t);
}

static void *thread(void *arg)
{
    struct stat st;
    long bad = 0;
    for (int i = 0; i < BUSY; i++)
        bad += stat("file", &st) || st.st_size != 5 || access("missing", F_OK) != -1;
    (void)arg;
    return (void *)bad;
}

static void threads(void)
{
    pthread_t threads[4];
    long bad = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], 0, thread, 0);
    bad += (long)thread(0);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad += (long)result;
    }
    printf("threads: %ld bad\n", bad);
    fflush(stdout);
}

/* One site, all registers that a call keeps, and its flags. */
static int registers(int round)
{
    struct stat st;
    register long r10 __asm__("r10") = 10, r8 __asm__("r8") = 8, r9 __asm__("r9") = 9;
    unsigned long result, flags, rcx, here, rdi = (unsigned long)(round % 2 ? "file" : "missing"),
                                            rsi = (unsigned long)&st, rdx = 77, want;
    want = round & 0x1 | (round & 2) << 1 | (round & 4) << 2 | (round & 8) << 3 | (round & 16) << 3;
    want |= round & 32 ? 0x800 : 0;
    __asm__ volatile("lea 1f(%%rip), %[here]\n\t"
                     "sub $128, %%rsp\n\t"
                     "push %[want]\n\tpopf\n\t"
                     "mov $4, %%eax\n\t"
                     "syscall\n"
                     "1:\tpushf\n\tpop %[flags]\n\t"
                     "lea 128(%%rsp), %%rsp"
                     : "=a"(result), "=c"(rcx), [flags] "=&r"(flags), [here] "=&r"(here), "+D"(rdi), "+S"(rsi),
                       "+d"(rdx), "+r"(r10), "+r"(r8), "+r"(r9)
                     : [want] "r"(want)
                     : "r11", "memory", "cc");
    int bad = result != (round % 2 ? 0ul : -2ul);
    bad |= (rcx != here) << 1;
    bad |= ((flags & 0x8d5) != (want & 0x8d5)) << 2;
    bad |= (rsi != (unsigned long)&st || rdx != 77) << 3;
    bad |= (r10 != 10 || r8 != 8 || r9 != 9) << 4;
    return bad;
}

/* Enters a site at its `syscall` instruction, with a number of its own. */
static long inside(long nr)
{
    long result;
    static volatile int other;
    __asm__ volatile("cmp $0, %[other]\n\t"
                     "jne 1f\n\t"
                     "mov $102, %%eax\n"
                     "1:\tsyscall"
                     : "=a"(result)
                     : [other] "r"((int)(nr != 102)), "a"(nr)
                     : "rcx", "r11", "memory", "cc");
    (void)other;
    return result;
}

static void sites(void)
{
    for (int i = 0; i < 2 * BUSY; i++)
        add(&t, registers(i));
    show("registers", &t);
    long own = getpid(), uid = getuid();
    for (int i = 0; i < BUSY; i++)
        add(&t, inside(102) == uid && inside(39) == own);
    show("jumps into a site", &t);
}

/* Whoever hands over a descriptor leaves no trace in where its receiver may run. */
static void processors(void)
{
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    int all = CPU_COUNT(&set);
    for (int i = 0; i < 4 * BUSY; i++) {
        int fd = open("file", O_RDONLY);
        sched_getaffinity(0, sizeof set, &set);
        add(&t, fd < 0 || CPU_COUNT(&set) != all);
        close(fd);
    }
    show("processors", &t);
}

static void filtered(void)
{
    struct stat st;
    if (!fork()) {
        for (int i = 0; i < BUSY; i++)
            add(&t, status(access("file", F_OK)));
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_access, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 99),
            /* What an agent might need of its own. */
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_gettid, 1, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigpending, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        add(&t, status(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0)));
        for (int i = 0; i < BUSY; i++)
            add(&t, status(access("file", F_OK)));
        for (int i = 0; i < BUSY; i++)
            add(&t, status(stat("file", &st)));
        show("with a filter", &t);
        _exit(0);
    }
    int end;
    wait(&end);
    printf("filtered: %d\n", end);
}

int main(int argc, char **argv)
{
    struct stat st;
    if (argc > 1 && !strcmp(argv[1], "child")) {
        for (int i = 0; i < 200; i++)
            if (stat("file", &st) || st.st_size != 5)
                return 1;
        return 7;
    }
    setvbuf(stdout, 0, _IOLBF, 0);
    int fd = open("file", O_CREAT | O_RDWR, 0644);
    if (write(fd, "hello", 5) != 5)
        return 2;
    close(fd);
    symlink("file", "link");
    pointers();
    signals();
    signals_at_first();
    sites();
    forks_in_handlers();
    children();
    processors();
    filtered();
    threads();
    /* After all that, with a lock that a jump has left behind. */
    for (int i = 0; i < BUSY; i++)
        add(&t, status(unlink(i % 2 ? "file" : "link")));
    show("unlink", &t);
    return 0;
}

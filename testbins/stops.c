/* Processes that stop and go on: what their parent is told, and that all their threads do. */
#include "check.h"
#include <pthread.h>

static volatile long *counters; /* shared with the child */

static void told(pid_t pid, int options)
{
    int status = 0;
    pid_t got = waitpid(pid, &status, options);
    printf("waitpid: %s", got == pid ? "it" : got == 0 ? "nothing" : got == -1 ? errname(errno) : "another");
    if (got == pid && WIFSTOPPED(status))
        printf(" stopped by %d", WSTOPSIG(status));
    else if (got == pid && WIFCONTINUED(status))
        printf(" continued");
    else if (got == pid && WIFEXITED(status))
        printf(" exited with %d", WEXITSTATUS(status));
    else if (got == pid && WIFSIGNALED(status))
        printf(" killed by %d", WTERMSIG(status));
    printf("\n");
}

static void informed(pid_t pid, int options)
{
    siginfo_t i = {0};
    int r = waitid(P_PID, pid, &i, options);
    printf("waitid: %d code %d status %d\n", r, i.si_code, i.si_status);
}

static void pause_a_while(long us)
{
    struct timespec t = {0, us * 1000};
    nanosleep(&t, NULL);
}

static pid_t child_of(void (*body)(int *, int *), int *to, int *from)
{
    pipe(to);
    pipe(from);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(to[1]);
        close(from[0]);
        body(to, from);
        _exit(7);
    }
    close(to[0]);
    close(from[1]);
    return pid;
}

static void tell(int fd)
{
    if (write(fd, "x", 1) != 1)
        printf("nobody reads\n");
}

static int hear(int fd)
{
    char c = 0;
    return read(fd, &c, 1) == 1 ? c : -1;
}

static void stops_itself(int *to, int *from)
{
    raise(SIGSTOP);
    tell(from[1]);
    hear(to[0]);
    raise(SIGSTOP);
    hear(to[0]);
}

static void waits(int *to, int *from)
{
    tell(from[1]);
    int c = hear(to[0]);
    tell(from[1]);
    _exit(c == 'x' ? 5 : 6);
}

static void sleeps(int *to, int *from)
{
    (void)to;
    struct timespec t = {1, 0}, left;
    tell(from[1]);
    _exit(nanosleep(&t, &left) == 0 ? 5 : 6);
}

static volatile sig_atomic_t continued, asked;
static void on_cont(int n) { (void)n, continued = 1; }
static void on_tstp(int n) { (void)n, asked = 1; }

static void handles(int *to, int *from)
{
    signal(SIGCONT, on_cont);
    signal(SIGTSTP, on_tstp);
    raise(SIGTSTP);
    tell(from[1]);
    raise(SIGSTOP);
    hear(to[0]);
    _exit(10 * asked + continued);
}

static void *counts(void *arg)
{
    volatile long *c = &counters[(long)arg];
    for (;;) {
        ++*c;
        if ((long)arg == 1)
            close(open("/dev/null", O_RDONLY)); /* stops in a call that is emulated, too */
        if ((long)arg == 2)
            getppid();
    }
    return NULL;
}

static void many(int *to, int *from)
{
    pthread_t t;
    for (long i = 0; i < 3; i++)
        pthread_create(&t, NULL, counts, (void *)i);
    while (!counters[0] || !counters[1] || !counters[2])
        sched_yield();
    tell(from[1]);
    hear(to[0]);
    _exit(8);
}

static int moved_since(const long *before)
{
    int n = 0;
    for (int i = 0; i < 3; i++)
        n += counters[i] != before[i];
    return n;
}

/* How many threads go on: of those that do, however long that takes. */
static int moves(int expected)
{
    long before[3] = {counters[0], counters[1], counters[2]};
    for (int i = 0; i < 2000 && moved_since(before) != expected; i++)
        pause_a_while(10000);
    if (expected == 0)
        pause_a_while(50000);
    return moved_since(before);
}

int main(void)
{
    int to[2], from[2];
    begin("stops");
    counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    printf("-- it stops itself\n");
    pid_t pid = child_of(stops_itself, to, from);
    told(pid, WUNTRACED);
    told(pid, WNOHANG | WUNTRACED); /* told once */
    TRY(kill(pid, SIGCONT));
    told(pid, WCONTINUED);
    TRY(hear(from[0]));
    tell(to[1]);
    informed(pid, WSTOPPED | WNOWAIT);
    informed(pid, WSTOPPED);
    TRY(kill(pid, SIGCONT));
    informed(pid, WCONTINUED);
    tell(to[1]);
    told(pid, WUNTRACED);

    printf("-- it is stopped in a read\n");
    pid = child_of(waits, to, from);
    hear(from[0]);
    TRY(kill(pid, SIGSTOP));
    told(pid, WUNTRACED);
    tell(to[1]);
    pause_a_while(30000);
    fcntl(from[0], F_SETFL, O_NONBLOCK);
    TRY(hear(from[0])); /* nothing yet */
    told(pid, WNOHANG);
    fcntl(from[0], F_SETFL, 0);
    TRY(kill(pid, SIGCONT));
    TRY(hear(from[0]));
    told(pid, 0);

    printf("-- and in a sleep, twice\n");
    pid = child_of(sleeps, to, from);
    hear(from[0]);
    for (int i = 0; i < 2; i++) {
        TRY(kill(pid, SIGTSTP));
        told(pid, WUNTRACED);
        TRY(kill(pid, SIGCONT));
        told(pid, WCONTINUED);
    }
    told(pid, 0);

    printf("-- it has handlers\n");
    pid = child_of(handles, to, from);
    TRY(hear(from[0]));
    told(pid, WUNTRACED);
    TRY(kill(pid, SIGCONT));
    tell(to[1]);
    told(pid, 0);

    printf("-- it is killed while it is stopped\n");
    pid = child_of(waits, to, from);
    hear(from[0]);
    TRY(kill(pid, SIGSTOP));
    told(pid, WUNTRACED);
    TRY(kill(pid, SIGTERM)); /* waits until it goes on */
    told(pid, WNOHANG);
    TRY(kill(pid, SIGKILL));
    told(pid, 0);

    printf("-- all threads stop, and go on\n");
    pid = child_of(many, to, from);
    hear(from[0]);
    printf("moving: %d\n", moves(3));
    TRY(kill(pid, SIGSTOP));
    told(pid, WUNTRACED);
    printf("moving: %d\n", moves(0));
    TRY(kill(pid, SIGCONT));
    told(pid, WCONTINUED);
    printf("moving: %d\n", moves(3));
    TRY(kill(pid, SIGSTOP));
    told(pid, WUNTRACED);
    printf("moving: %d\n", moves(0));
    TRY(kill(pid, SIGKILL));
    told(pid, 0);

    printf("-- a group stops\n");
    int to2[2], from2[2];
    pid_t one = child_of(waits, to, from), two = child_of(waits, to2, from2);
    setpgid(one, one);
    setpgid(two, one);
    hear(from[0]);
    hear(from2[0]);
    TRY(kill(-one, SIGSTOP));
    told(one, WUNTRACED);
    told(two, WUNTRACED);
    TRY(kill(-one, SIGCONT));
    told(one, WCONTINUED);
    told(two, WCONTINUED);
    tell(to[1]);
    tell(to2[1]);
    told(one, 0);
    told(two, 0);
    return 0;
}

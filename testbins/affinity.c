/* Where processes and threads may run, asked in every way while they make call after call: whoever serves the calls
   leaves no trace in it. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>

enum { BUSY = 400, LOOKS = 50 };

/* Calls of both kinds, those that somebody serves and those that the kernel runs. */
static void busy(int n)
{
    struct stat st;
    for (int i = 0; i < n; i++) {
        stat("/", &st);
        getppid();
    }
}

static int asked(pid_t pid)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(pid, sizeof set, &set) < 0 ? -errno : CPU_COUNT(&set);
}

/* The number of bits in the line `Cpus_allowed:`. */
static int shown(const char *path)
{
    char line[4096];
    int n = -1;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "Cpus_allowed:", 13) == 0) {
            n = 0;
            for (char *c = line + 13; *c; c++)
                if (*c >= '0' && *c <= '9')
                    n += __builtin_popcount(*c - '0');
                else if (*c >= 'a' && *c <= 'f')
                    n += __builtin_popcount(*c - 'a' + 10);
        }
    if (f)
        fclose(f);
    return n;
}

static void say(const char *who)
{
    int by_call = asked(0);
    busy(BUSY);
    printf("%s: %d %d\n", who, by_call, shown("/proc/thread-self/status"));
    fflush(stdout);
}

static void *thread(void *who)
{
    say(who);
    return NULL;
}

/* All that can be made, by one that is busy. */
static void family(char *who)
{
    pthread_t t;
    busy(BUSY);
    say(who);
    busy(BUSY);
    pid_t child = fork();
    if (child == 0) {
        say("child");
        busy(BUSY);
        if (fork() == 0) {
            say("child of child");
            _exit(0);
        }
        wait(NULL);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    busy(BUSY);
    pthread_create(&t, NULL, thread, "thread");
    pthread_join(t, NULL);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1) {
        say(argv[1]);
        return 0;
    }
    family("all");

    /* One that is looked at by another. */
    pid_t child = fork();
    if (child == 0)
        for (;;)
            busy(BUSY);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", child);
    int all = asked(0), odd = 0;
    for (int i = 0; i < LOOKS; i++) {
        usleep(200);
        odd += asked(child) != all;
        usleep(200);
        odd += shown(path) != all;
    }
    printf("of another: %d odd\n", odd);

    /* One that another puts elsewhere. */
    cpu_set_t one;
    sched_getaffinity(0, sizeof one, &one);
    int last = 0;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &one))
            last = i;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    printf("put: %d\n", sched_setaffinity(child, sizeof one, &one));
    for (int i = 0; i < LOOKS; i++) {
        usleep(200);
        odd += asked(child) != 1;
    }
    printf("put elsewhere: %d odd\n", odd);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);

    /* Itself. */
    busy(BUSY);
    printf("set: %d\n", sched_setaffinity(0, sizeof one, &one));
    busy(BUSY);
    printf("runs there: %d\n", sched_getcpu() == last);
    family("one");
    busy(BUSY);
    fflush(stdout);
    execl("/proc/self/exe", argv[0], "other program", NULL);
    return 1;
}

/* Programs that are executed while others are about to: by two threads at once; and, as "traced", with set-id
   programs that somebody would trace. By root, in a place where set-id bits count. */
#include "check.h"
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* Only in a process that is not what it was when it started. */
static volatile long poked;

static void copy_to(const char *path, int mode)
{
    char buffer[65536];
    int from = open("/proc/self/exe", O_RDONLY), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755), n;
    while ((n = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, n) != n)
            perror("write");
    close(from);
    close(to);
    chmod(path, mode);
}

static volatile int go;

static void *execute_second(void *arg)
{
    char *argv[] = {"second", 0};
    (void)arg;
    while (!go)
        ;
    execv("second", argv);
    pause();
    return 0;
}

/* One of them is executed, with its own arguments. */
static void two_threads(void)
{
    int one = 0, mixed = 0;
    for (int i = 0; i < 200; i++) {
        pid_t pid = fork();
        if (!pid) {
            char *argv[] = {"first", 0};
            pthread_t thread;
            pthread_create(&thread, 0, execute_second, 0);
            usleep(200);
            go = 1;
            execv("first", argv);
            pause();
        }
        int end;
        waitpid(pid, &end, 0);
        one += end == 0;
        mixed += end != 0;
    }
    printf("two threads: %d, %d mixed\n", one, mixed);
    fflush(stdout);
}

/* What the set-id program does: nothing but wait for somebody to change its memory. */
static int set_id(void)
{
    for (int i = 0; i < 25 && !poked; i++)
        usleep(10000);
    return geteuid() == 0 && poked ? 77 : 0;
}

static void tracers(void)
{
    enum { ARGS = 500000 };
    struct rlimit limit;
    getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = 64 << 20;
    setrlimit(RLIMIT_STACK, &limit);
    copy_to("set-id", 04755);
    int taken = 0;
    for (int round = 0; round < 6; round++) {
        pid_t pid = fork();
        if (pid) {
            int end;
            waitpid(pid, &end, 0);
            taken += WIFEXITED(end) && WEXITSTATUS(end) == 77;
            continue;
        }
        if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
            _exit(1);
        pid_t victim = fork();
        if (!victim) {
            char **argv = calloc(ARGS + 2, sizeof *argv);
            argv[0] = "set-id";
            for (int i = 1; i <= ARGS; i++)
                argv[i] = "a";
            execv("set-id", argv);
            _exit(1);
        }
        usleep(10000 * (round + 1));
        long seized = -1;
        int end = 0;
        while (seized < 0 && waitpid(victim, &end, WNOHANG) == 0)
            seized = ptrace(PTRACE_SEIZE, victim, 0, 0);
        if (!seized) {
            usleep(100000);
            ptrace(PTRACE_INTERRUPT, victim, 0, 0);
            waitpid(victim, &end, __WALL);
            ptrace(PTRACE_POKEDATA, victim, &poked, 42);
            ptrace(PTRACE_DETACH, victim, 0, 0);
            while (waitpid(victim, &end, __WALL) == victim && !WIFEXITED(end) && !WIFSIGNALED(end))
                ptrace(PTRACE_CONT, victim, 0, 0);
        }
        _exit(WIFEXITED(end) ? WEXITSTATUS(end) : 0);
    }
    printf("taken over: %d\n", taken);
}

int main(int argc, char **argv)
{
    char own[256] = "";
    if (readlink("/proc/self/exe", own, sizeof own - 1) < 0)
        return 1;
    const char *name = strrchr(own, '/') + 1;
    if (!strcmp(name, "first") || !strcmp(name, "second"))
        return strcmp(name, argv[0]) != 0;
    if (!strcmp(name, "set-id"))
        return set_id();
    copy_to("first", 0755);
    copy_to("second", 0755);
    if (argc > 1 && !strcmp(argv[1], "traced"))
        tracers();
    else
        two_threads();
    return 0;
}

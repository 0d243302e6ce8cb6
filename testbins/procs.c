/* fork, wait, process groups, sessions, orphans, deep and wide trees, what a child inherits. */
#include "check.h"
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static int tree(int depth)
{
    if (depth == 0)
        return 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(tree(depth - 1) + 1);
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 200;
}

static volatile int shared_variable;
static int clone_body(void *arg)
{
    shared_variable = 1;
    return *(int *)arg;
}

int main(void)
{
    int status, p[2];
    char c, text[64];
    siginfo_t info;
    struct rusage usage;
    begin("procs");
    TRY(wait(NULL));
    TRY(waitpid(-1, NULL, WNOHANG));
    TRY(waitpid(999999999, NULL, 0));
    TRY(waitpid(-1, NULL, 0x1000));
    pid_t pid = fork();
    if (pid == 0)
        _exit(300);
    TRY(waitpid(pid, &status, 0) == pid);
    puts(status_text(status));
    TRY(waitpid(pid, &status, 0));
    pid = fork();
    if (pid == 0)
        _exit(9);
    TRY(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    printf("%d %d %d\n", info.si_code == CLD_EXITED, info.si_status, info.si_pid == pid);
    TRY(wait4(pid, &status, 0, &usage) == pid);
    puts(status_text(status));
    pid = fork();
    if (pid == 0) {
        msleep(100);
        _exit(1);
    }
    TRY(waitpid(pid, &status, WNOHANG));
    TRY(waitpid(0, &status, 0) == pid);
    IS(getppid() != getpid());
    CHILD("parent") {
        IS(getppid() != 1);
    }
    END_CHILD;

    /* sessions and groups */
    CHILD("session") {
        TRY(setsid() == getpid());
        TRY(getsid(0) == getpid());
        TRY(getpgid(0) == getpid());
        TRY(setsid());
        TRY(setpgid(0, 0));
        TRY(open("/dev/tty", O_RDWR));
        pid_t k = fork();
        if (k == 0) {
            TRY(getpgrp() == getppid());
            TRY(setpgid(0, 0));
            TRY(getpgrp() == getpid());
            TRY(setpgid(0, 999999));
            TRY(setpgid(getppid(), 0));
            _exit(0);
        }
        printf("%s\n", wait_for(k));
        TRY(setpgid(k, 0));
        TRY(getpgid(k));
        TRY(getsid(999999999));
    }
    END_CHILD;

    /* deep, many, parallel */
    TRY(tree(50));
    int good = 0;
    for (int i = 0; i < 2000; i++) {
        pid = fork();
        if (pid == 0)
            _exit(i & 127);
        good += waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == (i & 127);
    }
    TRY(good);
    good = 0;
    for (int i = 0; i < 200; i++)
        if (fork() == 0) {
            for (int k = 0; k < 5; k++) {
                pid_t q = fork();
                if (q == 0)
                    _exit(k);
                if (waitpid(q, &status, 0) != q || WEXITSTATUS(status) != k)
                    _exit(1);
            }
            _exit(0);
        }
    while (wait(&status) > 0)
        good += status == 0;
    TRY(good);
    pid = vfork();
    if (pid == 0)
        _exit(21);
    printf("vfork %s\n", wait_for(pid));

    /* an orphan keeps directory, umask and descriptors, and gets a new parent */
    MUST(mkdir("there", 0755));
    MUST(pipe(p));
    pid = fork();
    if (pid == 0) {
        MUST(chdir("there"));
        umask(077);
        MUST(setsid());
        if (fork() == 0) {
            for (int i = 0; i < 1000 && getppid() == getsid(0); i++)
                msleep(10);
            int fd = open("made", O_CREAT | O_WRONLY, 0666);
            char r = fd >= 0 && getppid() != getsid(0) ? 'y' : 'n';
            MUST(write(p[1], &r, 1));
            _exit(0);
        }
        _exit(0);
    }
    printf("%s\n", wait_for(pid));
    close(p[1]);
    TRY(read(p[0], &c, 1));
    TRY(c == 'y');
    TRY(read(p[0], &c, 1));
    struct stat st;
    TRY(stat("there/made", &st));
    printf("%o\n", st.st_mode);
    close(p[0]);

    /* the child's directory is its own, unless CLONE_FS */
    CHILD("chdir in the child") {
        MUST(chdir("there"));
    }
    END_CHILD;
    TRY(access("there", F_OK));
    static char stack[65536];
    int answer = 17;
    pid = clone(clone_body, stack + sizeof stack, SIGCHLD, &answer);
    printf("%s\n", wait_for(pid));
    TRY(shared_variable);
    pid = clone(clone_body, stack + sizeof stack, SIGCHLD | CLONE_VM, &answer);
    printf("%s\n", wait_for(pid));
    TRY(shared_variable);
    pid = clone(clone_body, stack + sizeof stack, SIGCHLD | CLONE_VM | CLONE_FS | CLONE_FILES, &answer);
    printf("%s\n", wait_for(pid));

    /* prctl */
    TRY(prctl(PR_SET_NAME, "a-very-long-name-indeed"));
    TRY(prctl(PR_GET_NAME, text));
    puts(text);
    TRY(prctl(PR_SET_PDEATHSIG, SIGTERM));
    TRY(prctl(PR_GET_PDEATHSIG, &status));
    TRY(status);
    TRY(prctl(PR_SET_PDEATHSIG, 0));
    TRY(prctl(PR_GET_DUMPABLE));
    TRY(prctl(9999));
    TRY(prctl(PR_GET_KEEPCAPS));
    TRY(prctl(PR_SET_KEEPCAPS, 1));
    TRY(prctl(PR_GET_KEEPCAPS));
    TRY(prctl(PR_SET_KEEPCAPS, 2));
    TRY(prctl(PR_SET_CHILD_SUBREAPER, 1));
    TRY(prctl(PR_GET_CHILD_SUBREAPER, &status));
    TRY(status);
    pid = fork();
    if (pid == 0) {
        if (fork() == 0) {
            msleep(50);
            _exit(33);
        }
        _exit(0);
    }
    printf("%s\n", wait_for(pid));
    TRY(wait(&status) > 0);
    puts(status_text(status));

    /* limits and priorities */
    struct rlimit r = { 50, 50 };
    TRY(getpriority(PRIO_PROCESS, 0));
    TRY(setpriority(PRIO_PROCESS, 0, 5));
    TRY(getpriority(PRIO_PROCESS, 0));
    TRY(getpriority(PRIO_PROCESS, 999999999));
    CHILD("nofile") {
        MUST(setrlimit(RLIMIT_NOFILE, &r));
        for (int i = 0; i < 60; i++)
            if (open(".", O_RDONLY) < 0) {
                puts(errname(errno));
                break;
            }
        TRY(dup2(0, 50));
        TRY(pipe(p));
        TRY(socket(AF_UNIX, SOCK_STREAM, 0));
    }
    END_CHILD;
    CHILD("fsize") {
        r.rlim_cur = r.rlim_max = 10;
        MUST(setrlimit(RLIMIT_FSIZE, &r));
        signal(SIGXFSZ, SIG_IGN);
        int fd = open("big", O_CREAT | O_WRONLY, 0644);
        TRY(write(fd, "0123456789abc", 13));
        TRY(write(fd, "x", 1));
        TRY(truncate("big", 20));
        TRY(ftruncate(fd, 20));
        signal(SIGXFSZ, SIG_DFL);
        if (write(fd, "x", 1))
            _exit(1);
    }
    END_CHILD;
    CHILD("prlimit") {
        TRY(prlimit(0, RLIMIT_CORE, NULL, &r));
        r.rlim_cur = 5, r.rlim_max = 4;
        TRY(setrlimit(RLIMIT_CORE, &r));
        TRY(getrlimit(99, &r));
        TRY(prlimit(999999999, RLIMIT_CORE, NULL, &r));
    }
    END_CHILD;
    CHILD("cpu") {
        r.rlim_cur = 1, r.rlim_max = 2;
        MUST(setrlimit(RLIMIT_CPU, &r));
        for (;;)
            ;
    }
    END_CHILD;
    cpu_set_t set;
    TRY(sched_getaffinity(0, sizeof set, &set) > 0 || errno == 0);
    TRY(sched_yield());
    TRY(sched_getscheduler(0));
    TRY(sched_getscheduler(999999999));
    /* pidfd */
    pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    int fd = syscall(SYS_pidfd_open, pid, 0);
    IS(fd >= 0 || errno == ENOSYS);
    if (fd >= 0) {
        TRY(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
    } else
        kill(pid, SIGTERM);
    printf("%s\n", wait_for(pid));
    TRY(syscall(SYS_pidfd_open, 999999999, 0));
    return 0;
}

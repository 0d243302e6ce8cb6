/* Attempts of escape: other processes. */
#include "escape.h"
#include <pthread.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

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

const struct attempt processes_attempts[] = {
    ATTEMPT(stray_descriptors),
    ATTEMPT(sees_host_process),
    ATTEMPT(traces),
    ATTEMPT(traced_call_changed),
    ATTEMPT(traced_exec_changed),
    ATTEMPT(memory_of_others),
    ATTEMPT(descriptors_of_others),
    ATTEMPT(signals_everyone),
    ATTEMPT(init_survives),
    { NULL, NULL },
};

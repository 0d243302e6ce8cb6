/* clone3(2), called by its number: what only it can do, what clone can as well, and what it refuses. */
#include "check.h"
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>

static long clone3(struct clone_args *args, size_t size) { return syscall(SYS_clone3, args, size); }

static volatile int shared;
static char stack[65536] __attribute__((aligned(16)));

/* A child that shares memory and runs on a stack of its own. */
static long on_stack(struct clone_args *args, size_t size)
{
    long result;
    register long number __asm__("rax") = SYS_clone3;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "movl $7, shared(%%rip)\n\t"
                     "mov $60, %%eax\n\t"
                     "mov $9, %%edi\n\t"
                     "syscall\n\t"
                     "1:"
                     : "=a"(result)
                     : "r"(number), "D"(args), "S"(size)
                     : "rcx", "r11", "memory");
    return result;
}

int main(void)
{
    begin("clone3");
    int pidfd = -1, parent_tid = 0, status;
    struct clone_args a = { .exit_signal = SIGCHLD };
    fflush(stdout);
    pid_t pid = clone3(&a, sizeof a);
    if (pid == 0)
        _exit(getppid() > 0 ? 3 : 4);
    IS(pid > 0);
    printf("a process: %s\n", wait_for(pid));

    a.flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CLEAR_SIGHAND;
    a.pidfd = (uintptr_t)&pidfd, a.parent_tid = (uintptr_t)&parent_tid;
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, exit);
    pid = clone3(&a, sizeof a);
    if (pid == 0) {
        struct sigaction now;
        sigaction(SIGUSR2, NULL, &now);
        _exit(now.sa_handler == SIG_DFL ? 5 : 6);
    }
    IS(pid == parent_tid);
    IS(pidfd > 2);
    IS(fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
    TRY(poll(&(struct pollfd) { pidfd, POLLIN, 0 }, 1, 5000));
    siginfo_t info = { 0 };
    TRY(waitid(P_PIDFD, pidfd, &info, WEXITED));
    printf("status %d\n", info.si_status);
    close(pidfd);

    struct clone_args v = { .flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD,
                            .stack = (uintptr_t)stack, .stack_size = sizeof stack };
    pid = on_stack(&v, sizeof v);
    IS(pid > 0);
    printf("shared %d\n", shared);
    TRY(waitpid(pid, &status, 0) == pid);
    printf("ended with %d\n", WEXITSTATUS(status));

    puts("-- refused");
    struct clone_args plain = { .exit_signal = SIGCHLD };
    TRY(clone3(&plain, 8));
    TRY(clone3(&plain, 1 << 20));
    TRY(clone3(NULL, sizeof plain));
    plain.exit_signal = 1000;
    TRY(clone3(&plain, sizeof plain));
    plain = (struct clone_args) { .flags = CLONE_THREAD };
    TRY(clone3(&plain, sizeof plain));
    plain = (struct clone_args) { .flags = 1ull << 62 };
    TRY(clone3(&plain, sizeof plain));
    plain = (struct clone_args) { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = 999 };
    TRY(clone3(&plain, sizeof plain));
    plain = (struct clone_args) { .exit_signal = SIGCHLD, .stack = (uintptr_t)stack };
    TRY(clone3(&plain, sizeof plain));
    plain = (struct clone_args) { .exit_signal = SIGCHLD, .set_tid = 1, .set_tid_size = 99 };
    TRY(clone3(&plain, sizeof plain));
    return 0;
}

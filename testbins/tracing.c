/* ptrace(2) and its like between processes of one sandbox. Run as root. */
#include "check.h"
#include <elf.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

static volatile long word = 41;
static char self[4096];

/* The next stop of PID, as text that is the same each time. */
static int stop(pid_t pid)
{
    int status = 0;
    if (waitpid(pid, &status, __WALL) != pid)
        printf("  waitpid: %s\n", errname(errno));
    else if (WIFSTOPPED(status))
        printf("  stopped by %d, event %d\n", WSTOPSIG(status), status >> 16);
    else if (WIFSIGNALED(status))
        printf("  killed by %d\n", WTERMSIG(status));
    else
        printf("  ended with %d\n", WEXITSTATUS(status));
    return status;
}

static pid_t traced(void (*body)(void))
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        MUST(ptrace(PTRACE_TRACEME, 0, 0, 0));
        raise(SIGSTOP);
        body();
        _exit(0);
    }
    stop(pid);
    return pid;
}

/* Whether /proc/PID/FILE has this line. */
static int has_line(pid_t pid, const char *file, const char *line)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    FILE *f = fopen(path, "r");
    int found = 0;
    while (f && fgets(text, sizeof text, f))
        found |= strncmp(text, line, strlen(line)) == 0;
    if (f)
        fclose(f);
    return found;
}

static void wait_here(void)
{
    for (;;)
        pause();
}
static pid_t waiting(void)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        wait_here();
    return pid;
}
static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    stop(pid);
}

static void report_word(void) { _exit(word); }
static void memory_and_registers(void)
{
    struct user_regs_struct regs = { 0 };
    char line[64], path[64];
    pid_t pid = traced(report_word);
    snprintf(line, sizeof line, "TracerPid:\t%d\n", getpid());
    IS(has_line(pid, "status", line));
    IS(has_line(pid, "status", "State:\tt (tracing stop)"));
    TRY(ptrace(PTRACE_PEEKDATA, pid, &word, 0));
    TRY(ptrace(PTRACE_POKEDATA, pid, &word, 42L));
    TRY(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    IS(regs.rip != 0 && (long)regs.orig_rax == SYS_tgkill);
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDWR);
    long read_back = 0, more = 43;
    TRY(pread(mem, &read_back, sizeof read_back, (off_t)(uintptr_t)&word));
    IS(read_back == 42);
    TRY(pwrite(mem, &more, sizeof more, (off_t)(uintptr_t)&word));
    struct iovec here = { &read_back, sizeof read_back }, there = { (void *)&word, sizeof word };
    TRY(process_vm_readv(pid, &here, 1, &there, 1, 0));
    IS(read_back == 43);
    read_back = 44;
    TRY(process_vm_writev(pid, &here, 1, &there, 1, 0));
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
}

static unsigned long auxiliary(pid_t pid, unsigned long key)
{
    char path[64];
    Elf64_auxv_t all[64] = { 0 };
    snprintf(path, sizeof path, "/proc/%d/auxv", pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, all, sizeof all);
    close(fd);
    for (int i = 0; n > 0 && i < 64 && all[i].a_type; i++)
        if (all[i].a_type == key)
            return all[i].a_un.a_val;
    return 0;
}

static void run_self(void)
{
    execl(self, "other name", "seven", NULL);
    _exit(1);
}
static void execs(void)
{
    char path[64], link[4096] = "";
    struct user_regs_struct regs = { 0 };
    pid_t pid = traced(run_self);
    TRY(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL));
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    IS(regs.rip == auxiliary(pid, AT_ENTRY));
    IS(auxiliary(pid, AT_PHDR) == auxiliary(getpid(), AT_PHDR));
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    IS(readlink(path, link, sizeof link - 1) > 0 && strcmp(link, self) == 0);
    IS(has_line(pid, "comm", "tracing"));
    IS(ptrace(PTRACE_PEEKTEXT, pid, regs.rip, 0) != -1);
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    puts("-- without the option");
    pid = traced(run_self);
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    TRY(ptrace(PTRACE_DETACH, pid, 0, 0));
    stop(pid);
}

static char huge[1 << 20];
static void run_twice(void)
{
    char *many[] = { self, huge, huge, huge, huge, huge, huge, huge, NULL };
    memset(huge, 'x', sizeof huge - 1);
    execv(self, many);
    printf("too much: %s\n", errname(errno));
    execl("/nothing/here", "x", NULL);
    printf("nothing: %s\n", errname(errno));
    execl("/proc/self/cmdline", "x", NULL);
    printf("no program: %s\n", errname(errno));
    char link[4096] = "";
    IS(readlink("/proc/self/exe", link, sizeof link - 1) > 0 && strcmp(link, self) == 0);
    int fd = open(self, O_RDONLY);
    fflush(stdout);
    syscall(SYS_execveat, fd, "", (char *[]){ "x", "eight", NULL }, (char *[]){ NULL }, AT_EMPTY_PATH);
    _exit(1);
}
/* Executed by one that is traced: an execve that fails gives back nothing that was given up. */
static int gives_up(void)
{
    char *many[] = { self, huge, huge, huge, huge, huge, huge, huge, NULL };
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct caps[2] = { 0 };
    memset(huge, 'x', sizeof huge - 1);
    TRY(syscall(SYS_capset, &head, caps));
    TRY(execv(self, many));
    TRY(syscall(SYS_capget, &head, caps));
    IS(caps[0].effective == 0 && caps[0].permitted == 0);
    fflush(stdout);
    return 11;
}
static void run_gives_up(void)
{
    execl(self, self, "gives up", NULL);
    _exit(1);
}
static void run_script(void)
{
    execl("./script", "script", "arg", NULL);
    _exit(1);
}
/* Who is let go prints at once: nothing is printed here meanwhile. */
static void odd_execs(void)
{
    pid_t pid = traced(run_gives_up);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    fflush(stdout);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    pid = traced(run_twice);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    put("script", "#! ");
    int fd = open("script", O_WRONLY | O_APPEND);
    dprintf(fd, "%s args\n", self);
    close(fd);
    MUST(chmod("script", 0755));
    pid = traced(run_script);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
}

static void some_calls(void)
{
    getppid();
    open("not-there", O_RDONLY);
    mkdir("made", 0755);
    _exit(rmdir("made") ? 1 : 5);
}
static void every_call(void)
{
    char path[16];
    struct user_regs_struct regs;
    pid_t pid = traced(some_calls);
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    for (int status = 0, entry = 1;; entry = !entry) {
        ptrace(PTRACE_SYSCALL, pid, 0, 0);
        waitpid(pid, &status, 0);
        if (!WIFSTOPPED(status)) {
            printf("  ended with %d\n", WEXITSTATUS(status));
            return;
        }
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        if (WSTOPSIG(status) != (SIGTRAP | 0x80) || !entry) {
            if (regs.orig_rax != SYS_getppid)
                printf("  %lld = %lld\n", regs.orig_rax, regs.rax);
            continue;
        }
        long name = regs.orig_rax == SYS_mkdir || regs.orig_rax == SYS_rmdir ? regs.rdi :
                    regs.orig_rax == SYS_openat                             ? regs.rsi :
                                                                              0;
        struct iovec here = { path, sizeof path }, there = { (void *)name, sizeof path };
        if (name && process_vm_readv(pid, &here, 1, &there, 1, 0) > 0)
            printf("  %lld %.12s\n", regs.orig_rax, path);
    }
}

/* A call that the kernel would run becomes one that concerns a path, and the other way round. */
static const char changed_path[] = "changed";
static void two_calls(void)
{
    long first = syscall(SYS_getppid), second = syscall(SYS_rmdir, "none");
    printf("getppid: %ld, rmdir: %s\n", first, second > 0 ? "a pid" : errname(errno));
    fflush(stdout);
    _exit(0);
}
static void changed_calls(void)
{
    struct user_regs_struct regs;
    int status;
    pid_t pid = traced(two_calls);
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    for (int i = 0; i < 4; i++) {
        MUST(ptrace(PTRACE_SYSCALL, pid, 0, 0));
        waitpid(pid, &status, 0);
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        if (i == 0) {
            regs.orig_rax = SYS_mkdir;
            regs.rdi = (long)changed_path;
            regs.rsi = 0755;
        } else if (i == 2)
            regs.orig_rax = SYS_getpid;
        MUST(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    }
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    TRY(rmdir(changed_path));
}

static void fork_and_run(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execl(self, "x", "seven", NULL);
        _exit(1);
    }
    int status;
    waitpid(pid, &status, 0);
    _exit(WEXITSTATUS(status) + 1);
}
static void follows_forks(void)
{
    unsigned long child = 0;
    pid_t pid = traced(fork_and_run);
    TRY(ptrace(PTRACE_SETOPTIONS, pid, 0,
               PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    TRY(ptrace(PTRACE_GETEVENTMSG, pid, 0, &child));
    stop(child);
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    for (int i = 0; i < 3; i++) {
        MUST(ptrace(PTRACE_CONT, child, 0, 0));
        stop(child);
    }
    stop(pid);
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    stop(pid);
}

static void attaches(void)
{
    pid_t pid = waiting();
    TRY(ptrace(PTRACE_ATTACH, pid, 0, 0));
    stop(pid);
    TRY(ptrace(PTRACE_ATTACH, pid, 0, 0));
    TRY(ptrace(PTRACE_DETACH, pid, 0, 0));
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    TRY(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    TRY(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    stop(pid);
    TRY(ptrace(PTRACE_CONT, pid, 0, 0));
    end(pid);
    TRY(ptrace(PTRACE_ATTACH, getpid(), 0, 0));
    TRY(ptrace(PTRACE_ATTACH, 4194000, 0, 0));
    TRY(ptrace(PTRACE_ATTACH, -1, 0, 0));
    TRY(ptrace(9999, getpid(), 0, 0));
}

static void descriptors_and_comparisons(void)
{
    int fd = open(self, O_RDONLY), pidfd;
    pid_t pid = waiting(), me = getpid();
    pidfd = syscall(SYS_pidfd_open, pid, 0);
    int got = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    IS(got > 2);
    TRY(syscall(SYS_kcmp, me, pid, KCMP_FILE, fd, fd));
    TRY(syscall(SYS_kcmp, me, me, KCMP_FILE, fd, got));
    IS(syscall(SYS_kcmp, me, pid, KCMP_VM, 0, 0) > 0);
    TRY(syscall(SYS_pidfd_getfd, pidfd, 999, 0));
    TRY(syscall(SYS_pidfd_getfd, fd, 0, 0));
    TRY(syscall(SYS_pidfd_getfd, 999, 0, 0));
    end(pid);
    TRY(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
    TRY(syscall(SYS_kcmp, me, 4194000, KCMP_VM, 0, 0));
    close(fd), close(got), close(pidfd);
}

static void tries_on(pid_t pid)
{
    char path[64];
    struct iovec here = { path, sizeof path }, there = { (void *)self, sizeof path };
    TRY(ptrace(PTRACE_ATTACH, pid, 0, 0));
    TRY(ptrace(PTRACE_SEIZE, pid, 0, 0));
    TRY(process_vm_readv(pid, &here, 1, &there, 1, 0));
    TRY(process_vm_writev(pid, &there, 1, &there, 1, 0));
    TRY(syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0));
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    TRY(syscall(SYS_pidfd_getfd, pidfd, 1, 0));
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    TRY(open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%d/auxv", pid);
    TRY(open(path, O_RDONLY));
}

static void run_set_id(void)
{
    execl("./set-id", "x", "ids", NULL);
    _exit(1);
}
static void other_users(void)
{
    pid_t root = waiting();
    int in = open(self, O_RDONLY), out = open("set-id", O_CREAT | O_WRONLY, 0755);
    char buf[65536];
    for (ssize_t n; (n = read(in, buf, sizeof buf)) > 0;)
        MUST(write(out, buf, n));
    close(in), close(out);
    MUST(chmod("set-id", 04755));
    MUST(chmod(".", 0777));
    fflush(stdout);
    pid_t user = fork();
    if (user == 0) {
        MUST(setresgid(1000, 1000, 1000));
        MUST(setresuid(1000, 1000, 1000));
        puts("-- a user and root");
        tries_on(root);
        puts("-- a set-id program, traced");
        pid_t pid = traced(run_set_id);
        MUST(ptrace(PTRACE_CONT, pid, 0, 0));
        stop(pid);
        MUST(ptrace(PTRACE_CONT, pid, 0, 0));
        stop(pid);
        puts("-- not traced");
        fflush(stdout);
        if (fork() == 0)
            run_set_id();
        wait(NULL);
        puts("-- root and a user");
        fflush(stdout);
        raise(SIGSTOP);
        _exit(6);
    }
    int status;
    waitpid(user, &status, WUNTRACED);
    TRY(ptrace(PTRACE_SEIZE, user, 0, 0));
    char path[64];
    struct iovec here = { path, sizeof path }, there = { (void *)self, sizeof path };
    TRY(process_vm_readv(user, &here, 1, &there, 1, 0));
    kill(user, SIGCONT);
    do
        ptrace(PTRACE_CONT, user, 0, 0), waitpid(user, &status, 0);
    while (WIFSTOPPED(status));
    printf("  ended with %d\n", WEXITSTATUS(status));
    end(root);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "seven") == 0)
        return 7;
    if (argc > 1 && strcmp(argv[1], "eight") == 0) {
        /* Descriptor 3 is the program still, under its own name. */
        char link[4096] = "", exe[4096] = "";
        IS(readlink("/proc/self/fd/3", link, sizeof link - 1) > 0);
        IS(readlink("/proc/self/exe", exe, sizeof exe - 1) > 0 && strcmp(link, exe) == 0);
        return 8;
    }
    if (argc > 1 && strcmp(argv[1], "gives up") == 0) {
        snprintf(self, sizeof self, "%s", argv[0]);
        return gives_up();
    }
    if (argc > 1 && strcmp(argv[1], "ids") == 0) {
        printf("ids %d %d %d\n", getuid(), geteuid(), getegid());
        return 9;
    }
    if (argc > 1 && strcmp(argv[1], "args") == 0) {
        for (int i = 1; i < argc; i++)
            puts(argv[i]);
        return 10;
    }
    MUST(readlink("/proc/self/exe", self, sizeof self - 1));
    begin("tracing");
#define PART(name) puts("== " #name), name()
    PART(memory_and_registers);
    PART(execs);
    PART(odd_execs);
    PART(every_call);
    PART(changed_calls);
    PART(follows_forks);
    PART(attaches);
    PART(descriptors_and_comparisons);
    PART(other_users);
    return 0;
}

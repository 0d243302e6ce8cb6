/* execve(2): arguments, environment, auxiliary vector, #!, descriptors, errors. Runs itself. */
#include "check.h"
#include <elf.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/resource.h>

extern char **environ;
static char self[] = "/proc/self/exe";

static void report(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        printf("  argv[%d] '%.100s'\n", i, argv[i]);
    for (char **e = environ; *e; e++)
        printf("  env '%.60s'\n", *e);
}

static int run(const char *path, char *const argv[], char *const envp[])
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execve(path, argv, envp);
        printf("execve %.40s: %s\n", path, errname(errno));
        _exit(100);
    }
    printf("%.40s: %s\n", path, wait_for(pid));
    return 0;
}
#define RUN(path, ...) run(path, (char *[]) { __VA_ARGS__, NULL }, (char *[]) { "E=1", NULL })

static void copy(const char *from, const char *to, int mode)
{
    static char buf[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_CREAT | O_TRUNC | O_WRONLY, mode);
    ssize_t n;
    MUST(in);
    MUST(out);
    while ((n = read(in, buf, sizeof buf)) > 0)
        MUST(write(out, buf, n));
    close(in);
    close(out);
}
static void script(const char *path, const char *text)
{
    put(path, text);
    MUST(chmod(path, 0755));
}

static void *exec_thread(void *unused)
{
    char *argv[] = { "exec", "--pids", NULL };
    execv(self, argv);
    return unused;
}

static int inner(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 8192);
    if (argc < 2)
        return report(argc, argv), 0;
    if (!strcmp(argv[1], "--exit")) {
        return atoi(argv[2]);
    } else if (!strcmp(argv[1], "--pids")) {
        printf("  leader %d\n", getpid() == syscall(SYS_gettid));
    } else if (!strcmp(argv[1], "--fds")) {
        for (int i = 3; i < 20; i++)
            if (fcntl(i, F_GETFD) != -1)
                printf("  fd %d open\n", i);
    } else if (!strcmp(argv[1], "--aux")) {
        printf("  execfn '%s'\n", (char *)getauxval(AT_EXECFN));
        printf("  uid %lu euid %lu gid %lu egid %lu secure %lu pagesz %lu\n", getauxval(AT_UID),
               getauxval(AT_EUID), getauxval(AT_GID), getauxval(AT_EGID), getauxval(AT_SECURE),
               getauxval(AT_PAGESZ));
        IS(getauxval(AT_RANDOM) && getauxval(AT_SYSINFO_EHDR) && getauxval(AT_PHDR) && getauxval(AT_HWCAP));
        Elf64_Phdr *ph = (void *)getauxval(AT_PHDR);
        IS(getauxval(AT_PHENT) == sizeof *ph && getauxval(AT_PHNUM) > 2);
        IS(getauxval(AT_ENTRY) > 4096);
        printf("  base %s platform %s\n", getauxval(AT_BASE) ? "set" : "0", (char *)getauxval(AT_PLATFORM));
    } else if (!strcmp(argv[1], "--signals")) {
        struct sigaction a, b;
        sigset_t mask, pending;
        sigaction(SIGUSR1, NULL, &a), sigaction(SIGUSR2, NULL, &b);
        sigprocmask(SIG_BLOCK, NULL, &mask), sigpending(&pending);
        printf("  usr1 default %d usr2 ignored %d blocked %d pending %d\n", a.sa_handler == SIG_DFL,
               b.sa_handler == SIG_IGN, sigismember(&mask, SIGINT), sigismember(&pending, SIGINT));
    } else if (!strcmp(argv[1], "--count")) {
        size_t total = 0;
        for (int i = 0; i < argc; i++)
            total += strlen(argv[i]);
        printf("  %d arguments, %zu bytes\n", argc, total);
    } else if (!strcmp(argv[1], "--name")) {
        char name[32] = "", comm[64];
        int fd = open("/proc/self/comm", O_RDONLY);
        if (read(fd, name, sizeof name - 1) > 0)
            printf("  comm %s", name);
        ssize_t n = readlink("/proc/self/exe", comm, sizeof comm - 1);
        comm[n > 0 ? n : 0] = 0;
        printf("  exe .../%s\n", strrchr(comm, '/') ? strrchr(comm, '/') + 1 : comm);
    } else if (!strcmp(argv[1], "--cwd")) {
        char cwd[4096];
        printf("  cwd .../%s umask %o\n", getcwd(cwd, sizeof cwd) ? strrchr(cwd, '/') + 1 : "?", umask(0));
    } else {
        report(argc, argv);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 1)
        return inner(argc, argv);
    begin("exec");
    copy(self, "me", 0755);
    copy(self, "noexec", 0644);

    RUN("me", "name", "--report", "", "two words", "\xff\x01");
    run("me", (char *[]) { "x", "--report", NULL }, (char *[]) { NULL });
    run("me", (char *[]) { "x", "--report", NULL }, (char *[]) { "A=1", "A=2", "noequals", "", NULL });
    RUN("./me", "x", "--exit", "42");
    RUN("me", "x", "--aux");
    RUN("./me", "x", "--name");
    MUST(symlink("me", "a-link-with-a-long-name"));
    RUN("a-link-with-a-long-name", "x", "--aux");
    RUN("a-link-with-a-long-name", "x", "--name");

    RUN("none", "x", "--exit", "0");
    RUN("noexec", "x", "--exit", "0");
    RUN(".", "x", "--exit", "0");
    RUN("", "x", "--exit", "0");
    RUN("me/", "x", "--exit", "0");
    RUN("me/x", "x", "--exit", "0");
    RUN("none/x", "x", "--exit", "0");
    MUST(mkdir("dir", 0755));
    RUN("dir", "x", "--exit", "0");
    script("empty", "");
    RUN("empty", "x", "--exit", "0");
    script("text", "echo not a program\n");
    RUN("text", "x", "--exit", "0");
    script("elf", "\177ELF");
    RUN("elf", "x", "--exit", "0");
    script("elf2",
           "\177ELF\2\1\1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    RUN("elf2", "x", "--exit", "0");
    MUST(mkfifo("fifo", 0755));
    RUN("fifo", "x", "--exit", "0");
    RUN("/dev/null", "x", "--exit", "0");
    MUST(symlink("loop", "loop"));
    RUN("loop", "x", "--exit", "0");

    /* #! */
    script("s1", "#!me\n");
    script("s2", "#! me --report \n");
    script("s3", "#!me --report a b\n");
    script("s4", "#!none\n");
    script("s5", "#!\n");
    script("s6", "#!  \n");
    script("s7", "#!s2\nx");
    script("s8", "#!s7 arg\n");
    script("s9", "#!me\t--report\tx\t\n");
    script("s10", "#!me --report");
    script("s11", "#!noexec\n");
    script("s12", "#!dir\n");
    script("s13", "#!s13\n");
    RUN("s1", "x", "--report");
    RUN("s2", "zero", "one");
    RUN("s3", "x", "y");
    RUN("s4", "x", "--exit", "0");
    RUN("s5", "x", "--exit", "0");
    RUN("s6", "x", "--exit", "0");
    RUN("s7", "x", "z");
    RUN("s8", "x", "--exit", "0");
    RUN("s9", "x", "--exit", "0");
    RUN("s10", "x", "--exit", "0");
    RUN("s11", "x", "--exit", "0");
    RUN("s12", "x", "--exit", "0");
    RUN("s13", "x", "--exit", "0");
    char chain[32], text[64];
    MUST(chmod("s2", 0755));
    strcpy(chain, "#!me --report\n");
    for (int i = 0; i < 7; i++) {
        sprintf(text, "c%d", i);
        script(text, chain);
        sprintf(chain, "#!c%d\n", i);
    }
    for (int i = 2; i < 7; i++) {
        sprintf(text, "c%d", i);
        RUN(text, "x", "--exit", "0");
    }
    static char long_line[400];
    memset(long_line, 'a', sizeof long_line - 1);
    memcpy(long_line, "#!me --report ", 14);
    script("long", long_line);
    RUN("long", "x", "--exit", "0");
    memset(long_line, 'a', sizeof long_line - 1);
    memcpy(long_line, "#!", 2);
    script("long2", long_line);
    RUN("long2", "x", "--exit", "0");
    RUN("s2", "x", "--after");

    /* limits */
    static char big[131073];
    memset(big, 'b', sizeof big - 1);
    big[131071] = 0;
    RUN("me", "x", "--count", big);
    big[131071] = 'b';
    RUN("me", "x", "--count", big);
    big[99999] = 0;
    static char *many[200];
    for (int i = 0; i < 199; i++)
        many[i] = big;
    many[0] = "x", many[1] = "--count";
    run("me", many, (char *[]) { NULL });
    many[19] = NULL;
    run("me", many, (char *[]) { NULL });
    TRY(execve("me", (char **)8, NULL));
    TRY(execve((char *)8, (char *[]) { "x", "--exit", "0", NULL }, NULL));
    TRY(execve("me", (char *[]) { (char *)8, NULL }, NULL));

    /* what is kept and what is not */
    int keep = open("me", O_RDONLY), drop = open("me", O_RDONLY | O_CLOEXEC), dir = open(".", O_RDONLY),
        dropdir = open(".", O_RDONLY | O_CLOEXEC);
    printf("%d %d %d %d\n", keep, drop, dir, dropdir);
    RUN("me", "x", "--fds");
    close(dir), close(dropdir);
    struct sigaction sa = { .sa_handler = exit };
    sigaction(SIGUSR1, &sa, NULL);
    signal(SIGUSR2, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    CHILD("signals") {
        sigprocmask(SIG_BLOCK, &set, NULL);
        raise(SIGINT);
        execl("me", "x", "--signals", NULL);
    }
    END_CHILD;
    CHILD("cwd") {
        MUST(chdir("dir"));
        umask(033);
        execl("../me", "x", "--cwd", NULL);
    }
    END_CHILD;
    CHILD("removed") {
        copy("me", "tmp", 0755);
        int f = open("tmp", O_PATH);
        unlink("tmp");
        syscall(SYS_execveat, f, "", (char *[]) { "x", "--exit", "5", NULL }, environ, AT_EMPTY_PATH);
        TRY(errno);
    }
    END_CHILD;

    /* execveat, fexecve, vfork, posix_spawn, from a thread */
    CHILD("execveat") {
        int d = open("dir", O_PATH);
        syscall(SYS_execveat, d, "../me", (char *[]) { "x", "--aux", NULL }, environ, 0);
        TRY(errno);
    }
    END_CHILD;
    CHILD("execveat empty") {
        syscall(SYS_execveat, keep, "", (char *[]) { "x", "--exit", "6", NULL }, environ, AT_EMPTY_PATH);
        TRY(errno);
    }
    END_CHILD;
    CHILD("execveat no follow") {
        syscall(SYS_execveat, AT_FDCWD, "a-link-with-a-long-name", (char *[]) { "x", "--exit", "0", NULL },
                environ, AT_SYMLINK_NOFOLLOW);
        puts(errname(errno));
    }
    END_CHILD;
    CHILD("execveat bad") {
        syscall(SYS_execveat, 999, "me", (char *[]) { "x", "--exit", "0", NULL }, environ, 0);
        puts(errname(errno));
        syscall(SYS_execveat, keep, "me", (char *[]) { "x", "--exit", "0", NULL }, environ, 0);
        puts(errname(errno));
        syscall(SYS_execveat, AT_FDCWD, "me", (char *[]) { "x", "--exit", "0", NULL }, environ, 0x8000);
        puts(errname(errno));
    }
    END_CHILD;
    CHILD("fexecve") {
        fexecve(keep, (char *[]) { "x", "--exit", "7", NULL }, environ);
        TRY(errno);
    }
    END_CHILD;
    CHILD("fexecve script") {
        int f = open("s2", O_RDONLY);
        syscall(SYS_execveat, f, "", (char *[]) { "x", "--exit", "0", NULL }, (char *[]) { NULL },
                AT_EMPTY_PATH);
        puts(errname(errno));
    }
    END_CHILD;
    CHILD("fexecve script, close on exec") {
        int f = open("s2", O_RDONLY | O_CLOEXEC);
        syscall(SYS_execveat, f, "", (char *[]) { "x", "--exit", "0", NULL }, (char *[]) { NULL },
                AT_EMPTY_PATH);
        puts(errname(errno));
    }
    END_CHILD;
    CHILD("thread") {
        pthread_t t;
        pthread_create(&t, NULL, exec_thread, NULL);
        pause();
    }
    END_CHILD;
    fflush(stdout);
    pid_t pid = vfork();
    if (pid == 0) {
        execl("me", "x", "--exit", "8", NULL);
        _exit(1);
    }
    printf("vfork: %s\n", wait_for(pid));
    pid = vfork();
    if (pid == 0) {
        execl("none", "x", "--exit", "0", NULL);
        _exit(errno == ENOENT ? 9 : 1);
    }
    printf("vfork: %s\n", wait_for(pid));
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 10, "s1", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, 10, 11);
    posix_spawn_file_actions_addclose(&fa, keep);
    MUST(posix_spawn(&pid, "me", &fa, NULL, (char *[]) { "x", "--fds", NULL }, environ)); /* the child prints */
    printf("spawn: %s\n", wait_for(pid));
    TRY(posix_spawn(&pid, "none", NULL, NULL, (char *[]) { "x", "--exit", "0", NULL }, environ) == ENOENT);
    TRY(posix_spawn(&pid, "noexec", NULL, NULL, (char *[]) { "x", "--exit", "0", NULL }, environ) == EACCES);
    /* writing to a running program, running one open for writing */
    int w = open("me", O_WRONLY);
    pid = fork();
    if (pid == 0) {
        execl("me", "x", "--exit", "0", NULL);
        _exit(errno == ETXTBSY ? 26 : 1);
    }
    printf("open for writing: %s\n", wait_for(pid));
    close(w);
    return 0;
}

/* /proc as programs use it: links, descriptors, maps, status, command line; other processes. */
#include "check.h"

static const char *link_of(const char *path)
{
    static char target[4096];
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n < 0)
        return errname(errno);
    target[n] = 0;
    return target;
}

static int has_line(const char *path, const char *start)
{
    char line[1024];
    FILE *f = fopen(path, "r");
    int found = 0;
    while (f && fgets(line, sizeof line, f))
        found |= strncmp(line, start, strlen(start)) == 0;
    if (f)
        fclose(f);
    return found;
}

static long status_of(const char *path, const char *field)
{
    char line[1024];
    FILE *f = fopen(path, "r");
    long value = -1;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, field, strlen(field)) == 0)
            value = atol(line + strlen(field));
    if (f)
        fclose(f);
    return value;
}

/* what a process has no longer once it has ended */
static const char *const of_zombies[] = {"exe", "cwd", "root", "cmdline", "maps", "mounts", "mountinfo", "mountstats"};

int main(int argc, char **argv)
{
    char path[64], cwd[4096], text[4096];
    (void)argc;
    begin("procfs");
    IS(atoi(link_of("/proc/self")) == getpid());
    IS(strstr(link_of("/proc/self/exe"), "procfs") != NULL);
    IS(getcwd(cwd, sizeof cwd) && strcmp(link_of("/proc/self/cwd"), cwd) == 0);
    puts(link_of("/proc/self/root"));
    sprintf(text, "%d/task/%ld", getpid(), syscall(SYS_gettid));
    IS(strcmp(link_of("/proc/thread-self"), text) == 0);
    IS(strcmp(get("/proc/self/cmdline"), argv[0]) == 0);
    puts(get("/proc/self/comm"));
    IS(status_of("/proc/self/status", "Pid:") == getpid());
    IS(status_of("/proc/self/status", "Tgid:") == getpid());
    TRY(status_of("/proc/self/status", "Threads:"));
    TRY(status_of("/proc/self/status", "Uid:") == getuid());
    IS(status_of("/proc/self/status", "VmRSS:") > 0);
    IS(has_line("/proc/self/status", "Name:\tprocfs"));
    IS(has_line("/proc/self/status", "State:\tR (running)"));
    int pid, ppid, pgrp, session;
    char comm[32], state;
    IS(sscanf(get("/proc/self/stat"), "%d (%31[^)]) %c %d %d %d", &pid, comm, &state, &ppid, &pgrp, &session) == 6);
    IS(pid == getpid() && ppid == getppid() && pgrp == getpgrp() && session == getsid(0) && state == 'R');
    IS(strlen(get("/proc/self/statm")) > 5);
    IS(strlen(get("/proc/self/maps")) > 100);
    IS(strstr(get("/proc/self/maps"), "procfs") != NULL);
    IS(has_line("/proc/self/mountinfo", ""));
    IS(has_line("/proc/mounts", ""));
    IS(strlen(get("/proc/self/limits")) > 500);
    TRY(has_line("/proc/self/limits", "Max open files"));
    IS(strlen(get("/proc/self/auxv")) > 0);
    IS(strlen(get("/proc/self/environ")) > 0);

    /* descriptors */
    put("file", "contents");
    int fd = open("file", O_RDONLY), p[2], dir = open(".", O_RDONLY);
    MUST(pipe(p));
    sprintf(path, "/proc/self/fd/%d", fd);
    IS(strcmp(link_of(path) + strlen(cwd), "/file") == 0);
    struct stat st, real;
    TRY(lstat(path, &st));
    printf("%o\n", st.st_mode);
    TRY(stat(path, &st));
    MUST(fstat(fd, &real));
    IS(st.st_ino == real.st_ino);
    printf("%s\n", get(path));
    MUST(lseek(fd, 5, SEEK_SET));
    int again = open(path, O_RDONLY);
    TRY(lseek(again, 0, SEEK_CUR));
    close(again);
    sprintf(path, "/dev/fd/%d", fd);
    printf("%s\n", get(path));
    sprintf(path, "/proc/self/fd/%d", p[0]);
    IS(strncmp(link_of(path), "pipe:[", 6) == 0);
    sprintf(path, "/proc/self/fd/%d", p[1]);
    again = open(path, O_WRONLY);
    TRY(write(again, "via", 3));
    TRY(read(p[0], text, 10));
    sprintf(path, "/proc/self/fd/%d", dir);
    IS(strcmp(link_of(path), cwd) == 0);
    sprintf(path, "/proc/self/fd/%d/file", dir);
    printf("%s\n", get(path));
    OPEN("/proc/self/fd/999", O_RDONLY, 0);
    OPEN("/proc/self/cwd/file", O_RDONLY, 0);
    TRY(unlink("file"));
    sprintf(path, "/proc/self/fd/%d", fd);
    IS(strstr(link_of(path), "/file (deleted)") != NULL);
    int count = 0;
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e; (e = readdir(d));)
        count += e->d_name[0] != '.';
    closedir(d);
    int expected = 1;
    for (int i = 0; i < 1024; i++)
        expected += fcntl(i, F_GETFD) != -1;
    IS(count == expected);
    sprintf(path, "/proc/self/fdinfo/%d", fd);
    IS(has_line(path, "pos:\t5"));
    TRY(has_line(path, "flags:\t0100000"));

    /* another process */
    pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    msleep(20);
    sprintf(path, "/proc/%d/status", pid);
    IS(status_of(path, "PPid:") == getpid());
    IS(has_line(path, "State:\tS (sleeping)"));
    sprintf(path, "/proc/%d/cwd", pid);
    IS(strcmp(link_of(path), cwd) == 0);
    sprintf(path, "/proc/%d", pid);
    TRY(access(path, F_OK));
    kill(pid, SIGKILL);
    sprintf(path, "/proc/%d/status", pid);
    for (int i = 0; i < 250 && !has_line(path, "State:\tZ (zombie)"); i++)
        msleep(20);
    IS(has_line(path, "State:\tZ (zombie)"));
    for (unsigned i = 0; i < sizeof(of_zombies) / sizeof *of_zombies; i++) {
        sprintf(path, "/proc/%d/%s", pid, of_zombies[i]);
        printf("%s: %s\n", of_zombies[i], link_of(path));
        again = open(path, O_RDONLY);
        if (again < 0)
            printf("open %s: %s\n", of_zombies[i], errname(errno));
        else
            TRY(read(again, text, sizeof text));
        close(again);
    }
    sprintf(path, "/proc/%d/net/tcp", pid);
    TRY(access(path, F_OK));
    wait_for(pid);
    TRY(access(path, F_OK));
    OPEN("/proc/999999999", O_RDONLY, 0);
    int listed = 0;
    d = opendir("/proc");
    for (struct dirent *e; (e = readdir(d));)
        listed += atoi(e->d_name) == getpid();
    closedir(d);
    TRY(listed);

    /* the machine */
    IS(has_line("/proc/meminfo", "MemTotal:"));
    IS(has_line("/proc/cpuinfo", "processor"));
    IS(has_line("/proc/stat", "cpu "));
    IS(strlen(get("/proc/uptime")) > 3);
    IS(strlen(get("/proc/loadavg")) > 10);
    IS(strncmp(get("/proc/version"), "Linux version ", 14) == 0);
    IS(has_line("/proc/filesystems", "nodev\tproc"));
    IS(atoi(get("/proc/sys/kernel/pid_max")) > 100);
    IS(strlen(get("/proc/sys/kernel/random/uuid")) == 37);
    IS(atoi(get("/proc/sys/fs/file-max")) != 0);
    IS(strncmp(get("/proc/sys/kernel/ostype"), "Linux", 5) == 0);
    OPEN("/proc/none", O_RDONLY, 0);
    OPEN("/proc/new", O_CREAT | O_WRONLY, 0644);
    TRY(mkdir("/proc/new", 0755));
    TRY(unlink("/proc/self/status"));
    TRY(rename("/proc/self/comm", "/proc/self/x"));
    TRY(stat("/proc", &st));
    printf("%o %ld\n", st.st_mode, (long)st.st_ino);
    TRY(stat("/proc/self/status", &st));
    printf("%o size %ld\n", st.st_mode, (long)st.st_size);
    return 0;
}

/*
 * Tries to get out of a layer, one way after another, and prints "NAME: refused" or "NAME: escaped".
 * usage: escape SECRET VOLUME HOST_PID ABSTRACT_NAME DEVICE [NAME...]
 *   SECRET         absolute path of a file of the host, outside every mount, that says HOST-SECRET
 *   VOLUME         a writable volume in the layer, with symbolic links planted by the test
 *   HOST_PID       a process outside the layer
 *   ABSTRACT_NAME  name of an abstract Unix socket on which the host listens
 *   DEVICE         number of the block device of the host's root
 * Never run it natively. Still, no attempt does harm if it succeeds: signals are of a kind that is
 * ignored, files are opened and not written, mounts are made in a child.
 * The attempts are in escape/, by subject.
 */
#include "escape/escape.h"

const char *secret, *volume, *abstract_name;
pid_t host_pid;
dev_t device;

/* Does this descriptor lead to the host's secret? */
int fd_is_secret(int fd)
{
    char text[256] = "";
    if (fd < 0)
        return 0;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    return n > 0 && strstr(text, "HOST-SECRET") != NULL;
}
int reads_secret(const char *path) { return fd_is_secret(open(path, O_RDONLY | O_NONBLOCK)); }
int reads_secret_at(int dir, const char *path)
{
    return fd_is_secret(openat(dir, path, O_RDONLY | O_NONBLOCK));
}

/* Path of NAME in the volume. */
const char *in(const char *name)
{
    static char path[8][4200];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s/%s", volume, name);
    return path[next];
}
const char *up(const char *start)
{
    static char path[8192];
    snprintf(path, sizeof path, "%s/../../../../../../../../../..%s", start, secret);
    return path;
}

/* In a child, which may do with itself what it likes. */
static void make(const struct attempt *a)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGURG, SIG_IGN);
        alarm(10);
        _exit(a->attempt());
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        printf("%s: no answer: %s\n", a->name, errname(errno));
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        printf("%s: refused\n", a->name);
    else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM && WTERMSIG(status) != SIGKILL)
        printf("%s: refused by signal %d\n", a->name, WTERMSIG(status));
    else
        printf("%s: %s\n", a->name, WIFSIGNALED(status) ? "stuck" : "escaped");
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 8192);
    if (argc < 6)
        return 2;
    secret = argv[1], volume = argv[2], host_pid = atoi(argv[3]), abstract_name = argv[4],
    device = strtoul(argv[5], NULL, 0);
    const struct attempt *subjects[] = { paths_attempts, races_attempts, mounts_attempts,
                                         processes_attempts, machine_attempts };
    for (unsigned i = 0; i < sizeof subjects / sizeof *subjects; i++)
        for (const struct attempt *a = subjects[i]; a->name; a++) {
            int chosen = argc == 6;
            for (int k = 6; k < argc; k++)
                chosen |= strcmp(argv[k], a->name) == 0;
            if (chosen)
                make(a);
        }
    puts("end");
    return 0;
}

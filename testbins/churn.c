/*
 * Does everything that makes a supervisor keep something, again and again. For each number on standard
 * input it makes so many rounds, and says "done" when no process of its own is left.
 */
#include "check.h"
#include <pthread.h>
#include <stddef.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/ptrace.h>

static char self[4096];
static void *nothing(void *arg) { return arg; }

static void child(int kind)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (kind == 1)
            execl(self, "churn", "nothing", NULL);
        if (kind == 2) {
            /* Refused where the engine itself traces. */
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            execl(self, "churn", "nothing", NULL);
        }
        if (kind == 3) {
            MUST(setresuid(1000, 1000, 1000));
            umask(rand() & 077);
            MUST(chdir("/tmp"));
        }
        _exit(access("/none", F_OK) == 0);
    }
    int status;
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
        MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        printf("kind %d: %#x\n", kind, status), exit(99);
}

static void sockets(int round)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    snprintf(a.sun_path, sizeof a.sun_path, "/tmp/socket-%d", round % 7);
    int s = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(bind(s, (void *)&a, sizeof a));
    MUST(listen(s, 1));
    MUST(connect(c, (void *)&a, sizeof a));
    close(accept(s, NULL, NULL));
    close(s), close(c);
    MUST(unlink(a.sun_path));
}

static void files(int round)
{
    char name[64], inner[80];
    struct stat st;
    snprintf(name, sizeof name, "/tmp/dir-%d", round);
    snprintf(inner, sizeof inner, "%s/file", name);
    MUST(mkdir(name, 0755));
    int in = inotify_init();
    MUST(inotify_add_watch(in, name, IN_ALL_EVENTS));
    put(inner, "text");
    int d = open(name, O_RDONLY | O_DIRECTORY), p = open(inner, O_PATH), f = open(inner, O_RDWR);
    MUST(fstat(p, &st));
    MUST(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, f, 0));
    close(d), close(p), close(f);
    MUST(unlink(inner));
    MUST(rmdir(name));
    close(in);
    FILE *status = fopen("/proc/self/status", "r");
    fclose(status);
}

static void mounts(void)
{
    mkdir("/tmp/mnt", 0755);
    MUST(mount("none", "/tmp/mnt", "tmpfs", 0, NULL));
    put("/tmp/mnt/file", "text");
    MUST(mkdir("/tmp/mnt/dir", 0755));
    MUST(umount("/tmp/mnt"));
}

int main(int argc, char **argv)
{
    char line[32];
    if (argc > 1)
        return 0;
    (void)argv;
    MUST(readlink("/proc/self/exe", self, sizeof self - 1));
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        for (int i = 0, n = atoi(line); i < n; i++) {
            for (int kind = 0; kind < 4; kind++)
                child(kind);
            pthread_t t;
            MUST(pthread_create(&t, NULL, nothing, NULL) ? -1 : 0);
            pthread_join(t, NULL);
            sockets(i);
            files(i);
            mounts();
        }
        puts("done");
    }
    return 0;
}

/*
 * Has a supervisor keep much, and lets go of all of it at once. For each number on standard input it makes
 * so many rounds of what its argument names, and says "done" when no process of its own is left.
 */
#include "check.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/inotify.h>

/* More at once than an inotify instance has room for events of, 16,384 as a rule, two of each. */
enum { HOLDERS = 18, DIRECTORIES = 900, DEPTH = 50 };

static void hold(int ready)
{
    char name[64];
    for (int i = 0; i < DIRECTORIES; i++) {
        snprintf(name, sizeof name, "/tmp/held-%d-%d", getpid(), i);
        MUST(mkdir(name, 0755));
        MUST(open(name, O_RDONLY | O_DIRECTORY));
        MUST(rmdir(name));
    }
    MUST(write(ready, "x", 1));
    for (;;)
        pause();
}

/* Directories that are open when they are removed, and closed all together. */
static void removed(void)
{
    pid_t holders[HOLDERS];
    int ready[2];
    char x;
    MUST(pipe(ready));
    for (int i = 0; i < HOLDERS; i++)
        if ((holders[i] = fork()) == 0)
            hold(ready[1]);
    close(ready[1]);
    for (int i = 0; i < HOLDERS; i++)
        if (read(ready[0], &x, 1) != 1)
            exit(99);
    for (int i = 0; i < HOLDERS; i++)
        MUST(kill(holders[i], SIGKILL));
    for (int i = 0; i < HOLDERS; i++)
        MUST(waitpid(holders[i], NULL, 0));
    close(ready[0]);
}

/* A file that was open, deep in directories that are removed with it. */
static void deep(void)
{
    int dirs[DEPTH];
    MUST(dirs[0] = open(".", O_RDONLY | O_DIRECTORY));
    for (int i = 1; i < DEPTH; i++) {
        MUST(mkdirat(dirs[i - 1], "deep", 0755));
        MUST(dirs[i] = openat(dirs[i - 1], "deep", O_RDONLY | O_DIRECTORY));
    }
    int f = openat(dirs[DEPTH - 1], "file", O_CREAT | O_RDWR, 0600);
    MUST(f);
    close(f);
    MUST(unlinkat(dirs[DEPTH - 1], "file", 0));
    for (int i = DEPTH - 1; i > 0; i--) {
        close(dirs[i]);
        MUST(unlinkat(dirs[i - 1], "deep", AT_REMOVEDIR));
    }
    close(dirs[0]);
}

/* Directories that stay, watched for a moment; and one that is watched all the time. */
static void watched(int round)
{
    static int all = -1, in;
    char name[64], event[4096];
    if (all == -1) {
        MUST(mkdir("/tmp/all", 0755));
        MUST(all = inotify_init1(IN_NONBLOCK));
        MUST(in = inotify_init1(IN_NONBLOCK));
        MUST(inotify_add_watch(all, "/tmp/all", IN_CREATE));
    }
    snprintf(name, sizeof name, "/tmp/watched-%d", round);
    MUST(mkdir(name, 0755));
    int watch = inotify_add_watch(in, name, IN_ALL_EVENTS);
    MUST(watch);
    MUST(inotify_rm_watch(in, watch));
    snprintf(name, sizeof name, "/tmp/all/%d", round);
    MUST(mkdir(name, 0755));
    MUST(read(all, event, sizeof event));
    MUST(rmdir(name));
}

int main(int argc, char **argv)
{
    char line[32];
    int total = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (argc > 1 && fgets(line, sizeof line, stdin)) {
        for (int i = 0, n = atoi(line); i < n; i++)
            if (!strcmp(argv[1], "deep"))
                deep();
            else if (!strcmp(argv[1], "watched"))
                watched(total++);
            else
                removed();
        puts("done");
    }
    return 0;
}

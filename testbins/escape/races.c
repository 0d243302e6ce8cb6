/* Attempts of escape: names and descriptors that change while they are looked at. */
#include "escape.h"
#include <pthread.h>

static volatile int stop;
static char shared_path[4200];
static void *flip_path(void *arg)
{
    while (!stop) {
        strcpy(shared_path, in("ok"));
        strcpy(shared_path, secret);
        strcpy(shared_path, in("abs"));
    }
    return arg;
}
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static int race(void *(*other)(void *), int (*attempt)(void))
{
    pthread_t t;
    int found = 0;
    stop = 0;
    pthread_create(&t, NULL, other, NULL);
    for (double end = seconds() + 0.7; !found && seconds() < end;)
        found = attempt();
    stop = 1;
    pthread_join(t, NULL);
    return found;
}
static int open_shared_path(void) { return fd_is_secret(open(shared_path, O_RDONLY | O_NONBLOCK)); }
static int path_changed_meanwhile(void) { return race(flip_path, open_shared_path); }
static void *flip_directory(void *arg)
{
    char a[4200], b[4200];
    strcpy(a, in("flip-a")), strcpy(b, in("flip-b"));
    mkdir(a, 0755);
    if (symlink("..", b) && errno != EEXIST)
        return arg;
    while (!stop)
        syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2);
    return arg;
}
static int walk_flipped(void)
{
    return reads_secret(in("flip-a/secret")) || reads_secret(in("flip-a/../secret"));
}
static int directory_swapped_for_link(void) { return race(flip_directory, walk_flipped); }
static void *move_directory(void *arg)
{
    char deep[4200], shallow[4200];
    mkdir(in("m1"), 0755), mkdir(in("m1/m2"), 0755), mkdir(in("m1/m2/m3"), 0755);
    strcpy(deep, in("m1/m2/m3")), strcpy(shallow, in("m3"));
    while (!stop)
        if (rename(deep, shallow) == 0)
            rename(shallow, deep);
    return arg;
}
static int walk_moved(void)
{
    return reads_secret(in("m1/m2/m3/../../../../secret")) ||
           reads_secret(in("m1/m2/m3/../../../ok/../../secret"));
}
static int directory_moved_during_walk(void) { return race(move_directory, walk_moved); }
static void *swap_descriptor(void *arg)
{
    int dir = open(volume, O_PATH), root = open("/", O_PATH);
    while (!stop)
        dup2(dir, 700), dup2(root, 700);
    return arg;
}
static int walk_swapped(void)
{
    return reads_secret_at(700, "../secret") || reads_secret_at(700, secret + 1);
}
static int descriptor_swapped(void) { return race(swap_descriptor, walk_swapped); }

const struct attempt races_attempts[] = {
    ATTEMPT(path_changed_meanwhile),
    ATTEMPT(directory_swapped_for_link),
    ATTEMPT(directory_moved_during_walk),
    ATTEMPT(descriptor_swapped),
    { NULL, NULL },
};

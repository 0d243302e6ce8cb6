/* inotify(7): what a watch on a directory and a file reports. */
#include "check.h"
#include <poll.h>
#include <sys/inotify.h>

static int in;
static void drain(const char *what)
{
    char buf[4096] __attribute__((aligned(8)));
    printf("-- %s\n", what);
    while (poll(&(struct pollfd){ in, POLLIN, 0 }, 1, 200) == 1) {
        ssize_t n = read(in, buf, sizeof buf);
        for (ssize_t at = 0; at < n;) {
            struct inotify_event *e = (void *)(buf + at);
            printf("wd %d mask %#x cookie %s name '%s'\n", e->wd, e->mask, e->cookie ? "yes" : "no", e->len ? e->name : "");
            at += sizeof *e + e->len;
        }
    }
}

int main(void)
{
    begin("inotify");
    MUST(mkdir("d", 0755));
    in = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    IS(in >= 0);
    TRY(read(in, (char[100]){ 0 }, 100));
    TRY(inotify_add_watch(in, "d", IN_CREATE | IN_DELETE | IN_MOVE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF));
    TRY(inotify_add_watch(in, "none", IN_CREATE));
    TRY(inotify_add_watch(in, "d", 0));
    TRY(inotify_add_watch(999, "d", IN_CREATE));
    put("d/a", "text");
    drain("create and write");
    MUST(rename("d/a", "d/b"));
    drain("rename");
    MUST(chmod("d/b", 0600));
    drain("attrib");
    MUST(mkdir("d/sub", 0755));
    MUST(unlink("d/b"));
    drain("mkdir, unlink");
    MUST(rename("d/sub", "sub"));
    drain("moved away");
    put("watched", "x");
    TRY(inotify_add_watch(in, "watched", IN_MODIFY | IN_DELETE_SELF | IN_OPEN | IN_CLOSE));
    put("watched", "y");
    drain("file");
    TRY(inotify_rm_watch(in, 2));
    drain("removed watch");
    TRY(inotify_rm_watch(in, 77));
    MUST(rmdir("d"));
    drain("directory gone");
    return 0;
}

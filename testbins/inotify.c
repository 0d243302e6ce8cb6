/* inotify(7): what watches on directories and files report. usage: inotify [moves | EXISTING-DIRECTORY] */
#include "check.h"
#include <poll.h>
#include <sys/inotify.h>
#include <sys/xattr.h>

static int in;
static void drain(const char *what)
{
    char buf[8192] __attribute__((aligned(8)));
    static uint32_t cookies[64];
    static unsigned known;
    printf("-- %s\n", what);
    while (poll(&(struct pollfd){ in, POLLIN, 0 }, 1, 60) == 1) {
        ssize_t n = read(in, buf, sizeof buf);
        for (ssize_t at = 0; at < n;) {
            struct inotify_event *e = (void *)(buf + at);
            unsigned cookie = 0;
            if (e->cookie) {
                while (cookie < known && cookies[cookie] != e->cookie)
                    cookie++;
                if (cookie == known && known < 64)
                    cookies[known++] = e->cookie;
                cookie++;
            }
            printf("wd %d mask %#x cookie %u name '%s'\n", e->wd, e->mask, cookie, e->len ? e->name : "");
            at += sizeof *e + e->len;
        }
    }
}
#define MOST (IN_ALL_EVENTS & ~IN_DELETE_SELF)

static void use(const char *path, int flags, const char *text)
{
    char buf[64];
    int fd = open(path, flags, 0644);
    if (fd < 0)
        printf("%s: %s\n", path, errname(errno));
    if (text)
        MUST(write(fd, text, strlen(text)));
    else
        MUST(read(fd, buf, sizeof buf));
    close(fd);
}

static void directory(void)
{
    MUST(mkdir("d", 0755));
    put("d/before", "text");
    MUST(mkdir("d/dir-before", 0755));
    MUST(symlink("nowhere", "d/link-before"));
    int early = open("d/before", O_RDWR);
    TRY(inotify_add_watch(in, "d", MOST));
    TRY(inotify_add_watch(in, "d/", MOST));
    drain("nothing yet");
    put("d/a", "text");
    drain("create and write");
    use("d/a", O_RDONLY, NULL);
    use("d/before", O_RDONLY, NULL);
    use("d/before", O_WRONLY | O_APPEND, "more");
    drain("read and append");
    MUST(write(early, "x", 1));
    MUST(ftruncate(early, 1));
    MUST(close(early));
    drain("a descriptor from before");
    use("d/a", O_WRONLY | O_TRUNC, "new");
    MUST(truncate("d/a", 1));
    MUST(truncate("d/a", 100));
    drain("truncate");
    MUST(chmod("d/a", 0600));
    MUST(utimensat(AT_FDCWD, "d/a", NULL, 0));
    MUST(chown("d/a", -1, getgid()));
    MUST(chmod("d/dir-before", 0700));
    MUST(utimensat(AT_FDCWD, "d/link-before", NULL, AT_SYMLINK_NOFOLLOW));
    drain("attributes");
    MUST(chmod("d", 0700));
    drain("attributes of the directory");
    MUST(mkdir("d/sub", 0755));
    MUST(symlink("a", "d/sym"));
    MUST(mkfifo("d/fifo", 0600));
    MUST(link("d/a", "d/hard"));
    drain("other kinds");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un un = { AF_UNIX, "d/socket" };
    MUST(bind(s, (void *)&un, sizeof un));
    close(s);
    drain("a socket");
    MUST(rename("d/a", "d/b"));
    drain("rename");
    use("d/b", O_WRONLY, "z");
    use("d/hard", O_RDONLY, NULL);
    drain("by the new name");
    put("outside", "o");
    MUST(rename("outside", "d/inside"));
    MUST(rename("d/b", "b-outside"));
    use("d/inside", O_RDWR, "y");
    drain("in and out");
    MUST(rename("d/inside", "d/before"));
    drain("over another");
    MUST(syscall(SYS_renameat2, AT_FDCWD, "d/before", AT_FDCWD, "d/sym", 2));
    use("d/sym", O_RDONLY, NULL);
    drain("exchanged");
    MUST(rename("d/sub", "sub"));
    MUST(rename("sub", "d/sub"));
    drain("a directory, out and in");
    MUST(unlink("d/before"));
    MUST(unlink("d/sym"));
    MUST(unlink("d/hard"));
    MUST(unlink("d/fifo"));
    MUST(rmdir("d/sub"));
    drain("removed");
    int fd = open("d/open", O_RDWR | O_CREAT, 0600);
    MUST(unlink("d/open"));
    MUST(write(fd, "x", 1));
    close(fd);
    drain("removed while open");
}

static void two_directories(void)
{
    MUST(mkdir("one", 0755));
    MUST(mkdir("two", 0755));
    MUST(mkdir("one/sub", 0755));
    put("one/f", "f");
    TRY(inotify_add_watch(in, "one", IN_MOVE | IN_CREATE | IN_DELETE | IN_MOVE_SELF));
    TRY(inotify_add_watch(in, "two", IN_MOVE | IN_CREATE | IN_DELETE | IN_MODIFY));
    TRY(inotify_add_watch(in, "one/sub", IN_MOVE_SELF | IN_CREATE | IN_DELETE_SELF | IN_ATTRIB));
    MUST(rename("one/f", "two/f"));
    put("two/f", "more");
    drain("a file from one to the other");
    MUST(rename("one/sub", "two/sub"));
    put("two/sub/new", "n");
    drain("a watched directory from one to the other");
    MUST(chmod("two/sub", 0700));
    MUST(unlink("two/sub/new"));
    MUST(rmdir("two/sub"));
    drain("a watched directory removed");
    MUST(rename("one", "uno"));
    drain("moved itself");
    TRY(inotify_add_watch(in, "uno", IN_CREATE | IN_MASK_ADD));
    TRY(inotify_add_watch(in, "uno", IN_CREATE | IN_ONESHOT));
    put("uno/x", "1");
    put("uno/y", "1");
    drain("once");
}

static void file(void)
{
    put("watched", "x");
    TRY(inotify_add_watch(in, "watched", IN_ALL_EVENTS & ~IN_DELETE_SELF));
    use("watched", O_RDWR, "y");
    MUST(chmod("watched", 0600));
    drain("a file");
    MUST(rename("watched", "moved"));
    MUST(link("moved", "moved2"));
    MUST(unlink("moved"));
    use("moved2", O_RDONLY, NULL);
    drain("renamed, linked, unlinked");
    MUST(mkdir("away", 0755));
    MUST(rename("moved2", "away/moved3"));
    use("away/moved3", O_WRONLY, "1");
    drain("moved to another directory");
}

static void removed(void)
{
    MUST(mkdir("gone", 0755));
    TRY(inotify_add_watch(in, "gone", IN_CREATE | IN_DELETE_SELF | IN_IGNORED | IN_ISDIR));
    MUST(rmdir("gone"));
    drain("directory gone");
    MUST(mkdir("gone", 0755));
    put("gone/f", "1");
    drain("another of that name");
    TRY(inotify_add_watch(in, "gone", IN_CREATE | IN_DELETE_SELF));
    put("gone/g", "1");
    drain("watched anew");
}

/* On a volume, the directory is told first. */
static void file_ends(int with_directory)
{
    const char *const names[] = { "end", "kept/end" };
    MUST(mkdir("kept", 0755));
    if (with_directory)
        TRY(inotify_add_watch(in, "kept", IN_DELETE | IN_MOVED_TO));
    for (int i = 0; i < 2; i++) {
        const char *end = names[i];
        put(end, "x");
        TRY(inotify_add_watch(in, end, IN_DELETE_SELF | IN_MOVE_SELF));
        MUST(unlink(end));
        drain("a file removed");
        put(end, "x");
        put("new", "y");
        TRY(inotify_add_watch(in, end, IN_DELETE_SELF | IN_MOVE_SELF));
        MUST(rename("new", end));
        drain("a file replaced");
        int wd = inotify_add_watch(in, end, IN_DELETE_SELF | IN_MOVE_SELF), fd = open(end, O_RDONLY);
        MUST(unlink(end));
        drain("a file removed while open");
        MUST(inotify_rm_watch(in, wd));
        close(fd);
        drain("not watched any more");
    }
}

static void existing(const char *dir)
{
    char path[300], other[300];
    TRY(inotify_add_watch(in, dir, MOST));
    snprintf(path, sizeof path, "%s/file", dir), snprintf(other, sizeof other, "%s/other", dir);
    use(path, O_RDONLY, NULL);
    use(path, O_WRONLY | O_APPEND, "more");
    drain("an old file");
    MUST(rename(path, other));
    MUST(chmod(other, 0640));
    drain("renamed");
    put(path, "new");
    MUST(unlink(path));
    MUST(unlink(other));
    drain("removed");
    snprintf(path, sizeof path, "%s/sub", dir), snprintf(other, sizeof other, "%s/sub2", dir);
    TRY(inotify_add_watch(in, path, IN_CREATE | IN_MOVE_SELF));
    MUST(rename(path, other));
    snprintf(path, sizeof path, "%s/sub2/new", dir);
    put(path, "1");
    drain("an old directory");
    snprintf(path, sizeof path, "%s/alone", dir);
    TRY(inotify_add_watch(in, path, IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB));
    use(path, O_WRONLY | O_APPEND, "x");
    drain("an old file, watched itself");
}

int main(int argc, char **argv)
{
    begin("inotify");
    in = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    IS(in >= 0);
    TRY(read(in, (char[100]){ 0 }, 100));
    TRY(inotify_add_watch(in, "none", IN_CREATE));
    TRY(inotify_add_watch(in, ".", 0));
    TRY(inotify_add_watch(999, ".", IN_CREATE));
    TRY(inotify_add_watch(1, ".", IN_CREATE));
    if (argc > 1 && strcmp(argv[1], "moves") == 0) {
        two_directories();
        file();
        removed();
        file_ends(0);
        return 0;
    }
    if (argc > 1) {
        existing(argv[1]);
        return 0;
    }
    directory();
    TRY(inotify_rm_watch(in, 1));
    drain("no watch any more");
    TRY(inotify_rm_watch(in, 1));
    TRY(inotify_rm_watch(in, 77));
    put("d/unseen", "x");
    drain("nothing");
    two_directories();
    file();
    removed();
    file_ends(1);
    return 0;
}

/* open(2): flags, errors and their order. */
#include "check.h"

static char long_name[300], long_path[5000];

static int is_older(struct timespec a, struct timespec b)
{
    return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

/* What is made later never looks older, however soon after. */
static void in_order(void)
{
    int nap = open("nap", O_CREAT | O_RDWR, 0600), older = 0;
    for (int i = 0; i < 50; i++) {
        struct stat before, after;
        char name[16];
        snprintf(name, sizeof name, "later%d", i);
        if (write(nap, "x", 1) != 1 || fstat(nap, &before))
            older += 1000;
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (fd < 0 || fstat(fd, &after))
            older += 1000;
        close(fd);
        older += is_older(after.st_mtim, before.st_mtim);
        /* Nor what is touched later. */
        if (utimensat(AT_FDCWD, name, 0, 0) || stat(name, &before))
            older += 1000;
        older += is_older(before.st_mtim, after.st_mtim);
        unlink(name);
    }
    close(nap);
    unlink("nap");
    printf("older: %d\n", older);
}

int main(void)
{
    begin("files");
    memset(long_name, 'n', 255);
    for (int i = 0; i < 4094; i += 2)
        memcpy(long_path + i, "./", 2);

    in_order();
    OPEN("none", O_RDONLY, 0);
    OPEN("", O_RDONLY, 0);
    OPEN("new", O_CREAT | O_EXCL | O_WRONLY, 0644);
    OPEN("new", O_CREAT | O_EXCL | O_WRONLY, 0644);
    OPEN("new", O_CREAT | O_WRONLY, 0644);
    OPEN("new/", O_RDONLY, 0);
    OPEN("new/x", O_RDONLY, 0);
    OPEN("new/x", O_CREAT | O_WRONLY, 0644);
    OPEN("new/..", O_RDONLY, 0);
    OPEN("new/.", O_RDONLY, 0);
    OPEN("made/", O_CREAT | O_WRONLY, 0644);
    OPEN("none/x", O_CREAT | O_WRONLY, 0644);
    OPEN("none/../new", O_RDONLY, 0);
    MUST(mkdir("dir", 0755));
    OPEN("dir", O_RDONLY, 0);
    OPEN("dir", O_WRONLY, 0);
    OPEN("dir", O_RDWR, 0);
    OPEN("dir", O_CREAT | O_RDONLY, 0644);
    OPEN("dir", O_CREAT | O_EXCL, 0644);
    OPEN("dir/", O_CREAT, 0644);
    OPEN("dir", O_DIRECTORY, 0);
    OPEN("dir", O_DIRECTORY | O_WRONLY, 0);
    OPEN("dir", O_TRUNC, 0);
    OPEN("new", O_DIRECTORY, 0);
    OPEN("new", O_DIRECTORY | O_PATH, 0);
    OPEN("dir/../new", O_RDONLY, 0);
    OPEN("dir/./../dir//../new", O_RDONLY, 0);
    OPEN("dir", O_CREAT | O_DIRECTORY, 0644);
    OPEN("newdir", O_CREAT | O_DIRECTORY, 0644);

    MUST(symlink("new", "link"));
    MUST(symlink("dangling-target", "dangling"));
    MUST(symlink("loop2", "loop1"));
    MUST(symlink("loop1", "loop2"));
    MUST(symlink("dir/", "slashlink"));
    MUST(symlink("/", "rootlink"));
    OPEN("link", O_RDONLY, 0);
    OPEN("link", O_RDONLY | O_NOFOLLOW, 0);
    OPEN("link", O_PATH | O_NOFOLLOW, 0);
    OPEN("link", O_CREAT | O_EXCL, 0644);
    OPEN("link/", O_RDONLY, 0);
    OPEN("slashlink", O_RDONLY, 0);
    OPEN("slashlink", O_RDONLY | O_NOFOLLOW, 0);
    OPEN("slashlink", O_DIRECTORY | O_NOFOLLOW, 0);
    OPEN("slashlink/", O_DIRECTORY | O_NOFOLLOW, 0);
    OPEN("slashlink/.", O_DIRECTORY | O_NOFOLLOW, 0);
    OPEN("rootlink", O_DIRECTORY, 0);
    OPEN("loop1", O_RDONLY, 0);
    OPEN("loop1", O_RDONLY | O_NOFOLLOW, 0);
    OPEN("loop1/x", O_RDONLY, 0);
    OPEN("dangling", O_RDONLY, 0);
    OPEN("dangling", O_CREAT | O_EXCL | O_WRONLY, 0644);
    OPEN("dangling", O_CREAT | O_WRONLY, 0644);
    IS(access("dangling-target", F_OK) == 0);
    MUST(symlink("none/deep", "dangling2"));
    OPEN("dangling2", O_CREAT | O_WRONLY, 0644);
    OPEN("dangling2/", O_CREAT | O_WRONLY, 0644);

    OPEN(long_name, O_CREAT | O_WRONLY, 0644);
    long_name[255] = 'n';
    OPEN(long_name, O_CREAT | O_WRONLY, 0644);
    OPEN(long_name, O_RDONLY, 0);
    OPEN(long_path, O_RDONLY, 0);
    memcpy(long_path + 4094, "./", 3);
    OPEN(long_path, O_RDONLY, 0);
    OPEN((char *)8, O_RDONLY, 0);

    /* forty links are followed, the forty-first is one too many */
    put("l0", "end");
    for (int i = 1; i <= 41; i++) {
        char from[8], to[8];
        sprintf(to, "l%d", i - 1), sprintf(from, "l%d", i);
        MUST(symlink(to, from));
    }
    OPEN("l40", O_RDONLY, 0);
    OPEN("l41", O_RDONLY, 0);

    /* O_APPEND, O_TRUNC, read and write permissions of the descriptor */
    put("text", "hello");
    int fd = open("text", O_WRONLY | O_APPEND);
    TRY(lseek(fd, 0, SEEK_SET));
    TRY(write(fd, " you", 4));
    TRY(lseek(fd, 0, SEEK_CUR));
    TRY(read(fd, long_name, 1));
    TRY(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    TRY(fcntl(fd, F_SETFL, O_NONBLOCK));
    TRY(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    close(fd);
    printf("text: %s\n", get("text"));
    OPEN("text", O_RDONLY | O_TRUNC, 0);
    printf("text: '%s'\n", get("text"));
    fd = open("text", O_RDONLY);
    TRY(write(fd, "x", 1));
    TRY(ftruncate(fd, 0));
    TRY(fcntl(fd, F_GETFD));
    close(fd);
    fd = open("text", O_RDONLY | O_CLOEXEC);
    TRY(fcntl(fd, F_GETFD));
    close(fd);
    fd = open("text", 3);
    IS(fd >= 0);
    TRY(read(fd, long_name, 1));
    TRY(write(fd, "x", 1));
    close(fd);

    /* O_PATH */
    fd = open("text", O_PATH);
    struct stat st;
    TRY(read(fd, long_name, 1));
    TRY(write(fd, "x", 1));
    TRY(fstat(fd, &st));
    TRY(fchmod(fd, 0600));
    TRY(fchown(fd, -1, -1));
    TRY(ftruncate(fd, 0));
    TRY(lseek(fd, 0, SEEK_SET));
    TRY(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
    TRY((fcntl(fd, F_GETFL) & O_PATH) == O_PATH);
    close(fd);
    int link_fd = open("link", O_PATH | O_NOFOLLOW);
    char target[32];
    TRY(readlinkat(link_fd, "", target, sizeof target));
    TRY(fstat(link_fd, &st));
    IS(S_ISLNK(st.st_mode));
    close(link_fd);

    /* relative to a directory descriptor */
    int dir = open("dir", O_RDONLY | O_DIRECTORY), dir_path = open("dir", O_PATH);
    DO(openat(dir, "in", O_CREAT | O_WRONLY, 0644));
    DO(openat(dir_path, "in", O_RDONLY));
    DO(openat(dir, "../new", O_RDONLY));
    DO(openat(dir, "", O_RDONLY));
    DO(openat(999, "in", O_RDONLY));
    DO(openat(-1, "in", O_RDONLY));
    DO(openat(999, "/proc", O_RDONLY));
    fd = open("new", O_RDONLY);
    DO(openat(fd, "in", O_RDONLY));
    DO(openat(fd, "/proc/none", O_RDONLY));
    TRY(read(dir, long_name, 1));
    TRY(write(dir, "x", 1));
    TRY(fchdir(dir));
    IS(access("in", F_OK) == 0);
    TRY(fchdir(fd));
    TRY(fchdir(dir_path));
    TRY(chdir(".."));
    TRY(unlink("dir/in"));
    TRY(rmdir("dir"));
    DO(openat(dir, "in", O_CREAT | O_WRONLY, 0644));
    DO(openat(dir, "..", O_RDONLY));
    TRY(fstat(dir, &st));
    TRY(st.st_nlink);
    close(dir);
    close(dir_path);

    /* creat(2), modes and umask */
    umask(027);
    DO(creat("mode", 0777));
    MUST(stat("mode", &st));
    printf("mode %o size %ld\n", st.st_mode, (long)st.st_size);
    umask(0);
    DO(open("sticky", O_CREAT | O_RDWR, 07777));
    MUST(stat("sticky", &st));
    printf("mode %o\n", st.st_mode);
    OPEN("readonly", O_CREAT | O_RDWR, 0);

    /* lowest free descriptor */
    for (fd = 3; fd < 100; fd++)
        close(fd);
    TRY(open("new", O_RDONLY));
    TRY(open("new", O_RDONLY));
    close(3);
    TRY(open("new", O_RDONLY));
    TRY(dup2(3, 50));
    TRY(dup(3));
    TRY(fcntl(3, F_DUPFD, 40));
    TRY(dup2(3, 3));
    TRY(dup3(3, 3, 0));
    TRY(dup2(99, 3));
    TRY(close(99));
    TRY(close(-1));
    return 0;
}

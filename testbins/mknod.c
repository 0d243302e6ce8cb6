/* mknod(2) of every type, device nodes, and chroot. */
#include "check.h"
#include <sys/sysmacros.h>

static void node(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == -1)
        printf("%s: %s\n", path, errname(errno));
    else
        printf("%s: %o %u:%u\n", path, st.st_mode, major(st.st_rdev), minor(st.st_rdev));
}

int main(void)
{
    char c, cwd[4096];
    begin("mknod");
    TRY(mknod("reg", S_IFREG | 0640, 0));
    node("reg");
    TRY(mknod("plain", 0640, 0));
    node("plain");
    TRY(mknod("fifo", S_IFIFO | 0600, 0));
    node("fifo");
    TRY(mknod("sock", S_IFSOCK | 0600, 0));
    node("sock");
    TRY(mknod("chr", S_IFCHR | 0666, makedev(1, 3)));
    node("chr");
    TRY(mknod("blk", S_IFBLK | 0660, makedev(250, 77)));
    node("blk");
    TRY(mknod("bad", S_IFDIR | 0755, 0));
    TRY(mknod("bad", S_IFLNK | 0755, 0));
    TRY(mknod("bad", 0150000, 0));
    TRY(mknod("reg", S_IFREG | 0640, 0));
    TRY(mknod("none/x", S_IFREG, 0));
    TRY(mknod("new/", S_IFREG, 0));
    OPEN("sock", O_RDONLY, 0);
    OPEN("sock", O_PATH, 0);
    OPEN("chr", O_RDWR, 0);
    int fd = open("chr", O_RDWR);
    TRY(read(fd, &c, 1));
    TRY(write(fd, "x", 1));
    close(fd);
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDWR), full = open("/dev/full", O_RDWR);
    TRY(read(null, &c, 1));
    TRY(write(null, "x", 1));
    TRY(read(zero, &c, 1));
    TRY(c);
    TRY(write(full, "x", 1));
    node("/dev/null");
    node("/dev/zero");
    node("/dev/full");
    node("/dev/random");
    node("/dev/urandom");
    node("/dev/tty");
    IS(read(open("/dev/urandom", O_RDONLY), cwd, 100) == 100);
    OPEN("/dev/null/x", O_RDONLY, 0);
    OPEN("/dev/fd/0", O_RDONLY, 0);
    MUST(rename("chr", "chr2"));
    node("chr2");
    TRY(unlink("chr2"));

    /* chroot */
    MUST(mkdir("root", 0755));
    MUST(mkdir("root/sub", 0755));
    put("root/file", "in the root");
    put("out", "outside");
    MUST(symlink("/file", "root/abs"));
    MUST(symlink("../../../file", "root/sub/up"));
    TRY(chroot("none"));
    TRY(chroot("out"));
    CHILD("chroot") {
        MUST(chroot("root"));
        MUST(chdir("/"));
        IS(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") == 0);
        printf("%s\n", get("/file"));
        printf("%s\n", get("/abs"));
        printf("%s\n", get("/sub/up"));
        printf("%s\n", get("/../../file"));
        printf("%s\n", get("../out"));
        OPEN("/proc", O_RDONLY, 0);
        OPEN("/..", O_RDONLY, 0);
        MUST(chdir("sub"));
        IS(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/sub") == 0);
        CHILD("inherits it") {
            printf("%s\n", get("/file"));
        }
        END_CHILD;
    }
    END_CHILD;
    CHILD("outside its root") {
        MUST(chroot("root"));
        IS(syscall(SYS_getcwd, cwd, sizeof cwd) > 0 && strncmp(cwd, "(unreachable)", 13) == 0);
        printf("%s\n", get("out"));
        MUST(chdir("/sub"));
        printf("%s\n", get("../../out"));
    }
    END_CHILD;
    return 0;
}

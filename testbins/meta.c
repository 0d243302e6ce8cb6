/* stat, statx, times, sizes, modes, owners, access and extended attributes. */
#include "check.h"
#include <linux/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static void times(const char *what, const char *path)
{
    struct stat st;
    MUST(lstat(path, &st));
    printf("%s: atime %ld.%09ld mtime %ld.%09ld\n", what, st.st_atim.tv_sec, st.st_atim.tv_nsec,
           st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void owner(const char *path)
{
    struct stat st;
    MUST(lstat(path, &st));
    printf("%s: %u:%u %o\n", path, st.st_uid, st.st_gid, st.st_mode);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
static void xattrs(const char *path)
{
    char list[1000], *names[50];
    int n = 0;
    ssize_t size = listxattr(path, list, sizeof list);
    for (ssize_t at = 0; at < size && n < 50; at += strlen(list + at) + 1)
        if (strncmp(list + at, "user.", 5) == 0)
            names[n++] = list + at;
    qsort(names, n, sizeof *names, by_name);
    printf("xattrs of %s:", path);
    for (int i = 0; i < n; i++)
        printf(" %s", names[i]);
    puts("");
}

int main(void)
{
    struct stat st;
    struct statx sx;
    begin("meta");
    put("f", "twelve bytes");
    MUST(mkdir("d", 0755));
    MUST(symlink("f", "l"));
    MUST(symlink("none", "dangling"));

    /* statx agrees with stat */
    TRY(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &sx));
    MUST(stat("f", &st));
    IS((sx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    IS(sx.stx_ino == st.st_ino && sx.stx_size == 12 && sx.stx_nlink == 1 && sx.stx_mode == 0100644);
    IS(makedev(sx.stx_dev_major, sx.stx_dev_minor) == st.st_dev);
    IS(sx.stx_mtime.tv_sec == st.st_mtim.tv_sec && sx.stx_mtime.tv_nsec == st.st_mtim.tv_nsec);
    IS(labs(st.st_ctim.tv_sec - time(NULL)) < 100);
    IS(st.st_blksize >= 512);
    TRY(statx(AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &sx));
    printf("%o\n", sx.stx_mode & S_IFMT);
    TRY(statx(AT_FDCWD, "f", 0x10000, STATX_TYPE, &sx));
    TRY(statx(AT_FDCWD, "f", 0, 0x80000000, &sx));
    TRY(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_TYPE, &sx));
    TRY(statx(AT_FDCWD, "", 0, STATX_TYPE, &sx));
    int fd = open("f", O_RDWR);
    TRY(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &sx));
    TRY(sx.stx_size);
    TRY(syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
    TRY(syscall(SYS_newfstatat, AT_FDCWD, "", &st, AT_EMPTY_PATH));
    IS(S_ISDIR(st.st_mode));
    TRY(fstatat(AT_FDCWD, "f", &st, 0x10000));
    TRY(stat("none", &st));
    TRY(stat("dangling", &st));
    TRY(lstat("dangling", &st));
    TRY(stat("f/", &st));
    TRY(lstat("l/", &st));
    TRY(fstat(999, &st));
    TRY(syscall(SYS_stat, "f", 8L));
    TRY(fstat(0, &st) == 0 && st.st_ino != 0);
    int p[2];
    MUST(pipe(p));
    TRY(fstat(p[0], &st));
    printf("pipe %o\n", st.st_mode);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(fstat(s, &st));
    printf("socket %o\n", st.st_mode);

    /* times */
    struct timespec t[2] = { { 1000000000, 123456789 }, { 1100000000, 987654321 } };
    TRY(utimensat(AT_FDCWD, "f", t, 0));
    times("set", "f");
    t[0].tv_nsec = UTIME_OMIT, t[1] = (struct timespec){ 1200000000, 1 };
    TRY(utimensat(AT_FDCWD, "f", t, 0));
    times("mtime only", "f");
    t[0].tv_nsec = UTIME_NOW, t[1].tv_nsec = UTIME_OMIT;
    TRY(utimensat(AT_FDCWD, "f", t, 0));
    MUST(stat("f", &st));
    IS(labs(st.st_atim.tv_sec - time(NULL)) < 100 && st.st_mtim.tv_sec == 1200000000);
    t[0] = t[1] = (struct timespec){ 5, 6 };
    TRY(utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW));
    MUST(lstat("l", &st));
    IS(st.st_mtim.tv_sec == 5);
    IS(stat("f", &st) == 0 && st.st_mtim.tv_sec == 1200000000);
    TRY(futimens(fd, t));
    times("futimens", "f");
    t[0].tv_nsec = 1000000000;
    TRY(utimensat(AT_FDCWD, "f", t, 0));
    TRY(utimensat(AT_FDCWD, "none", NULL, 0));
    TRY(utimensat(AT_FDCWD, "f", NULL, 0x8000));
    TRY(futimens(fd, NULL));
    IS(fstat(fd, &st) == 0 && labs(st.st_mtim.tv_sec - time(NULL)) < 100);
    struct timeval v[2] = { { 1, 2 }, { 3, 4 } };
    TRY(utimes("f", v));
    times("utimes", "f");
    TRY(futimesat(AT_FDCWD, "f", v));
    TRY(syscall(SYS_utime, "f", NULL));
    TRY(utimes("d", v));
    times("dir", "d");
    t[0] = t[1] = (struct timespec){ -5, 0 };
    TRY(utimensat(AT_FDCWD, "f", t, 0));
    times("before the epoch", "f");

    /* writing changes mtime and ctime; reading the name does not */
    MUST(utimes("f", v));
    MUST(pwrite(fd, "T", 1, 0));
    IS(fstat(fd, &st) == 0 && st.st_mtim.tv_sec > 1000000);
    MUST(utimes("d", v));
    put("d/x", "");
    IS(stat("d", &st) == 0 && st.st_mtim.tv_sec > 1000000);

    /* sizes */
    TRY(truncate("f", 5));
    printf("%s\n", get("f"));
    TRY(truncate("f", 1000000));
    MUST(stat("f", &st));
    TRY(st.st_size);
    TRY(truncate("f", -1));
    TRY(truncate("d", 0));
    TRY(truncate("none", 0));
    TRY(truncate("dangling", 0));
    TRY(truncate("l", 3));
    TRY(truncate("f/", 3));
    TRY(ftruncate(fd, 100));
    TRY(ftruncate(fd, -1));
    TRY(ftruncate(p[1], 0));
    TRY(ftruncate(999, 0));
    TRY(fallocate(fd, 0, 0, 8192));
    TRY(lseek(fd, 0, SEEK_END));
    TRY(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100000));
    TRY(lseek(fd, 0, SEEK_END));
    TRY(fallocate(fd, 0, -1, 10));
    TRY(fallocate(p[1], 0, 0, 10));
    TRY(lseek(fd, -1, SEEK_SET));
    TRY(lseek(fd, 0, 77));
    TRY(lseek(p[0], 0, SEEK_SET));
    TRY(fsync(fd));
    TRY(fdatasync(fd));
    TRY(syncfs(fd));

    /* modes */
    TRY(chmod("f", 04755));
    owner("f");
    TRY(chmod("f", 0177777));
    owner("f");
    TRY(fchmod(fd, 0640));
    owner("f");
    TRY(chmod("l", 0600));
    owner("l");
    owner("f");
    TRY(chmod("none", 0600));
    TRY(chmod("d", 01777));
    owner("d");
    TRY(fchmodat(AT_FDCWD, "d", 0755, 0));
    TRY(syscall(SYS_fchmodat, AT_FDCWD, "none", 0755));
    TRY(fchmod(999, 0));

    /* access as root */
    MUST(chmod("f", 0));
    TRY(access("f", F_OK));
    TRY(access("f", R_OK | W_OK));
    TRY(access("f", X_OK));
    TRY(access("d", X_OK));
    TRY(access("f", 8));
    TRY(access("none", R_OK));
    TRY(faccessat(AT_FDCWD, "dangling", F_OK, 0));
    TRY(syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    TRY(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS));
    TRY(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, 0x10000));
    TRY(syscall(SYS_faccessat2, fd, "", R_OK, AT_EMPTY_PATH));
    MUST(chmod("f", 0644));

    /* extended attributes */
    char value[64];
    TRY(setxattr("f", "user.one", "1", 1, 0));
    TRY(setxattr("f", "user.two", "22", 2, XATTR_CREATE));
    TRY(setxattr("f", "user.two", "222", 3, XATTR_CREATE));
    TRY(setxattr("f", "user.two", "222", 3, XATTR_REPLACE));
    TRY(setxattr("f", "user.three", "", 0, XATTR_REPLACE));
    TRY(setxattr("f", "user.empty", "", 0, 0));
    TRY(getxattr("f", "user.two", value, sizeof value));
    TRY(getxattr("f", "user.two", value, 0));
    TRY(getxattr("f", "user.two", value, 2));
    TRY(getxattr("f", "user.none", value, 2));
    TRY(getxattr("f", "user.", value, 2));
    TRY(getxattr("f", "", value, 2));
    TRY(getxattr("f", "nonsense.x", value, 2));
    TRY(getxattr("l", "user.one", value, sizeof value));
    TRY(lgetxattr("l", "user.one", value, sizeof value));
    TRY(lsetxattr("l", "user.one", "x", 1, 0));
    TRY(getxattr("none", "user.one", value, sizeof value));
    TRY(fgetxattr(fd, "user.one", value, sizeof value));
    TRY(fsetxattr(fd, "user.fd", "x", 1, 0));
    TRY(setxattr("f", "user.x", "x", 1, 9));
    TRY(setxattr("f", "user.big", value, 70000, 0));
    TRY(setxattr("d", "user.dir", "dir", 3, 0));
    TRY(setxattr("none", "user.x", "x", 1, 0));
    xattrs("f");
    xattrs("d");
    TRY(listxattr("f", value, 1));
    TRY(flistxattr(999, value, 1));
    TRY(removexattr("f", "user.one"));
    TRY(removexattr("f", "user.one"));
    TRY(fremovexattr(fd, "user.fd"));
    xattrs("f");
    MUST(rename("f", "g"));
    xattrs("g");
    MUST(rename("g", "f"));

    /* statfs */
    struct statfs sf;
    TRY(statfs(".", &sf));
    IS(sf.f_bsize > 0 && sf.f_blocks > 0 && sf.f_namelen == 255);
    TRY(fstatfs(fd, &sf));
    TRY(statfs("/proc", &sf));
    printf("%lx\n", (long)sf.f_type);
    TRY(statfs("none", &sf));
    TRY(fstatfs(999, &sf));
    return 0;
}

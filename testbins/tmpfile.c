/* O_TMPFILE, linkat of it, unlinked files that stay open, hard links and readlink. */
#include "check.h"

int main(void)
{
    struct stat st;
    char path[64], text[16] = "";
    begin("tmpfile");

    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    IS(fd >= 0);
    TRY(write(fd, "temp", 4));
    MUST(fstat(fd, &st));
    printf("mode %o links %ld size %ld\n", st.st_mode, (long)st.st_nlink, (long)st.st_size);
    sprintf(path, "/proc/self/fd/%d", fd);
    TRY(linkat(AT_FDCWD, path, AT_FDCWD, "kept", AT_SYMLINK_FOLLOW));
    printf("kept: %s\n", get("kept"));
    MUST(fstat(fd, &st));
    printf("links %ld\n", (long)st.st_nlink);
    TRY(linkat(fd, "", AT_FDCWD, "kept2", AT_EMPTY_PATH));
    close(fd);
    OPEN(".", O_TMPFILE | O_RDONLY, 0600);
    OPEN("kept", O_TMPFILE | O_RDWR, 0600);
    OPEN("none", O_TMPFILE | O_RDWR, 0600);
    fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    sprintf(path, "/proc/self/fd/%d", fd);
    TRY(linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW));
    close(fd);

    /* unlinked and open */
    put("gone", "still here");
    fd = open("gone", O_RDWR);
    TRY(unlink("gone"));
    TRY(access("gone", F_OK));
    MUST(fstat(fd, &st));
    printf("links %ld size %ld\n", (long)st.st_nlink, (long)st.st_size);
    TRY(pread(fd, text, 5, 0));
    printf("%s\n", text);
    TRY(pwrite(fd, "HERE", 4, 6));
    TRY(fchmod(fd, 0600));
    TRY(ftruncate(fd, 3));
    TRY(lseek(fd, 0, SEEK_END));
    sprintf(path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY);
    IS(again >= 0);
    TRY(read(again, text, sizeof text));
    put("gone", "new one");
    TRY(pread(fd, text, sizeof text, 0));
    printf("%s\n", get("gone"));

    /* hard links */
    put("one", "1");
    TRY(link("one", "two"));
    TRY(link("one", "two"));
    TRY(link("none", "three"));
    TRY(link(".", "dirlink"));
    TRY(link("one", "none/x"));
    TRY(link("one/", "three"));
    TRY(link("one", "three/"));
    MUST(symlink("one", "sym"));
    TRY(link("sym", "symhard"));
    MUST(lstat("symhard", &st));
    printf("symhard is %o links %ld\n", st.st_mode & S_IFMT, (long)st.st_nlink);
    TRY(linkat(AT_FDCWD, "sym", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    MUST(stat("one", &st));
    printf("links %ld\n", (long)st.st_nlink);
    ino_t ino = st.st_ino;
    MUST(stat("two", &st));
    IS(ino == st.st_ino);
    TRY(linkat(AT_FDCWD, "one", AT_FDCWD, "bad", 0x8000));
    put("two", "12");
    printf("one: %s\n", get("one"));
    TRY(unlink("one"));
    printf("followed: %s\n", get("followed"));
    MUST(stat("two", &st));
    printf("links %ld\n", (long)st.st_nlink);

    /* unlink and rmdir errors */
    MUST(mkdir("d", 0755));
    put("d/f", "");
    TRY(unlink("d"));
    TRY(unlink("none"));
    TRY(unlink("two/"));
    TRY(unlink("two/x"));
    TRY(rmdir("two"));
    TRY(rmdir("d"));
    TRY(rmdir("d/."));
    TRY(rmdir("d/.."));
    TRY(rmdir("."));
    TRY(rmdir(""));
    TRY(rmdir("/"));
    TRY(unlink("/"));
    TRY(unlink("."));
    TRY(unlink(""));
    TRY(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
    TRY(unlinkat(AT_FDCWD, "d/f", AT_REMOVEDIR));
    TRY(unlinkat(AT_FDCWD, "d/f", 0x8000));
    TRY(unlinkat(AT_FDCWD, "d/f", 0));
    TRY(rmdir("d/"));
    TRY(mkdir("sym", 0755));
    TRY(mkdir("nd/", 0755));
    TRY(mkdir("nd", 0755));
    TRY(mkdir(".", 0755));
    TRY(mkdir("/", 0755));
    TRY(mkdir("", 0755));
    TRY(mkdir("none/x", 0755));
    TRY(mkdir("two/x", 0755));
    MUST(symlink("nowhere", "dang"));
    TRY(mkdir("dang", 0755));
    TRY(mkdir("dang/", 0755));
    MUST(symlink("nd", "ndlink"));
    TRY(rmdir("ndlink"));
    TRY(rmdir("ndlink/"));
    TRY(unlink("ndlink/"));
    TRY(unlink("ndlink"));

    /* symlink and readlink */
    char target[8];
    TRY(symlink("", "empty"));
    TRY(symlink("x", "two"));
    TRY(symlink("x", "new/"));
    TRY(symlink("a-long-target", "long"));
    TRY(readlink("long", target, sizeof target));
    printf("%.8s\n", target);
    TRY(readlink("two", target, sizeof target));
    TRY(readlink("none", target, sizeof target));
    TRY(readlink("long/", target, sizeof target));
    TRY(readlink("nd", target, sizeof target));
    TRY(readlink("long", target, 0));
    TRY(syscall(SYS_readlink, "long", target, -1));
    TRY(syscall(SYS_readlink, "long", 8L, 8L));
    MUST(lstat("long", &st));
    printf("size %ld mode %o\n", (long)st.st_size, st.st_mode);
    return 0;
}

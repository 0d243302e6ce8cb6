/* What a descriptor opened with O_PATH is good for, and what not. */
#include "check.h"

static void look(const char *what, int flags)
{
    char buf[256];
    struct stat st;
    int fd = open(what, O_PATH | flags);
    printf("%s %x: %s\n", what, flags, fd < 0 ? strerror(errno) : "open");
    if (fd < 0)
        return;
    MUST(fstat(fd, &st));
    printf("%o %ld\n", st.st_mode & S_IFMT, S_ISDIR(st.st_mode) ? 0 : (long)st.st_size);
    TRY(read(fd, buf, 1));
    TRY(write(fd, buf, 1));
    TRY(pread(fd, buf, 1, 0));
    TRY(syscall(SYS_getdents64, fd, buf, sizeof buf));
    TRY(fchmod(fd, 0700));
    TRY(fchown(fd, -1, -1));
    TRY(futimens(fd, NULL));
    TRY(fstatat(fd, "", &st, AT_EMPTY_PATH));
    TRY(faccessat(fd, "inner", F_OK, 0));
    IS(openat(fd, "inner", O_RDONLY) >= 0);
    TRY(readlinkat(fd, "", buf, sizeof buf));
    IS(fstat(dup(fd), &st) == 0);
    sprintf(buf, "/proc/self/fd/%d", fd);
    int again = open(buf, O_RDONLY | O_NONBLOCK);
    printf("again: %s\n", again < 0 ? strerror(errno) : "open");
    if (S_ISREG(st.st_mode))
        TRY(read(again, buf, 1));
    TRY(fchdir(fd));
}

int main(void)
{
    begin("opath");
    MUST(mkdir("dir", 0755));
    put("dir/inner", "x");
    put("file", "text");
    MUST(symlink("file", "link"));
    MUST(mkfifo("fifo", 0644));
    int top = open(".", O_PATH);
    look("file", 0);
    look("file", O_DIRECTORY);
    look("link", 0);
    look("link", O_NOFOLLOW);
    look("fifo", 0);
    look("dir", 0);
    MUST(fchdir(top));
    look("dir", O_DIRECTORY);
    MUST(fchdir(top));
    struct { unsigned long flags, mode, resolve; } how = { O_PATH | O_RDWR, 0, 0 };
    TRY(syscall(SYS_openat2, AT_FDCWD, "file", &how, sizeof how));
    return 0;
}

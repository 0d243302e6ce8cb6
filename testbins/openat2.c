/* openat2(2) and its resolve flags. */
#include "check.h"
#include <linux/openat2.h>

static int open2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = { .flags = flags, .mode = mode, .resolve = resolve };
    int fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? -1 : 0;
}

int main(void)
{
    begin("openat2");
    MUST(mkdir("top", 0755));
    MUST(mkdir("top/sub", 0755));
    put("top/file", "x");
    put("out", "x");
    MUST(symlink("file", "top/link"));
    MUST(symlink("../out", "top/escape"));
    MUST(symlink("/proc", "top/abs"));
    MUST(symlink("/top-file", "top/inroot"));
    put("top/top-file", "x");
    MUST(symlink("../file", "top/sub/up"));
    int top = open("top", O_RDONLY | O_DIRECTORY);
    TRY(open2(top, "file", O_RDONLY, 0, 0));
    TRY(open2(top, "file", O_RDONLY, 0644, 0));
    TRY(open2(top, "file", O_RDONLY | 1ull << 40, 0, 0));
    TRY(open2(top, "new", O_CREAT | O_WRONLY, 0644, 0));
    TRY(open2(top, "new2", O_CREAT | O_WRONLY, 0200000, 0));
    TRY(open2(top, "file", O_RDONLY, 0, 0x1000));
    TRY(open2(top, "../out", O_RDONLY, 0, 0));
    TRY(open2(top, "../out", O_RDONLY, 0, RESOLVE_BENEATH));
    TRY(open2(top, "sub/../file", O_RDONLY, 0, RESOLVE_BENEATH));
    TRY(open2(top, "sub/up", O_RDONLY, 0, RESOLVE_BENEATH));
    TRY(open2(top, "escape", O_RDONLY, 0, RESOLVE_BENEATH));
    TRY(open2(top, "abs", O_RDONLY, 0, RESOLVE_BENEATH));
    TRY(open2(top, "/proc", O_RDONLY, 0, RESOLVE_BENEATH));
    TRY(open2(top, "link", O_RDONLY, 0, RESOLVE_BENEATH));
    TRY(open2(top, "../out", O_RDONLY, 0, RESOLVE_IN_ROOT));
    TRY(open2(top, "../file", O_RDONLY, 0, RESOLVE_IN_ROOT));
    TRY(open2(top, "/file", O_RDONLY, 0, RESOLVE_IN_ROOT));
    TRY(open2(top, "inroot", O_RDONLY, 0, RESOLVE_IN_ROOT));
    TRY(open2(top, "escape", O_RDONLY, 0, RESOLVE_IN_ROOT));
    TRY(open2(top, "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    TRY(open2(top, "sub/up", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    TRY(open2(top, "file", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    TRY(open2(top, "link", O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS));
    TRY(open2(top, "/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS));
    TRY(open2(top, "/proc/self/status", O_RDONLY, 0, RESOLVE_NO_XDEV));
    TRY(open2(top, "file", O_RDONLY, 0, RESOLVE_NO_XDEV));
    TRY(open2(top, "file", O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
    struct {
        struct open_how how;
        uint64_t more;
    } big = { { .flags = O_RDONLY }, 0 };
    DO(syscall(SYS_openat2, top, "file", &big, sizeof big));
    big.more = 1;
    DO(syscall(SYS_openat2, top, "file", &big, sizeof big));
    DO(syscall(SYS_openat2, top, "file", &big, 8));
    DO(syscall(SYS_openat2, top, "file", &big, 5000));
    DO(syscall(SYS_openat2, top, "file", 8L, sizeof big.how));
    return 0;
}

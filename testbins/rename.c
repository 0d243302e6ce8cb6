/* rename(2) and renameat2(2) in all their forms. */
#include "check.h"

static int rename2(const char *a, const char *b, unsigned flags)
{
    return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, flags);
}
enum { NOREPLACE = 1, EXCHANGE = 2, WHITEOUT = 4 };

int main(void)
{
    struct stat st;
    begin("rename");
    put("a", "A");
    put("b", "B");
    MUST(mkdir("dir", 0755));
    MUST(mkdir("empty", 0755));
    MUST(mkdir("full", 0755));
    put("full/x", "x");
    MUST(symlink("a", "link"));
    MUST(symlink("dir", "dirlink"));

    TRY(rename("none", "c"));
    TRY(rename("a", "none/c"));
    TRY(rename("a", "b"));
    printf("b: %s\n", get("b"));
    TRY(access("a", F_OK));
    TRY(rename("b", "a"));
    TRY(rename("a", "a"));
    TRY(rename("a", "dir"));
    TRY(rename("dir", "a"));
    TRY(rename("a", "c/"));
    TRY(rename("a/", "c"));
    TRY(rename("a", "full/x/y"));
    TRY(rename("dir", "empty"));
    TRY(rename("empty", "full"));
    TRY(rename("full", "empty"));
    TRY(rename("empty", "full/"));
    TRY(rename("full", "full/sub"));
    TRY(rename("full/x", "full"));
    TRY(rename(".", "c"));
    TRY(rename("full/.", "c"));
    TRY(rename("full/..", "c"));
    TRY(rename("a", "."));
    TRY(rename("a", "full/.."));
    TRY(rename("", "c"));
    TRY(rename("a", ""));
    TRY(rename("full/", "dir"));
    TRY(rename("link", "link2"));
    MUST(lstat("link2", &st));
    IS(S_ISLNK(st.st_mode));
    TRY(rename("a", "link2"));
    MUST(lstat("link2", &st));
    IS(S_ISREG(st.st_mode));
    TRY(rename("dirlink", "dirlink2"));
    TRY(rename("dirlink2/", "other"));
    TRY(rename("dir/x", "x"));

    /* two names of one file: nothing happens, both stay */
    MUST(link("x", "y"));
    TRY(rename("x", "y"));
    TRY(access("x", F_OK));

    TRY(rename2("x", "link2", NOREPLACE));
    TRY(rename2("x", "fresh", NOREPLACE));
    TRY(rename2("none", "fresh2", NOREPLACE));
    TRY(rename2("fresh", "none", EXCHANGE));
    put("p", "P");
    put("q", "Q");
    TRY(rename2("p", "q", EXCHANGE));
    printf("p: %s\n", get("p"));
    printf("q: %s\n", get("q"));
    MUST(mkdir("d1", 0755));
    put("d1/in1", "");
    TRY(rename2("p", "d1", EXCHANGE));
    TRY(access("p/in1", F_OK));
    printf("d1: %s\n", get("d1"));
    TRY(rename2("p", "p/in1", EXCHANGE));
    TRY(rename2("p/in1", "p", EXCHANGE));
    TRY(rename2("p", "q", NOREPLACE | EXCHANGE));
    TRY(rename2("p", "q", 0x100));
    TRY(rename2("p", "q", WHITEOUT | EXCHANGE));

    /* an open directory keeps its place through a rename; .. follows */
    MUST(mkdir("m1", 0755));
    MUST(mkdir("m2", 0755));
    MUST(mkdir("m1/child", 0755));
    put("m2/mark", "m2");
    int fd = open("m1/child", O_RDONLY);
    TRY(rename("m1/child", "m2/child"));
    TRY(faccessat(fd, "../mark", F_OK, 0));
    MUST(stat("m1", &st));
    printf("m1 links %ld\n", (long)st.st_nlink);
    MUST(stat("m2", &st));
    printf("m2 links %ld\n", (long)st.st_nlink);
    MUST(fchdir(fd));
    char cwd[4096];
    IS(getcwd(cwd, sizeof cwd) && strcmp(strstr(cwd, "/rename"), "/rename/m2/child") == 0);
    MUST(chdir("../.."));
    TRY(rename("m2", "m3"));
    TRY(faccessat(fd, "../mark", F_OK, 0));
    MUST(fchdir(fd));
    IS(getcwd(cwd, sizeof cwd) && strcmp(strstr(cwd, "/rename"), "/rename/m3/child") == 0);
    MUST(chdir("../.."));

    /* an open file survives being replaced */
    put("old", "old");
    put("new", "new");
    fd = open("old", O_RDONLY);
    TRY(rename("new", "old"));
    TRY(read(fd, cwd, 8));
    printf("%.3s %s\n", cwd, get("old"));
    MUST(fstat(fd, &st));
    printf("links %ld\n", (long)st.st_nlink);

    /* across descriptors */
    int d3 = open("m3", O_RDONLY);
    TRY(renameat(d3, "mark", AT_FDCWD, "mark"));
    TRY(renameat(AT_FDCWD, "mark", d3, "mark2"));
    TRY(renameat(fd, "mark", d3, "x"));
    TRY(renameat(999, "mark", d3, "x"));
    TRY(rename("m3/mark2", "/proc/x"));
    return 0;
}

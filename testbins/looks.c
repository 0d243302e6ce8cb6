/* Looks at files over and over, in every way that an agent can hand over: N rounds. */
#include "check.h"
#include <sys/utsname.h>

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1000;
    symlink("looked/at/by/a/link", "/tmp/link");
    mkdir("/tmp/dir", 0755);
    for (int i = 0; i < 20; i++) {
        char name[64];
        snprintf(name, sizeof name, "/tmp/dir/file %d", i);
        close(creat(name, 0644));
    }
    DIR *dir = opendir("/tmp/dir");
    long sum = 0;
    for (int i = 0; i < rounds; i++) {
        struct stat st;
        struct statx stx;
        struct utsname name;
        char text[256];
        sum += stat("/tmp", &st);
        sum += lstat("/none", &st);
        sum += fstat(dirfd(dir), &st);
        sum += statx(AT_FDCWD, "/tmp/dir/file 1", 0, STATX_BASIC_STATS, &stx);
        sum += access("/tmp/dir", W_OK);
        sum += faccessat(AT_FDCWD, "/tmp/none", R_OK, 0);
        sum += readlink("/tmp/link", text, sizeof text);
        sum += getcwd(text, sizeof text) != NULL;
        sum += uname(&name);
        sum += getuid() + geteuid();
        int fd = open("/tmp/dir/file 2", O_RDONLY);
        sum += fstat(fd, &st);
        close(fd);
        rewinddir(dir);
        while (readdir(dir))
            sum++;
    }
    printf("%ld\n", sum);
    return 0;
}

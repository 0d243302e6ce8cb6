/* mount(2) and umount2(2) by root. Natively in a mount namespace of its own; a layer refuses to make one,
 * and changes the one table it has. */
#include "check.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>

/* What the mount table says of a place below the working directory. */
static const char *entry(const char *name)
{
    static char text[512];
    char path[512], line[1024], cwd[256];
    snprintf(path, sizeof path, " %s/%s ", getcwd(cwd, sizeof cwd), name);
    FILE *f = fopen("/proc/self/mounts", "r");
    strcpy(text, "not mounted");
    while (f && fgets(line, sizeof line, f))
        if (strstr(line, path)) {
            char type[64], options[256];
            sscanf(line, "%*s %*s %63s %255s", type, options);
            char *end = strchr(options, ',');
            /* ro or rw, then what the flags say. */
            snprintf(text, sizeof text, "%s %.*s%s%s%s", type, end ? (int)(end - options) : 9, options,
                     strstr(options, "nosuid") ? " nosuid" : "", strstr(options, "nodev") ? " nodev" : "",
                     strstr(options, "noexec") ? " noexec" : "");
        }
    if (f)
        fclose(f);
    return text;
}

int main(void)
{
    struct stat st;
    begin("mounts");
    if (unshare(CLONE_NEWNS) == 0)
        MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mkdir("m", 0755));
    MUST(mkdir("twin", 0755));
    put("m/below", "below");
    put("file", "file");
    put("over", "over");

    TRY(mount("none", "m", "nosuchfs", 0, NULL));
    TRY(mount("none", "none", "tmpfs", 0, NULL));
    TRY(mount("none", "m", NULL, 0, NULL));
    TRY(mount("none", "m", "tmpfs", 0, "bogus=1"));
    TRY(mount("none", "m", (char *)1, 0, NULL));
    TRY(mount("none", "file", "tmpfs", 0, NULL));
    TRY(umount2("m", 0));
    TRY(umount2("none", 0));
    TRY(umount2("m", 1 << 20));

    TRY(mount("some source", "m", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=750"));
    printf("m: %s\n", entry("m"));
    TRY(access("m/below", F_OK));
    MUST(stat("m", &st));
    printf("mode %o\n", st.st_mode & 07777);
    put("m/inside", "inside");
    MUST(mkdir("m/sub", 0755));
    IS(({ struct stat a, b; stat("m", &a), stat(".", &b), a.st_dev != b.st_dev; }));
    TRY(rename("m/inside", "inside"));
    TRY(link("m/inside", "inside"));
    TRY(rmdir("m"));
    TRY(rename("m", "n"));

    TRY(mount("m", "twin", NULL, MS_BIND, NULL));
    printf("twin: %s, %s\n", entry("twin"), get("twin/inside"));
    put("twin/new", "new");
    printf("m/new: %s\n", get("m/new"));
    TRY(mount(NULL, "twin", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC, NULL));
    printf("twin: %s\n", entry("twin"));
    TRY(open("twin/x", O_CREAT | O_WRONLY, 0644));
    TRY(unlink("twin/new"));
    TRY(chmod("twin/new", 0600));
    put("m/new", "still");
    TRY(mount(NULL, "file", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    TRY(mount(NULL, "twin", NULL, MS_PRIVATE, NULL));
    TRY(mount(NULL, "file", NULL, MS_PRIVATE, NULL));
    TRY(mount(NULL, "twin", NULL, MS_PRIVATE | MS_SLAVE, NULL));

    TRY(mount("file", "over", NULL, MS_BIND, NULL));
    printf("over: %s\n", get("over"));
    TRY(unlink("over"));
    TRY(mount("file", "m", NULL, MS_BIND, NULL));
    TRY(mount("m", "over", NULL, MS_BIND, NULL));
    TRY(umount2("over", 0));
    printf("over: %s\n", get("over"));

    TRY(mount("none", "m/sub", "tmpfs", 0, NULL));
    put("m/sub/deep", "deep");
    MUST(mkdir("one", 0755));
    MUST(mkdir("all", 0755));
    TRY(mount("m", "one", NULL, MS_BIND, NULL));
    TRY(mount("m", "all", NULL, MS_BIND | MS_REC, NULL));
    printf("one: %s, all: %s\n", get("one/sub/deep"), get("all/sub/deep"));
    TRY(umount2("all", 0));
    TRY(umount2("all", MNT_DETACH));
    printf("all: %s\n", entry("all"));
    MUST(mkdir("moved", 0755));
    TRY(mount("m", "m/sub", NULL, MS_MOVE, NULL));
    TRY(mount("file", "moved", NULL, MS_MOVE, NULL));
    TRY(mount("m", "moved", NULL, MS_MOVE, NULL));
    printf("moved: %s, m: %s\n", get("moved/sub/deep"), get("m/below"));

    /* In use. */
    TRY(umount2("moved", 0));
    TRY(umount2("moved/sub", 0));
    int fd = open("moved/inside", O_RDONLY);
    TRY(umount2("one", 0));
    TRY(umount2("moved", 0));
    close(fd);
    MUST(chdir("moved"));
    TRY(umount2("../moved", 0));
    MUST(chdir(".."));
    fd = open("moved", O_RDONLY | O_DIRECTORY);
    TRY(umount2("moved", 0));
    TRY(umount2("moved", MNT_DETACH));
    IS(faccessat(fd, "inside", F_OK, 0) == 0);
    close(fd);
    printf("moved: %s\n", entry("moved"));

    MUST(symlink("one", "link"));
    TRY(mount("none", "link", "tmpfs", MS_RDONLY, NULL));
    printf("one: %s\n", entry("one"));
    TRY(umount2("link", UMOUNT_NOFOLLOW));
    TRY(umount2("link", 0));

    /* An overlay of directories of the tree. */
    MUST(mkdir("o", 0755));
    MUST(mount("none", "o", "tmpfs", 0, NULL));
    MUST(mkdir("o/lower", 0755));
    MUST(mkdir("o/upper", 0755));
    MUST(mkdir("o/work", 0755));
    MUST(mkdir("o/merged", 0755));
    put("o/lower/a", "lower a");
    put("o/lower/b", "lower b");
    TRY(mount("none", "o/merged", "overlay", 0, "upperdir=o/upper,workdir=o/work"));
    TRY(mount("none", "o/merged", "overlay", 0, "lowerdir=o/lower,upperdir=o/upper"));
    TRY(mount("none", "o/merged", "overlay", 0, "lowerdir=o/none,upperdir=o/upper,workdir=o/work"));
    TRY(mount("none", "o/merged", "overlay", 0, "lowerdir=o/lower,upperdir=o/upper,workdir=o/work"));
    put("o/merged/a", "upper a");
    TRY(unlink("o/merged/b"));
    printf("%s, %s, %s\n", get("o/lower/a"), get("o/upper/a"), get("o/merged/a"));
    TRY(access("o/merged/b", F_OK));
    MUST(lstat("o/upper/b", &st));
    IS(S_ISCHR(st.st_mode) && st.st_rdev == 0);
    TRY(umount2("o/merged", 0));
    TRY(mount("none", "o/merged", "overlay", 0, "lowerdir=o/upper:o/lower"));
    printf("%s\n", get("o/merged/a"));
    TRY(open("o/merged/new", O_CREAT | O_WRONLY, 0644));
    TRY(umount2("o/merged", 0));
    /* Not any number of them on one another. */
    TRY(mount("none", "o/merged", "overlay", 0, "lowerdir=o/upper:o/lower"));
    MUST(mkdir("second", 0755));
    MUST(mkdir("third", 0755));
    printf("%s\n", mount("none", "second", "overlay", 0, "lowerdir=o/merged:o/lower") == -1 ? errname(errno) : "ok");
    TRY(mount("none", "third", "overlay", 0, "lowerdir=second:o/lower"));
    umount2("second", 0);
    TRY(umount2("o/merged", 0));

    MUST(mkdir("p", 0755));
    TRY(mount("proc", "p", "proc", 0, NULL));
    IS(access("p/self/status", R_OK) == 0);
    TRY(umount2("p", 0));

    /* Who has worked in it and is gone does not hold it. */
    MUST(mkdir("w", 0755));
    int held = 0;
    for (int i = 0; i < 50; i++) {
        MUST(mount("none", "w", "tmpfs", 0, NULL));
        pid_t pid = fork();
        if (!pid)
            _exit(chdir("w") != 0);
        waitpid(pid, NULL, 0);
        while (umount2("w", 0))
            held++;
    }
    printf("held by the dead: %d\n", held);

    /* An ordinary user may not. */
    CHILD("user") {
        MUST(setgid(1000));
        MUST(setuid(1000));
        TRY(mount("none", "m", "tmpfs", 0, NULL));
        TRY(mount("none", "none", "tmpfs", 0, NULL));
        TRY(umount2("o", 0));
        TRY(umount2("none", 0));
    } END_CHILD;
    return 0;
}

/* Permission checks as root and as others: owners, modes, sticky directories, set-id bits. */
#include "check.h"
#include <grp.h>
#include <sys/fsuid.h>

static void owner(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == -1)
        printf("%s: %s\n", path, errname(errno));
    else
        printf("%s: %u:%u %o\n", path, st.st_uid, st.st_gid, st.st_mode);
}

static void become(uid_t uid, gid_t gid, int extra)
{
    gid_t groups[1] = { extra };
    MUST(setgroups(extra ? 1 : 0, groups));
    MUST(setgid(gid));
    MUST(setuid(uid));
}

int main(void)
{
    struct stat st;
    gid_t groups[8];
    begin("perms");
    MUST(setgroups(0, NULL));

    /* chown as root */
    put("f", "f");
    TRY(chown("f", 1000, 2000));
    owner("f");
    TRY(chown("f", -1, 3000));
    owner("f");
    TRY(chown("f", 4000, -1));
    owner("f");
    MUST(chmod("f", 06755));
    TRY(chown("f", 1000, 1000));
    owner("f");
    MUST(chmod("f", 02644));
    TRY(chown("f", 1000, 1000));
    owner("f");
    MUST(symlink("f", "l"));
    TRY(lchown("l", 5, 6));
    owner("l");
    TRY(chown("l", 7, 8));
    owner("f");
    TRY(chown("none", 1, 1));
    TRY(fchownat(AT_FDCWD, "l", 9, 9, AT_SYMLINK_NOFOLLOW));
    owner("l");
    TRY(fchownat(AT_FDCWD, "l", 9, 9, 0x8000));
    int fd = open("f", O_RDWR);
    TRY(fchown(fd, 1000, 1000));
    TRY(fchownat(fd, "", 1001, 1001, AT_EMPTY_PATH));
    owner("f");

    /* set-group-ID directories hand their group down */
    MUST(mkdir("sg", 0755));
    MUST(chown("sg", 0, 500));
    MUST(chmod("sg", 02777));
    put("sg/file", "");
    MUST(mkdir("sg/dir", 0755));
    owner("sg/file");
    owner("sg/dir");

    /* what each class may do */
    put("u", "u");
    put("g", "g");
    put("o", "o");
    put("none", "none");
    MUST(chown("u", 1000, 0));
    MUST(chmod("u", 0600));
    MUST(chown("g", 0, 1000));
    MUST(chmod("g", 0040));
    MUST(chmod("o", 0004));
    MUST(chmod("none", 0));
    put("denied-owner", "");
    MUST(chown("denied-owner", 1000, 0));
    MUST(chmod("denied-owner", 0077));
    put("x", "#!/none\n");
    MUST(chmod("x", 0644));
    MUST(mkdir("nosearch", 0700));
    put("nosearch/in", "");
    MUST(mkdir("noread", 0711));
    put("noread/in", "");
    MUST(mkdir("nowrite", 0755));
    put("nowrite/in", "");
    MUST(mkdir("all", 0777));
    put("all/root-file", "");
    MUST(mkdir("sticky", 01777));
    MUST(chmod("sticky", 01777));
    put("sticky/root-file", "");
    put("sticky/mine", "");
    MUST(chown("sticky/mine", 1000, 1000));
    MUST(chmod("all", 0777));
    CHILD("as 1000") {
        become(1000, 1000, 0);
        OPEN("u", O_RDWR, 0);
        OPEN("g", O_RDONLY, 0);
        OPEN("g", O_WRONLY, 0);
        OPEN("o", O_RDONLY, 0);
        OPEN("o", O_WRONLY, 0);
        OPEN("none", O_RDONLY, 0);
        OPEN("none", O_PATH, 0);
        OPEN("denied-owner", O_RDONLY, 0);
        OPEN("nosearch", O_RDONLY, 0);
        OPEN("nosearch/in", O_RDONLY, 0);
        OPEN("nosearch/no", O_RDONLY, 0);
        OPEN("noread", O_RDONLY, 0);
        OPEN("noread/in", O_RDONLY, 0);
        OPEN("nowrite/new", O_CREAT | O_WRONLY, 0644);
        OPEN("nowrite/in", O_CREAT, 0644);
        TRY(stat("none", &st));
        TRY(stat("nosearch/in", &st));
        TRY(access("u", R_OK | W_OK));
        TRY(access("u", X_OK));
        TRY(access("none", R_OK));
        TRY(access("g", R_OK));
        TRY(access("nosearch", X_OK));
        TRY(chmod("u", 0644));
        TRY(chmod("o", 0644));
        TRY(chmod("u", 02644));
        owner("u");
        TRY(chown("u", 1000, 1000));
        TRY(chown("u", 1001, -1));
        TRY(chown("u", -1, 77));
        TRY(chown("o", 1000, -1));
        owner("u");
        TRY(chown("u", -1, -1));
        TRY(mkdir("new", 0755));
        TRY(mkdir("nowrite/new", 0755));
        TRY(rmdir("all"));
        TRY(unlink("nowrite/in"));
        TRY(unlink("all/root-file"));
        TRY(unlink("nosearch/in"));
        TRY(unlink("sticky/root-file"));
        TRY(rename("sticky/root-file", "all/x"));
        TRY(unlink("sticky/mine"));
        TRY(rename("nowrite/in", "all/in"));
        TRY(link("u", "all/u"));
        TRY(symlink("x", "nowrite/l"));
        TRY(truncate("o", 0));
        TRY(truncate("u", 0));
        TRY(utimensat(AT_FDCWD, "o", NULL, 0));
        TRY(utimensat(AT_FDCWD, "u", NULL, 0));
        struct timespec t[2] = { { 1, 0 }, { 1, 0 } };
        TRY(utimensat(AT_FDCWD, "o", t, 0));
        TRY(utimensat(AT_FDCWD, "u", t, 0));
        TRY(execl("x", "x", NULL));
        TRY(execl("nosearch/in", "x", NULL));
        TRY(chdir("nosearch"));
        TRY(chdir("noread"));
        TRY(chdir(".."));
        TRY(mknod("all/dev", S_IFCHR | 0666, 0x103));
        TRY(mknod("all/fifo", S_IFIFO | 0666, 0));
        TRY(mkfifo("nowrite/fifo", 0666));
        TRY(chroot("all"));
        put("all/suid", "");
        TRY(chmod("all/suid", 06755));
        owner("all/suid");
        int w = open("all/suid", O_WRONLY);
        TRY(write(w, "x", 1));
        owner("all/suid");
        OPEN("none", O_RDONLY | O_NOATIME, 0);
        OPEN("o", O_RDONLY | O_NOATIME, 0);
        OPEN("u", O_RDONLY | O_NOATIME, 0);
    }
    END_CHILD;
    CHILD("as 1001 in group 1000") {
        become(1001, 1001, 1000);
        OPEN("g", O_RDONLY, 0);
        OPEN("u", O_RDONLY, 0);
        TRY(chmod("u", 0777));
        put("all/by1001", "");
        TRY(chown("all/by1001", -1, 1000));
        TRY(chown("all/by1001", -1, 1001));
        TRY(chmod("all/by1001", 02755));
        owner("all/by1001");
    }
    END_CHILD;

    /* the ids themselves */
    CHILD("ids") {
        uid_t r, e, s;
        MUST(setresgid(1, 2, 3));
        MUST(setresuid(10, 20, 30));
        MUST(getresuid(&r, &e, &s));
        printf("%u %u %u\n", r, e, s);
        printf("%u %u %u %u\n", getuid(), geteuid(), getgid(), getegid());
        TRY(setuid(10));
        TRY(setuid(0));
        TRY(seteuid(30));
        TRY(seteuid(99));
        TRY(setresuid(30, 30, 30));
        TRY(setresuid(10, -1, -1));
        TRY(setgid(3));
        TRY(setgid(50));
        TRY(getresgid(&r, &e, &s));
        printf("%u %u %u\n", r, e, s);
        TRY(setgroups(0, NULL));
    }
    END_CHILD;
    CHILD("reuid") {
        MUST(setreuid(1000, 0));
        TRY(getuid());
        TRY(geteuid());
        OPEN("none", O_RDONLY, 0);
        TRY(access("none", R_OK));
        TRY(setreuid(0, 1000));
        OPEN("none", O_RDONLY, 0);
        TRY(seteuid(0));
        OPEN("none", O_RDONLY, 0);
    }
    END_CHILD;
    CHILD("fsuid") {
        TRY(setfsuid(1000));
        TRY(setfsuid(-1));
        OPEN("none", O_RDONLY, 0);
        TRY(setfsuid(0));
        OPEN("none", O_RDONLY, 0);
    }
    END_CHILD;
    CHILD("groups") {
        gid_t many[3] = { 7, 5, 6 };
        TRY(setgroups(3, many));
        TRY(getgroups(0, NULL));
        TRY(getgroups(8, groups));
        printf("%u %u %u\n", groups[0], groups[1], groups[2]);
        TRY(getgroups(2, groups));
        TRY(getgroups(-1, groups));
        TRY(setgroups(-1, many));
        TRY(setgroups(65537, many));
    }
    END_CHILD;
    CHILD("exec keeps ids") {
        become(1000, 1001, 0);
        char *argv[] = { "x", NULL };
        TRY(execv("nosearch/in", argv));
        printf("%u %u\n", getuid(), getgid());
    }
    END_CHILD;

    /* umask */
    TRY(umask(077));
    TRY(umask(0));
    TRY(umask(0177777));
    TRY(umask(022));
    umask(0777);
    MUST(mkdir("mask", 0777));
    owner("mask");
    umask(022);

    /* capabilities dropped by leaving root, kept with keepcaps */
    CHILD("after root") {
        struct {
            uint32_t version;
            int pid;
        } head = { 0x20080522, 0 };
        struct {
            uint32_t effective, permitted, inheritable;
        } data[2];
        TRY(syscall(SYS_capget, &head, data));
        IS(data[0].effective != 0);
        MUST(setuid(1000));
        TRY(syscall(SYS_capget, &head, data));
        TRY(data[0].effective);
        TRY(data[0].permitted);
        head.version = 1;
        TRY(syscall(SYS_capget, &head, data));
        printf("%x\n", head.version);
    }
    END_CHILD;
    CHILD("dropping a capability") {
        struct {
            uint32_t version;
            int pid;
        } head = { 0x20080522, 0 };
        struct {
            uint32_t effective, permitted, inheritable;
        } data[2];
        MUST(syscall(SYS_capget, &head, data));
        data[0].effective &= ~(1u << 1 | 1u << 2);
        TRY(syscall(SYS_capset, &head, data));
        OPEN("none", O_RDONLY, 0);
        OPEN("denied-owner", O_RDONLY, 0);
        data[0].permitted &= ~(1u << 1 | 1u << 2);
        TRY(syscall(SYS_capset, &head, data));
        data[0].effective |= 1u << 1;
        TRY(syscall(SYS_capset, &head, data));
    }
    END_CHILD;
    return 0;
}

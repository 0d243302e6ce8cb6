/* Reading directories: many entries, telldir, deleting while reading, odd buffers. */
#include "check.h"

struct linux_dirent64 { uint64_t ino; int64_t off; uint16_t reclen; uint8_t type; char name[]; };

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void list(const char *path)
{
    char *names[256];
    int n = 0;
    struct dirent *e;
    DIR *d = opendir(path);
    if (!d) {
        printf("opendir %s: %s\n", path, errname(errno));
        return;
    }
    while ((e = readdir(d)) && n < 256) {
        char line[300];
        snprintf(line, sizeof line, "%s type %d", e->d_name, e->d_type);
        names[n++] = strdup(line);
    }
    closedir(d);
    qsort(names, n, sizeof *names, by_name);
    for (int i = 0; i < n; i++)
        puts(names[i]);
}

int main(int argc, char **argv)
{
    enum { MANY = 20000 };
    int many = argc > 1 ? atoi(argv[1]) : MANY, n = 0;
    char name[300];
    struct dirent *e;
    struct stat st;
    begin("dirs");

    MUST(mkdir("few", 0755));
    put("few/file", "");
    MUST(mkdir("few/dir", 0755));
    MUST(symlink("file", "few/link"));
    MUST(mkfifo("few/fifo", 0644));
    memset(name, 'x', 255), name[255] = 0;
    MUST(chdir("few"));
    put(name, "");
    MUST(chdir(".."));
    list("few");
    list("none");
    list("few/file");
    MUST(stat("few", &st));
    TRY(st.st_nlink);

    /* the inode of each entry is the inode stat reports */
    DIR *d = opendir("few");
    int wrong = 0;
    while ((e = readdir(d)))
        if (strcmp(e->d_name, "..") && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            wrong += st.st_ino != e->d_ino;
    TRY(wrong);

    /* rewinddir sees what was added */
    put("few/added", "");
    rewinddir(d);
    for (n = 0; (e = readdir(d)); n++)
        ;
    TRY(n);
    closedir(d);

    /* telldir and seekdir: the entry read after seeking back is the same */
    d = opendir("few");
    long where[16];
    char first[16][300];
    for (n = 0; n < 16; n++) {
        where[n] = telldir(d);
        if (!(e = readdir(d)))
            break;
        strcpy(first[n], e->d_name);
    }
    for (int i = n - 1, bad = 0; i >= 0; i--) {
        seekdir(d, where[i]);
        e = readdir(d);
        bad += !e || strcmp(e->d_name, first[i]);
        if (i == 0)
            printf("seekdir: %d wrong of %d\n", bad, n);
    }
    closedir(d);

    /* getdents64 itself */
    char small[8], big[4096];
    int fd = open("few", O_RDONLY | O_DIRECTORY), file = open("few/file", O_RDONLY);
    TRY(syscall(SYS_getdents64, fd, small, sizeof small));
    IS(syscall(SYS_getdents64, fd, big, sizeof big) > 0);
    TRY(syscall(SYS_getdents64, fd, big, sizeof big));
    TRY(lseek(fd, 0, SEEK_SET));
    IS(syscall(SYS_getdents64, fd, big, sizeof big) > 0);
    TRY(syscall(SYS_getdents64, file, big, sizeof big));
    TRY(syscall(SYS_getdents64, 999, big, sizeof big));
    MUST(lseek(fd, 0, SEEK_SET));
    TRY(syscall(SYS_getdents64, fd, (void *)8, sizeof big));
    int path_fd = open("few", O_PATH);
    TRY(syscall(SYS_getdents64, path_fd, big, sizeof big));

    /* a directory removed while it is open reads as empty or not at all */
    MUST(mkdir("gone", 0755));
    fd = open("gone", O_RDONLY);
    MUST(rmdir("gone"));
    TRY(syscall(SYS_getdents64, fd, big, sizeof big));
    close(fd);

    /* many entries, read in full, each once */
    MUST(mkdir("many", 0755));
    MUST(chdir("many"));
    for (int i = 0; i < many; i++) {
        sprintf(name, "entry-%d", i);
        MUST(mknod(name, S_IFREG | 0644, 0));
    }
    char *seen = calloc(many, 1);
    int twice = 0;
    d = opendir(".");
    for (n = 0; (e = readdir(d)); n++) {
        int i;
        if (sscanf(e->d_name, "entry-%d", &i) == 1 && i >= 0 && i < many)
            twice += seen[i]++;
    }
    closedir(d);
    printf("%d more than expected, %d twice\n", n - many - 2, twice);

    /* deleting while reading reaches every entry */
    d = opendir(".");
    int deleted = 0;
    while ((e = readdir(d)))
        if (e->d_name[0] != '.')
            deleted += unlink(e->d_name) == 0;
    closedir(d);
    printf("%d left\n", many - deleted);
    MUST(chdir(".."));
    TRY(rmdir("many"));

    /* deep paths: made and removed one level at a time */
    for (int i = 0; i < 300; i++) {
        MUST(mkdir("a-directory-name", 0755));
        MUST(chdir("a-directory-name"));
    }
    IS(getcwd(big, sizeof big) == NULL && errno == ERANGE);
    for (int i = 0; i < 300; i++) {
        MUST(chdir(".."));
        MUST(rmdir("a-directory-name"));
    }
    IS(getcwd(big, sizeof big) != NULL);
    TRY(syscall(SYS_getcwd, big, 1));

    /* a removed current directory */
    MUST(mkdir("cwd", 0755));
    MUST(chdir("cwd"));
    MUST(rmdir("../cwd"));
    IS(syscall(SYS_getcwd, big, sizeof big) == -1 && errno == ENOENT);
    OPEN("x", O_CREAT | O_WRONLY, 0644);
    OPEN(".", O_RDONLY, 0);
    TRY(chdir(".."));
    list(".");
    return 0;
}

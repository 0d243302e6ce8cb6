/* flock, fcntl locks (process and open-file-description), between processes; leases refused or not alike. */
#include "check.h"
#include <sys/file.h>

static int set(int fd, int cmd, int type, long start, long len)
{
    struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
    return fcntl(fd, cmd, &l);
}

int main(void)
{
    int go[2], done[2];
    char c;
    begin("locks");
    put("f", "0123456789");
    int a = open("f", O_RDWR), b = open("f", O_RDWR), r = open("f", O_RDONLY);
    TRY(flock(a, LOCK_EX));
    TRY(flock(b, LOCK_SH | LOCK_NB));
    TRY(flock(a, LOCK_SH));
    TRY(flock(b, LOCK_SH | LOCK_NB));
    TRY(flock(a, LOCK_EX | LOCK_NB));
    TRY(flock(b, LOCK_UN));
    TRY(flock(a, LOCK_UN));
    TRY(flock(a, 99));
    TRY(flock(r, LOCK_EX));
    TRY(flock(r, LOCK_UN));
    int d = open(".", O_RDONLY);
    TRY(flock(d, LOCK_EX | LOCK_NB));
    TRY(set(a, F_SETLK, F_WRLCK, 0, 5));
    TRY(set(r, F_SETLK, F_WRLCK, 0, 5));
    MUST(pipe(go));
    MUST(pipe(done));
    pid_t pid = fork();
    if (pid == 0) {
        int f = open("f", O_RDWR);
        TRY(set(f, F_SETLK, F_WRLCK, 2, 1));
        TRY(set(f, F_SETLK, F_RDLCK, 5, 1));
        struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        TRY(fcntl(f, F_GETLK, &l));
        printf("type %d start %ld len %ld by parent %d\n", l.l_type, (long)l.l_start, (long)l.l_len,
               l.l_pid == getppid());
        MUST(write(done[1], "1", 1));
        TRY(set(f, F_SETLKW, F_WRLCK, 0, 1));
        _exit(3);
    }
    MUST(read(done[0], &c, 1));
    msleep(50);
    MUST(set(a, F_SETLK, F_UNLCK, 0, 0));
    printf("%s\n", wait_for(pid));
    /* closing any descriptor of the file drops the process's locks */
    TRY(set(a, F_SETLK, F_WRLCK, 0, 0));
    close(open("f", O_RDONLY));
    CHILD("dropped by close") {
        TRY(set(open("f", O_RDWR), F_SETLK, F_WRLCK, 0, 0));
    }
    END_CHILD;
    /* locks of the open file description stay, and conflict within the process */
    TRY(set(a, F_OFD_SETLK, F_WRLCK, 0, 4));
    TRY(set(b, F_OFD_SETLK, F_WRLCK, 3, 4));
    TRY(set(b, F_OFD_SETLK, F_WRLCK, 4, 4));
    CHILD("inherited") {
        TRY(set(a, F_OFD_SETLK, F_WRLCK, 0, 4));
    }
    END_CHILD;
    TRY(lockf(a, F_TEST, 0));
    /* a deadlock is noticed */
    MUST(set(a, F_OFD_SETLK, F_UNLCK, 0, 0));
    MUST(set(b, F_OFD_SETLK, F_UNLCK, 0, 0));
    MUST(set(a, F_SETLK, F_WRLCK, 0, 1));
    pid = fork();
    if (pid == 0) {
        int f = open("f", O_RDWR);
        MUST(set(f, F_SETLK, F_WRLCK, 1, 1));
        MUST(write(done[1], "1", 1));
        set(f, F_SETLKW, F_WRLCK, 0, 1);
        _exit(0);
    }
    MUST(read(done[0], &c, 1));
    msleep(100);
    TRY(set(a, F_SETLKW, F_WRLCK, 1, 1));
    MUST(set(a, F_SETLK, F_UNLCK, 0, 0));
    printf("%s\n", wait_for(pid));
    return 0;
}

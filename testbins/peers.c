/* SO_PEERCRED at both ends of Unix sockets, by root and by another user (unix(7)). */
#include "check.h"

static struct ucred peer(int socket)
{
    struct ucred cred = { -7, 0, 0 };
    socklen_t len = sizeof cred;
    TRY(getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &len));
    printf("ids %d:%d, length %d\n", (int)cred.uid, (int)cred.gid, (int)len);
    return cred;
}

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Whether the pidfd of the peer, which Linux 6.5 has, is that of a process. */
static const char *peer_is(int socket, pid_t process)
{
    static char path[64];
    int fd = -1;
    socklen_t len = sizeof fd;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == -1)
        return errname(errno);
    sprintf(path, "/proc/self/fdinfo/%d", fd);
    const char *line = strstr(get(path), "\nPid:");
    close(fd);
    return line && atoi(line + 5) == process ? "the process" : "another";
}

/* With an argument, pidfds too. */
int main(int argc, char **argv)
{
    int pidfds = argc > 1;
    (void)argv;
    struct sockaddr_un addr = { AF_UNIX, "socket" };
    begin("peers");
    MUST(chmod(".", 0777));
    for (int type = SOCK_STREAM; type; type = type == SOCK_STREAM ? SOCK_SEQPACKET : 0) {
        int listener = socket(AF_UNIX, type, 0);
        unlink("socket");
        MUST(bind(listener, (struct sockaddr *)&addr, sizeof addr));
        MUST(listen(listener, 1));
        MUST(chmod("socket", 0777));
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            char c;
            MUST(setgid(1001));
            MUST(setuid(1000));
            int s = socket(AF_UNIX, type, 0);
            MUST(connect(s, (struct sockaddr *)&addr, sizeof addr));
            IS(peer(s).pid == getppid());
            if (pidfds)
                printf("pidfd of %s\n", peer_is(s, getppid()));
            MUST(write(s, "x", 1));
            MUST(read(s, &c, 1));
            fflush(stdout);
            _exit(0);
        }
        char c;
        int s = accept(listener, NULL, NULL);
        MUST(read(s, &c, 1));
        IS(peer(s).pid == child);
        if (pidfds)
            printf("pidfd of %s\n", peer_is(s, child));
        MUST(write(s, "x", 1));
        printf("%s\n", wait_for(child));
        IS(peer(s).pid == child);
        if (pidfds)
            printf("pidfd of %s after its end\n", peer_is(s, child));
        close(s);
        /* The backlog is full: this one waits until the signal. */
        int full = socket(AF_UNIX, type | SOCK_NONBLOCK, 0), error = 0;
        for (int i = 0; i < 8 && !error; i++) {
            error = connect(full, (struct sockaddr *)&addr, sizeof addr) ? errno : 0;
            if (!error)
                full = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);
        }
        printf("full: %s\n", errname(error));
        signal(SIGALRM, SIG_DFL);
        struct sigaction act = { .sa_handler = (void (*)(int))abs };
        sigaction(SIGALRM, &act, NULL);
        s = socket(AF_UNIX, type, 0);
        ualarm(100000, 0);
        TRY(connect(s, (struct sockaddr *)&addr, sizeof addr));
        close(listener);
        TRY(connect(s, (struct sockaddr *)&addr, sizeof addr));
    }
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    IS(peer(pair[0]).pid == getpid());
    if (pidfds)
        printf("pidfd of %s\n", peer_is(pair[0], getpid()));
    if (pidfds)
        printf("pidfd of %s\n", peer_is(socket(AF_UNIX, SOCK_STREAM, 0), getpid()));
    if (pidfds)
        printf("pidfd of %s\n", peer_is(99, getpid()));
    IS(peer(socket(AF_UNIX, SOCK_STREAM, 0)).pid == 0);
    IS(peer(socket(AF_INET, SOCK_STREAM, 0)).pid == 0);
    socklen_t len = 5;
    char five[5];
    TRY(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, five, &len));
    printf("length %d\n", (int)len);
    len = -1;
    TRY(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, five, &len));
    len = 12;
    TRY(getsockopt(0, SOL_SOCKET, SO_PEERCRED, five, &len));
    TRY(getsockopt(99, SOL_SOCKET, SO_PEERCRED, five, &len));
    TRY(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, (void *)1, &len));
    return 0;
}

/*
 * Unix datagrams by path: sendto, sendmsg and sendmmsg with buffers, descriptors and credentials of every
 * kind; the names that each side is told; who may send; and what becomes of a socket's file.
 */
#include "check.h"
#include <stddef.h>

static socklen_t path_addr(struct sockaddr_un *a, const char *path)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    memcpy(a->sun_path, path, strnlen(path, sizeof a->sun_path));
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
    return len < sizeof *a ? len : sizeof *a;
}

static int bound(int type, const char *path)
{
    struct sockaddr_un a;
    socklen_t len = path_addr(&a, path);
    int s = socket(AF_UNIX, type, 0);
    MUST(bind(s, (struct sockaddr *)&a, len));
    return s;
}

/* What is sent: the address and one buffer; tests change what they are about. */
static struct sockaddr_un to;
static struct iovec io;
static struct msghdr message(const char *path, const char *text)
{
    struct msghdr m = { .msg_name = &to, .msg_namelen = path_addr(&to, path), .msg_iov = &io, .msg_iovlen = 1 };
    io = (struct iovec){ (void *)text, strlen(text) };
    return m;
}

static long sends(int s, const char *path, const char *text)
{
    struct msghdr m = message(path, text);
    return sendmsg(s, &m, 0);
}

/* Receives without waiting, and prints what came, from whom. */
static union { char bytes[4096]; struct cmsghdr head; } control, received;
static void receive(int s)
{
    static char text[256];
    struct sockaddr_un from;
    struct iovec in = { text, sizeof text - 1 };
    struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &in, .msg_iovlen = 1,
                        .msg_control = received.bytes, .msg_controllen = sizeof received };
    memset(&from, 0, sizeof from);
    ssize_t n = recvmsg(s, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        printf("nothing: %s\n", errname(errno));
        return;
    }
    text[n] = 0;
    printf("%zd '%.20s' flags %x from length %d", n, text, m.msg_flags, (int)m.msg_namelen);
    if (m.msg_namelen > 2 && from.sun_path[0])
        printf(" '%.108s'", from.sun_path);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        if (h->cmsg_type == SCM_RIGHTS) {
            int count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int), fd;
            printf(" descriptors %d:", count);
            for (int i = 0; i < count; i++) {
                struct stat st;
                memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
                if (i < 3)
                    printf(" %o", fstat(fd, &st) ? 0 : st.st_mode & S_IFMT);
                close(fd);
            }
        } else if (h->cmsg_type == SCM_CREDENTIALS) {
            struct ucred c;
            memcpy(&c, CMSG_DATA(h), sizeof c);
            printf(" by %s", c.pid == getpid() ? "me" : c.pid == getppid() ? "my parent" : c.pid ? "another" : "nobody");
            if (getuid() == 0)
                printf(" %d:%d", (int)c.uid, (int)c.gid);
        }
    }
    printf("\n");
}

static void sizes(int r, int s)
{
    static char big[1 << 20], a[] = "one ", b[] = "two ", c[] = "three";
    static struct iovec many[1025];
    struct iovec three[] = { { a, 4 }, { NULL, 0 }, { b, 4 }, { c, 5 } };
    struct msghdr m = message("inbox", "");
    TRY(sendmsg(s, &m, 0));
    receive(r);
    m.msg_iovlen = 0;
    TRY(sendmsg(s, &m, 0));
    receive(r);
    m.msg_iov = three, m.msg_iovlen = 4;
    TRY(sendmsg(s, &m, 0));
    receive(r);
    for (int i = 0; i < 1025; i++)
        many[i] = (struct iovec){ a, i % 4 == 0 };
    m.msg_iov = many, m.msg_iovlen = 1024;
    TRY(sendmsg(s, &m, 0));
    receive(r);
    m.msg_iovlen = 1025;
    TRY(sendmsg(s, &m, 0));
    m.msg_iovlen = -1;
    TRY(sendmsg(s, &m, 0));
    m.msg_iov = three, m.msg_iovlen = 4;
    three[1] = (struct iovec){ (void *)8, 1 };
    TRY(sendmsg(s, &m, 0));
    three[1] = (struct iovec){ a, -1 };
    TRY(sendmsg(s, &m, 0));
    three[1] = (struct iovec){ big, sizeof big };
    TRY(sendmsg(s, &m, 0));
    three[1] = (struct iovec){ big, 100000 };
    TRY(sendmsg(s, &m, 0));
    receive(r);
    int room = 5000;
    socklen_t len = sizeof room;
    MUST(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &room, len));
    MUST(getsockopt(s, SOL_SOCKET, SO_SNDBUF, &room, &len));
    three[1].iov_len = room - 32 - 13;
    TRY(sendmsg(s, &m, 0));
    receive(r);
    three[1].iov_len++;
    TRY(sendmsg(s, &m, 0));
    TRY(sendto(s, big, room - 32, 0, (struct sockaddr *)&to, m.msg_namelen));
    TRY(sendto(s, big, room - 31, 0, (struct sockaddr *)&to, m.msg_namelen));
    receive(r);
    room = 200000;
    MUST(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &room, sizeof room));
    m = message("inbox", "x");
    m.msg_iov = (void *)8;
    TRY(sendmsg(s, &m, 0));
    TRY(sendmsg(s, (void *)8, 0));
    TRY(sendmsg(99, &m, 0));
    TRY(sendto(99, "x", 1, 0, (struct sockaddr *)&to, m.msg_namelen));
    TRY(sendto(0, "x", 1, 0, (struct sockaddr *)&to, m.msg_namelen));
    int lengths[] = { -1, 0, 1, 2, 3, 8, 110, 111, 1000 };
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        m = message("inbox", "x");
        m.msg_namelen = lengths[i];
        printf("name length %d ", lengths[i]);
        TRY(sendmsg(s, &m, 0));
        TRY(sendto(s, "x", 1, 0, (struct sockaddr *)&to, lengths[i]));
    }
    while (recv(r, big, 1, MSG_DONTWAIT) >= 0)
        ;
    m = message("inbox", "x");
    m.msg_name = (void *)8;
    TRY(sendmsg(s, &m, 0));
    m.msg_name = NULL;
    TRY(sendmsg(s, &m, 0));
    m = message("inbox", "x");
    TRY(sendmsg(s, &m, MSG_OOB));
    to.sun_family = AF_INET;
    TRY(sendmsg(s, &m, 0));
    receive(r);
}

/* Whether the kernel's list has a socket of this name. */
static int listed(const char *name)
{
    FILE *f = fopen("/proc/net/unix", "r");
    char line[512];
    int found = 0;
    size_t len = strlen(name), n;
    while (f && fgets(line, sizeof line, f))
        found |= (n = strlen(line)) > len + 2 && line[n - len - 2] == ' ' && !strncmp(line + n - len - 1, name, len);
    if (f)
        fclose(f);
    return found;
}

static void names(int r)
{
    IS(listed("inbox"));
    IS(!listed("outbox"));
    char deep[64] = "sub/../sub/./deep", longest[109];
    struct sockaddr_un a;
    socklen_t len;
    MUST(mkdir("sub", 0755));
    memset(longest, 'l', 108);
    longest[108] = 0;
    static char whole[108];
    MUST(getcwd(whole, sizeof whole));
    strcat(whole, "/absolute");
    const char *all[] = { "plain", "./here", "sub/in", deep, whole, "sub//double", longest };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        int s = bound(SOCK_DGRAM, all[i]);
        TRY(sends(s, "inbox", "hello"));
        char text[8];
        len = sizeof a;
        memset(&a, 0, sizeof a);
        TRY(recvfrom(r, text, sizeof text, MSG_DONTWAIT, (struct sockaddr *)&a, &len));
        /* The directory that the test runs in differs. */
        IS(strncmp(a.sun_path, all[i], 108) == 0 && len == 3 + strlen(all[i]));
        TRY(sendto(r, "answer", 6, 0, (struct sockaddr *)&a, len > sizeof a ? sizeof a : len));
        TRY(recv(s, text, sizeof text, MSG_DONTWAIT));
        len = sizeof a;
        memset(&a, 0, sizeof a);
        TRY(getsockname(s, (struct sockaddr *)&a, &len));
        IS(strncmp(a.sun_path, all[i], 108) == 0 && len == 3 + strlen(all[i]));
        TRY(connect(r, (struct sockaddr *)&a, len > sizeof a ? sizeof a : len));
        len = 10;
        memset(&a, 0, sizeof a);
        TRY(getpeername(r, (struct sockaddr *)&a, &len));
        IS(strncmp(a.sun_path, all[i], 8) == 0 && len == 3 + strlen(all[i]));
        a.sun_family = AF_UNSPEC;
        MUST(connect(r, (struct sockaddr *)&a, sizeof a.sun_family));
        close(s);
    }
    /* The same over a connection. */
    int listener = bound(SOCK_STREAM, "sub/listener"), client = bound(SOCK_STREAM, "sub/client");
    MUST(listen(listener, 1));
    len = path_addr(&a, "sub/listener");
    MUST(connect(client, (struct sockaddr *)&a, len));
    len = sizeof a;
    memset(&a, 0, sizeof a);
    int server = accept(listener, (struct sockaddr *)&a, &len);
    printf("accepted '%s' %d\n", a.sun_path, (int)len);
    len = sizeof a;
    memset(&a, 0, sizeof a);
    TRY(getpeername(client, (struct sockaddr *)&a, &len));
    printf("'%s' %d\n", a.sun_path, (int)len);
    TRY(sends(client, "inbox", "refused"));
    TRY(sendto(client, "x", 1, 0, (struct sockaddr *)&a, len));
    TRY(sends(socket(AF_UNIX, SOCK_STREAM, 0), "inbox", "refused"));
    close(listener), close(client), close(server);
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    TRY(sends(pair[0], "nowhere", "ignored"));
    receive(pair[1]);
    close(pair[0]), close(pair[1]);
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    TRY(sends(pair[0], "inbox", "aside"));
    receive(pair[1]);
    receive(r);
    close(pair[0]), close(pair[1]);
    int s = bound(SOCK_DGRAM, "once");
    len = path_addr(&a, "twice");
    TRY(bind(s, (struct sockaddr *)&a, len));
    TRY(access("twice", F_OK));
    close(s);
}

static struct cmsghdr *piece(struct msghdr *m, int level, int type, const void *data, size_t len)
{
    memset(&control, 0, sizeof control);
    m->msg_control = control.bytes, m->msg_controllen = CMSG_SPACE(len);
    struct cmsghdr *h = CMSG_FIRSTHDR(m);
    h->cmsg_level = level, h->cmsg_type = type, h->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(h), data, len);
    return h;
}

static void descriptors(int r, int s)
{
    struct msghdr m = message("inbox", "fds");
    int fds[300], pipes[2];
    put("file", "contents");
    MUST(pipe(pipes));
    fds[0] = open("file", O_RDONLY), fds[1] = open(".", O_RDONLY), fds[2] = pipes[0];
    piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, 3 * sizeof(int));
    TRY(sendmsg(s, &m, 0));
    receive(r);
    for (int i = 3; i < 300; i++)
        fds[i] = fds[0];
    piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, 253 * sizeof(int));
    TRY(sendmsg(s, &m, 0));
    receive(r);
    piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, 254 * sizeof(int));
    TRY(sendmsg(s, &m, 0));
    piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, 0);
    TRY(sendmsg(s, &m, 0));
    receive(r);
    /* Two pieces, of which the first does not end at a word. */
    struct cmsghdr *h = piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, sizeof(int));
    m.msg_controllen = 2 * CMSG_SPACE(sizeof(int));
    struct cmsghdr *next = (struct cmsghdr *)(control.bytes + CMSG_SPACE(sizeof(int)));
    memcpy(next, h, CMSG_LEN(sizeof(int)));
    memcpy(CMSG_DATA(next), &fds[2], sizeof(int));
    TRY(sendmsg(s, &m, 0));
    receive(r);
    next->cmsg_len = 15;
    TRY(sendmsg(s, &m, 0));
    next->cmsg_len = CMSG_SPACE(sizeof(int)) + 1;
    TRY(sendmsg(s, &m, 0));
    next->cmsg_len = -1;
    TRY(sendmsg(s, &m, 0));
    m.msg_controllen = CMSG_SPACE(sizeof(int)) + 15;
    TRY(sendmsg(s, &m, 0));
    receive(r);
    fds[1] = 4321;
    piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, 2 * sizeof(int));
    TRY(sendmsg(s, &m, 0));
    fds[1] = -1;
    piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, 2 * sizeof(int));
    TRY(sendmsg(s, &m, 0));
    piece(&m, SOL_SOCKET, 77, fds, 4);
    TRY(sendmsg(s, &m, 0));
    piece(&m, 77, 77, fds, 4);
    TRY(sendmsg(s, &m, 0));
    receive(r);
    piece(&m, SOL_SOCKET, SCM_RIGHTS, fds, sizeof(int));
    m.msg_control = NULL;
    TRY(sendmsg(s, &m, 0));
    m.msg_control = (void *)8;
    TRY(sendmsg(s, &m, 0));
    m.msg_controllen = 1UL << 40;
    IS(sendmsg(s, &m, 0) == -1 && errno == ENOBUFS);
    m.msg_control = control.bytes, m.msg_controllen = 5;
    TRY(sendmsg(s, &m, 0));
    receive(r);
    close(fds[0]), close(pipes[0]), close(pipes[1]);
}

static void claim(int s, int pid, int uid, int gid)
{
    struct msghdr m = message("inbox", "creds");
    struct ucred c = { pid, uid, gid };
    piece(&m, SOL_SOCKET, SCM_CREDENTIALS, &c, sizeof c);
    TRY(sendmsg(s, &m, 0));
}

static void credentials(int r)
{
    int on = 1, s = socket(AF_UNIX, SOCK_DGRAM, 0);
    MUST(setsockopt(r, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    TRY(sends(s, "inbox", "implied"));
    receive(r);
    struct sockaddr_un a;
    TRY(sendto(s, "sendto", 6, 0, (struct sockaddr *)&a, path_addr(&a, "inbox")));
    receive(r);
    claim(s, getpid(), getuid(), getgid());
    receive(r);
    struct msghdr m = message("inbox", "short");
    piece(&m, SOL_SOCKET, SCM_CREDENTIALS, &a, 11);
    TRY(sendmsg(s, &m, 0));
    /* A message of a child's, by itself and in its parent's name. */
    CHILD("child") {
        sends(s, "inbox", "child");
        claim(s, getppid(), getuid(), getgid());
        if (setgid(1001) || setuid(1000))
            _exit(9);
        claim(s, getppid(), 1000, 1001);
        claim(s, getpid(), 0, 1001);
        claim(s, getpid(), 1000, 0);
    } END_CHILD;
    receive(r);
    receive(r);
    receive(r);
    /* Who wants to know who sends has a name. */
    MUST(setsockopt(s, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    TRY(sends(s, "inbox", "named"));
    receive(r);
    on = 0;
    MUST(setsockopt(r, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    close(s);
}

static void nothing(int signal)
{
    (void)signal;
}

static void waiting(int r, int s)
{
    int n = 0;
    struct msghdr m = message("inbox", "full");
    while (sendmsg(s, &m, MSG_DONTWAIT) == 4)
        n++;
    printf("%s after some: %d\n", errname(errno), n > 0);
    TRY(sendto(s, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&to, m.msg_namelen));
    struct mmsghdr two[2] = { { .msg_hdr = m }, { .msg_hdr = m } };
    TRY(sendmmsg(s, two, 2, MSG_DONTWAIT));
    MUST(fcntl(s, F_SETFL, O_NONBLOCK));
    TRY(sendmsg(s, &m, 0));
    MUST(fcntl(s, F_SETFL, 0));
    struct timeval soon = { 0, 20000 }, never = { 0, 0 };
    MUST(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon));
    TRY(sendmsg(s, &m, 0));
    MUST(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &never, sizeof never));
    struct sigaction act = { .sa_handler = nothing };
    MUST(sigaction(SIGALRM, &act, NULL));
    ualarm(50000, 0);
    TRY(sendmsg(s, &m, 0));
    ualarm(50000, 0);
    TRY(sendmmsg(s, two, 2, 0));
    /* Whoever waits goes on when there is room. */
    CHILD("waiting") {
        if (fork() == 0) {
            msleep(50);
            char text[8];
            for (int i = 0; i < n; i++)
                MUST(recv(r, text, sizeof text, 0));
            _exit(0);
        }
        TRY(sendmsg(s, &m, 0));
        TRY(sendmmsg(s, two, 2, 0));
        printf("%u %u\n", two[0].msg_len, two[1].msg_len);
        wait(NULL);
    } END_CHILD;
    receive(r), receive(r), receive(r), receive(r);
}

static void several(int r, int s)
{
    struct sockaddr_un other;
    struct msghdr m = message("inbox", "several"), nowhere = m, unnamed = m;
    nowhere.msg_name = &other, nowhere.msg_namelen = path_addr(&other, "nowhere");
    unnamed.msg_name = NULL, unnamed.msg_namelen = 0;
    struct mmsghdr v[4] = { { .msg_hdr = m }, { .msg_hdr = m }, { .msg_hdr = nowhere }, { .msg_hdr = m } };
    for (int i = 0; i < 4; i++)
        v[i].msg_len = 77;
    TRY(sendmmsg(s, v, 4, 0));
    printf("%u %u %u\n", v[0].msg_len, v[1].msg_len, v[2].msg_len);
    receive(r), receive(r), receive(r);
    TRY(sendmmsg(s, v + 2, 2, 0));
    TRY(sendmmsg(s, v, 0, 0));
    TRY(sendmmsg(s, (void *)8, 2, 0));
    TRY(sendmmsg(99, v, 2, 0));
    v[1].msg_hdr = unnamed;
    TRY(sendmmsg(s, v, 2, 0));
    receive(r), receive(r);
    int fds[1] = { 0 };
    piece(&v[0].msg_hdr, SOL_SOCKET, SCM_RIGHTS, fds, sizeof fds);
    v[0].msg_hdr.msg_iovlen = 2000;
    TRY(sendmmsg(s, v, 1, 0));
}

static void errors(int r, int s)
{
    put("regular", "");
    MUST(mkdir("closed", 0755));
    MUST(symlink("inbox", "link"));
    MUST(symlink("loop", "loop"));
    int stream = bound(SOCK_STREAM, "stream"), stale = bound(SOCK_DGRAM, "stale"), in = bound(SOCK_DGRAM, "closed/in");
    MUST(chmod("closed/in", 0777));
    MUST(listen(stream, 1));
    close(stale);
    const char *all[] = { "none", "none/x", "regular", "regular/x", ".", "stale", "stream", "loop", "link", "link/", "inbox/", "closed/in" };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        printf("%s ", all[i]);
        TRY(sends(s, all[i], "x"));
        TRY(sendto(s, "x", 1, 0, (struct sockaddr *)&to, path_addr(&to, all[i])));
    }
    receive(r), receive(r), receive(r);
    int again = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un a;
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        printf("%s ", all[i]);
        socklen_t len = path_addr(&a, all[i]);
        TRY(bind(again, (struct sockaddr *)&a, len));
        TRY(connect(again, (struct sockaddr *)&a, len));
        a.sun_family = AF_UNSPEC;
        MUST(connect(again, (struct sockaddr *)&a, sizeof a.sun_family));
    }
    close(again), close(stream), close(in);
    MUST(shutdown(s, SHUT_WR));
    TRY(sends(s, "inbox", "x"));
    int closed = bound(SOCK_DGRAM, "deaf");
    MUST(shutdown(closed, SHUT_RD));
    TRY(sends(socket(AF_UNIX, SOCK_DGRAM, 0), "deaf", "x"));
    close(closed);
    /* Connected to another, it hears from that one alone. */
    int picky = bound(SOCK_DGRAM, "picky");
    MUST(connect(picky, (struct sockaddr *)&a, path_addr(&a, "inbox")));
    TRY(sends(socket(AF_UNIX, SOCK_DGRAM, 0), "picky", "x"));
    close(picky);
}

/* The file that a socket is bound to. */
static void files(void)
{
    struct stat st;
    struct sockaddr_un a;
    int s = socket(AF_UNIX, SOCK_DGRAM, 0), r = bound(SOCK_DGRAM, "file1");
    umask(027);
    int masked = bound(SOCK_DGRAM, "masked");
    umask(022);
    MUST(stat("masked", &st));
    printf("%o %d %d\n", st.st_mode, (int)st.st_size, (int)st.st_nlink);
    close(masked);
    TRY(sends(s, "masked", "x"));
    TRY(link("file1", "file2"));
    MUST(stat("file2", &st));
    printf("links %d\n", (int)st.st_nlink);
    TRY(sends(s, "file2", "by another link"));
    receive(r);
    TRY(rename("file1", "file3"));
    TRY(sends(s, "file1", "x"));
    TRY(sends(s, "file3", "after a rename"));
    receive(r);
    MUST(mkdir("before", 0755));
    TRY(rename("file3", "before/file"));
    TRY(rename("before", "after"));
    TRY(sends(s, "after/file", "in a renamed directory"));
    receive(r);
    TRY(unlink("after/file"));
    TRY(sends(s, "file2", "the last link"));
    receive(r);
    TRY(unlink("file2"));
    TRY(sends(s, "file2", "x"));
    int again = bound(SOCK_DGRAM, "file2");
    TRY(sends(s, "file2", "bound again"));
    receive(r), receive(again);
    TRY(sends(r, "file2", "the old one sends"));
    receive(again);
    int replacing = bound(SOCK_DGRAM, "file4");
    TRY(rename("file4", "file2"));
    TRY(sends(s, "file2", "replaced"));
    receive(again), receive(replacing);
    struct timespec times[2] = { { 1000, 0 }, { 2000, 0 } };
    TRY(utimensat(AT_FDCWD, "file2", times, 0));
    MUST(stat("file2", &st));
    printf("times %ld %ld\n", (long)st.st_atime, (long)st.st_mtime);
    TRY(chmod("file2", 0600));
    MUST(stat("file2", &st));
    printf("%o\n", st.st_mode);
    TRY(truncate("file2", 0));
    OPEN("file2", O_RDONLY, 0);
    OPEN("file2", O_PATH, 0);
    OPEN("file2", O_CREAT | O_WRONLY, 0600);
    TRY(mkfifo("file2", 0600));
    TRY(mknod("made", S_IFSOCK | 0600, 0));
    TRY(sends(s, "made", "x"));
    MUST(fstat(again, &st));
    printf("%o\n", st.st_mode & S_IFMT);
    TRY(fchmod(again, 0600));
    close(r), close(again), close(replacing);

    /* A directory too deep for an address, through a descriptor. */
    char name[101], path[200];
    memset(name, 'd', 100);
    name[100] = 0;
    MUST(mkdir(name, 0755));
    int dir = open(name, O_RDONLY | O_DIRECTORY), path_only = open(name, O_PATH);
    sprintf(path, "/proc/self/fd/%d/deep", dir);
    r = bound(SOCK_DGRAM, path);
    TRY(sends(s, path, "deep"));
    receive(r);
    sprintf(path, "/proc/self/fd/%d/deep", path_only);
    TRY(connect(s, (struct sockaddr *)&a, path_addr(&a, path)));
    TRY(send(s, "connected", 9, 0));
    receive(r);
    TRY(fstatat(dir, "deep", &st, 0));
    printf("%o\n", st.st_mode);
    int node = openat(dir, "deep", O_PATH);
    sprintf(path, "/proc/self/fd/%d", node);
    int t = bound(SOCK_DGRAM, "t");
    TRY(sends(t, path, "by the node"));
    receive(r);
    close(r), close(s), close(t), close(dir), close(path_only), close(node);
}

/* Who may send: root may, and whoever has the bits. */
static void permissions(void)
{
    struct sockaddr_un a;
    int r = bound(SOCK_DGRAM, "guarded");
    MUST(chmod(".", 0755));
    for (int mode = 0777; mode >= 0; mode = mode == 0777 ? 0722 : mode == 0722 ? 0755 : mode == 0755 ? 0 : -1) {
        MUST(chmod("guarded", mode));
        printf("%o ", mode);
        TRY(sends(socket(AF_UNIX, SOCK_DGRAM, 0), "guarded", "root"));
        CHILD("another user") {
            MUST(setgid(1001));
            MUST(setuid(1000));
            int s = socket(AF_UNIX, SOCK_DGRAM, 0);
            TRY(sends(s, "guarded", "user"));
            TRY(sendto(s, "x", 1, 0, (struct sockaddr *)&a, path_addr(&a, "guarded")));
            TRY(connect(s, (struct sockaddr *)&a, path_addr(&a, "guarded")));
            TRY(bind(s, (struct sockaddr *)&a, path_addr(&a, "mine")));
            MUST(close(s));
        } END_CHILD;
    }
    MUST(chmod("guarded", 0777));
    MUST(chmod(".", 0700));
    CHILD("behind a closed directory") {
        MUST(setuid(1000));
        int s = socket(AF_UNIX, SOCK_DGRAM, 0);
        TRY(sends(s, "guarded", "user"));
        TRY(connect(s, (struct sockaddr *)&a, path_addr(&a, "guarded")));
    } END_CHILD;
    MUST(chmod(".", 0777));
    CHILD("a socket of a user's") {
        MUST(setgid(1001));
        MUST(setuid(1000));
        struct stat st;
        close(bound(SOCK_DGRAM, "users"));
        MUST(stat("users", &st));
        printf("%o %d:%d\n", st.st_mode, (int)st.st_uid, (int)st.st_gid);
    } END_CHILD;
    TRY(chown("users", 5, 6));
    struct stat st;
    MUST(stat("users", &st));
    printf("%d:%d\n", (int)st.st_uid, (int)st.st_gid);
    while (recv(r, &a, sizeof a, MSG_DONTWAIT) > 0)
        ;
    close(r);
}

int main(void)
{
    begin("datagram");
    int r = bound(SOCK_DGRAM, "inbox"), s = socket(AF_UNIX, SOCK_DGRAM, 0);
    sizes(r, s);
    names(r);
    descriptors(r, s);
    waiting(r, s);
    several(r, s);
    if (getuid() == 0)
        credentials(r);
    errors(r, s);
    files();
    if (getuid() == 0)
        permissions();
    return 0;
}

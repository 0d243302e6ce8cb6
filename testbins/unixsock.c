/* Unix sockets by path and abstract name, stream and datagram, names, SCM_RIGHTS, credentials. */
#include "check.h"
#include <poll.h>
#include <stddef.h>

static struct sockaddr_un addr;
static socklen_t path_addr(const char *path)
{
    memset(&addr, 0, sizeof addr);
    addr.sun_family = AF_UNIX;
    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    return offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
}
static socklen_t abstract_addr(const char *name)
{
    memset(&addr, 0, sizeof addr);
    addr.sun_family = AF_UNIX;
    strcpy(addr.sun_path + 1, name);
    return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
}
static struct sockaddr *sa = (struct sockaddr *)&addr;

static void name(const char *what, int fd, int peer)
{
    struct sockaddr_un a;
    socklen_t len = sizeof a;
    memset(&a, 0, sizeof a);
    int r = peer ? getpeername(fd, (struct sockaddr *)&a, &len) : getsockname(fd, (struct sockaddr *)&a, &len);
    if (r == -1)
        printf("%s: %s\n", what, errname(errno));
    else
        printf("%s: length %d '%s%s'\n", what, (int)len, len > 2 && !a.sun_path[0] ? "@" : "",
               len > 2 ? a.sun_path + !a.sun_path[0] : "");
}

static int send_fd(int sock, int fd)
{
    char c = 'f', control[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec io = { &c, 1 };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    return sendmsg(sock, &m, 0);
}
static int receive_fd(int sock)
{
    char c, control[CMSG_SPACE(sizeof(int))] = { 0 };
    int fd = -1;
    struct iovec io = { &c, 1 };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m))
        return -1;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

static void exchange(const char *what, int listener, socklen_t len)
{
    char c;
    printf("-- %s\n", what);
    TRY(bind(listener, sa, len));
    name("listener", listener, 0);
    TRY(listen(listener, 5));
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(connect(client, sa, len));
    TRY(connect(client, sa, len));
    name("client", client, 0);
    name("client's peer", client, 1);
    struct sockaddr_un a;
    socklen_t alen = sizeof a;
    int server = accept(listener, (struct sockaddr *)&a, &alen);
    printf("accepted address length %d\n", (int)alen);
    name("server", server, 0);
    name("server's peer", server, 1);
    TRY(write(client, "x", 1));
    TRY(read(server, &c, 1));
    TRY(send(server, "yz", 2, 0));
    TRY(recv(client, &c, 1, MSG_PEEK));
    TRY(recv(client, &c, 1, 0));
    struct { int pid, uid, gid; } cred;
    socklen_t clen = sizeof cred;
    TRY(getsockopt(client, SOL_SOCKET, SO_PEERCRED, &cred, &clen));
    IS(cred.pid == getpid());
    printf("peer %d:%d\n", cred.uid, cred.gid);

    /* a regular file and a directory go across and keep their nature */
    put("sent", "contents");
    int fd = open("sent", O_RDONLY);
    TRY(send_fd(client, fd));
    int got = receive_fd(server);
    char text[9] = "";
    IS(got >= 0 && got != fd);
    TRY(read(got, text, 8));
    printf("%s, close-on-exec %d\n", text, fcntl(got, F_GETFD));
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    TRY(send_fd(client, dir));
    got = receive_fd(server);
    TRY(faccessat(got, "sent", F_OK, 0));
    TRY(send_fd(client, listener));
    int copy = receive_fd(server);
    name("listener passed on", copy, 0);
    close(client);
    TRY(read(server, &c, 1));
    close(server), close(copy), close(got), close(fd), close(dir);
}

int main(void)
{
    char text[64] = "", big[200];
    begin("unixsock");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    exchange("path", s, path_addr("stream"));
    struct stat st;
    MUST(stat("stream", &st));
    printf("%o\n", st.st_mode);
    OPEN("stream", O_RDWR, 0);
    int t = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(bind(t, sa, path_addr("stream")));
    TRY(bind(t, sa, path_addr("none/x")));
    TRY(connect(t, sa, path_addr("none")));
    put("regular", "");
    TRY(connect(t, sa, path_addr("regular")));
    TRY(bind(t, sa, path_addr("regular")));
    MUST(mkdir("dir", 0755));
    TRY(connect(t, sa, path_addr("dir")));
    TRY(connect(t, sa, path_addr("regular/x")));
    MUST(symlink("stream", "link"));
    TRY(connect(t, sa, path_addr("link")));
    close(t);
    close(s);
    t = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(connect(t, sa, path_addr("stream")));
    TRY(unlink("stream"));
    TRY(connect(t, sa, path_addr("stream")));
    TRY(bind(t, sa, path_addr("stream")));
    TRY(bind(t, sa, path_addr("second")));
    TRY(listen(t, 1));
    MUST(rename("stream", "moved"));
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(connect(s, sa, path_addr("moved")));
    name("peer under a new name", s, 1);
    close(s), close(t);

    /* relative to another directory, and through a long path */
    MUST(chdir("dir"));
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(bind(s, sa, path_addr("../up")));
    TRY(listen(s, 1));
    MUST(chdir(".."));
    t = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(connect(t, sa, path_addr("up")));
    name("peer", t, 1);
    close(s), close(t);
    memset(big, 'n', sizeof big);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    path_addr("x");
    memset(addr.sun_path, 'n', 108);
    TRY(bind(s, sa, 110));
    TRY(bind(s, sa, 111));
    TRY(bind(s, sa, 1));
    TRY(bind(s, sa, 2));
    close(s);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    addr.sun_family = AF_INET;
    TRY(bind(s, sa, sizeof addr));
    TRY(connect(s, sa, sizeof addr));
    close(s);

    s = socket(AF_UNIX, SOCK_STREAM, 0);
    sprintf(text, "duet-test-%d", getpid());
    socklen_t len = abstract_addr("duet-guest-test");
    exchange("abstract", s, len);
    t = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(bind(t, sa, len));
    close(s);
    TRY(connect(t, sa, len));
    close(t);

    /* datagrams */
    int d = socket(AF_UNIX, SOCK_DGRAM, 0), e = socket(AF_UNIX, SOCK_DGRAM, 0);
    TRY(bind(d, sa, path_addr("dgram")));
    TRY(sendto(e, "anon", 4, 0, sa, path_addr("dgram")));
    struct sockaddr_un from;
    socklen_t flen = sizeof from;
    TRY(recvfrom(d, text, sizeof text, 0, (struct sockaddr *)&from, &flen));
    printf("from length %d\n", (int)flen);
    TRY(bind(e, sa, path_addr("sender")));
    TRY(sendto(e, "named", 5, 0, sa, path_addr("dgram")));
    flen = sizeof from;
    TRY(recvfrom(d, text, sizeof text, 0, (struct sockaddr *)&from, &flen));
    IS(strcmp(from.sun_path, "sender") == 0 && flen == 9);
    /* an answer to where it came from, from another directory */
    MUST(chdir("dir"));
    TRY(sendto(d, "answer", 6, 0, (struct sockaddr *)&from, flen) == 6 || errno == ENOENT);
    MUST(chdir(".."));
    TRY(sendto(d, "answer", 6, 0, (struct sockaddr *)&from, flen));
    TRY(connect(d, (struct sockaddr *)&from, flen));
    name("the one who is answered", d, 1);
    TRY(send(d, "again", 5, 0));
    from.sun_family = AF_UNSPEC;
    TRY(connect(d, (struct sockaddr *)&from, sizeof from.sun_family));
    while (recv(e, text, sizeof text, MSG_DONTWAIT) == 6)
        ;
    TRY(recv(e, text, sizeof text, MSG_DONTWAIT));
    TRY(sendto(d, "reply", 5, 0, sa, path_addr("sender")));
    TRY(recv(e, text, sizeof text, 0));
    TRY(sendto(e, "x", 1, 0, sa, path_addr("nobody")));
    TRY(connect(e, sa, path_addr("dgram")));
    TRY(send(e, "conn", 4, 0));
    TRY(recv(d, text, 2, 0));
    struct iovec io = { "vec", 3 };
    path_addr("dgram");
    struct msghdr m = { .msg_name = &addr, .msg_namelen = path_addr("dgram"), .msg_iov = &io, .msg_iovlen = 1 };
    TRY(sendmsg(e, &m, 0));
    TRY(recv(d, text, sizeof text, MSG_DONTWAIT));
    struct mmsghdr mm[2] = { { .msg_hdr = m }, { .msg_hdr = m } };
    TRY(sendmmsg(e, mm, 2, 0));
    TRY(recv(d, text, sizeof text, MSG_DONTWAIT));
    TRY(recv(d, text, sizeof text, MSG_DONTWAIT));
    TRY(recv(d, text, sizeof text, MSG_DONTWAIT));
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY(connect(s, sa, path_addr("dgram")));
    close(d);
    TRY(send(e, "x", 1, 0));

    /* sequenced packets, socket pairs, autobind */
    int pair[2];
    TRY(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
    TRY(send(pair[0], "packet", 6, 0));
    TRY(recv(pair[1], text, 3, MSG_TRUNC));
    name("pair", pair[0], 0);
    TRY(shutdown(pair[0], SHUT_WR));
    TRY(recv(pair[1], text, 3, 0));
    TRY(socketpair(AF_INET, SOCK_STREAM, 0, pair));
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    addr.sun_family = AF_UNIX;
    TRY(bind(s, sa, 2));
    flen = sizeof from;
    TRY(getsockname(s, (struct sockaddr *)&from, &flen));
    printf("autobind length %d\n", (int)flen);
    TRY(socket(AF_UNIX, 99, 0));
    TRY(socket(AF_UNIX, SOCK_STREAM, 99));
    TRY(socket(99, SOCK_STREAM, 0));

    /* a server in another process, many clients */
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(bind(s, sa, path_addr("served")));
    MUST(listen(s, 16));
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 20; i++) {
            int c = accept(s, NULL, NULL);
            char b;
            MUST(read(c, &b, 1));
            b++;
            MUST(write(c, &b, 1));
            close(c);
        }
        _exit(0);
    }
    int good = 0;
    for (int i = 0; i < 20; i++) {
        char b = 'a' + i;
        int c = socket(AF_UNIX, SOCK_STREAM, 0);
        MUST(connect(c, sa, path_addr("served")));
        MUST(write(c, &b, 1));
        MUST(read(c, &b, 1));
        good += b == 'a' + i + 1;
        close(c);
    }
    printf("%d of 20, %s\n", good, wait_for(pid));
    return 0;
}

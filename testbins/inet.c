/* TCP and UDP over the loopback interface, IPv4 and IPv6. */
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>

static void tcp(int family)
{
    struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr *a = family == AF_INET ? (void *)&a4 : (void *)&a6;
    socklen_t len = family == AF_INET ? sizeof a4 : sizeof a6, got = len, one = sizeof(int);
    int on = 1, l = socket(family, SOCK_STREAM, 0), value;
    char buf[64] = "";
    TRY(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    TRY(bind(l, a, len));
    TRY(listen(l, 5));
    TRY(getsockname(l, a, &got));
    int second = socket(family, SOCK_STREAM, 0);
    TRY(bind(second, a, len));
    close(second);
    pid_t pid = fork();
    if (pid == 0) {
        int c = socket(family, SOCK_STREAM, 0);
        MUST(connect(c, a, len));
        MUST(write(c, "hello", 5));
        MUST(read(c, buf, 5));
        _exit(memcmp(buf, "HELLO", 5) ? 1 : 0);
    }
    int c = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    TRY(recv(c, buf, 5, MSG_WAITALL));
    puts(buf);
    TRY(send(c, "HELLO", 5, MSG_NOSIGNAL));
    printf("%s\n", wait_for(pid));
    TRY(recv(c, buf, 5, 0));
    TRY(setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    TRY(getsockopt(c, SOL_SOCKET, SO_ERROR, &value, &one));
    TRY(value);
    TRY(getsockopt(c, SOL_SOCKET, SO_TYPE, &value, &one));
    TRY(value);
    TRY(getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &value, &one));
    TRY(value);
    TRY(setsockopt(c, 999, 1, &on, 4));
    close(c);
    close(l);
    c = socket(family, SOCK_STREAM, 0);
    TRY(connect(c, a, len));
    TRY(send(c, "x", 1, MSG_NOSIGNAL));
    TRY(getpeername(c, a, &got));
    close(c);
    c = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    l = socket(family, SOCK_STREAM, 0);
    MUST(bind(l, a, len));
    MUST(listen(l, 1));
    int r = connect(c, a, len);
    IS(r == 0 || errno == EINPROGRESS);
    TRY(poll(&(struct pollfd) { c, POLLOUT, 0 }, 1, 1000));
    TRY(read(c, buf, 1));
    close(c);
    close(l);
}

int main(void)
{
    char buf[64] = "";
    begin("inet");
    puts("-- IPv4");
    tcp(AF_INET);
    puts("-- IPv6");
    tcp(AF_INET6);
    puts("-- UDP");
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, from;
    socklen_t len = sizeof a, flen = sizeof from;
    int u = socket(AF_INET, SOCK_DGRAM, 0), w = socket(AF_INET, SOCK_DGRAM, 0);
    TRY(bind(u, (void *)&a, len));
    TRY(getsockname(u, (void *)&a, &len));
    TRY(sendto(w, "datagram", 8, 0, (void *)&a, len));
    TRY(recvfrom(u, buf, 4, MSG_TRUNC, (void *)&from, &flen));
    IS(from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    TRY(connect(w, (void *)&a, len));
    TRY(send(w, "x", 1, 0));
    TRY(recv(u, buf, 4, 0));
    TRY(recv(u, buf, 4, MSG_DONTWAIT));
    TRY(send(u, "x", 1, 0));
    static char big[70000];
    TRY(send(w, big, sizeof big, 0));
    TRY(sendto(u, "x", 1, 0, (void *)&a, 3));
    TRY(socket(AF_INET, SOCK_STREAM, 99));
    TRY(socket(AF_INET, 99, 0));
    TRY(connect(u, (void *)&a, 2));
    TRY(bind(w, (void *)&a, len));
    TRY(listen(u, 1));
    TRY(accept(u, NULL, NULL));
    TRY(getsockname(999, (void *)&a, &len));
    TRY(getsockname(0, (void *)&a, &len));
    struct ifreq ifr = { .ifr_name = "lo" };
    TRY(ioctl(u, SIOCGIFFLAGS, &ifr));
    TRY((ifr.ifr_flags & IFF_UP) != 0);
    IS(if_nametoindex("lo") == 1);
    IS(if_nametoindex("none0") == 0);
    struct ifaddrs *list;
    TRY(getifaddrs(&list));
    int lo = 0;
    for (struct ifaddrs *i = list; i; i = i->ifa_next)
        lo |= !strcmp(i->ifa_name, "lo");
    TRY(lo);
    return 0;
}

/* Pseudo-terminals: opening, line discipline, window size, controlling terminal, job control. */
#include "check.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t seen;
static void on_signal(int s) { seen = s; }

static int master, slave;
static char name[64];
static void reads(const char *what, int fd, size_t size)
{
    char buf[128] = "";
    size_t n = 0;
    while (n < size && poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 2000) == 1) {
        ssize_t r = read(fd, buf + n, size - n);
        if (r <= 0)
            break;
        n += r;
    }
    printf("%s: %zu", what, n);
    for (size_t i = 0; i < n; i++)
        printf(buf[i] >= ' ' ? " %c" : " \\%o", buf[i]);
    puts("");
}

int main(void)
{
    begin("pty");
    IS((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
    TRY(grantpt(master));
    TRY(unlockpt(master));
    IS(ptsname_r(master, name, sizeof name) == 0 && strncmp(name, "/dev/pts/", 9) == 0);
    IS((slave = open(name, O_RDWR | O_NOCTTY)) >= 0);
    struct stat st;
    TRY(stat(name, &st));
    IS(S_ISCHR(st.st_mode) && st.st_rdev >> 8 == 136);
    TRY(isatty(slave));
    TRY(isatty(master));
    char tty[64];
    IS(ttyname_r(slave, tty, sizeof tty) == 0 && strcmp(tty, name) == 0);
    TRY(write(slave, "out\n", 4));
    reads("newline mapped", master, 5);
    TRY(write(master, "abX\177\n", 5));
    reads("cooked", slave, 3);
    reads("echo", master, 8);
    struct termios t;
    TRY(tcgetattr(slave, &t));
    cfmakeraw(&t);
    TRY(tcsetattr(slave, TCSANOW, &t));
    TRY(write(master, "r\003\n", 3));
    reads("raw", slave, 3);
    struct winsize w = { .ws_row = 33, .ws_col = 77 }, got;
    TRY(ioctl(master, TIOCSWINSZ, &w));
    TRY(ioctl(slave, TIOCGWINSZ, &got));
    printf("%d %d\n", got.ws_row, got.ws_col);
    t.c_lflag |= ISIG | ICANON;
    TRY(tcsetattr(slave, TCSANOW, &t));

    CHILD("controlling terminal") {
        MUST(setsid());
        TRY(open("/dev/tty", O_RDWR));
        TRY(ioctl(slave, TIOCSCTTY, 0));
        int fd = open("/dev/tty", O_RDWR);
        IS(fd >= 0);
        TRY(isatty(fd));
        IS(ttyname_r(slave, tty, sizeof tty) == 0 && strcmp(tty, name) == 0);
        TRY(tcgetpgrp(fd) == getpgrp());
        TRY(tcgetsid(fd) == getpid());
        signal(SIGWINCH, on_signal);
        w.ws_col = 78;
        MUST(ioctl(master, TIOCSWINSZ, &w));
        TRY(seen == SIGWINCH);
        signal(SIGTTOU, SIG_IGN);
        /* a background group is stopped when it reads, Ctrl-C reaches the foreground group */
        pid_t pid = fork();
        int status;
        char c;
        if (pid == 0) {
            setpgid(0, 0);
            if (read(fd, &c, 1) != 1)
                _exit(1);
            _exit(c);
        }
        MUST(waitpid(pid, &status, WUNTRACED));
        puts(status_text(status));
        TRY(tcsetpgrp(fd, pid));
        MUST(kill(-pid, SIGCONT));
        MUST(write(master, "*\n", 2));
        printf("%s\n", wait_for(pid));
        TRY(tcsetpgrp(fd, getpgrp()));
        MUST(tcflush(fd, TCIOFLUSH));
        pid = fork();
        if (pid == 0) {
            setpgid(0, 0);
            tcsetpgrp(fd, getpid());
            pause();
            _exit(1);
        }
        while (tcgetpgrp(fd) != pid)
            msleep(1);
        MUST(write(master, "\003", 1));
        printf("%s\n", wait_for(pid));
        TRY(tcsetpgrp(fd, getpgrp()));
        signal(SIGHUP, on_signal);
        close(fd);
        TRY(ioctl(slave, TIOCNOTTY));
        TRY(open("/dev/tty", O_RDWR));
    } END_CHILD;
    close(slave);
    msleep(10);
    char c;
    while (poll(&(struct pollfd){ master, POLLIN, 0 }, 1, 100) == 1 && read(master, &c, 1) == 1)
        ;
    TRY(read(master, &c, 1));
    slave = open(name, O_RDWR | O_NOCTTY);
    IS(slave >= 0);
    close(master);
    TRY(read(slave, &c, 1));
    TRY(write(slave, "x", 1));
    TRY(open(name, O_RDWR));
    TRY(open("/dev/pts/99999", O_RDWR));
    OPEN("/dev/ptmx", O_RDWR | O_NOCTTY, 0);
    OPEN("/dev/pts", O_RDONLY | O_DIRECTORY, 0);
    return 0;
}

/* FIFOs between processes; opens that block, and signals that interrupt them. */
#include "check.h"

static void nothing(int s) { (void)s; }

static void on_alarm(int flags)
{
    struct sigaction sa = { .sa_handler = nothing, .sa_flags = flags };
    MUST(sigaction(SIGALRM, &sa, NULL));
}

int main(void)
{
    char text[16] = "";
    begin("fifo");
    TRY(mkfifo("f", 0644));
    TRY(mkfifo("f", 0644));
    TRY(open("f", O_WRONLY | O_NONBLOCK));
    int r = open("f", O_RDONLY | O_NONBLOCK);
    IS(r >= 0);
    TRY(read(r, text, 1));
    int w = open("f", O_WRONLY | O_NONBLOCK);
    IS(w >= 0);
    TRY(read(r, text, 1));
    TRY(write(w, "abc", 3));
    TRY(read(r, text, 3));
    close(w);
    TRY(read(r, text, 1));
    close(r);
    int rw = open("f", O_RDWR);
    TRY(write(rw, "xyz", 3));
    TRY(read(rw, text, 3));
    close(rw);

    /* reader and writer meet */
    pid_t pid = fork();
    if (pid == 0) {
        w = open("f", O_WRONLY);
        MUST(write(w, "from child", 10));
        _exit(7);
    }
    r = open("f", O_RDONLY);
    TRY(read(r, text, 10));
    printf("%s\n", text);
    TRY(read(r, text, 10));
    printf("%s\n", wait_for(pid));
    close(r);

    /* the other way round, the writer waits for a late reader */
    pid = fork();
    if (pid == 0) {
        msleep(100);
        r = open("f", O_RDONLY);
        char got[4];
        ssize_t n = read(r, got, 4);
        _exit(n == 4 && memcmp(got, "late", 4) == 0 ? 5 : 6);
    }
    w = open("f", O_WRONLY);
    TRY(write(w, "late", 4));
    printf("%s\n", wait_for(pid));
    signal(SIGPIPE, SIG_IGN);
    TRY(write(w, "late", 4));
    close(w);

    /* a blocked open and a signal */
    on_alarm(0);
    ualarm(100000, 0);
    TRY(open("f", O_RDONLY));
    ualarm(100000, 0);
    TRY(open("f", O_WRONLY));
    on_alarm(SA_RESTART);
    pid = fork();
    if (pid == 0) {
        msleep(400);
        w = open("f", O_WRONLY);
        MUST(write(w, "again", 5));
        _exit(0);
    }
    ualarm(100000, 0);
    r = open("f", O_RDONLY);
    IS(r >= 0);
    memset(text, 0, sizeof text);
    TRY(read(r, text, 5));
    printf("%s %s\n", text, wait_for(pid));
    close(r);

    /* a process blocked in open can be killed */
    pid = fork();
    if (pid == 0) {
        open("f", O_RDONLY);
        _exit(1);
    }
    msleep(100);
    TRY(kill(pid, SIGKILL));
    printf("%s\n", wait_for(pid));
    pid = fork();
    if (pid == 0) {
        open("f", O_RDONLY);
        _exit(1);
    }
    msleep(100);
    TRY(kill(pid, SIGTERM));
    printf("%s\n", wait_for(pid));

    /* stop and continue a process blocked in open */
    pid = fork();
    if (pid == 0) {
        r = open("f", O_RDONLY);
        _exit(read(r, text, 1) == 1 ? 3 : 4);
    }
    msleep(100);
    int status;
    MUST(kill(pid, SIGSTOP));
    MUST(waitpid(pid, &status, WUNTRACED));
    printf("%s\n", status_text(status));
    MUST(kill(pid, SIGCONT));
    w = open("f", O_WRONLY);
    MUST(write(w, "c", 1));
    printf("%s\n", wait_for(pid));
    close(w);

    /* a FIFO unlinked, linked and renamed is the same pipe */
    rw = open("f", O_RDWR);
    MUST(rename("f", "g"));
    MUST(link("g", "h"));
    r = open("h", O_RDONLY | O_NONBLOCK);
    MUST(write(rw, "1", 1));
    TRY(read(r, text, 1));
    MUST(unlink("g"));
    MUST(unlink("h"));
    MUST(write(rw, "2", 1));
    TRY(read(r, text, 1));
    return 0;
}

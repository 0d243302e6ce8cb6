/* Signals: handlers, masks, alternate stacks, restarts, groups, queued values, timers, signalfd. */
#include "check.h"
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <ucontext.h>

static volatile sig_atomic_t count, last, code, value, on_alt;
static char alt[65536];
static void handler(int s) { count++, last = s; }
static void detailed(int s, siginfo_t *i, void *u)
{
    (void)u;
    char here;
    count++, last = s, code = i->si_code, value = i->si_value.sival_int;
    on_alt = &here >= alt && &here < alt + sizeof alt;
}
static void install(int s, void (*f)(int), int flags)
{
    struct sigaction sa = { .sa_handler = f, .sa_flags = flags };
    MUST(sigaction(s, &sa, NULL));
}

int main(void)
{
    char c;
    int p[2];
    sigset_t set, old;
    begin("signals");
    install(SIGUSR1, handler, 0);
    TRY(kill(getpid(), SIGUSR1));
    TRY(count);
    TRY(raise(SIGUSR1));
    TRY(count);
    TRY(kill(getpid(), 0));
    TRY(kill(getpid(), 65));
    TRY(kill(getpid(), -1));
    TRY(kill(999999999, 0));
    TRY(syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1));
    TRY(count);
    TRY(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1));
    TRY(count);
    TRY(syscall(SYS_tgkill, getpid(), -1, SIGUSR1));
    TRY(syscall(SYS_tgkill, getpid(), 999999999, SIGUSR1));

    struct sigaction sa = { .sa_sigaction = detailed, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    stack_t st = { .ss_sp = alt, .ss_size = sizeof alt };
    TRY(sigaltstack(&st, NULL));
    MUST(sigaction(SIGRTMIN, &sa, NULL));
    TRY(sigqueue(getpid(), SIGRTMIN, (union sigval) { 42 }));
    printf("code %d value %d alternate %d\n", code, value, on_alt);
    MUST(sigaction(SIGUSR2, &sa, NULL));
    MUST(raise(SIGUSR2));
    printf("code %d\n", code == SI_TKILL);
    MUST(kill(getpid(), SIGUSR2));
    printf("code %d\n", code == SI_USER);

    /* blocked and pending; real-time signals queue, others merge */
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    count = 0;
    for (int i = 0; i < 3; i++)
        raise(SIGUSR1), sigqueue(getpid(), SIGRTMIN, (union sigval) { i });
    TRY(count);
    MUST(sigpending(&set));
    TRY(sigismember(&set, SIGUSR1));
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    TRY(count);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    raise(SIGUSR1);
    siginfo_t info;
    TRY(sigwaitinfo(&set, &info) == SIGUSR1);
    struct timespec t = { 0, 1000000 };
    TRY(sigtimedwait(&set, &info, &t));
    int sfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct signalfd_siginfo si;
    TRY(read(sfd, &si, sizeof si));
    raise(SIGUSR1);
    TRY(read(sfd, &si, sizeof si) == sizeof si && si.ssi_signo == SIGUSR1);
    count = 0;
    raise(SIGUSR1);
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    TRY(count);
    sigemptyset(&set);
    install(SIGALRM, handler, 0);
    ualarm(20000, 0);
    TRY(sigsuspend(&set));
    TRY(last == SIGALRM);

    /* EINTR and SA_RESTART */
    MUST(pipe(p));
    ualarm(20000, 0);
    TRY(read(p[0], &c, 1));
    ualarm(20000, 0);
    TRY(pause());
    install(SIGALRM, handler, SA_RESTART);
    pid_t pid = fork();
    if (pid == 0) {
        msleep(200);
        MUST(write(p[1], "r", 1));
        _exit(0);
    }
    ualarm(20000, 0);
    TRY(read(p[0], &c, 1));
    printf("%s\n", wait_for(pid));
    ualarm(20000, 0);
    TRY(poll(NULL, 0, 1000));
    t = (struct timespec) { 1, 0 };
    ualarm(20000, 0);
    TRY(nanosleep(&t, &t));
    IS(t.tv_sec == 0);
    pid = fork();
    if (pid == 0) {
        msleep(150);
        _exit(3);
    }
    install(SIGALRM, handler, 0);
    ualarm(20000, 0);
    TRY(waitpid(pid, NULL, 0));
    printf("%s\n", wait_for(pid));

    /* defaults and their statuses */
    int kinds[] = { SIGHUP,  SIGINT, SIGQUIT,      SIGKILL, SIGTERM, SIGSEGV,
                    SIGCHLD, SIGURG, SIGRTMIN + 1, SIGABRT, SIGSYS };
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        CHILD("dies of it or not") {
            raise(kinds[i]);
            _exit(55);
        }
    END_CHILD;
    CHILD("null") {
        *(volatile int *)8 = 1;
    }
    END_CHILD;
    CHILD("divide") {
        volatile int zero = 0;
        printf("%d\n", 1 / zero);
    }
    END_CHILD;
    CHILD("illegal") {
        __asm__ volatile("ud2");
    }
    END_CHILD;
    CHILD("abort") {
        abort();
    }
    END_CHILD;
    CHILD("ignored child") {
        signal(SIGCHLD, SIG_IGN);
        if (fork() == 0)
            _exit(0);
        TRY(wait(NULL));
    }
    END_CHILD;
    CHILD("resethand") {
        install(SIGUSR1, handler, SA_RESETHAND);
        raise(SIGUSR1);
        raise(SIGUSR1);
    }
    END_CHILD;
    CHILD("kill forbidden handlers") {
        struct sigaction a = { .sa_handler = handler };
        TRY(sigaction(SIGKILL, &a, NULL));
        TRY(sigaction(SIGSTOP, &a, NULL));
        TRY(sigaction(0, &a, NULL));
        TRY(sigaction(65, &a, NULL));
    }
    END_CHILD;

    /* a group of its own: everyone in it is reached */
    CHILD("group") {
        setpgid(0, 0);
        pid_t k[3];
        for (int i = 0; i < 3; i++)
            if ((k[i] = fork()) == 0) {
                pause();
                _exit(0);
            }
        signal(SIGTERM, SIG_IGN);
        msleep(50);
        TRY(kill(0, SIGTERM));
        for (int i = 0; i < 3; i++)
            printf("%s\n", wait_for(k[i]));
        if ((k[0] = fork()) == 0) {
            signal(SIGTERM, SIG_DFL);
            setpgid(0, 0);
            pause();
            _exit(0);
        }
        msleep(50);
        TRY(kill(-k[0], SIGTERM));
        printf("%s\n", wait_for(k[0]));
        TRY(kill(-k[0], SIGTERM));
    }
    END_CHILD;

    /* permission to signal */
    pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    CHILD("other user") {
        MUST(setuid(1000));
        TRY(kill(1, 0));
        TRY(kill(pid, 0));
        TRY(kill(pid, SIGTERM));
        TRY(kill(getppid(), SIGCONT));
        pid_t q = fork();
        if (q == 0)
            pause();
        TRY(kill(q, SIGKILL));
        printf("%s\n", wait_for(q));
        /* SIGCONT may go to anyone of one's own session; process 1 may be of the caller's */
        q = fork();
        if (q == 0) {
            MUST(setsid());
            TRY(kill(1, SIGCONT));
            TRY(kill(getppid(), SIGCONT));
            fflush(stdout);
            _exit(0);
        }
        printf("%s\n", wait_for(q));
    }
    END_CHILD;
    TRY(kill(pid, SIGKILL));
    printf("%s\n", wait_for(pid));
    TRY(kill(pid, 0));

    /* timers */
    install(SIGALRM, handler, 0);
    count = 0;
    struct itimerval it = { { 0, 10000 }, { 0, 10000 } };
    TRY(setitimer(ITIMER_REAL, &it, NULL));
    while (count < 3)
        pause();
    it = (struct itimerval) { 0 };
    TRY(setitimer(ITIMER_REAL, &it, NULL));
    TRY(alarm(100));
    TRY(alarm(0) > 98);
    timer_t timer;
    struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL,
                           .sigev_signo = SIGRTMIN,
                           .sigev_value.sival_int = 77 };
    TRY(timer_create(CLOCK_MONOTONIC, &ev, &timer));
    struct itimerspec its = { .it_value = { 0, 5000000 } };
    value = 0;
    TRY(timer_settime(timer, 0, &its, NULL));
    while (!value)
        msleep(1);
    printf("value %d code %d\n", value, code == SI_TIMER);
    TRY(timer_delete(timer));
    it.it_value.tv_usec = 20000;
    install(SIGVTALRM, handler, 0);
    count = 0;
    MUST(setitimer(ITIMER_VIRTUAL, &it, NULL));
    while (!count)
        ;
    TRY(last == SIGVTALRM);

    /* stop, continue */
    int status;
    pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        msleep(200);
        _exit(4);
    }
    MUST(waitpid(pid, &status, WUNTRACED));
    puts(status_text(status));
    MUST(kill(pid, SIGCONT));
    MUST(waitpid(pid, &status, WCONTINUED));
    puts(status_text(status));
    printf("%s\n", wait_for(pid));
    /* SIGPIPE */
    CHILD("pipe") {
        int q[2];
        MUST(pipe(q));
        close(q[0]);
        if (write(q[1], "x", 1))
            _exit(1);
    }
    END_CHILD;
    return 0;
}

/* Threads: futexes, many threads using files at once, exit of the leader, names, cancellation, signals. */
#include "check.h"
#if __has_include(<linux/futex.h>)
#include <linux/futex.h>
#else /* musl-gcc does not see the kernel's headers */
enum { FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_PRIVATE_FLAG = 128 };
#define FUTEX_WAIT_PRIVATE (FUTEX_WAIT | FUTEX_PRIVATE_FLAG)
#define FUTEX_WAKE_PRIVATE (FUTEX_WAKE | FUTEX_PRIVATE_FLAG)
#endif
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int counter, failures, arrived;
static __thread int tls = 5;

static void *worker(void *arg)
{
    long n = (long)arg;
    char name[32], text[32];
    tls += n;
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "f%ld-%d", n, i % 3);
        int fd = open(name, O_CREAT | O_TRUNC | O_RDWR, 0644);
        int len = snprintf(text, sizeof text, "%ld %d", n, i);
        char back[32] = "";
        struct stat st;
        int bad = fd < 0 || write(fd, text, len) != len || pread(fd, back, sizeof back, 0) != len ||
                  strcmp(text, back) || stat(name, &st) || st.st_size != len || close(fd);
        pthread_mutex_lock(&lock);
        counter++, failures += bad;
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_lock(&lock);
    failures += tls != 5 + n;
    if (++arrived == 100)
        pthread_cond_broadcast(&cond);
    while (arrived < 100)
        pthread_cond_wait(&cond, &lock);
    pthread_mutex_unlock(&lock);
    return (void *)(n * 2);
}

static void *blocked(void *arg)
{
    char c;
    if (read(*(int *)arg, &c, 1) < 0)
        return NULL;
    return (void *)1;
}
static void *changes_dir(void *arg)
{
    (void)arg;
    return (void *)(long)chdir("sub");
}
static void *exits(void *arg)
{
    (void)arg;
    msleep(50);
    exit(12);
}
static void *outlives(void *arg)
{
    (void)arg;
    msleep(100);
    _exit(access("f0-0", F_OK) ? 1 : 13);
}
static volatile sig_atomic_t tid_of_signal;
static void on_signal(int s)
{
    (void)s;
    tid_of_signal = syscall(SYS_gettid);
}
static void *gets_signal(void *arg)
{
    *(pid_t *)arg = syscall(SYS_gettid);
    while (!tid_of_signal)
        msleep(1);
    return NULL;
}
static void *vforks(void *arg)
{
    pid_t pid = vfork();
    if (pid == 0)
        _exit(3);
    int s;
    return (void *)(long)(waitpid(pid, &s, 0) == pid && WEXITSTATUS(s) == 3 ? (long)arg : -1);
}

int main(void)
{
    pthread_t t[100];
    void *result;
    int wrong = 0, p[2];
    begin("threads");
    for (long i = 0; i < 100; i++)
        if (pthread_create(&t[i], NULL, worker, (void *)i))
            return puts("cannot create"), 1;
    for (long i = 0; i < 100; i++)
        wrong += pthread_join(t[i], &result) || (long)result != i * 2;
    printf("counter %d failures %d wrong %d\n", counter, failures, wrong);
    MUST(mkdir("sub", 0755));
    pthread_create(t, NULL, changes_dir, NULL);
    pthread_join(*t, &result);
    char cwd[4096];
    IS(getcwd(cwd, sizeof cwd) && strcmp(strrchr(cwd, '/'), "/sub") == 0);
    MUST(chdir(".."));
    MUST(pipe(p));
    pthread_create(t, NULL, blocked, p);
    msleep(20);
    TRY(pthread_cancel(*t));
    pthread_join(*t, &result);
    IS(result == PTHREAD_CANCELED);
    CHILD("a thread exits the process") {
        pthread_create(t, NULL, exits, NULL);
        pause();
    }
    END_CHILD;
    CHILD("the leader leaves first") {
        pthread_create(t, NULL, outlives, NULL);
        pthread_exit(NULL);
    }
    END_CHILD;
    CHILD("fork from a thread") {
        pthread_create(t, NULL, vforks, (void *)7);
        pthread_join(*t, &result);
        TRY((long)result);
    }
    END_CHILD;
    wrong = 0;
    for (long i = 0; i < 20; i++)
        pthread_create(&t[i], NULL, vforks, (void *)i);
    for (long i = 0; i < 20; i++)
        pthread_join(t[i], &result), wrong += (long)result != i;
    TRY(wrong);
    signal(SIGUSR1, on_signal);
    pid_t tid = 0;
    pthread_create(t, NULL, gets_signal, &tid);
    while (!__atomic_load_n(&tid, __ATOMIC_SEQ_CST))
        msleep(1);
    TRY(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
    pthread_join(*t, NULL);
    IS(tid_of_signal == tid);
    TRY(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
    uint32_t word = 1;
    struct timespec ts = { 0, 1000000 };
    TRY(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0));
    TRY(syscall(SYS_futex, &word, FUTEX_WAIT, 1, &ts, NULL, 0));
    TRY(syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0));
    /* thousands of threads, one after the other */
    wrong = 0;
    for (int i = 0; i < 2000; i++)
        wrong +=
            pthread_create(t, NULL, changes_dir, NULL) || pthread_join(*t, &result) || result || chdir("..");
    TRY(wrong);
    return 0;
}

/*
 * Shared by the guest programs: every step prints one line that must be the same natively and in a
 * layer. TRY prints the value or the errno's name; DO prints "ok" where the value is not fixed
 * (descriptors, process ids). Each program works in a directory of its own below the current one.
 */
#ifndef CHECK_H
#define CHECK_H
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline const char *errname(int e)
{
    static char unknown[16];
#define E(x) case x: return #x
    switch (e) {
    E(EPERM); E(ENOENT); E(ESRCH); E(EINTR); E(EIO); E(ENXIO); E(E2BIG); E(ENOEXEC); E(EBADF);
    E(ECHILD); E(EAGAIN); E(ENOMEM); E(EACCES); E(EFAULT); E(ENOTBLK); E(EBUSY); E(EEXIST);
    E(EXDEV); E(ENODEV); E(ENOTDIR); E(EISDIR); E(EINVAL); E(ENFILE); E(EMFILE); E(ENOTTY);
    E(ETXTBSY); E(EFBIG); E(ENOSPC); E(ESPIPE); E(EROFS); E(EMLINK); E(EPIPE); E(EDOM); E(ERANGE);
    E(EDEADLK); E(ENAMETOOLONG); E(ENOLCK); E(ENOSYS); E(ENOTEMPTY); E(ELOOP); E(ENOMSG); E(EIDRM);
    E(ENODATA); E(ETIME); E(EOVERFLOW); E(EPROTO); E(EBADMSG); E(ENOTSOCK); E(EDESTADDRREQ);
    E(EMSGSIZE); E(EPROTOTYPE); E(ENOPROTOOPT); E(EPROTONOSUPPORT); E(ESOCKTNOSUPPORT);
    E(EOPNOTSUPP); E(EAFNOSUPPORT); E(EADDRINUSE); E(EADDRNOTAVAIL); E(ENETUNREACH);
    E(ECONNRESET); E(EISCONN); E(ENOTCONN); E(ETIMEDOUT); E(ECONNREFUSED); E(EHOSTUNREACH);
    E(EALREADY); E(EINPROGRESS); E(ESTALE); E(ECANCELED); E(EUSERS); E(ELIBBAD);
    }
#undef E
    snprintf(unknown, sizeof unknown, "errno %d", e);
    return unknown;
}

#define TRY(expr) do { \
    errno = 0; \
    long try_value = (long)(expr); \
    if (try_value == -1) printf("%s: %s\n", #expr, errname(errno)); \
    else printf("%s: %ld\n", #expr, try_value); \
} while (0)

#define DO(expr) do { \
    errno = 0; \
    long do_value = (long)(expr); \
    if (do_value == -1) printf("%s: %s\n", #expr, errname(errno)); \
    else printf("%s: ok\n", #expr); \
} while (0)

/* The value must be true: prints nothing of it but that. */
#define IS(expr) printf("%s: %s\n", #expr, (expr) ? "yes" : "NO")

/* Opens, prints, closes: for tables of flags and errors. */
#define OPEN(path, flags, mode) do { \
    int open_fd = open(path, flags, mode); \
    printf("open %.60s %s: %s\n", #path, #flags, open_fd < 0 ? errname(errno) : "ok"); \
    if (open_fd >= 0) close(open_fd); \
} while (0)

#define MUST(expr) do { \
    if ((long)(expr) == -1) \
        printf("line %d: %s: %s\n", __LINE__, #expr, errname(errno)), exit(99); \
} while (0)

static inline void put(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        printf("cannot write %s: %s\n", path, errname(errno)), exit(99);
    close(fd);
}

static inline const char *get(const char *path)
{
    static char text[4096];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    const char *why = errname(errno);
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return why;
    text[n] = 0;
    return text;
}

/* "exit 3", "signal 9 core", ...: what wait() says. */
static inline const char *status_text(int status)
{
    static char text[32];
    if (WIFEXITED(status))
        snprintf(text, sizeof text, "exit %d", WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "signal %d", WTERMSIG(status));
    else if (WIFSTOPPED(status))
        snprintf(text, sizeof text, "stopped %d", WSTOPSIG(status));
    else if (WIFCONTINUED(status))
        snprintf(text, sizeof text, "continued");
    else
        snprintf(text, sizeof text, "status %#x", status);
    return text;
}

static inline const char *wait_for(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid)
        return errname(errno);
    return status_text(status);
}

/* Runs the block in a child: CHILD("what") { ...; _exit(0); } END_CHILD */
#define CHILD(what) do { const char *child_what = what; fflush(stdout); pid_t child_pid = fork(); \
    if (child_pid == 0) {
#define END_CHILD _exit(0); } \
    printf("%s: %s\n", child_what, wait_for(child_pid)); } while (0)

static inline void msleep(int ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    while (nanosleep(&t, &t) == -1 && errno == EINTR)
        ;
}

/* Line-buffered so that children do not repeat what the parent printed; a directory of its own. */
static inline void begin(const char *name)
{
    setvbuf(stdout, NULL, _IOLBF, 8192);
    umask(022);
    if (mkdir(name, 0755) == -1 || chdir(name) == -1)
        printf("cannot enter %s: %s\n", name, errname(errno)), exit(99);
}
#endif

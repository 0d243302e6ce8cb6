/* Attempts of escape: ways by names, links and directories. */
#include "escape.h"

static int absolute_path(void) { return reads_secret(secret); }
static int planted_absolute_link(void) { return reads_secret(in("abs")); }
static int planted_relative_link(void) { return reads_secret(in("rel")); }
static int planted_deep_link(void) { return reads_secret(in("deep")); }
static int planted_directory_link(void)
{
    return reads_secret(in("dirup/secret")) || reads_secret(up(in("rootlink")));
}
static int own_link(void)
{
    unlink(in("own"));
    unlink(in("own2"));
    return (symlink(secret, in("own")) == 0 && reads_secret(in("own"))) ||
           (symlink("../secret", in("own2")) == 0 && reads_secret(in("own2")));
}
static int dot_dot(void)
{
    return reads_secret(up(volume)) || reads_secret(in("../secret")) || reads_secret(up("/"));
}
static int dot_dot_from_cwd(void)
{
    if (chdir(volume))
        return 0;
    return reads_secret("../secret") || (chdir("..") == 0 && reads_secret("secret"));
}
static int proc_root(void)
{
    char path[4200];
    int found = 0;
    const char *roots[] = { "/proc/self/root", "/proc/1/root", "/proc/self/task/1/root", "/proc/1/cwd",
                            "/proc/thread-self/root" };
    for (unsigned i = 0; i < sizeof roots / sizeof *roots; i++) {
        snprintf(path, sizeof path, "%s%s", roots[i], secret);
        found |= reads_secret(path) || reads_secret(up(roots[i]));
    }
    snprintf(path, sizeof path, "/proc/%d/root%s", host_pid, secret);
    return found || reads_secret(path);
}
static int proc_fd(void)
{
    char path[64];
    int found = 0, dir = open(volume, O_RDONLY | O_DIRECTORY), opath = open(volume, O_PATH);
    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        found |= reads_secret(up(path));
        snprintf(path, sizeof path, "/proc/1/fd/%d", fd);
        found |= reads_secret(path) || reads_secret(up(path));
        snprintf(path, sizeof path, "/proc/self/fd/%d/../secret", fd);
        found |= reads_secret(path);
    }
    close(dir), close(opath);
    return found;
}
static int directory_descriptor(void)
{
    char path[4200];
    int flags[] = { O_RDONLY, O_PATH, O_RDONLY | O_NOFOLLOW, O_PATH | O_DIRECTORY };
    for (unsigned i = 0; i < 4; i++) {
        const char *dirs[] = { volume, "/", "/proc", "/tmp", "/dev" };
        for (unsigned k = 0; k < 5; k++) {
            int dir = open(dirs[k], flags[i]);
            if (dir < 0)
                continue;
            snprintf(path, sizeof path, "../../../../../..%s", secret);
            if (reads_secret_at(dir, path) || reads_secret_at(dir, "../secret"))
                return 1;
            int above = openat(dir, "..", O_RDONLY);
            if (above >= 0 && reads_secret_at(above, "secret"))
                return 1;
            if (fchdir(dir) == 0 && (reads_secret(path) || reads_secret("../secret")))
                return 1;
            close(above), close(dir);
        }
    }
    return 0;
}
static int descriptor_by_message(void)
{
    int pair[2], dir = open(volume, O_PATH), got = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 0;
    char c = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec io = { &c, 1 };
    struct msghdr m = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &dir, sizeof dir);
    if (sendmsg(pair[0], &m, 0) != 1 || recvmsg(pair[1], &m, 0) != 1)
        return 0;
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof got);
    return reads_secret_at(got, "../secret") || (fchdir(got) == 0 && reads_secret("../secret"));
}
static int file_handle(void)
{
    struct {
        struct file_handle h;
        char more[128];
    } f = { .h.handle_bytes = 128 };
    int mount_id, dir = open(volume, O_RDONLY);
    if (name_to_handle_at(AT_FDCWD, in("ok"), &f.h, &mount_id, 0) == 0 &&
        open_by_handle_at(dir, &f.h, O_RDONLY) >= 0)
        return 1;
    /* a made-up handle: generation 0 of the root inode of ext4 and of tmpfs */
    f.h.handle_bytes = 8, f.h.handle_type = 1;
    memcpy(f.h.f_handle, "\2\0\0\0\0\0\0\0", 8);
    return open_by_handle_at(dir, &f.h, O_RDONLY) >= 0;
}
static int hard_link(void)
{
    unlink(in("hard"));
    return (link(secret, in("hard")) == 0 ||
            linkat(AT_FDCWD, in("abs"), AT_FDCWD, in("hard"), AT_SYMLINK_FOLLOW) == 0) &&
           reads_secret(in("hard"));
}
/* The test looks whether the directory turned up beside the volume. */
static int rename_out(void)
{
    mkdir(in("moved"), 0755);
    rename(in("moved"), in("../moved"));
    rename(in("moved"), "/proc/self/cwd/../../moved");
    return 0;
}
static int chroot_classic(void)
{
    mkdir(in("jail"), 0755);
    int dir = open("/", O_RDONLY);
    if (chdir(volume) || chroot(in("jail")))
        return 0;
    if (reads_secret("../secret") || (fchdir(dir) == 0 && reads_secret(secret)))
        return 1;
    for (int i = 0; i < 20; i++)
        if (chdir(".."))
            break;
    return chroot(".") == 0 && (reads_secret(secret) || reads_secret(up("")));
}
static int executes_outside(void)
{
    char *argv[] = { "sh", "-c", "exit 77", NULL };
    pid_t pid = fork();
    if (pid == 0) {
        execv(up(volume), argv);
        execv("/bin/../../../../../bin/sh", argv);
        _exit(0);
    }
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 77;
}

const struct attempt paths_attempts[] = {
    ATTEMPT(absolute_path),
    ATTEMPT(planted_absolute_link),
    ATTEMPT(planted_relative_link),
    ATTEMPT(planted_deep_link),
    ATTEMPT(planted_directory_link),
    ATTEMPT(own_link),
    ATTEMPT(dot_dot),
    ATTEMPT(dot_dot_from_cwd),
    ATTEMPT(proc_root),
    ATTEMPT(proc_fd),
    ATTEMPT(directory_descriptor),
    ATTEMPT(descriptor_by_message),
    ATTEMPT(file_handle),
    ATTEMPT(hard_link),
    ATTEMPT(rename_out),
    ATTEMPT(chroot_classic),
    ATTEMPT(executes_outside),
    { NULL, NULL },
};

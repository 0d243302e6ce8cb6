/* Attempts of escape: mounts and namespaces. */
#include "escape.h"
#include <sched.h>
#include <sys/mount.h>

static int mounts(void)
{
    mkdir(in("mnt"), 0755);
    if (mount("none", in("mnt"), "tmpfs", 0, NULL) == 0 && mount("/", in("mnt"), NULL, MS_BIND, NULL) == 0)
        return reads_secret(in("mnt")) || reads_secret(up(in("mnt")));
    char path[64];
    snprintf(path, sizeof path, "mnt/%d", host_pid);
    return mount("proc", in("mnt"), "proc", 0, NULL) == 0 && access(in(path), F_OK) == 0;
}
/* Whether anything came of it shows in the volume, where that is read-only. */
static int remounts(void)
{
    mount(NULL, volume, NULL, MS_REMOUNT | MS_BIND, NULL);
    mount(NULL, volume, NULL, MS_REMOUNT, NULL);
    mkdir("/twin", 0755);
    mount(volume, "/twin", NULL, MS_BIND, NULL);
    mount(NULL, "/twin", NULL, MS_REMOUNT | MS_BIND, NULL);
    mount("none", "/twin", "overlay", 0, "lowerdir=/,upperdir=/twin,workdir=/twin");
    close(open("/twin/remounted", O_CREAT | O_WRONLY, 0644));
    close(open(in("remounted"), O_CREAT | O_WRONLY, 0644));
    return 0;
}
static int unmounts(void)
{
    return umount2("/", MNT_EXPIRE) == 0 || (umount2("/", MNT_EXPIRE) == -1 && errno == EAGAIN);
}
static int new_mount_api(void)
{
    int tree = syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */),
        context = syscall(SYS_fsopen, "tmpfs", 0);
    return (tree >= 0 && reads_secret_at(tree, secret + 1)) || context >= 0;
}
static int unshares(void)
{
    int flags[] = { CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID, CLONE_NEWNET,
                    CLONE_NEWUTS,  CLONE_NEWIPC, 0x02000000 };
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
        if (unshare(flags[i]) == 0)
            return 1;
    return 0;
}
static int clone_namespace(void)
{
    pid_t pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0);
    if (pid == 0)
        _exit(0);
    static const uint64_t flags[] = { CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID, CLONE_NEWNET,
                                      CLONE_NEWUTS,  CLONE_NEWIPC, 0x02000000,   0x80 };
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
        for (int with_user = 0; with_user < 2; with_user++) {
            uint64_t args[11] = { flags[i] | (with_user ? CLONE_NEWUSER : 0), 0, 0, 0, SIGCHLD };
            pid_t third = syscall(435 /* clone3 */, args, 88);
            if (third == 0)
                _exit(0);
            if (third > 0)
                return 1;
        }
    return pid > 0;
}
static int joins_namespace(void)
{
    char path[64];
    const char *names[] = { "mnt", "pid", "net", "user", "uts", "ipc", "cgroup" };
    for (unsigned i = 0; i < 7; i++) {
        pid_t pids[] = { 1, getppid(), host_pid, getpid() };
        for (int k = 0; k < 4; k++) {
            snprintf(path, sizeof path, "/proc/%d/ns/%s", pids[k], names[i]);
            int fd = open(path, O_RDONLY);
            if (fd >= 0 && setns(fd, 0) == 0)
                return 1;
        }
    }
    int pidfd = syscall(SYS_pidfd_open, 1, 0);
    return pidfd >= 0 && setns(pidfd, CLONE_NEWNS) == 0;
}
static int pivots(void) { return syscall(SYS_pivot_root, volume, volume) == 0; }

const struct attempt mounts_attempts[] = {
    ATTEMPT(mounts),
    ATTEMPT(remounts),
    ATTEMPT(unmounts),
    ATTEMPT(new_mount_api),
    ATTEMPT(unshares),
    ATTEMPT(clone_namespace),
    ATTEMPT(joins_namespace),
    ATTEMPT(pivots),
    { NULL, NULL },
};

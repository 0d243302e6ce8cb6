/* Pipes, splice and copies, epoll, eventfd, timerfd, System V and POSIX queues. */
#include "check.h"
#include <mqueue.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

int main(void)
{
    char buf[100] = "";
    int p[2], q[2], n;
    begin("ipc");
    signal(SIGPIPE, SIG_IGN);
    /* pipes */
    TRY(pipe2(p, O_NONBLOCK | O_CLOEXEC));
    TRY(read(p[0], buf, 1));
    TRY(write(p[0], "x", 1));
    TRY(write(p[1], "abc", 3));
    TRY(ioctl(p[0], FIONREAD, &n));
    TRY(n);
    TRY(fcntl(p[0], F_GETPIPE_SZ));
    TRY(fcntl(p[1], F_SETPIPE_SZ, 4096));
    TRY(pipe2(q, 0x4));
    TRY(read(p[0], buf, 10));
    static char page[8192];
    TRY(write(p[1], page, sizeof page));
    TRY(write(p[1], page, 1));
    close(p[0]);
    TRY(write(p[1], "x", 1));
    close(p[1]);
    TRY(read(p[0], buf, 1));
    TRY(pipe((int *)8));
    struct iovec v[2] = { { "ab", 2 }, { "cd", 2 } };
    MUST(pipe(p));
    TRY(writev(p[1], v, 2));
    TRY(read(p[0], buf, 4));
    printf("%.4s\n", buf);
    TRY(writev(p[1], v, -1));
    TRY(writev(p[1], v, 2000));
    /* splice, tee, sendfile, copy_file_range */
    put("src", "0123456789");
    int s = open("src", O_RDONLY), d = open("dst", O_CREAT | O_RDWR, 0644);
    off_t off = 2;
    loff_t loff = 5;
    TRY(sendfile(d, s, &off, 4));
    TRY(off);
    TRY(copy_file_range(s, &loff, d, NULL, 100, 0));
    printf("%s\n", get("dst"));
    TRY(splice(s, NULL, p[1], NULL, 5, 0));
    MUST(pipe(q));
    TRY(tee(p[0], q[1], 5, 0));
    TRY(splice(q[0], NULL, d, NULL, 5, 0));
    TRY(read(p[0], buf, 9));
    TRY(vmsplice(p[1], v, 2, 0));
    TRY(read(p[0], buf, 9));
    printf("%s\n", get("dst"));
    TRY(sendfile(p[1], s, NULL, 3));
    TRY(copy_file_range(s, NULL, p[1], NULL, 1, 0));
    TRY(sendfile(d, 999, NULL, 1));
    TRY(preadv(d, (struct iovec[]) { { buf, 3 }, { buf + 3, 3 } }, 2, 1));
    TRY(pwrite(d, "x", 1, -1));
    TRY(readahead(s, 0, 10));
    TRY(posix_fadvise(s, 0, 0, POSIX_FADV_DONTNEED));
    /* eventfd, timerfd, epoll, select, poll */
    uint64_t u = 3;
    int e = eventfd(1, EFD_NONBLOCK | EFD_SEMAPHORE);
    TRY(write(e, &u, 8));
    TRY(read(e, &u, 8));
    TRY(u);
    TRY(read(e, &u, 4));
    int t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    TRY(read(t, &u, 8));
    struct itimerspec its = { .it_value = { 0, 1000000 } };
    TRY(timerfd_settime(t, 0, &its, NULL));
    TRY(poll(&(struct pollfd) { t, POLLIN, 0 }, 1, 1000));
    TRY(read(t, &u, 8));
    TRY(u);
    TRY(timerfd_create(99, 0));
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { EPOLLIN, { .u64 = 0x123456789abcull } }, got[4];
    while (read(p[0], buf, 0) == 0 && ioctl(p[0], FIONREAD, &n) == 0 && n)
        TRY(read(p[0], buf, n));
    TRY(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
    TRY(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
    TRY(epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev));
    TRY(epoll_ctl(ep, EPOLL_CTL_DEL, t, &ev));
    TRY(epoll_wait(ep, got, 4, 0));
    MUST(write(p[1], "x", 1));
    TRY(epoll_wait(ep, got, 4, 1000));
    TRY(got[0].data.u64 == ev.data.u64);
    TRY(epoll_wait(ep, got, 0, 0));
    TRY(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
    TRY(epoll_pwait(ep, got, 4, 0, NULL));
    int dir = open(".", O_RDONLY);
    TRY(epoll_ctl(ep, EPOLL_CTL_ADD, dir, &ev));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p[0], &set);
    TRY(select(p[0] + 1, &set, NULL, NULL, &(struct timeval) { 0, 0 }));
    TRY(FD_ISSET(p[0], &set) != 0);
    struct pollfd pf[2] = { { p[0], POLLIN, 0 }, { 999, POLLIN, 0 } };
    TRY(poll(pf, 2, 0));
    printf("%d %d\n", pf[0].revents, pf[1].revents);
    TRY(ppoll(pf, 1, &(struct timespec) { 0, 0 }, NULL));
    /* System V */
    int m = shmget(IPC_PRIVATE, 8000, IPC_CREAT | 0600);
    IS(m >= 0);
    char *a = shmat(m, NULL, 0);
    IS(a != (void *)-1);
    CHILD("shared") {
        strcpy(a, "through shm");
    }
    END_CHILD;
    puts(a);
    struct shmid_ds ds;
    TRY(shmctl(m, IPC_STAT, &ds));
    printf("%zu %lu\n", ds.shm_segsz, (long)ds.shm_nattch);
    TRY(shmctl(m, IPC_RMID, NULL));
    TRY(shmdt(a));
    TRY(shmdt(a));
    TRY(shmat(m, NULL, 0) == (void *)-1);
    TRY(shmget(0x7fee1234, 1, 0));
    int sem = semget(IPC_PRIVATE, 2, 0600);
    struct sembuf op = { 0, 1, 0 };
    TRY(semop(sem, &op, 1));
    op.sem_op = -1;
    TRY(semop(sem, &op, 1));
    op.sem_flg = IPC_NOWAIT;
    TRY(semop(sem, &op, 1));
    TRY(semctl(sem, 1, SETVAL, 7));
    TRY(semctl(sem, 1, GETVAL));
    CHILD("undo") {
        struct sembuf o = { 0, 1, SEM_UNDO };
        TRY(semop(sem, &o, 1));
        TRY(semctl(sem, 0, GETVAL));
    }
    END_CHILD;
    TRY(semctl(sem, 0, GETVAL));
    TRY(semctl(sem, 0, IPC_RMID));
    TRY(semop(sem, &op, 1));
    int mq = msgget(IPC_PRIVATE, 0600);
    struct {
        long type;
        char text[16];
    } msg = { 3, "message" };
    TRY(msgsnd(mq, &msg, 8, 0));
    TRY(msgrcv(mq, &msg, 16, 2, IPC_NOWAIT));
    TRY(msgrcv(mq, &msg, 4, 3, 0));
    TRY(msgrcv(mq, &msg, 16, 3, 0));
    puts(msg.text);
    TRY(msgctl(mq, IPC_RMID, NULL));
    TRY(msgsnd(mq, &msg, 8, 0));
    /* POSIX message queues, shared memory and semaphores' files */
    struct mq_attr attr = { .mq_maxmsg = 4, .mq_msgsize = 32 };
    mqd_t queue = mq_open("/duet-test-queue", O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &attr);
    IS(queue >= 0);
    TRY(mq_send(queue, "low", 4, 1));
    TRY(mq_send(queue, "high", 5, 9));
    unsigned prio;
    TRY(mq_receive(queue, buf, 32, &prio));
    printf("%s %u\n", buf, prio);
    TRY(mq_receive(queue, buf, 3, &prio));
    TRY(mq_receive(queue, buf, 32, &prio));
    TRY(mq_receive(queue, buf, 32, &prio));
    TRY(mq_unlink("/duet-test-queue"));
    TRY(mq_unlink("/duet-test-queue"));
    int sh = shm_open("/duet-test-shm", O_CREAT | O_EXCL | O_RDWR, 0600);
    IS(sh >= 0);
    TRY(ftruncate(sh, 4096));
    char *w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, sh, 0);
    CHILD("posix shm") {
        strcpy(w, "posix");
    }
    END_CHILD;
    puts(w);
    TRY(shm_unlink("/duet-test-shm"));
    TRY(shm_unlink("/duet-test-shm"));
    return 0;
}

/* The machine and the clock: uname, sysinfo, host name, random numbers, time, user and group lists. */
#include "check.h"
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/timex.h>
#include <sys/times.h>
#include <sys/utsname.h>

int main(void)
{
    struct utsname u;
    struct sysinfo info;
    struct timespec t, before;
    char buf[300];
    begin("system");
    TRY(uname(&u));
    printf("%s %s\n", u.sysname, u.machine);
    IS(atoi(u.release) >= 3);
    TRY(syscall(SYS_uname, 8L));
    IS(gethostname(buf, sizeof buf) == 0 && strcmp(buf, u.nodename) == 0);
    TRY(sysinfo(&info));
    IS(info.uptime > 0 && info.totalram > 0 && info.procs > 0 && info.mem_unit > 0);
    TRY(getrandom(buf, 100, 0));
    TRY(getrandom(buf, 16, GRND_NONBLOCK));
    TRY(getrandom(buf, 16, 0x100));
    TRY(getrandom((void *)8, 16, 0));
    MUST(clock_gettime(CLOCK_MONOTONIC, &before));
    MUST(clock_gettime(CLOCK_MONOTONIC, &t));
    IS(t.tv_sec > before.tv_sec || (t.tv_sec == before.tv_sec && t.tv_nsec >= before.tv_nsec));
    clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID,
                           CLOCK_THREAD_CPUTIME_ID, CLOCK_REALTIME_COARSE, CLOCK_TAI, 55 };
    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        TRY(syscall(SYS_clock_gettime, clocks[i], &t));
        TRY(clock_getres(clocks[i], &t));
    }
    IS(time(NULL) > 1600000000);
    TRY(syscall(SYS_clock_gettime, CLOCK_REALTIME, 8L));
    TRY(clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){ 0, 1000 }, NULL));
    TRY(syscall(SYS_nanosleep, &(struct timespec){ 0, 2000000000 }, NULL));
    TRY(syscall(SYS_nanosleep, &(struct timespec){ -1, 0 }, NULL));
    struct tms tms;
    IS(times(&tms) != (clock_t)-1);
    struct rusage usage;
    TRY(getrusage(RUSAGE_SELF, &usage));
    IS(usage.ru_maxrss > 0);
    TRY(getrusage(RUSAGE_CHILDREN, &usage));
    TRY(getrusage(99, &usage));
    unsigned cpu;
    TRY(getcpu(&cpu, NULL));
    IS(sysconf(_SC_NPROCESSORS_ONLN) > 0);
    IS(getpagesize() == 4096);
    /* numbers no kernel has */
    TRY(syscall(1000));
    TRY(syscall(-1));
    TRY(syscall(SYS_uselib, "x"));
    TRY(syscall(SYS_create_module));
    TRY(syscall(SYS_get_kernel_syms));
    sync();
    TRY(syscall(SYS_membarrier, 0, 0, 0) >= 0);
    TRY(syscall(SYS_rseq, 0, 0, 0, 0));
    TRY(syscall(SYS_set_tid_address, &cpu) > 0);
    TRY(syscall(SYS_getpgid, -1));
    TRY(syscall(SYS_arch_prctl, 0x1003, &info));
    TRY(syscall(SYS_arch_prctl, 0x9999, 0));
    return 0;
}

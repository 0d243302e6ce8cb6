/* Memory: shared and private mappings of files, protections, mremap, faults, memfd and seals. */
#include "check.h"
#include <setjmp.h>
#include <linux/memfd.h>

static sigjmp_buf back;
static siginfo_t fault;
static void on_fault(int s, siginfo_t *i, void *u) { (void)s, (void)u; fault = *i; siglongjmp(back, 1); }
#define FAULTS(expr) do { fault.si_signo = 0; if (!sigsetjmp(back, 1)) { expr; } \
    printf("%s: signal %d code %d\n", #expr, fault.si_signo, fault.si_signo ? fault.si_code : 0); } while (0)

int main(void)
{
    begin("mmap");
    struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    MUST(sigaction(SIGSEGV, &sa, NULL));
    MUST(sigaction(SIGBUS, &sa, NULL));
    put("f", "hello");
    MUST(truncate("f", 8192));
    int fd = open("f", O_RDWR), ro = open("f", O_RDONLY);
    char *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, ro, 0);
    IS(shared != MAP_FAILED && private != MAP_FAILED);
    memcpy(shared, "HELLO", 5);
    private[0] = 'J';
    printf("%s %.5s\n", get("f"), private);
    MUST(pwrite(fd, "x", 1, 4));
    printf("%.5s\n", shared);
    CHILD("child writes through") { shared[1] = 'a'; private[1] = 'b'; } END_CHILD;
    printf("%.5s %.5s\n", shared, private);
    TRY(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0) != MAP_FAILED);
    TRY(errno == EACCES);
    TRY(msync(shared, 4096, MS_SYNC));
    MUST(unlink("f"));
    shared[0] = 'u';
    MUST(ftruncate(fd, 4096));
    FAULTS(((volatile char *)shared)[5000] = 1);
    FAULTS(*(volatile char *)8 = 1);
    TRY(mprotect(shared, 4096, PROT_READ));
    FAULTS(((volatile char *)shared)[0] = 1);
    printf("%.5s\n", shared);
    TRY(munmap(shared, 8192));
    FAULTS((void)*(volatile char *)shared);
    TRY(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
    TRY(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED && errno == EBADF);
    int dir = open(".", O_RDONLY);
    TRY(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, dir, 0) == MAP_FAILED && errno == ENODEV);
    char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m[0] = 7;
    m = mremap(m, 4096, 1 << 20, MREMAP_MAYMOVE);
    IS(m != MAP_FAILED && m[0] == 7);
    IS(madvise(m, 4096, MADV_DONTNEED) == 0 && m[0] == 0);
    unsigned char vec[256];
    TRY(mincore(m, 1 << 20, vec));
    TRY(mlock(m, 4096));
    TRY(munlock(m, 4096));
    void *brk0 = sbrk(0);
    IS(sbrk(100000) == brk0 && memset(brk0, 1, 100000) == brk0);
    /* code made at run time */
    unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
    void *x = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(x, code, sizeof code);
    TRY(mprotect(x, 4096, PROT_READ | PROT_EXEC));
    TRY(((int (*)(void))x)());
    /* fixed addresses */
    TRY(mmap(x, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED && errno == EEXIST);
    IS(mmap(x, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == x);
    TRY(mmap((void *)4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)4096 || errno == EPERM);
    /* memfd */
    int mem = memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    IS(mem >= 0);
    TRY(write(mem, "sealed", 6));
    TRY(fcntl(mem, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    TRY(write(mem, "x", 1));
    TRY(ftruncate(mem, 0));
    TRY(ftruncate(mem, 100));
    TRY(fcntl(mem, F_GET_SEALS));
    char link[64], path[64];
    sprintf(path, "/proc/self/fd/%d", mem);
    ssize_t n = readlink(path, link, sizeof link - 1);
    link[n > 0 ? n : 0] = 0;
    puts(link);
    struct stat st;
    TRY(fstat(mem, &st));
    printf("%o %ld\n", st.st_mode, (long)st.st_size);
    TRY(fchmod(mem, 0600));
    int again = open(path, O_RDONLY);
    TRY(pread(again, link, 6, 0));
    return 0;
}

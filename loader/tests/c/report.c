// Prints what the kernel, or Duet, has told a new program, and checks that it is true.
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <unistd.h>

static char big[BSS];
static int initialised = 42;
extern char **environ;
extern int main(int, char **);

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) printf("argv[%d]=%s\n", i, argv[i]);
    if (argv[argc]) puts("argv has no end");
    for (char **e = environ; *e; e++) printf("env %s\n", *e);
    for (size_t i = 0; i < sizeof big; i++)
        if (big[i]) { printf("bss is not clear at %zu\n", i); break; }
    memset(big, 1, sizeof big);
    if (initialised != 42) puts("data is wrong");
    Elf64_Phdr *ph = (void *)getauxval(AT_PHDR);
    printf("phent %lu phnum %lu\n", getauxval(AT_PHENT), getauxval(AT_PHNUM));
    unsigned long bias = 0;
    int interp = 0;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++) {
        if (ph[i].p_type == PT_PHDR) bias = (unsigned long)ph - ph[i].p_vaddr;
        if (ph[i].p_type == PT_INTERP) interp = 1;
        if (ph[i].p_type == PT_LOAD) printf("load %d\n", ph[i].p_flags);
    }
    Elf64_Ehdr *eh = (void *)((char *)ph - sizeof *eh);
    if (memcmp(eh->e_ident, ELFMAG, SELFMAG)) puts("no ELF header before AT_PHDR");
    if (eh->e_type == ET_DYN && (unsigned long)eh != bias) puts("AT_PHDR is wrong");
    if (getauxval(AT_ENTRY) != (eh->e_type == ET_DYN ? bias : 0) + eh->e_entry) puts("AT_ENTRY is wrong");
    unsigned long base = getauxval(AT_BASE);
    printf("interp %d base %d\n", interp, base != 0);
    if (base && memcmp((void *)base, ELFMAG, SELFMAG)) puts("AT_BASE is wrong");
    printf("execfn %s\n", (char *)getauxval(AT_EXECFN));
    printf("secure %lu\n", getauxval(AT_SECURE));
    printf("platform %s random %d\n", (char *)getauxval(AT_PLATFORM), getauxval(AT_RANDOM) != 0);
    if (getauxval(AT_UID) != 1) printf("uid %lu\n", getauxval(AT_UID));
    char *brk = sbrk(0);
    if (sbrk(1 << 28) != brk) puts("the heap does not grow");
    char *p = malloc(1 << 24);
    memset(p, 1, 1 << 24);
    printf("%s\n", (unsigned long)__builtin_frame_address(0) % 16 ? "odd stack" : "even stack");
    return argc;
}

// Prints which registers a new program finds set, and its flags.
__asm__(".globl _start\n_start:\n"
        "push %r15; push %r14; push %r13; push %r12; push %r11; push %r10; push %r9; push %r8\n"
        "push %rbp; push %rdi; push %rsi; push %rdx; push %rcx; push %rbx; push %rax\n"
        "pushf\n mov %rsp, %rdi\n call report\n");

static long call(long nr, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}

void report(unsigned long *regs) {
    char text[] = "dirty 0 flags ....\n";
    for (int i = 1; i < 16; i++)
        if (regs[i]) text[6] = '0' + i;
    for (int i = 0; i < 4; i++)
        text[14 + i] = "0123456789abcdef"[regs[0] >> (12 - 4 * i) & 15];
    call(1, 1, (long)text, sizeof text - 1);
    call(231, 0, 0, 0);
}

# The stub: see stub.rs for what it does and for the numbers in braces.
# r12: records left; rbx: the next record.

    .pushsection .rodata.duet_stub, "a", @progbits
    .balign 16
    .globl duet_stub_start
    .hidden duet_stub_start
duet_stub_start:
    cld
    lea     rbx, [rip + duet_stub_start + {BUFFER} - {CODE}]
    mov     eax, {NR}
    mov     rdi, rsp
    mov     rsi, rbx
    mov     edx, {BUFFER_SIZE}
    xor     r10d, r10d
    xor     r8d, r8d
    movabs  r9, {MAGIC}
    syscall
    test    rax, rax
    jle     .Lduet_stub_refused
    mov     r12, rax

.Lduet_stub_next:
    sub     r12, 1
    js      .Lduet_stub_die
    mov     r13, [rbx]
    mov     rdi, [rbx + 8]
    mov     rsi, [rbx + 16]
    mov     rdx, [rbx + 24]
    mov     r10, [rbx + 32]
    mov     r8, [rbx + 40]
    mov     r9, [rbx + 48]
    add     rbx, 56
    cmp     r13d, {ZERO}
    je      .Lduet_stub_zero
    cmp     r13d, {JUMP}
    je      .Lduet_stub_jump
    mov     eax, r13d
    syscall
    bt      r13, 32
    jc      .Lduet_stub_next
    cmp     rax, -4095
    jae     .Lduet_stub_die
    jmp     .Lduet_stub_next

.Lduet_stub_zero:
    mov     rcx, rsi
    xor     eax, eax
    rep stosb
    jmp     .Lduet_stub_next

.Lduet_stub_jump:
    mov     rsp, rsi
    mov     [rsp - 16], rdi
    mov     eax, {SYS_MUNMAP}
    lea     rdi, [rip + duet_stub_start + {BUFFER} - {CODE}]
    mov     esi, {BUFFER_SIZE}
    syscall
    test    rax, rax
    jnz     .Lduet_stub_die
    xor     ebx, ebx
    xor     ecx, ecx
    xor     edx, edx
    xor     esi, esi
    xor     edi, edi
    xor     ebp, ebp
    xor     r8d, r8d
    xor     r9d, r9d
    xor     r10d, r10d
    xor     r11d, r11d
    xor     r12d, r12d
    xor     r13d, r13d
    xor     r14d, r14d
    xor     r15d, r15d
    push    0x202
    popfq
    jmp     qword ptr [rsp - 16]

# Past the point of no return the kernel ends a program with a SIGSEGV that nothing can block or
# ignore. A privileged instruction raises the same.
.Lduet_stub_die:
    hlt

.Lduet_stub_refused:
    mov     edi, 127
    mov     eax, {SYS_EXIT_GROUP}
    syscall
    hlt
    .globl duet_stub_end
    .hidden duet_stub_end
duet_stub_end:
    .popsection

# The agent: see code.rs for where it lies and for the numbers in braces. Entered from a trampoline with
# the site's index in rcx and all registers else as the site had them; uses no stack. Leaves rcx as the
# kernel does, and all but rax, rcx and r11 as they were.

    .pushsection .rodata.duet_agent, "a", @progbits
    .balign 16
    .globl duet_agent_start
    .hidden duet_agent_start
duet_agent_start:
    lahf
    seto    al
    mov     r11d, eax
    # A forked child finds a zero here, and no channel. If a signal handler of its parent has forked it, it may come
    # back into a call of that one's, of which nothing may be overwritten.
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_busy
    mov     eax, 1
    xchg    dword ptr [{LOCK}], eax
    test    eax, eax
    jnz     .Lduet_agent_busy
    mov     dword ptr [{FLAGS}], r11d
    mov     r11, qword ptr [rcx*8 + {RETURNS}]
    mov     qword ptr [{RETURN}], r11
    mov     r11d, dword ptr [rcx*8 + {ROLES}]
    mov     dword ptr [{NUMBER}], r11d
    movzx   r11d, byte ptr [rcx*8 + {ROLES} + 4]
    mov     dword ptr [{PATH_ARG}], r11d
    movzx   r11d, byte ptr [rcx*8 + {ROLES} + 5]
    mov     dword ptr [{OUT_ARG}], r11d
    movzx   r11d, byte ptr [rcx*8 + {ROLES} + 6]
    mov     dword ptr [{OTHER_ARG}], r11d
    mov     dword ptr [{BLOCKED}], 0
    mov     qword ptr [{SAVED}], rdi
    mov     qword ptr [{SAVED} + 8], rsi
    mov     qword ptr [{SAVED} + 16], rdx
    mov     qword ptr [{SAVED} + 24], r10
    mov     qword ptr [{SAVED} + 32], r8
    mov     qword ptr [{SAVED} + 40], r9
    # Such a child looks again wherever it may have been interrupted: behind calls, and waiting.
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    cmp     dword ptr [{LISTENS}], 0
    je      .Lduet_agent_leave
    # A call that gives a descriptor needs the socket.
    movzx   r11d, byte ptr [rcx*8 + {ROLES} + 7]
    mov     dword ptr [{KIND}], r11d
    test    r11d, {GIVES}
    jz      .Lduet_agent_own
    cmp     dword ptr [{SOCKET}], 0
    je      .Lduet_agent_leave
    # An open changes something if its flags say so.
    test    r11d, {OTHER_FLAGS}
    jz      .Lduet_agent_own
    mov     ecx, dword ptr [{OTHER_ARG}]
    mov     rax, qword ptr [rcx*8 + {SAVED}]
    test    eax, {OPEN_CHANGES}
    jz      .Lduet_agent_own
    or      dword ptr [{KIND}], {CHANGES}
.Lduet_agent_own:
    mov     eax, {SYS_GETTID}
    syscall
    cmp     eax, dword ptr [{OWNER}]
    jne     .Lduet_agent_leave

    mov     ecx, dword ptr [{PATH_ARG}]
    cmp     ecx, 6
    jae     .Lduet_agent_other
    mov     rsi, qword ptr [rcx*8 + {SAVED}]
    mov     r9d, {PATH}
    jmp     .Lduet_agent_string

    # What another argument points to.
.Lduet_agent_other:
    test    dword ptr [{KIND}], {OTHER_STRING} | {OTHER_TIMES}
    jz      .Lduet_agent_post
    mov     ecx, dword ptr [{OTHER_ARG}]
    mov     rsi, qword ptr [rcx*8 + {SAVED}]
    mov     r9d, {OTHER}
    test    dword ptr [{KIND}], {OTHER_TIMES}
    jz      .Lduet_agent_string
    # 32 bytes, in one page; or nothing.
    test    rsi, rsi
    jz      .Lduet_agent_post
    mov     eax, esi
    and     eax, 4095
    cmp     eax, 4096 - 32
    ja      .Lduet_agent_leave
    mov     edi, {NO_HOW}
    xor     edx, edx
    mov     r10d, 8
    mov     eax, {SYS_RT_SIGPROCMASK}
    syscall
    cmp     eax, {MINUS_EINVAL}
    jne     .Lduet_agent_leave
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    mov     rax, qword ptr [rsi]
    mov     qword ptr [{OTHER}], rax
    mov     rax, qword ptr [rsi + 8]
    mov     qword ptr [{OTHER} + 8], rax
    mov     rax, qword ptr [rsi + 16]
    mov     qword ptr [{OTHER} + 16], rax
    mov     rax, qword ptr [rsi + 24]
    mov     qword ptr [{OTHER} + 24], rax
    jmp     .Lduet_agent_post

    # The string at rsi goes to r9: at most r8d bytes, which lie in one page. There is none at zero, which the
    # supervisor sees itself.
.Lduet_agent_string:
    test    rsi, rsi
    jz      .Lduet_agent_copied
    mov     eax, esi
    and     eax, 4095
    mov     r8d, 4096
    sub     r8d, eax
    cmp     r8d, 8
    jb      .Lduet_agent_leave
    cmp     r8d, {PATH_ROOM}
    jbe     .Lduet_agent_probe
    mov     r8d, {PATH_ROOM}
.Lduet_agent_probe:
    # Reads eight bytes, then finds that there is no such operation.
    mov     edi, {NO_HOW}
    xor     edx, edx
    mov     r10d, 8
    mov     eax, {SYS_RT_SIGPROCMASK}
    syscall
    cmp     eax, {MINUS_EINVAL}
    jne     .Lduet_agent_leave
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    mov     edi, r9d
.Lduet_agent_copy:
    mov     al, byte ptr [rsi]
    mov     byte ptr [rdi], al
    add     rsi, 1
    add     rdi, 1
    test    al, al
    jz      .Lduet_agent_copied
    sub     r8d, 1
    jnz     .Lduet_agent_copy
    jmp     .Lduet_agent_leave
.Lduet_agent_copied:
    cmp     r9d, {PATH}
    je      .Lduet_agent_other

.Lduet_agent_post:
    # No signal comes while a call is asked for that changes something: its handler could find it half made, or leave
    # it by a jump or a fork, and it would be made twice.
    test    dword ptr [{KIND}], {CHANGES}
    jz      .Lduet_agent_ask
    xor     edi, edi
    lea     rsi, [rip + .Lduet_agent_all_signals]
    mov     edx, {OLD_MASK}
    mov     r10d, 8
    mov     eax, {SYS_RT_SIGPROCMASK}
    syscall
    test    eax, eax
    jnz     .Lduet_agent_leave
    mov     dword ptr [{BLOCKED}], 1
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
.Lduet_agent_ask:
    mov     eax, dword ptr [{NUMBER}]
    mov     dword ptr [{CALL_NUMBER}], eax
    mov     rax, qword ptr [{SAVED}]
    mov     qword ptr [{CALL_ARGS}], rax
    mov     rax, qword ptr [{SAVED} + 8]
    mov     qword ptr [{CALL_ARGS} + 8], rax
    mov     rax, qword ptr [{SAVED} + 16]
    mov     qword ptr [{CALL_ARGS} + 16], rax
    mov     rax, qword ptr [{SAVED} + 24]
    mov     qword ptr [{CALL_ARGS} + 24], rax
    mov     rax, qword ptr [{SAVED} + 32]
    mov     qword ptr [{CALL_ARGS} + 32], rax
    mov     rax, qword ptr [{SAVED} + 40]
    mov     qword ptr [{CALL_ARGS} + 40], rax
    # What changes something is asked for when its descriptor can come.
    test    dword ptr [{KIND}], {CHANGES}
    jnz     .Lduet_agent_socket
    mov     dword ptr [{STATE}], {ASKED}
.Lduet_agent_socket:
    test    dword ptr [{KIND}], {GIVES}
    jz      .Lduet_agent_posted
    # Meanwhile: is the socket still there, and has no other its number?
    mov     dword ptr [{COOKIE_LEN}], 8
    mov     edi, dword ptr [{SOCKET}]
    mov     esi, {SOL_SOCKET}
    mov     edx, {SO_COOKIE}
    mov     r10d, {COOKIE_SEEN}
    mov     r8d, {COOKIE_LEN}
    mov     eax, {SYS_GETSOCKOPT}
    syscall
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    test    eax, eax
    jnz     .Lduet_agent_no_socket
    mov     rax, qword ptr [{COOKIE_SEEN}]
    cmp     rax, qword ptr [{COOKIE}]
    je      .Lduet_agent_posted
.Lduet_agent_no_socket:
    mov     dword ptr [{SOCKET}], 0
    test    dword ptr [{KIND}], {CHANGES}
    jnz     .Lduet_agent_leave
.Lduet_agent_posted:
    test    dword ptr [{KIND}], {CHANGES}
    jz      .Lduet_agent_asked
    mov     dword ptr [{STATE}], {ASKED}
.Lduet_agent_asked:
    mov     ecx, {PATIENCE}
.Lduet_agent_wait:
    cmp     dword ptr [{STATE}], {ASKED}
    jne     .Lduet_agent_taken
    pause
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    sub     ecx, 1
    jnz     .Lduet_agent_wait
    # Nobody takes it: it is withdrawn.
    mov     eax, {ASKED}
    xor     ecx, ecx
    lock cmpxchg dword ptr [{STATE}], ecx
    je      .Lduet_agent_leave
.Lduet_agent_taken:
    mov     ecx, {PATIENCE}
.Lduet_agent_serving:
    mov     eax, dword ptr [{STATE}]
    cmp     eax, {TAKEN}
    jne     .Lduet_agent_answered
    pause
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    sub     ecx, 1
    jnz     .Lduet_agent_serving
    mov     eax, {SYS_SCHED_YIELD}
    syscall
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    jmp     .Lduet_agent_taken

.Lduet_agent_answered:
    mov     dword ptr [{STATE}], 0
    cmp     eax, {PASSED}
    je      .Lduet_agent_passed
    cmp     eax, {LOST}
    je      .Lduet_agent_lost
    cmp     eax, {OWED}
    je      .Lduet_agent_owed
    cmp     eax, {DONE}
    jne     .Lduet_agent_leave
    mov     rax, qword ptr [{RESULT}]
    mov     qword ptr [{VALUE}], rax
    # What goes to the caller's memory: r8 is its start, r9 its end, rdi where it is probed.
    mov     r9d, dword ptr [{OUT_LEN}]
    mov     ecx, dword ptr [{OUT_ARG}]
    test    r9d, r9d
    jz      .Lduet_agent_return
    cmp     ecx, 6
    jae     .Lduet_agent_return
    mov     r8, qword ptr [rcx*8 + {SAVED}]
    add     r9, r8
    mov     rdi, r8
.Lduet_agent_page:
    # Writes up to eight bytes, which are written again below.
    mov     rsi, r9
    sub     rsi, rdi
    cmp     rsi, 8
    jbe     .Lduet_agent_short
    mov     esi, 8
.Lduet_agent_short:
    mov     eax, {SYS_RT_SIGPENDING}
    syscall
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    test    eax, eax
    jnz     .Lduet_agent_fault
    or      rdi, 4095
    add     rdi, 1
    cmp     rdi, r9
    jb      .Lduet_agent_page
    # Not by a string instruction: the direction is the caller's.
    mov     esi, {OUT}
    lea     rcx, [r8 + 8]
.Lduet_agent_longs:
    cmp     rcx, r9
    ja      .Lduet_agent_rest
    mov     rax, qword ptr [rsi]
    mov     qword ptr [rcx - 8], rax
    add     rsi, 8
    add     rcx, 8
    jmp     .Lduet_agent_longs
.Lduet_agent_rest:
    sub     rcx, 8
.Lduet_agent_bytes:
    cmp     rcx, r9
    jae     .Lduet_agent_return
    mov     al, byte ptr [rsi]
    mov     byte ptr [rcx], al
    add     rsi, 1
    add     rcx, 1
    jmp     .Lduet_agent_bytes
    # A descriptor waits in the socket.
.Lduet_agent_passed:
    cmp     dword ptr [{SOCKET}], 0
    je      .Lduet_agent_leave
.Lduet_agent_receive:
    mov     qword ptr [{CONTROL_LEN}], {CONTROL_SIZE}
    mov     edi, dword ptr [{SOCKET}]
    mov     esi, {MESSAGE}
    mov     edx, dword ptr [{OUT_LEN}]
    mov     eax, {SYS_RECVMSG}
    syscall
    cmp     dword ptr [{OWNER}], 0
    je      .Lduet_agent_leave
    cmp     rax, 8
    jne     .Lduet_agent_not_there
    # The table is full.
    test    dword ptr [{MESSAGE_FLAGS}], {MSG_CTRUNC}
    jnz     .Lduet_agent_full
    mov     rax, qword ptr [{TAG}]
    cmp     rax, qword ptr [{RESULT}]
    mov     eax, dword ptr [{CONTROL_FD}]
    mov     qword ptr [{VALUE}], rax
    je      .Lduet_agent_return
    # One that a call was to get which a signal handler has jumped out of.
    mov     edi, eax
    mov     eax, {SYS_CLOSE}
    syscall
    cmp     dword ptr [{OWNER}], 0
    jne     .Lduet_agent_receive
    jmp     .Lduet_agent_leave
.Lduet_agent_full:
    test    dword ptr [{KIND}], {CHANGES}
    jz      .Lduet_agent_leave
    mov     qword ptr [{VALUE}], {MINUS_EMFILE}
    jmp     .Lduet_agent_return
    # Somebody has taken it, or the socket away.
.Lduet_agent_not_there:
    test    dword ptr [{KIND}], {CHANGES}
    jz      .Lduet_agent_lost
    mov     dword ptr [{SOCKET}], 0
    mov     qword ptr [{VALUE}], {MINUS_ENFILE}
    jmp     .Lduet_agent_return
.Lduet_agent_lost:
    mov     dword ptr [{SOCKET}], 0
    jmp     .Lduet_agent_leave

    # The call has been made, and its descriptor comes as the answer to the same call as a notification.
.Lduet_agent_owed:
    mov     rdi, qword ptr [{SAVED}]
    mov     rsi, qword ptr [{SAVED} + 8]
    mov     rdx, qword ptr [{SAVED} + 16]
    mov     r10, qword ptr [{SAVED} + 24]
    mov     r8, qword ptr [{SAVED} + 32]
    mov     r9, qword ptr [{SAVED} + 40]
    mov     eax, dword ptr [{NUMBER}]
    syscall
    mov     qword ptr [{VALUE}], rax
    jmp     .Lduet_agent_return

.Lduet_agent_fault:
    mov     qword ptr [{VALUE}], {MINUS_EFAULT}

.Lduet_agent_return:
    cmp     dword ptr [{BLOCKED}], 0
    je      .Lduet_agent_return_now
    mov     edi, {SIG_SETMASK}
    mov     esi, {OLD_MASK}
    xor     edx, edx
    mov     r10d, 8
    mov     eax, {SYS_RT_SIGPROCMASK}
    syscall
.Lduet_agent_return_now:
    mov     rdi, qword ptr [{SAVED}]
    mov     rsi, qword ptr [{SAVED} + 8]
    mov     rdx, qword ptr [{SAVED} + 16]
    mov     r10, qword ptr [{SAVED} + 24]
    mov     r8, qword ptr [{SAVED} + 32]
    mov     r9, qword ptr [{SAVED} + 40]
    mov     rcx, qword ptr [{RETURN}]
    mov     eax, dword ptr [{FLAGS}]
    add     al, 127
    sahf
    mov     rax, qword ptr [{VALUE}]
    mov     dword ptr [{LOCK}], 0
    jmp     rcx

# The site's own `syscall` instruction makes the call.
.Lduet_agent_leave:
    cmp     dword ptr [{BLOCKED}], 0
    je      .Lduet_agent_leave_now
    mov     edi, {SIG_SETMASK}
    mov     esi, {OLD_MASK}
    xor     edx, edx
    mov     r10d, 8
    mov     eax, {SYS_RT_SIGPROCMASK}
    syscall
.Lduet_agent_leave_now:
    mov     rdi, qword ptr [{SAVED}]
    mov     rsi, qword ptr [{SAVED} + 8]
    mov     rdx, qword ptr [{SAVED} + 16]
    mov     r10, qword ptr [{SAVED} + 24]
    mov     r8, qword ptr [{SAVED} + 32]
    mov     r9, qword ptr [{SAVED} + 40]
    mov     rcx, qword ptr [{RETURN}]
    mov     eax, dword ptr [{FLAGS}]
    add     al, 127
    sahf
    mov     eax, dword ptr [{NUMBER}]
    lea     rcx, [rcx - 2]
    mov     dword ptr [{LOCK}], 0
    jmp     rcx

# Another thread is in here, or this one was when a signal came.
.Lduet_agent_busy:
    mov     eax, r11d
    add     al, 127
    sahf
    mov     eax, dword ptr [rcx*8 + {ROLES}]
    mov     rcx, qword ptr [rcx*8 + {RETURNS}]
    lea     rcx, [rcx - 2]
    jmp     rcx

    .balign 8
.Lduet_agent_all_signals:
    .quad   -1

    .globl duet_agent_end
    .hidden duet_agent_end
duet_agent_end:
    .popsection

// The vDSO's functions: System V calling convention, position-independent, no stack. They read the time-stamp counter as
// the kernel does (process::clock), with the words behind the code, which the kernel fills in.

.pushsection .rodata.vdso, "a"
.balign 16
.globl vdso_text, vdso_text_end, vdso_clock_gettime, vdso_gettimeofday, vdso_time, vdso_clock_getres, vdso_getcpu
.globl vdso_frequency, vdso_realtime
vdso_text:

// rax: seconds, rdx: nanoseconds of the counter. Changes rcx, r8, r9.
.macro NOW
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    xorl %edx, %edx
    movq vdso_frequency(%rip), %rcx
    divq %rcx
    movq %rax, %r8
    movq %rdx, %rax
    movl $1000000000, %r9d
    mulq %r9
    divq %rcx
    movq %rax, %rdx
    movq %r8, %rax
.endm

// int clock_gettime(edi: clock, rsi: struct timespec *)
    .balign 16
vdso_clock_gettime:
    cmpl $7, %edi
    ja 3f
    movl $0xf3, %ecx                    // 0, 1, 4, 5, 6, 7: realtime, monotonic and their relatives
    btl %edi, %ecx
    jnc 3f
    NOW
    cmpl $0, %edi
    je 1f
    cmpl $5, %edi
    jne 2f
1:  addq vdso_realtime(%rip), %rax
2:  movq %rax, (%rsi)
    movq %rdx, 8(%rsi)
    xorl %eax, %eax
    ret
3:  movl $228, %eax
    syscall
    ret

// int gettimeofday(rdi: struct timeval *, rsi: struct timezone *)
    .balign 16
vdso_gettimeofday:
    testq %rsi, %rsi
    jnz 2f
    testq %rdi, %rdi
    jz 1f
    NOW
    addq vdso_realtime(%rip), %rax
    movq %rax, (%rdi)
    movq %rdx, %rax
    xorl %edx, %edx
    movl $1000, %ecx
    divq %rcx
    movq %rax, 8(%rdi)
1:  xorl %eax, %eax
    ret
2:  movl $96, %eax
    syscall
    ret

// time_t time(rdi: time_t *)
    .balign 16
vdso_time:
    NOW
    addq vdso_realtime(%rip), %rax
    testq %rdi, %rdi
    jz 1f
    movq %rax, (%rdi)
1:  ret

// int clock_getres(edi: clock, rsi: struct timespec *)
    .balign 16
vdso_clock_getres:
    movl $229, %eax
    syscall
    ret

// int getcpu(rdi: unsigned *, rsi: unsigned *, rdx: unused)
    .balign 16
vdso_getcpu:
    movl $309, %eax
    syscall
    ret

    .balign 8
vdso_frequency:
    .quad 0
vdso_realtime:
    .quad 0
vdso_text_end:
.popsection

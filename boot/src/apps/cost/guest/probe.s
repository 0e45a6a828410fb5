// A guest that measures. It runs wherever it is put; hypercalls are spelled VMMCALL and rewritten where that is not the CPU's.
//
//     rdi     first page to touch            rcx     how many
//     rsi     where the figures go           r8, rax, rdx   the clock

.pushsection .rodata.cost_probe, "a"
.globl cost_probe, cost_probe_store, cost_probe_call, cost_probe_view, cost_probe_handler
.globl cost_probe_ve_copies, cost_probe_ve_switches, cost_probe_end

.macro CLOCK
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
.endm

.macro NEXT again
    subq %r8, %rax
    movq %rax, (%rsi)
    addq $8, %rsi
    addq $4096, %rdi
    decq %rcx
    jnz \again
    jmp 90f
.endm

cost_probe:
1:
    CLOCK
    movq %rax, %r8
    movq (%rdi), %r9
    CLOCK
    NEXT 1b

cost_probe_store:
2:
    CLOCK
    movq %rax, %r8
    movq %rdi, (%rdi)
    CLOCK
    NEXT 2b

cost_probe_call:
3:
    movq %rdi, %r10
    xorl %edi, %edi
    CLOCK
    movq %rax, %r8
    movl ${MARK}, %eax
    vmmcall
    CLOCK
    movq %r10, %rdi
    NEXT 3b

// Each touch begins in the view in which delegated pages are absent.
cost_probe_view:
4:
    movq %rcx, %r10
    xorl %eax, %eax
    xorl %ecx, %ecx
    vmfunc
    movq %r10, %rcx
    CLOCK
    movq %rax, %r8
    movq (%rdi), %r9
    CLOCK
    NEXT 4b

90:
    xorl %edi, %edi
    movl ${EXIT}, %eax
    vmmcall
    ud2

// The monitor of a guest without tasks: fills the page on the spot. The entry is the last that was put into the ring.
cost_probe_handler:
    pushq %rax
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r9
    movl $({RING}), %esi
    movl 4(%rsi), %r9d
    movl %r9d, %edi
    incl %r9d
    andl $({RING_ENTRIES} - 1), %edi
    shll $4, %edi
    movq 32(%rsi, %rdi), %rdi
    movl %r9d, 4(%rsi)
    movl $({SOURCE}), %esi
    movl $4096, %edx
    movl ${COPY}, %eax
    vmmcall
    popq %r9
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rax
    iretq

// The same, told by #VE: the CPU has described the violation. Counts in r15.
cost_probe_ve_copies:
    pushq %rax
    pushq %rdx
    pushq %rsi
    pushq %rdi
    movl $({INFO}), %esi
    movq 24(%rsi), %rdi
    andq $-4096, %rdi
    movl $({SOURCE}), %esi
    movl $4096, %edx
    movl ${COPY}, %eax
    vmmcall
    movl $({INFO}), %esi
    movl $0, 4(%rsi)
    incq %r15
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rax
    iretq

// The page is there in the other view.
cost_probe_ve_switches:
    pushq %rax
    pushq %rcx
    xorl %eax, %eax
    movl ${VIEW_CACHED}, %ecx
    vmfunc
    movl $({INFO}), %ecx
    movl $0, 4(%rcx)
    incq %r15
    popq %rcx
    popq %rax
    iretq

cost_probe_end:
.popsection

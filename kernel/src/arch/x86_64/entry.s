// Where the CPU comes in: one stub per vector, and three ways on.
//
// Every stub leaves the same picture on the stack, read in frame.rs (addresses grow downwards on this page):
//
//     r15 r14 r13 r12 rbp rbx            what Rust code preserves by itself; saved by `trap` and `trap_fatal` only
//     rax rdi rsi rdx r10 r8 r9 rcx r11  what Rust code may change
//     vector, error code
//     rip cs rflags rsp ss               pushed by the CPU
//
// What interrupts user mode leaves the same picture in that task's `Registers` and goes to user/entry.s, so
// nothing below swaps GS. #DB, #DF, NMI and #MC come on stacks of their own (IST), possibly between an entry from user mode and
// its SWAPGS, so `fatal_entry` looks at the GS base itself: user mode has no way to make it negative. It never returns.
// DF and AC are cleared on every way in: memmove runs with DF set, and a copy of user memory with AC.

.set CODE_SEGMENT, 24                   // offset of cs when the stack pointer is at the vector
.set GS_BASE, 0xc0000101

// Clears DF and AC, and leaves interrupts off. CLAC would need SMAP.
.macro CLEAR_FLAGS
    pushq $2
    popfq
.endm

.macro SAVE_SCRATCH
    pushq %r11
    pushq %rcx
    pushq %r9
    pushq %r8
    pushq %r10
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rax
.endm

.macro RESTORE_SCRATCH
    popq %rax
    popq %rdi
    popq %rsi
    popq %rdx
    popq %r10
    popq %r8
    popq %r9
    popq %rcx
    popq %r11
.endm

.macro SAVE_PRESERVED
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
.endm

.macro RESTORE_PRESERVED
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
.endm

// Leaves for `user_left` when user mode was interrupted; the stack pointer is at the vector.
.macro LEAVE_IF_USER
    testb $3, CODE_SEGMENT(%rsp)
    jnz user_left
.endm

.macro RETURN
    RESTORE_SCRATCH
    addq $16, %rsp
    iretq
.endm

.section .text.trap, "ax"

// The page fault: as little as possible, because a delegated fault pays for it.
    .balign 16
.global page_fault_entry
page_fault_entry:
    pushq $14
    testb $3, CODE_SEGMENT(%rsp)
    jnz page_fault_of_user
    SAVE_SCRATCH
    CLEAR_FLAGS
    movq %rsp, %rdi
    call page_fault
.global page_fault_returns
page_fault_returns:
    testb %al, %al
    jz 1f
    RETURN
1:  SAVE_PRESERVED                      // as they were: page_fault has put them back
    jmp trap_saved

// Interrupts.
    .balign 16
interrupt_entry:
    LEAVE_IF_USER
    SAVE_SCRATCH
    CLEAR_FLAGS
    movq %rsp, %rdi
    call interrupt
.global interrupt_returns
interrupt_returns:
    RETURN

// All other exceptions.
    .balign 16
trap_entry:
    LEAVE_IF_USER
    SAVE_SCRATCH
    SAVE_PRESERVED
    CLEAR_FLAGS
trap_saved:
    movq %rsp, %rdi
    call exception
.global exception_returns
exception_returns:
    RESTORE_PRESERVED
    RETURN

// #DF, NMI, #MC.
    .balign 16
fatal_entry:
    SAVE_SCRATCH
    SAVE_PRESERVED
    CLEAR_FLAGS
    movl $GS_BASE, %ecx
    rdmsr
    testl %edx, %edx
    js 1f
    swapgs
1:  movq %rsp, %rdi
    call exception
    ud2

// #DB. It comes on a stack of its own, because it can come behind a SYSCALL that user mode steps over, with user mode's
// stack pointer and GS still there. That one means nothing: the call goes on. (MOV SS in front of the SYSCALL has the same
// effect on any CPU.)
    .balign 16
debug_entry:
    testb $3, CODE_SEGMENT(%rsp)
    jnz debug_of_user
    pushq %rax
    leaq syscall_entry(%rip), %rax
    cmpq %rax, 24(%rsp)                 // rip
    popq %rax
    jne fatal_entry
    addq $16, %rsp
    iretq

// One stub of 16 bytes per vector. The CPU pushes an error code for 8, 10-14, 17, 21, 29 and 30 (SDM vol. 3A 7.13).
    .balign 16
.global trap_stubs
trap_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if vector == 14
        ud2                             // the gate leads to page_fault_entry itself
    .elseif vector == 8 || vector == 2 || vector == 18
        .if vector != 8
            pushq $0
        .endif
        pushq $vector
        jmp fatal_entry
    .elseif vector == 1
        pushq $0
        pushq $vector
        jmp debug_entry
    .elseif vector >= 32
        pushq $0
        pushq $vector
        jmp interrupt_entry
    .else
        .if !(vector == 10 || vector == 11 || vector == 12 || vector == 13 || vector == 17 || vector == 21 || vector == 29 || vector == 30)
            pushq $0
        .endif
        pushq $vector
        jmp trap_entry
    .endif
    .set vector, vector + 1
.endr
.global trap_stubs_end
trap_stubs_end:

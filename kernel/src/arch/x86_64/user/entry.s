// Into user mode and out of it.
//
// `user_run` saves what Rust code preserves on the kernel stack, loads every register of user mode and enters it. Whatever
// ends user mode's turn comes back to where `user_run` was called. The registers are saved where they were loaded from: the
// CPU's stack for entries from user mode (TSS.RSP0, or REGISTERS_END for SYSCALL) is the end of that very structure.
//
// Interrupts are off throughout.

.section .text.trap, "ax"

// user_run(rdi: registers)
    .balign 16
.global user_run
user_run:
    SAVE_PRESERVED
    movq %rsp, %gs:KERNEL_STACK
    leaq 176(%rdi), %rax
    movq %rax, %gs:REGISTERS_END
    movq %gs:ENTRY_STACK, %rcx
    movq %rax, (%rcx)
    movq %rdi, %rsp
    RESTORE_PRESERVED
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rsi
    popq %rdi
    popq %rdx
    popq %rcx
    popq %rax
    cmpl $256, (%rsp)
    jne 1f
    movq 16(%rsp), %rcx                 // rip
    movq 32(%rsp), %r11                 // rflags
    movq 40(%rsp), %rsp
    swapgs
    sysretq
1:  addq $16, %rsp
    swapgs
    iretq

// Where SYSCALL comes in: rip is in rcx, rflags in r11, the stack pointer is still user mode's.
    .balign 16
.global syscall_entry
syscall_entry:
    swapgs
    movq %rsp, %gs:USER_STACK_POINTER
    movq %gs:REGISTERS_END, %rsp
    pushq $0x1b                         // ss
    pushq %gs:USER_STACK_POINTER
    pushq %r11
    pushq $0x23                         // cs
    pushq %rcx
    pushq $0
    pushq $256
    SAVE_SCRATCH
    SAVE_PRESERVED
    movq %gs:KERNEL_STACK, %rsp
    RESTORE_PRESERVED
    ret

// An exception or interrupt of user mode; the vector is pushed.
    .balign 16
user_left:
    swapgs
user_swapped:
    SAVE_SCRATCH
    SAVE_PRESERVED
    movq %gs:KERNEL_STACK, %rsp
    CLEAR_FLAGS                         // user mode may have set AC and DF
    RESTORE_PRESERVED
    ret

// The same for one that came on a stack of its own: what the CPU and the stub have pushed moves to the registers.
    .balign 16
debug_of_user:
    swapgs
    movq %rax, %gs:USER_STACK_POINTER   // for a moment
    movq %gs:REGISTERS_END, %rax
    popq -56(%rax)
    popq -48(%rax)
    popq -40(%rax)
    popq -32(%rax)
    popq -24(%rax)
    popq -16(%rax)
    popq -8(%rax)
    leaq -56(%rax), %rsp
    movq %gs:USER_STACK_POINTER, %rax
    jmp user_swapped

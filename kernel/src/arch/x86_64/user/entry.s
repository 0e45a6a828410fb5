// Into user mode and out of it.
//
// `user_run` saves what Rust code preserves on the kernel stack, loads every register of user mode and enters it. Whatever
// ends user mode's turn comes back to where `user_run` was called. The registers are saved where they were loaded from: the
// CPU's stack for entries from user mode (TSS.RSP0, or REGISTERS_END for SYSCALL) is the end of that very structure.
//
// A system call does not end the turn by itself, nor does a page fault. Only what Rust code may change is saved then, and one of
// the functions that `user_run` was given is called, which preserves the rest. If it says so, user mode goes on; else the rest is
// saved too, and the turn ends. What KERNEL_STACK points to is its second argument: other turns may come in between, on this
// CPU, and leave theirs there.
//
// What KERNEL_STACK points to during a turn:
//
//     registers, function for system calls, function for page faults, their argument, nothing
//     r15 r14 r13 r12 rbp rbx            of user_run's caller
//     return address
//
// Interrupts are off throughout, but for those functions.

.set TURN, 40                           // bytes before the saved registers
.set TURN_CALL, 8
.set TURN_FAULT, 16
.set TURN_ARGUMENT, 24
.set TURN_RBP, TURN + 32

// Offsets in the registers.
.set R15, 0
.set R14, 8
.set R13, 16
.set R12, 24
.set RBP, 32
.set RBX, 40
.set RAX, 48
.set RDI, 56
.set RSI, 64
.set RDX, 72
.set R10, 80
.set R8, 88
.set R9, 96
.set RCX, 104
.set R11, 112
.set VECTOR, 120
.set ERROR, 128
.set RIP, 136
.set RFLAGS, 152
.set RSP, 160
.set END, 176

.section .text.trap, "ax"

// user_run(rdi: registers, rsi: function for system calls, rdx: function for page faults, rcx: their argument)
    .balign 16
.global user_run
user_run:
    SAVE_PRESERVED
    pushq $0                            // the functions find the stack aligned
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    movq %rsp, %gs:KERNEL_STACK
    leaq END(%rdi), %rax
    movq %rax, %gs:REGISTERS_END
    movq %gs:ENTRY_STACK, %rcx
    movq %rax, (%rcx)
    movq %rdi, %rsp
    RESTORE_PRESERVED
    RESTORE_SCRATCH
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

// Where SYSCALL comes in: rip is in rcx, rflags in r11, the stack pointer is still user mode's. What the registers have besides
// is stored where the turn ends; cs and ss are there already, user mode has no others.
    .balign 16
.global syscall_entry
syscall_entry:
    swapgs
    movq %rsp, %gs:USER_STACK_POINTER
    movq %gs:REGISTERS_END, %rsp
    movq %rcx, RIP-END(%rsp)
    movq %r11, RFLAGS-END(%rsp)
    movq %rax, RAX-END(%rsp)
    movq %rdi, RDI-END(%rsp)
    movq %rsi, RSI-END(%rsp)
    movq %rdx, RDX-END(%rsp)
    movq %r10, R10-END(%rsp)
    movq %r8, R8-END(%rsp)
    movq %r9, R9-END(%rsp)
    movq %rbp, RBP-END(%rsp)
    movq %gs:USER_STACK_POINTER, %rcx
    movq %rcx, RSP-END(%rsp)
    movq %gs:KERNEL_STACK, %rsp
    movq TURN_RBP(%rsp), %rbp           // frames go on at user_run's caller
    movq TURN_ARGUMENT(%rsp), %rdi
    movq %rsp, %rsi
    call *TURN_CALL(%rsp)
    movq (%rsp), %rcx                   // registers
    movq RBP(%rcx), %rbp
    testb %al, %al
    jz 1f
    movq R10(%rcx), %r10
    movq R9(%rcx), %r9
    movq R8(%rcx), %r8
    movq RSI(%rcx), %rsi
    movq RDI(%rcx), %rdi
    movq RDX(%rcx), %rdx
    movq RAX(%rcx), %rax
    movq RFLAGS(%rcx), %r11
    movq RSP(%rcx), %rsp
    movq RIP(%rcx), %rcx
    swapgs
    sysretq
1:  movq RIP(%rcx), %rax                // as SYSCALL left them
    movq %rax, RCX(%rcx)
    movq RFLAGS(%rcx), %rax
    movq %rax, R11(%rcx)
    movq $256, VECTOR(%rcx)
    movq $0, ERROR(%rcx)
    jmp turn_ends

// A function was called that did not have user mode go on; registers are in rcx.
turn_ends:
    movq %rbx, RBX(%rcx)
    movq %r12, R12(%rcx)
    movq %r13, R13(%rcx)
    movq %r14, R14(%rcx)
    movq %r15, R15(%rcx)
    addq $TURN, %rsp
    RESTORE_PRESERVED
    ret

// A page fault of user mode; the vector is pushed.
    .balign 16
page_fault_of_user:
    swapgs
    SAVE_SCRATCH
    movq %rbp, RBP-RAX(%rsp)
    movq %gs:KERNEL_STACK, %rsp
    CLEAR_FLAGS                         // user mode may have set AC and DF
    movq TURN_RBP(%rsp), %rbp           // frames go on at user_run's caller
    movq TURN_ARGUMENT(%rsp), %rdi
    movq %rsp, %rsi
    call *TURN_FAULT(%rsp)
    movq (%rsp), %rcx                   // registers
    movq RBP(%rcx), %rbp
    testb %al, %al
    jz turn_ends
    leaq RAX(%rcx), %rsp
    RESTORE_SCRATCH
    addq $16, %rsp
    swapgs
    iretq

// Another exception or interrupt of user mode; the vector is pushed.
    .balign 16
user_left:
    swapgs
user_swapped:
    SAVE_SCRATCH
    SAVE_PRESERVED
    movq %gs:KERNEL_STACK, %rsp
    CLEAR_FLAGS                         // user mode may have set AC and DF
    addq $TURN, %rsp
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

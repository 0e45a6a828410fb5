// 32-bit entry of the PVH door: page tables, long mode, boot stack, Rust.
//
// On entry (Xen's x86/HVM direct boot ABI): protected mode, flat segments, paging off, interrupts off,
// ebx = physical address of the start info.
//
// The tables map, with 2 MiB pages, all writable and executable (the kernel replaces them soon):
//   0x0000000000000000   the first 4 GiB, so that this code goes on when paging is switched on
//   0xffff800000000000   the same: the direct map
//   0xffffffff80000000   the first 2 GiB: the kernel where it is linked
.set BASE, 0xffffffff80000000
.set PRESENT_WRITE, 0x3
.set LARGE, 0x80
.set CR4_PAE, 1 << 5
.set EFER, 0xc0000080
.set EFER_LME, 1 << 8
.set CR0_PG_WP, 1 << 31 | 1 << 16

.section .note.pvh, "a", @note
    .balign 4
    .long 4                         // length of the name
    .long 8                         // length of the value
    .long 18                        // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start32 - BASE

.section .bss.pvh, "aw", @nobits
    .balign 4096
pvh_level4: .skip 4096
pvh_low:    .skip 4096              // level 3 for the identity and the direct map
pvh_high:   .skip 4096              // level 3 for the kernel image
pvh_level2: .skip 4 * 4096          // 4 GiB in 2 MiB pages

.section .rodata.pvh, "a"
    .balign 8
pvh_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // 64-bit code
    .quad 0x00cf93000000ffff        // data
pvh_gdt_end:
pvh_gdt_pointer:
    .word pvh_gdt_end - pvh_gdt - 1
    .long pvh_gdt - BASE

.section .text.pvh, "ax"
.code32
.global pvh_start32
pvh_start32:
    cli
    cld

    // Level 2: page n maps n * 2 MiB.
    movl $pvh_level2 - BASE, %edi
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $PRESENT_WRITE | LARGE, %eax
    movl %eax, (%edi,%ecx,8)
    incl %ecx
    cmpl $2048, %ecx
    jne 1b

    // Level 3: four consecutive level-2 tables low, the first two of them again at -2 GiB.
    movl $pvh_level2 - BASE + PRESENT_WRITE, %eax
    movl %eax, pvh_low - BASE
    movl %eax, pvh_high - BASE + 510 * 8
    addl $4096, %eax
    movl %eax, pvh_low - BASE + 8
    movl %eax, pvh_high - BASE + 511 * 8
    addl $4096, %eax
    movl %eax, pvh_low - BASE + 16
    addl $4096, %eax
    movl %eax, pvh_low - BASE + 24

    // Level 4.
    movl $pvh_low - BASE + PRESENT_WRITE, %eax
    movl %eax, pvh_level4 - BASE
    movl %eax, pvh_level4 - BASE + 256 * 8
    movl $pvh_high - BASE + PRESENT_WRITE, %eax
    movl %eax, pvh_level4 - BASE + 511 * 8

    // Long mode (SDM vol. 3A 11.8.5, "Initializing IA-32e Mode").
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $pvh_level4 - BASE, %eax
    movl %eax, %cr3
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PG_WP, %eax
    movl %eax, %cr0
    lgdt pvh_gdt_pointer - BASE
    ljmp $0x08, $2f - BASE

.code64
2:  movabsq $3f, %rax
    jmpq *%rax
3:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    leaq __boot_stack_end(%rip), %rsp
    xorl %ebp, %ebp                 // backtraces end here
    movl %ebx, %edi
    call pvh_start
    ud2

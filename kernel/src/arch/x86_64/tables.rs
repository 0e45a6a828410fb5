//! GDT, TSS and IDT.
//!
//! Segments stand in the order that SYSCALL and SYSRET want (SDM vol. 3A 6.8.8): kernel code, kernel data, user data,
//! user code. Four exceptions get stacks of their own, because the current one may be what is broken: #DF (a stack
//! overflow ends there), NMI and #MC (they come between any two instructions), #DB (it can come behind SYSCALL).
#![expect(unsafe_code, reason = "loads descriptor tables and segment registers")]

use core::cell::UnsafeCell;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::exception::{BREAKPOINT, DEBUG, DOUBLE_FAULT, MACHINE_CHECK, NMI, OVERFLOW, PAGE_FAULT};
use super::percpu;

const IST_STACK_SIZE: usize = 16 * 1024;

/// Stack of one emergency exception.
#[repr(C, align(16))]
struct IstStack(UnsafeCell<[u8; IST_STACK_SIZE]>);

// SAFETY: only the CPU touches it, as the stack of an exception that never returns.
unsafe impl Sync for IstStack {}

impl IstStack {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; IST_STACK_SIZE]))
    }

    fn top(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.0.get()) + IST_STACK_SIZE as u64
    }
}

/// The boot CPU's emergency stacks, in the order of [`IST_VECTORS`].
static BOOT_STACKS: [IstStack; 4] = [const { IstStack::new() }; 4];
/// Which exceptions use them.
const IST_VECTORS: [u8; 4] = [DOUBLE_FAULT, NMI, MACHINE_CHECK, DEBUG];

/// A TSS, of which the CPU's entry code changes the stack for entries from user mode.
#[repr(C, align(16))]
struct Tss(UnsafeCell<TaskStateSegment>);

// SAFETY: written once, before it is loaded, and then by its CPU alone.
unsafe impl Sync for Tss {}

static BOOT_TSS: Tss = Tss(UnsafeCell::new(TaskStateSegment::new()));
static BOOT_GDT: Once<GlobalDescriptorTable> = Once::new();
static IDT: Once<Idt> = Once::new();

unsafe extern "C" {
    /// 256 stubs of [`STUB_SIZE`] bytes (entry.s).
    static trap_stubs: u8;
    /// The page fault's own way in, without the stub's jump.
    static page_fault_entry: u8;
}
const STUB_SIZE: u64 = 16;

/// One gate (SDM vol. 3A 7.14.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    offset_low: u16,
    selector: u16,
    options: u16,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

/// The interrupt descriptor table.
#[repr(C, align(16))]
struct Idt([Gate; 256]);

const _: () = assert!(size_of::<Idt>() == 4096);

impl Gate {
    /// An interrupt gate: present, interrupts off on entry. Only INT3 and INTO are user mode's to execute.
    fn new(vector: usize, selector: u16) -> Self {
        let ist = IST_VECTORS
            .iter()
            .position(|&v| usize::from(v) == vector)
            .map_or(0, |i| i as u16 + 1);
        let offset = match vector == usize::from(PAGE_FAULT) {
            true => (&raw const page_fault_entry).addr() as u64,
            false => (&raw const trap_stubs).addr() as u64 + vector as u64 * STUB_SIZE,
        };
        let privilege = match vector as u8 {
            BREAKPOINT | OVERFLOW => 3,
            _ => 0,
        };
        Self {
            offset_low: offset as u16,
            selector,
            options: 0x8e00 | privilege << 13 | ist,
            offset_middle: (offset >> 16) as u16,
            offset_high: (offset >> 32) as u32,
            reserved: 0,
        }
    }
}

/// Gives the boot CPU its tables.
pub fn init_boot_cpu() {
    let tss = BOOT_TSS.0.get();
    for (i, stack) in BOOT_STACKS.iter().enumerate() {
        // SAFETY: this runs once, and the CPU does not have the TSS yet. It is packed: no reference is made.
        unsafe { (&raw mut (*tss).interrupt_stack_table[i]).write_unaligned(stack.top()) };
    }
    // SAFETY: only an address is taken.
    percpu::set_entry_stack(unsafe { &raw mut (*tss).privilege_stack_table[0] }.cast());
    // SAFETY: it lives for ever, and is not changed through references any more.
    let tss: &'static TaskStateSegment = unsafe { &*tss };
    let mut selectors = None;
    let gdt = BOOT_GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        gdt.append(Descriptor::user_data_segment());
        gdt.append(Descriptor::user_code_segment());
        selectors = Some((code, data, gdt.append(Descriptor::tss_segment(tss))));
        gdt
    });
    let (code, data, task) = selectors.expect("called once");
    gdt.load();
    // SAFETY: the selectors are those of the table just loaded, with the rights that running code, stack and TSS need.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
    }
    load_idt(code.0);
}

fn load_idt(code: u16) {
    let idt = IDT.call_once(|| Idt(core::array::from_fn(|vector| Gate::new(vector, code))));
    let pointer = x86_64::structures::DescriptorTablePointer {
        limit: (size_of::<Idt>() - 1) as u16,
        base: VirtAddr::from_ptr(idt),
    };
    // SAFETY: the table is static and each gate leads to a stub that fits its vector.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}

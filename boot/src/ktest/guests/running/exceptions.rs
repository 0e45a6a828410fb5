//! Guests that deal with their violations by themselves: #VE, answered by calls or by another view of memory.
//!
//! ```text
//!   declare ─► mark: status ─► touches RBX ─► mark: what it read ─► touches RBX ...
//!                                  └─ #VE ─► a handler ─► R14: status of its call, R15 counts; R12: the view it is in
//! ```
//!
//! All of the guest's own memory is at stage 2 before it starts, so what exits is about delegated memory: a test that counts
//! no violations has seen none. Where the CPU has no such thing, being refused is the test.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use hv::bitmap::Bitmap;
use hv::memslot::SlotRequest;
use hv::state::{Registers, TableRegister};
use hv::userfault::{Delivery, MemoryFault, Outcome, Userfaults};
use hv::vcpu::{Fatal, Stop, Vcpu};
use hv::vendor::Vendor;
use hv::vm::Vm;
use kernel::abi::guest::{Call, Delivery as Told, Status, VIEW_CACHED, WITH_VIEWS};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::cache::Object;
use kernel::mm::fault::Access;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::range::{GuestRange, VirtRange};
use kernel::mm::uaccess;
use kernel::uffd::TrapKind;

use super::super::{CODE, DATA, GDT, IDT, guest_code, guest_test};
use super::{Host, OWN, REGION, next_mark, run, vcpu_of};
use crate::ensure;
use crate::ktest::common::text;

/// The ring that a monitor has to name, and the page in which the CPU describes violations.
const RING: u64 = 0xa000;
const INFO: u64 = 0xb000;
const BUSY: u64 = INFO + 4;
/// #VE.
const VECTOR: u64 = 20;
/// Pages of delegated memory.
const PAGES: u64 = 4;
/// What the page that the handler copies holds, and what the owner's pages do.
const COPIED: u64 = 0x0c0_91ed;
const OWNERS: u64 = 0x0e_2ed;
/// Descriptors of 64-bit code and of data, both for privilege level 0.
const SEGMENTS: [(u64, u64); 2] = [(8, 0x00af_9b00_0000_ffff), (16, 0x00cf_9300_0000_ffff)];

const BY_EXCEPTION: u64 = Told::VirtualizationException as u64;

guest_code! {
    /// Declares its monitor as RDX says, with its information page at R10, then touches RBX for ever.
    deals_with_its_violations:
    "mov edi, 0xa000",
    "mov esi, 0x51",
    "mov eax, 0x464c0003",
    "vmmcall",
    "mov rdi, rax",
    "1: mov eax, 0x464c0001",
    "vmmcall",
    "mov rdi, [rbx]",
    "jmp 1b",
    // 0x40: withdraws the monitor.
    ".org 0x40",
    "xor edi, edi",
    "mov eax, 0x464c0003",
    "vmmcall",
    "mov rdi, rax",
    "jmp 1b",
    // 0x60: goes to the view in RCX.
    ".org 0x60",
    "xor eax, eax",
    "vmfunc",
    "mov r12, rcx",
    "mov rdi, rcx",
    "jmp 1b",
    // 0x80: copies the page.
    ".org 0x80",
    "push rax",
    "push rdx",
    "push rsi",
    "push rdi",
    "3: mov esi, 0xb000",
    "mov rdi, [rsi + 24]",
    "and rdi, -4096",
    "mov esi, 0x30000",
    "mov edx, 4096",
    "mov eax, 0x464c0010",
    "4: vmmcall",
    "mov r14, rax",
    "5: mov esi, 0xb000",
    "mov dword ptr [rsi + 4], 0",
    "inc r15",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rax",
    "iretq",
    // 0x100: has the owner resolve it.
    ".org 0x100",
    "push rax",
    "push rdx",
    "push rsi",
    "push rdi",
    "mov esi, 0xb000",
    "mov rdi, [rsi + 24]",
    "xor esi, esi",
    "mov eax, 0x464c0013",
    "jmp 4b",
    // 0x140: looks into the other view; there, it copies the page.
    ".org 0x140",
    "push rax",
    "push rdx",
    "push rsi",
    "push rdi",
    "test r12, r12",
    "jne 3b",
    "mov r13, rcx",
    "xor eax, eax",
    "mov ecx, 1",
    "vmfunc",
    "mov r12, rcx",
    "mov rcx, r13",
    "jmp 5b",
}

/// Where it withdraws its monitor, and where it switches views.
const WITHDRAW: u64 = CODE + 0x40;
const SWITCH: u64 = CODE + 0x60;
/// Its handlers.
const COPIES: u64 = CODE + 0x80;
const RESOLVES: u64 = CODE + 0x100;
const LOOKS: u64 = CODE + 0x140;

const _: () = {
    assert!(RING == 0xa000 && INFO == 0xb000 && DATA == 0x3_0000);
    assert!(Call::Monitor as u64 == 0x464c_0003 && Call::Copy as u64 == 0x464c_0010);
    assert!(Call::Resolve as u64 == 0x464c_0013 && VIEW_CACHED == 1);
};

fn page(number: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(REGION + number * PAGE_SIZE)
}

/// A guest with delegated memory, and its owner.
struct Scene<V: Vendor> {
    vcpu: Vcpu<V>,
    object: Arc<Object>,
    bitmap: Arc<Bitmap>,
    host: Host<V>,
}

impl<V: Vendor> Scene<V> {
    /// A guest that is about to declare its monitor, whose handler is at `handler`.
    fn new(handler: u64) -> Result<Self, String> {
        let host = Host::<V>::new(deals_with_its_violations())?;
        let object = Object::new(&GUEST_MEMFD, PAGES * PAGE_SIZE);
        let bitmap = Arc::new(Bitmap::new(PAGES).map_err(text)?);
        bitmap.set_all();
        let userfaults = Userfaults {
            bitmap: Arc::clone(&bitmap),
            delivery: Delivery::Exit,
        };
        let request = SlotRequest::of_object(page(0), &object, Some(userfaults));
        host.memory.add(request).map_err(text)?;
        let low = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        let gate = IDT + VECTOR * 16;
        for (at, word) in SEGMENTS
            .map(|(selector, descriptor)| (GDT + selector, descriptor))
            .into_iter()
            .chain([(gate, low), (gate + 8, handler >> 32), (DATA, COPIED)])
        {
            host.write(at, &word.to_le_bytes())?;
        }
        for at in (0..OWN).step_by(PAGE_SIZE as usize) {
            let touched = host.memory.touch(GuestPhysAddr::new(at), Access::Write);
            ensure!(touched == Outcome::Retry, "{touched} at {at:#x}");
        }
        let delegated = GuestRange::new(page(0), page(PAGES));
        let vm = Vm::<V>::new(Arc::clone(&host.memory), delegated, Box::new(|_| {}));
        let mut vcpu = vcpu_of(&vm, Registers::default())?;
        let mut image = vcpu.image();
        image.system.gdtr = TableRegister {
            limit: 0x17,
            base: GDT,
        };
        image.system.idtr = TableRegister {
            limit: 0xfff,
            base: IDT,
        };
        vcpu.restore(&image);
        Ok(Self {
            vcpu,
            object,
            bitmap,
            host,
        })
    }

    /// Runs it to its declaration.
    fn declare(&mut self, how: u64, info: u64) -> Result<Status, String> {
        self.vcpu.registers.rdx = how;
        self.vcpu.registers.r10 = info;
        let status = next_mark(&mut self.vcpu)?;
        Status::from_number(status).ok_or_else(|| format!("status {status:#x}"))
    }

    /// One whose monitor is declared; none where the CPU has no such thing, and says so.
    fn declared(handler: u64, how: u64) -> Result<Option<Self>, String> {
        let mut scene = Self::new(handler)?;
        scene.ready(how).map(|ready| ready.then_some(scene))
    }

    fn ready(&mut self, how: u64) -> Result<bool, String> {
        let status = self.declare(how, INFO)?;
        let features = V::enable().map_err(text)?;
        let has = features.violation_exceptions && (how == BY_EXCEPTION || features.root_switching);
        let expected = if has { Status::Done } else { Status::NotSupported };
        ensure!(status == expected, "{status:?} instead of {expected:?}");
        Ok(has)
    }

    /// What the guest reads at the start of a page.
    fn load(&mut self, number: u64) -> Result<u64, String> {
        self.vcpu.registers.rbx = page(number).as_u64();
        next_mark(&mut self.vcpu)
    }

    /// The same, where it ends with the owner.
    fn load_stops(&mut self, number: u64) -> Stop {
        self.vcpu.registers.rbx = page(number).as_u64();
        run(&mut self.vcpu)
    }

    /// The owner fills a page of the object.
    fn write(&self, number: u64) -> Result<(), String> {
        let mut contents = [0; PAGE_SIZE as usize];
        contents[..8].copy_from_slice(&OWNERS.to_le_bytes());
        self.object.write(number * PAGE_SIZE, &contents).1.map_err(text)
    }

    /// Has the guest go on at `at` instead, to its next mark.
    fn jump(&mut self, at: u64) -> Result<u64, String> {
        self.vcpu.registers.rip = at;
        next_mark(&mut self.vcpu)
    }

    /// Violations that exited, and exceptions that were handled.
    fn counts(&self) -> (u64, u64) {
        let violations = self.vcpu.vm().counters.violations.load(Ordering::Relaxed);
        (violations, self.vcpu.registers.r15)
    }

    /// What the last handler's call was answered.
    fn status(&self) -> Option<Status> {
        Status::from_number(self.vcpu.registers.r14)
    }

    /// A fault of the owner's at this page.
    fn expect_fault(&mut self, number: u64) -> Result<MemoryFault, String> {
        match self.load_stops(number) {
            Stop::Userfault(fault) if fault.addr == page(number) => Ok(fault),
            Stop::Broken(broken) => Err(broken.to_string()),
            stop => Err(format!("{stop:?} instead of a fault of the owner's")),
        }
    }
}

/// A guest whose monitor is declared; where the CPU has no such thing, the refusal was the test.
macro_rules! declared {
    ($vendor:ident, $handler:expr, $how:expr) => {
        match Scene::<$vendor>::declared($handler, $how)? {
            Some(scene) => scene,
            None => return Ok(()),
        }
    };
}

guest_test!(
    fn delegated_page_is_copied_by_the_guest_without_an_exit_for_its_violation<V>() -> Result<(), String> {
        let mut scene = declared!(V, COPIES, BY_EXCEPTION);
        for number in 0..PAGES {
            for _ in 0..2 {
                let found = scene.load(number)?;
                ensure!(found == COPIED, "{found:#x}");
            }
            ensure!(scene.counts() == (0, number + 1), "{:?}", scene.counts());
        }
        ensure!(scene.bitmap.count() == 0, "{} bits", scene.bitmap.count());
        ensure!(
            scene.object.resident() == PAGES * PAGE_SIZE,
            "{}",
            scene.object.resident()
        );
        Ok(())
    }
);

guest_test!(
    fn exempt_page_is_the_owners<V>() -> Result<(), String> {
        let mut scene = Scene::<V>::new(COPIES)?;
        let before = GuestRange::new(page(1), page(2));
        scene.vcpu.vm().exempt(before).map_err(text)?;
        if !scene.ready(BY_EXCEPTION)? {
            return Ok(());
        }
        scene
            .vcpu
            .vm()
            .exempt(GuestRange::new(page(3), page(4)))
            .map_err(text)?;
        for number in [1, 3] {
            let fault = scene.expect_fault(number)?;
            ensure!(fault.kind == TrapKind::Missing, "{fault:?}");
            scene.write(number)?;
            scene.bitmap.clear(number);
            let found = scene.load(number)?;
            ensure!(found == OWNERS, "{found:#x}");
        }
        ensure!(scene.counts().1 == 0, "{} exceptions", scene.counts().1);
        for number in [0, 2] {
            let found = scene.load(number)?;
            ensure!(found == COPIED, "{found:#x}");
        }
        ensure!(scene.counts().1 == 2, "{} exceptions", scene.counts().1);
        Ok(())
    }
);

guest_test!(
    fn violation_is_the_owners_while_the_last_is_being_handled<V>() -> Result<(), String> {
        let mut scene = declared!(V, COPIES, BY_EXCEPTION);
        scene.host.write(BUSY, &u32::MAX.to_le_bytes())?;
        scene.expect_fault(0)?;
        scene.host.write(BUSY, &0u32.to_le_bytes())?;
        let found = scene.load(0)?;
        ensure!(found == COPIED && scene.counts().1 == 1, "{found:#x}");
        Ok(())
    }
);

guest_test!(
    fn page_whose_bit_the_owner_has_cleared_is_there_after_one_exception<V>() -> Result<(), String> {
        let mut scene = declared!(V, COPIES, BY_EXCEPTION);
        scene.write(2)?;
        scene.bitmap.clear(2);
        let found = scene.load(2)?;
        ensure!(found == OWNERS, "{found:#x}");
        ensure!(scene.status() == Some(Status::Exists), "{:?}", scene.status());
        ensure!(scene.counts() == (0, 1), "{:?}", scene.counts());
        Ok(())
    }
);

guest_test!(
    fn violation_that_the_guest_passes_on_is_resolved_as_if_it_had_exited<V>() -> Result<(), String> {
        let mut scene = declared!(V, RESOLVES, BY_EXCEPTION);
        for _ in 0..2 {
            // Nobody has resolved it: it is asked again.
            scene.expect_fault(1)?;
        }
        scene.write(1)?;
        scene.bitmap.clear(1);
        let found = scene.load(1)?;
        ensure!(
            found == OWNERS && scene.status() == Some(Status::Done),
            "{found:#x}, {:?}",
            scene.status()
        );
        // The owner has cleared the bit before it was touched: nobody has to be asked.
        scene.write(3)?;
        scene.bitmap.clear(3);
        let found = scene.load(3)?;
        ensure!(found == OWNERS && scene.counts().1 == 2, "{found:#x}");
        Ok(())
    }
);

guest_test!(
    fn violations_are_the_owners_when_the_monitor_is_withdrawn<V>() -> Result<(), String> {
        let mut scene = declared!(V, COPIES, BY_EXCEPTION);
        scene.load(0)?;
        let status = scene.jump(WITHDRAW)?;
        ensure!(status == Status::Done as u64, "{status}");
        scene.expect_fault(1)?;
        ensure!(scene.counts().1 == 1, "{} exceptions", scene.counts().1);
        Ok(())
    }
);

guest_test!(
    fn violations_are_the_owners_when_the_vcpu_is_restored<V>() -> Result<(), String> {
        let mut scene = declared!(V, COPIES, BY_EXCEPTION);
        let image = scene.vcpu.image();
        scene.vcpu.restore(&image);
        scene.expect_fault(1)?;
        ensure!(scene.counts().1 == 0, "{} exceptions", scene.counts().1);
        Ok(())
    }
);

guest_test!(
    fn information_page_that_is_no_page_of_ordinary_memory_is_refused<V>() -> Result<(), String> {
        let features = V::enable().map_err(text)?;
        for (info, refusal) in [
            (page(0).as_u64(), Status::BadAddress),
            (64 << 20, Status::BadAddress),
            (INFO + 8, Status::Invalid),
            (RING, Status::Invalid),
        ] {
            let mut scene = Scene::<V>::new(COPIES)?;
            let status = scene.declare(BY_EXCEPTION, info)?;
            ensure!(status == refusal, "{status:?} for {info:#x}");
            ensure!(scene.vcpu.vm().monitor().is_none(), "a monitor after all");
            scene.expect_fault(0)?;
        }
        let mut scene = Scene::<V>::new(COPIES)?;
        let status = scene.declare(BY_EXCEPTION | 2, INFO)?;
        ensure!(status == Status::Invalid, "{status:?}, {features:?}");
        Ok(())
    }
);

guest_test!(
    fn frame_of_the_information_page_is_nobody_elses_while_the_cpu_writes_there<V>() -> Result<(), String> {
        let mut scene = declared!(V, COPIES, BY_EXCEPTION);
        let at = scene.host.own(INFO);
        scene.host.space.discard(VirtRange::page(at)).map_err(text)?;
        // Whoever takes what is free now.
        let (space, others) = crate::ktest::common::mapped(256)?;
        let words = move |word: u64| {
            (0..256).try_for_each(|page| uaccess::store(others.start + page * PAGE_SIZE, word))
        };
        crate::ktest::common::run(&space, move || words(0))?.map_err(text)?;
        // The handler finds a page of zeros, which is another one, and clears the busy word there.
        scene.expect_fault(1)?;
        ensure!(scene.counts().1 == 1, "{} exceptions", scene.counts().1);
        ensure!(scene.status() == Some(Status::BadAddress), "{:?}", scene.status());
        let intact = crate::ktest::common::run(&space, move || {
            (0..256).all(|page| uaccess::load(others.start + page * PAGE_SIZE) == Ok(0))
        })?;
        ensure!(intact, "the CPU has written into somebody else's page");
        Ok(())
    }
);

guest_test!(
    fn page_in_the_cache_is_reached_in_the_other_view_without_an_exit<V>() -> Result<(), String> {
        let mut scene = Scene::<V>::new(LOOKS)?;
        scene.write(1)?;
        if !scene.ready(BY_EXCEPTION | WITH_VIEWS)? {
            return Ok(());
        }
        let found = scene.load(1)?;
        ensure!(found == OWNERS, "{found:#x}");
        ensure!(scene.counts() == (0, 1), "{:?}", scene.counts());
        ensure!(scene.bitmap.is_set(1), "nobody has continued it");
        // What is not there in that view either is copied, and then there in both.
        let found = scene.load(2)?;
        ensure!(
            found == COPIED && scene.status() == Some(Status::Done),
            "{found:#x}"
        );
        ensure!(scene.counts() == (0, 2), "{:?}", scene.counts());
        for view in 0..2 {
            scene.vcpu.registers.rcx = view;
            let told = scene.jump(SWITCH)?;
            ensure!(told == view, "{told}");
            let found = scene.load(2)?;
            ensure!(found == COPIED, "{found:#x} in view {view}");
        }
        ensure!(scene.counts() == (0, 2), "{:?}", scene.counts());
        // In the first view the other page is as absent as before.
        scene.vcpu.registers.rcx = 0;
        scene.jump(SWITCH)?;
        let found = scene.load(1)?;
        ensure!(
            found == OWNERS && scene.counts() == (0, 3),
            "{:?}",
            scene.counts()
        );
        Ok(())
    }
);

guest_test!(
    fn page_that_comes_into_the_cache_is_in_the_other_view_when_it_is_revealed<V>() -> Result<(), String> {
        let mut scene = declared!(V, LOOKS, BY_EXCEPTION | WITH_VIEWS);
        scene.write(3)?;
        let all = GuestRange::new(page(0), page(PAGES));
        scene.host.memory.reveal(all).map_err(text)?;
        let found = scene.load(3)?;
        ensure!(found == OWNERS && scene.counts() == (0, 1), "{found:#x}");
        Ok(())
    }
);

guest_test!(
    fn page_that_is_taken_away_is_taken_from_both_views<V>() -> Result<(), String> {
        let mut scene = Scene::<V>::new(LOOKS)?;
        scene.write(1)?;
        if !scene.ready(BY_EXCEPTION | WITH_VIEWS)? {
            return Ok(());
        }
        scene.load(1)?;
        // It stays in that view. What the host has taken away, it does not read any more.
        for number in [1, 2] {
            scene.load(number)?;
            scene.object.punch(number * PAGE_SIZE, PAGE_SIZE).map_err(text)?;
            let others = crate::ktest::common::mapped(64)?;
            let found = scene.load(number)?;
            // Page 1 is still delegated and copied again; page 2 is not any more, and a hole.
            let expected = if number == 1 { COPIED } else { 0 };
            ensure!(found == expected, "{found:#x} at page {number}");
            drop(others);
        }
        let data = scene.host.own(DATA);
        scene.vcpu.registers.rbx = DATA;
        let found = next_mark(&mut scene.vcpu)?;
        ensure!(found == COPIED, "{found:#x}");
        scene.host.space.discard(VirtRange::page(data)).map_err(text)?;
        let found = next_mark(&mut scene.vcpu)?;
        ensure!(found == 0, "{found:#x}");
        Ok(())
    }
);

guest_test!(
    fn view_that_is_not_there_ends_the_guest<V>() -> Result<(), String> {
        for view in [2, 511, 512, u64::MAX] {
            let mut scene = declared!(V, LOOKS, BY_EXCEPTION | WITH_VIEWS);
            scene.vcpu.registers.rcx = view;
            scene.vcpu.registers.rip = SWITCH;
            let Stop::Broken(broken) = run(&mut scene.vcpu) else {
                return Err(format!("view {view:#x} is one"));
            };
            ensure!(broken.why == Fatal::Privileged("VMFUNC"), "{broken}");
            ensure!(
                broken.to_string().contains("the guest executed VMFUNC"),
                "{broken}"
            );
        }
        Ok(())
    }
);

//! Violations that the guest deals with by itself, where the CPU can have it so; a refusal where it cannot.

use alloc::string::String;

use hv::exit::{Exit, Violation};
use hv::stage2::DELEGATED;
use hv::vendor::{DivertError, Vendor, ViolationException};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn, VirtAddr};
use kernel::mm::fault::Access;
use kernel::mm::frame::{Frame, KernelData};
use kernel::mm::phys;
use kernel::mm::pt::{Attr, Level, PageTable, Prot};

use super::{CODE, DATA, Guest, expect_exit, guest_code, guest_test};
use crate::ensure;
use crate::ktest::common::text;

/// #VE.
const VIOLATION_EXCEPTION: u8 = 20;
/// The page in which the CPU describes a violation.
const INFO: u64 = DATA + PAGE_SIZE;
/// Nothing is there at stage 2.
const ABSENT: u64 = DATA + 2 * PAGE_SIZE;
const CALL: Exit = Exit::Hypercall { user: false, len: 3 };

guest_code!(
    touches_and_handles:
    "mov rax, [rbx]",
    "vmmcall",
    ".org 0x20",
    "vmmcall",
    "iretq",
    ".org 0x40",
    "mov [rbx], rax",
    "vmmcall",
);
const DONE: u64 = CODE + 3;
const HANDLER: u64 = CODE + 0x20;
const STORE: u64 = CODE + 0x40;

guest_code!(
    switches_and_touches:
    "xor eax, eax",
    "vmfunc",
    "mov rax, [rbx]",
    "vmmcall",
    ".org 0x20",
    "vmmcall",
    "iretq",
);
const SWITCHED_DONE: u64 = CODE + 8;

/// What the information page says. Its place in the list of roots is not looked at: Bochs 2.7 reports there what some other
/// guest was the last to switch to.
#[derive(PartialEq, Eq, Debug)]
struct Info {
    reason: u32,
    busy: u32,
    qualification: u64,
    linear: u64,
    physical: u64,
}

fn info<V: Vendor>(guest: &mut Guest<V>) -> Info {
    let word = guest.peek(INFO);
    Info {
        reason: word as u32,
        busy: (word >> 32) as u32,
        qualification: guest.peek(INFO + 8),
        linear: guest.peek(INFO + 16),
        physical: guest.peek(INFO + 24),
    }
}

/// Has the next violation come as #VE again.
fn ready<V: Vendor>(guest: &mut Guest<V>) {
    guest.poke(INFO, 0);
}

/// What a violation of a load from `ABSENT + 0x18` looks like there.
fn load_from_absent() -> Info {
    Info {
        reason: 48,
        busy: u32::MAX,
        // A load, nothing mapped, of the address itself.
        qualification: 1 | 1 << 7 | 1 << 8,
        linear: ABSENT + 0x18,
        physical: ABSENT + 0x18,
    }
}

impl<V: Vendor> Guest<V> {
    /// A guest that has its violations diverted; none if the CPU has no such thing, and says so.
    fn diverted(code: &[u8]) -> Result<Option<Self>, String> {
        let mut guest = Self::new(code)?;
        guest.registers.rbx = ABSENT + 0x18;
        guest.add(INFO, Prot::READ | Prot::WRITE)?;
        guest.set_gate(VIOLATION_EXCEPTION, HANDLER)?;
        let how = ViolationException {
            info: guest.frame(INFO),
            roots: &[],
        };
        let done = V::divert_violations(&mut guest.vcpu, Some(how));
        if V::enable().map_err(text)?.violation_exceptions {
            done.map_err(text)?;
            return Ok(Some(guest));
        }
        ensure!(done == Err(DivertError::NotSupported), "{done:?}");
        Ok(None)
    }

    /// Has violations of an absent page come as #VE.
    fn make_convertible(&mut self, at: u64) -> Result<(), String> {
        let mut cursor = self.stage2.cursor_at(GuestPhysAddr::new(at));
        let marked = cursor.mark(Level::PAGE, DELEGATED).map_err(text)?;
        ensure!(marked.is_some(), "{at:#x} is mapped");
        Ok(())
    }

    /// The frame of a page that it was given.
    fn frame(&self, at: u64) -> Pfn {
        let page = self.pages.iter().find(|(page, _)| *page == at);
        page.expect("a page of the guest's").1.pfn()
    }
}

/// A guest with its violations diverted; a machine without passes the test by its refusal.
macro_rules! diverted {
    ($vendor:ident, $code:expr) => {
        match Guest::<$vendor>::diverted($code)? {
            Some(guest) => guest,
            None => return Ok(()),
        }
    };
}

guest_test!(
    fn convertible_violation_is_an_exception_of_the_guest<V>() -> Result<(), String> {
        let mut guest = diverted!(V, touches_and_handles());
        guest.make_convertible(ABSENT)?;
        expect_exit!(guest, CALL);
        ensure!(guest.registers.rip == HANDLER, "{:?}", guest.registers);
        let seen = info(&mut guest);
        ensure!(seen == load_from_absent(), "{seen:x?}");
        ensure!(guest.peek(guest.registers.rsp) == CODE, "it goes on elsewhere");
        guest.add(ABSENT, Prot::READ)?;
        guest.poke(ABSENT + 0x18, 0x5eed);
        guest.skip(3);
        expect_exit!(guest, CALL);
        ensure!(
            guest.registers.rip == DONE && guest.registers.rax == 0x5eed,
            "{:?}",
            guest.registers
        );
        Ok(())
    }
);

guest_test!(
    fn violation_exits_while_the_last_one_is_being_handled<V>() -> Result<(), String> {
        let mut guest = diverted!(V, touches_and_handles());
        guest.make_convertible(ABSENT)?;
        expect_exit!(guest, CALL);
        guest.skip(3);
        let stopped = guest.run();
        ensure!(
            matches!(stopped.exit, Exit::Violation(Violation { present: false, .. })),
            "{stopped:?}"
        );
        ensure!(guest.registers.rip == CODE, "{:?}", guest.registers);
        ready(&mut guest);
        expect_exit!(guest, CALL);
        ensure!(guest.registers.rip == HANDLER, "{:?}", guest.registers);
        Ok(())
    }
);

guest_test!(
    fn violation_of_an_unmarked_page_exits_all_the_same<V>() -> Result<(), String> {
        let mut guest = diverted!(V, touches_and_handles());
        let expected = Violation {
            addr: GuestPhysAddr::new(ABSENT + 0x18),
            access: Access::Read,
            linear: Some(VirtAddr::new(ABSENT + 0x18)),
            walk: false,
            present: false,
            root: 0,
            in_delivery: false,
        };
        expect_exit!(guest, Exit::Violation(expected));
        // Nor is a right that is missing the guest's business.
        guest.add(ABSENT, Prot::READ)?;
        guest.registers.rip = STORE;
        let expected = Violation {
            access: Access::Write,
            present: true,
            ..expected
        };
        expect_exit!(guest, Exit::Violation(expected));
        let seen = info(&mut guest);
        ensure!(seen.busy == 0 && seen.reason == 0, "{seen:x?}");
        Ok(())
    }
);

guest_test!(
    fn exception_that_finds_no_stack_is_delivered_when_it_is_there<V>() -> Result<(), String> {
        let mut guest = diverted!(V, touches_and_handles());
        guest.make_convertible(ABSENT)?;
        // The last page of memory that the guest's tables map: absent, and convertible like the other.
        let stack = ABSENT + PAGE_SIZE;
        guest.make_convertible(stack)?;
        guest.registers.rsp = stack + PAGE_SIZE;
        let stopped = guest.run();
        let Exit::Violation(violation) = stopped.exit else {
            return Err(text(stopped));
        };
        ensure!(
            violation.in_delivery && violation.addr.align_down(PAGE_SIZE).as_u64() == stack,
            "{violation:?}"
        );
        guest.add(stack, Prot::READ | Prot::WRITE)?;
        expect_exit!(guest, CALL);
        ensure!(guest.registers.rip == HANDLER, "{:?}", guest.registers);
        let seen = info(&mut guest);
        ensure!(seen == load_from_absent(), "{seen:x?}");
        Ok(())
    }
);

guest_test!(
    fn violations_exit_again_when_they_are_not_diverted_any_more<V>() -> Result<(), String> {
        let mut guest = diverted!(V, touches_and_handles());
        guest.make_convertible(ABSENT)?;
        V::divert_violations(&mut guest.vcpu, None).map_err(text)?;
        let stopped = guest.run();
        ensure!(
            matches!(stopped.exit, Exit::Violation(Violation { present: false, .. })),
            "{stopped:?}"
        );
        Ok(())
    }
);

/// A second view of a guest's memory: the same pages, and one more.
struct View<V: Vendor> {
    table: PageTable<V::Format>,
    extra: Frame<KernelData>,
}

impl<V: Vendor> View<V> {
    fn of(guest: &Guest<V>) -> Result<Self, String> {
        let mut table = PageTable::<V::Format>::new().map_err(text)?;
        let extra = Frame::alloc_zeroed().map_err(text)?;
        let everything = Prot::READ | Prot::WRITE | Prot::EXEC;
        let pages = guest.pages.iter().map(|(at, frame)| (*at, frame.pfn()));
        for (at, frame) in pages.chain([(ABSENT, extra.pfn())]) {
            table
                .cursor_at(GuestPhysAddr::new(at))
                .install_borrowed(Level::PAGE, frame, everything, Attr::default())
                .map_err(text)?;
        }
        Ok(Self { table, extra })
    }
}

type Viewed<V> = (View<V>, Guest<V>);

/// A guest that may switch to a view in which a page is there, and that view; or nothing where the CPU has no such thing.
fn with_view<V: Vendor>() -> Result<Option<Viewed<V>>, String> {
    let Some(mut guest) = Guest::<V>::diverted(switches_and_touches())? else {
        return Ok(None);
    };
    let view = View::of(&guest)?;
    let roots = [guest.stage2.root(), view.table.root()];
    let how = ViolationException {
        info: guest.frame(INFO),
        roots: &roots,
    };
    let done = V::divert_violations(&mut guest.vcpu, Some(how));
    if V::enable().map_err(text)?.root_switching {
        done.map_err(text)?;
        return Ok(Some((view, guest)));
    }
    ensure!(done == Err(DivertError::NotSupported), "{done:?}");
    Ok(None)
}

guest_test!(
    fn guest_switches_to_a_view_in_which_the_page_is_there<V>() -> Result<(), String> {
        let Some((mut view, mut guest)) = with_view::<V>()? else {
            return Ok(());
        };
        phys::bytes_mut(&mut view.extra)[0x18] = 0x77;
        guest.registers.rcx = 1;
        expect_exit!(guest, CALL);
        ensure!(
            guest.registers.rip == SWITCHED_DONE && guest.registers.rax == 0x77,
            "{:?}",
            guest.registers
        );
        // And back: there it is not.
        guest.registers.rip = CODE;
        guest.registers.rcx = 0;
        let stopped = guest.run();
        ensure!(
            matches!(stopped.exit, Exit::Violation(Violation { root: 0, .. })),
            "{stopped:?}"
        );
        Ok(())
    }
);

guest_test!(
    fn violation_tells_in_which_view_it_was<V>() -> Result<(), String> {
        let Some((_view, mut guest)) = with_view::<V>()? else {
            return Ok(());
        };
        guest.registers.rcx = 1;
        guest.registers.rbx = ABSENT + PAGE_SIZE;
        let stopped = guest.run();
        let Exit::Violation(violation) = stopped.exit else {
            return Err(text(stopped));
        };
        ensure!(violation.root == 1, "{violation:?}");
        Ok(())
    }
);

guest_test!(
    fn switch_to_a_view_that_is_not_there_ends_the_guest<V>() -> Result<(), String> {
        for (function, root) in [(0, 2), (0, 511), (0, 512), (1, 0)] {
            let Some((_view, mut guest)) = with_view::<V>()? else {
                return Ok(());
            };
            guest.registers.rip = CODE + 2;
            guest.registers.rax = function;
            guest.registers.rcx = root;
            expect_exit!(guest, Exit::Privileged("VMFUNC"));
        }
        Ok(())
    }
);

guest_test!(
    fn guest_that_may_not_switch_has_no_such_instruction<V>() -> Result<(), String> {
        let mut guest = Guest::<V>::new(switches_and_touches())?;
        guest.set_gate(6, HANDLER)?;
        expect_exit!(guest, CALL);
        ensure!(guest.registers.rip == HANDLER, "{:?}", guest.registers);
        Ok(())
    }
);

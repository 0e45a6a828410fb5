//! What contexts are asked to do differently, on the real machine: stores that are noted behind a real translation cache,
//! bus errors at exact addresses, and accesses that the kernel makes on a task's behalf.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::{self, BusError, FaultError, Origin};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{PageRun, ScanRequest, Space};
use kernel::mm::uaccess;
use kernel::task::spawn::spawn_returning;
use kernel::uffd::api::API_VERSION;
use kernel::uffd::{
    Event, Features, FillMode, Flags, Handshake, Modes, Outcome, ReadError, Refusal, RegisterError, Release,
    Uffd, Unavailable,
};

use super::common::{content, mapped, page, run, task, text};
use crate::{ensure, kernel_test};

const NOW: FillMode = FillMode::empty();

/// The numbers of the pages that were written since this was last asked.
fn collect(space: &Space, region: VirtRange) -> Result<Vec<u64>, String> {
    let mut out = [PageRun::EMPTY; 16];
    let scanned = space
        .scan(&ScanRequest::collect_written(region), &mut out)
        .map_err(text)?;
    ensure!(scanned.end == region.end, "it stopped at {:?}", scanned.end);
    let number = |addr: VirtAddr| (addr - region.start) / PAGE_SIZE;
    Ok(out[..scanned.runs]
        .iter()
        .flat_map(|run| number(run.range.start)..number(run.range.end))
        .collect())
}

kernel_test!(
    fn stores_are_noted_again_and_again_behind_a_translation_cache_that_knows_the_pages() -> Result<(), String>
    {
        let (space, region) = mapped(8)?;
        let uffd = Uffd::new(&space, Features::WP_ASYNC);
        uffd.register(region, Modes::WP).map_err(text)?;
        let its = Arc::clone(&space);
        let rounds = run(&space, move || -> Result<Vec<Vec<u64>>, String> {
            let mut rounds = Vec::new();
            rounds.push(collect(&its, region)?);
            // One task all the time: its translations stay cached from round to round.
            for stored in [&[0u64, 1, 5][..], &[1], &[], &[1, 7]] {
                for number in stored {
                    uaccess::store(page(region, *number), 1).map_err(text)?;
                    uaccess::load(page(region, 6)).map_err(text)?;
                }
                rounds.push(collect(&its, region)?);
            }
            Ok(rounds)
        })??;
        let expected: [&[u64]; 5] = [&[0, 1, 2, 3, 4, 5, 6, 7], &[0, 1, 5], &[1], &[], &[1, 7]];
        ensure!(rounds == expected, "noted: {rounds:?}");
        let unread = uffd.try_read_event();
        ensure!(unread == Err(ReadError::WouldBlock), "{unread:?}");
        Ok(())
    }
);

kernel_test!(
    fn pagemap_words_follow_a_page_from_marker_to_page_to_protected_page() -> Result<(), String> {
        let (space, region) = mapped(1)?;
        let uffd = Uffd::new(&space, Features::WP_ASYNC);
        uffd.register(region, Modes::WP).map_err(text)?;
        let word = |space: &Space| space.pagemap(region.start, false);
        uffd.write_protect(region).map_err(text)?;
        ensure!(
            word(&space) == 0x4200_0000_0000_003f,
            "marker: {:x}",
            word(&space)
        );
        run(&space, move || uaccess::store(region.start, 1))?.map_err(text)?;
        ensure!(word(&space) == 0x8100 << 48, "page: {:x}", word(&space));
        uffd.write_protect(region).map_err(text)?;
        ensure!(word(&space) == 0x8300 << 48, "protected: {:x}", word(&space));
        Ok(())
    }
);

kernel_test!(
    fn a_context_that_wants_bus_errors_gets_no_message_and_the_access_fails_at_its_exact_address()
    -> Result<(), String> {
        let (space, region) = mapped(2)?;
        let uffd = Uffd::new(&space, Features::SIGBUS);
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let at = page(region, 1) + 0x238;
        let touch = move || uaccess::store(at, 7).is_err().then(fault::last_error).flatten();
        let failed = run(&space, touch)?;
        let expected = Some((at, FaultError::BusError(BusError::Wanted)));
        ensure!(failed == expected, "{failed:?}");
        let unread = uffd.try_read_event();
        ensure!(unread == Err(ReadError::WouldBlock), "{unread:?}");
        let filled = uffd.zeropage(VirtRange::page(page(region, 1)), NOW);
        ensure!(filled == Outcome::Done, "{filled:?}");
        let failed = run(&space, touch)?;
        ensure!(failed.is_none(), "after it was filled: {failed:?}");
        Ok(())
    }
);

kernel_test!(
    fn a_context_for_user_mode_only_is_not_asked_about_what_the_kernel_does_for_a_task() -> Result<(), String>
    {
        let (space, region) = mapped(1)?;
        let uffd = Uffd::with_flags(&space, Flags::USER_MODE_ONLY, Features::empty());
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let errors = run(&space, move || {
            uaccess::on_behalf(|| {
                [
                    uaccess::read(region.start, &mut [0; 16]),
                    uaccess::write(region.start, &[0; 16]),
                ]
            })
        })?;
        let expected = FaultError::BusError(BusError::KernelAccess);
        for result in errors {
            let why = result.err().map(|error| error.why);
            ensure!(why == Some(expected), "{why:?}");
        }
        let loader = task(&space, move || uaccess::load(region.start))?;
        let message = uffd.read_event();
        let asked = matches!(&message, Ok(Event::Pagefault { addr, .. }) if *addr == region.start);
        ensure!(asked, "its own access: {message:?}");
        let filled = uffd.zeropage(region, NOW);
        ensure!(filled == Outcome::Done, "{filled:?}");
        let loaded = loader.join().map_err(text)?;
        ensure!(loaded == Ok(0), "{loaded:?}");
        Ok(())
    }
);

kernel_test!(
    fn who_reads_another_spaces_memory_waits_for_its_monitor() -> Result<(), String> {
        let (space, region) = mapped(2)?;
        let uffd = Uffd::new(&space, Features::empty());
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let target = Arc::clone(&space);
        let reader = spawn_returning("reader", None, move || {
            let mut bytes = [0; 16];
            target
                .read_bytes(page(region, 1) - 8, &mut bytes, Origin::Kernel)
                .map(|()| bytes)
        })
        .map_err(text)?;
        for number in 0..2 {
            let message = uffd.read_event();
            let asked =
                matches!(&message, Ok(Event::Pagefault { addr, .. }) if *addr == page(region, number));
            ensure!(asked, "page {number}: {message:?}");
            let filled = uffd.copy(page(region, number), &content(number), PAGE_SIZE, NOW);
            ensure!(filled == Outcome::Done, "{filled:?}");
        }
        let read = reader.join().map_err(text)?;
        let expected = [[1; 8], [2; 8]].concat();
        ensure!(
            read.as_ref().is_ok_and(|bytes| *bytes == expected[..]),
            "{read:?}"
        );
        let refused = space.read_bytes(region.end - 8, &mut [0; 16], Origin::Kernel);
        let why = refused.err().map(|error| (error.addr, error.why));
        ensure!(why == Some((region.end, FaultError::Unmapped)), "{why:?}");
        Ok(())
    }
);

kernel_test!(
    fn a_context_that_looks_like_an_older_linux_has_only_what_that_had() -> Result<(), String> {
        let (space, region) = mapped(1)?;
        let uffd = Uffd::open(&space, Flags::empty(), &Release::V4_11).map_err(text)?;
        let fresh = uffd.register(region, Modes::MISSING);
        ensure!(
            fresh == Err(RegisterError::Unavailable(Unavailable::Fresh)),
            "before the handshake: {fresh:?}"
        );
        let wanted = Handshake {
            api: API_VERSION,
            features: Features::empty(),
            may_trace: false,
        };
        let agreement = uffd.api(wanted).map_err(text)?;
        ensure!(agreement.offered.bits() == 0x7e, "{:x}", agreement.offered.bits());
        let wp = uffd.register(region, Modes::WP);
        ensure!(wp == Err(RegisterError::UnknownMode), "{wp:?}");
        uffd.register(region, Modes::MISSING).map_err(text)?;
        let poisoned = uffd.poison(region, NOW);
        let expected = Outcome::Refused(Refusal::Unavailable(Unavailable::NotOffered));
        ensure!(poisoned == expected, "{poisoned:?}");
        let filled = uffd.zeropage(region, NOW);
        ensure!(filled == Outcome::Done, "{filled:?}");
        Ok(())
    }
);

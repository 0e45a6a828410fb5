//! Limits on the pages of several objects.

use std::sync::Arc;

use kernel::mm::cache::{AllocateError, NoPage, Object, Quota, WriteError};
use kernel::mm::fault::FaultError;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::space::Memory;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal, Uffd};

use super::{P, write};
use crate::common::{RW, World, answer, page, part, word};

#[test]
fn objects_that_share_a_quota_cannot_have_more_pages_together() {
    let world = World::new();
    let quota = Arc::new(Quota::new(3 * P + 100));
    let one = Object::with_quota(&SHMEM, 10 * P, Arc::clone(&quota));
    let two = Object::with_quota(&SHMEM, 10 * P, Arc::clone(&quota));
    write(&one, 0, &[1; 2 * P as usize]);
    assert_eq!(
        two.write(0, &[2; 2 * P as usize]),
        (P, Err(WriteError::NoPage(NoPage::NoSpace)))
    );
    assert_eq!((quota.used(), quota.limit()), (3 * P, 3 * P + 100));
    let range = world.map_memory(Memory::shared(&two), None, 10, RW);
    assert_eq!(world.load(range.start), Ok(word(2)));
    assert_eq!(world.store(page(range, 5), 1), Err(FaultError::NoSpace));
    assert_eq!(
        two.allocate(0, 4 * P, true),
        Err(AllocateError::NoPage(NoPage::NoSpace))
    );
    assert_eq!(quota.used(), 3 * P);
    // Space comes back by a hole, by cutting off and with the object.
    assert_eq!(one.punch(0, P), Ok(()));
    assert_eq!(world.store(page(range, 5), 1), Ok(()));
    assert_eq!(two.truncate(P), Ok(()));
    assert_eq!(quota.used(), 2 * P);
    drop(one);
    assert_eq!(quota.used(), P);
    assert_eq!(world.space.unmap(range), Ok(()));
    drop(two);
    assert_eq!(quota.used(), 0);
}

#[test]
fn a_fill_past_the_quota_is_enomem_even_over_a_page_that_is_there() {
    let world = World::new();
    let quota = Arc::new(Quota::new(P));
    let object = Object::with_quota(&SHMEM, 2 * P, Arc::clone(&quota));
    write(&object, 0, b"x");
    let range = world.map_memory(Memory::shared(&object), None, 2, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING).expect("the type can");
    let refused = Outcome::Refused(Refusal::NoSpace);
    for index in 0..2 {
        let copied = uffd.copy(page(range, index), &[1; P as usize], P, FillMode::empty());
        assert_eq!(copied, refused);
        assert_eq!(answer(copied, P), (Some(12), Some(-12)));
        let zeroed = uffd.zeropage(part(range, index, 1), FillMode::empty());
        assert_eq!(zeroed, refused);
    }
    assert_eq!((quota.used(), object.resident()), (P, P));
    // A private mapping has pages of its own.
    let private = world.map_memory(Memory::private(&object), None, 2, RW);
    uffd.register(private, Modes::MISSING).expect("the type can");
    let copied = uffd.copy(page(private, 1), &[1; P as usize], P, FillMode::empty());
    assert_eq!(copied, Outcome::Done);
    assert_eq!(quota.used(), P);
}

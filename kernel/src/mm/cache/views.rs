//! Who maps an object.

use alloc::sync::Weak;
use alloc::vec::Vec;
use core::fmt;

use super::{Object, ObjectRange};
use crate::mm::reserve::reserve;
use crate::sync::SpinLock;

/// Which translations of an object's pages a view has to take away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Those of pages of the cache: private copies stay (a hole was punched).
    CachePages,
    /// All, private copies too (the object became shorter).
    Everything,
}

/// Who has translations of an object's pages.
pub trait View: Send + Sync {
    /// Takes the translations of `range` of `object` away; protection that a userfault context asked for is remembered.
    /// False when the view does not map the object at all any more: it is not asked again until it is attached again.
    fn take_away(&self, object: &Object, range: ObjectRange, what: Taken) -> bool;
}

/// The kernel has no memory to remember one more view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoomForView;

/// The views of an object: all that map it, and those that nobody has asked since they stopped.
///
/// Whoever goes through them does so one by one, without the lock, and must miss nobody. So they stand in the order in which
/// they were attached, and none of them moves while somebody goes through.
#[derive(Default)]
pub(super) struct Views(SpinLock<Seats>);

#[derive(Default)]
struct Seats {
    seats: Vec<Seat>,
    /// How many go through the seats at this moment.
    walkers: usize,
}

struct Seat {
    /// `None` when it maps nothing any more.
    view: Option<Weak<dyn View>>,
    /// How often it was attached: tells whether that happened since it said that it maps nothing.
    attached: u64,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("len", &self.len()).finish()
    }
}

impl Views {
    /// See [`Object::attach`].
    pub(super) fn attach(&self, view: Weak<dyn View>) -> Result<(), NoRoomForView> {
        let mut all = self.0.lock();
        let is = |seat: &&mut Seat| seat.view.as_ref().is_some_and(|old| old.ptr_eq(&view));
        if let Some(seat) = all.seats.iter_mut().find(is) {
            seat.attached += 1;
            return Ok(());
        }
        if all.seats.len() == all.seats.capacity() {
            all.tidy();
        }
        reserve(&mut all.seats, 1).map_err(|_| NoRoomForView)?;
        all.seats.push(Seat {
            view: Some(view),
            attached: 1,
        });
        Ok(())
    }

    /// Has every view take translations away. Those that are gone, or map nothing, are forgotten.
    pub(super) fn take_away(&self, object: &Object, range: ObjectRange, what: Taken) {
        self.0.lock().walkers += 1;
        let mut place = 0;
        while let Some((view, attached)) = self.at(place) {
            let view = view.and_then(|view| view.upgrade());
            let maps = view.is_some_and(|view| view.take_away(object, range, what));
            if !maps {
                self.forget(place, attached);
            }
            place += 1;
        }
        let mut all = self.0.lock();
        all.walkers -= 1;
        all.tidy();
    }

    /// Who stands there; `None` behind the last.
    fn at(&self, place: usize) -> Option<(Option<Weak<dyn View>>, u64)> {
        let all = self.0.lock();
        all.seats
            .get(place)
            .map(|seat| (seat.view.clone(), seat.attached))
    }

    /// Forgets a view that maps nothing, unless it was attached again meanwhile.
    fn forget(&self, place: usize, attached: u64) {
        if let Some(seat) = self.0.lock().seats.get_mut(place)
            && seat.attached == attached
        {
            seat.view = None;
        }
    }

    /// Views that are not forgotten.
    pub(super) fn len(&self) -> usize {
        self.0.lock().seats.iter().filter(|seat| seat.is_taken()).count()
    }
}

impl Seats {
    /// Drops the seats of those who are forgotten or gone, if nobody goes through.
    fn tidy(&mut self) {
        if self.walkers == 0 {
            self.seats.retain(Seat::is_taken);
        }
    }
}

impl Seat {
    fn is_taken(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.strong_count() > 0)
    }
}

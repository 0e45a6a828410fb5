//! The rows of the table: what is measured on which memory, and what to compare it with.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::samples::Samples;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::vma::Sharing;
use kernel::uffd::Modes;

use super::bench::{Bench, CostError, Kind, Touch, Way};
use super::operation::{Continue, Copy, Move, Operation, Poison, Protect, Unprotect, Zeropage};

const ANONYMOUS: Kind = Kind {
    name: "anonymous",
    ty: &ANON,
    object: None,
};
const SHARED: Kind = Kind {
    name: "shared",
    ty: &SHMEM,
    object: Some(Sharing::Shared),
};
const PRIVATE: Kind = Kind {
    name: "private",
    ty: &SHMEM,
    object: Some(Sharing::Private),
};
const HUGE: Kind = Kind {
    name: "huge",
    ty: &HUGETLB,
    object: Some(Sharing::Shared),
};
const GUEST: Kind = Kind {
    name: "guest",
    ty: &GUEST_MEMFD,
    object: Some(Sharing::Shared),
};

type Run = Box<dyn Fn(&Bench) -> Result<Samples, CostError> + Send>;

/// One measurement.
pub struct Row {
    /// What is measured.
    pub name: String,
    /// Measures it.
    pub run: Run,
    /// What it may cost.
    pub budget: Option<u64>,
    /// What Linux 6.12 pays, and lean Linux.
    pub linux: Option<[u64; 2]>,
}

impl Row {
    fn new(name: String, run: impl Fn(&Bench) -> Result<Samples, CostError> + Send + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
            budget: None,
            linux: None,
        }
    }

    fn demand(kind: Kind, touch: Touch) -> Self {
        let name = format!("{}: first touch, {}", kind.name, touched(touch));
        Self::new(name, move |bench| bench.demand(kind, touch))
    }

    fn fault<O: Operation>(kind: Kind, touch: Touch, way: Way) -> Self {
        let trap = match O::MODES {
            Modes::MISSING => "MISSING",
            Modes::MINOR => "MINOR",
            _ => "WP",
        };
        let way_name = match way {
            Way::Queue => "",
            Way::Upcall => ", upcall",
        };
        let name = format!(
            "{}: {trap} + {}, {}{way_name}",
            kind.name,
            O::NAME,
            touched(touch)
        );
        Self::new(name, move |bench| bench.fault::<O>(kind, touch, way))
    }

    fn bulk<O: Operation>(kind: Kind, per_call: u64) -> Self {
        let name = format!("{}: {} of {per_call}, each", kind.name, O::NAME);
        Self::new(name, move |bench| bench.bulk::<O>(kind, per_call))
    }

    fn budget(self, budget: u64) -> Self {
        Self {
            budget: Some(budget),
            ..self
        }
    }

    fn linux(self, full: u64, lean: u64) -> Self {
        Self {
            linux: Some([full, lean]),
            ..self
        }
    }
}

fn touched(touch: Touch) -> &'static str {
    match touch {
        Touch::Load => "load",
        Touch::Store => "store",
    }
}

/// All rows, in the order in which they are measured. The budgets are those for a monitor that is a kernel task.
pub fn rows() -> Vec<Row> {
    use Touch::{Load, Store};
    use Way::{Queue, Upcall};
    alloc::vec![
        Row::new("clock".to_string(), |bench| bench.clock(ANONYMOUS)),
        Row::new("present page, load".to_string(), |bench| bench.present(ANONYMOUS)),
        Row::demand(ANONYMOUS, Load),
        Row::demand(ANONYMOUS, Store).budget(900).linux(3194, 2891),
        Row::demand(SHARED, Store),
        Row::demand(PRIVATE, Load),
        Row::demand(PRIVATE, Store),
        Row::demand(HUGE, Store),
        Row::fault::<Zeropage>(ANONYMOUS, Load, Queue)
            .budget(1100)
            .linux(11741, 10625),
        Row::fault::<Zeropage>(ANONYMOUS, Load, Upcall),
        Row::fault::<Copy>(ANONYMOUS, Load, Queue),
        Row::fault::<Copy>(ANONYMOUS, Store, Queue)
            .budget(1200)
            .linux(15849, 13792),
        Row::fault::<Copy>(ANONYMOUS, Store, Upcall)
            .budget(1700)
            .linux(10373, 9066),
        Row::fault::<Move>(ANONYMOUS, Store, Queue),
        Row::fault::<Move>(ANONYMOUS, Store, Upcall),
        Row::fault::<Unprotect>(ANONYMOUS, Store, Queue)
            .budget(500)
            .linux(12408, 11163),
        Row::fault::<Unprotect>(ANONYMOUS, Store, Upcall),
        Row::new("anonymous: WP_ASYNC, store".to_string(), |bench| bench
            .noted(ANONYMOUS))
        .budget(250)
        .linux(1555, 1446),
        Row::fault::<Zeropage>(SHARED, Load, Queue),
        Row::fault::<Copy>(SHARED, Store, Queue),
        Row::fault::<Continue>(SHARED, Load, Queue)
            .budget(500)
            .linux(12630, 11316),
        Row::fault::<Continue>(SHARED, Load, Upcall),
        Row::fault::<Unprotect>(SHARED, Store, Queue),
        Row::fault::<Copy>(PRIVATE, Store, Queue),
        Row::fault::<Continue>(PRIVATE, Load, Queue),
        Row::fault::<Unprotect>(PRIVATE, Store, Queue),
        Row::fault::<Copy>(HUGE, Store, Queue),
        Row::fault::<Continue>(HUGE, Load, Queue),
        Row::fault::<Unprotect>(HUGE, Store, Queue),
        Row::fault::<Copy>(GUEST, Store, Queue),
        Row::fault::<Continue>(GUEST, Load, Queue),
        Row::fault::<Continue>(GUEST, Load, Upcall),
        Row::bulk::<Copy>(ANONYMOUS, 1),
        Row::bulk::<Copy>(ANONYMOUS, 64),
        Row::bulk::<Copy>(ANONYMOUS, 512).budget(620).linux(3042, 2249),
        Row::bulk::<Zeropage>(ANONYMOUS, 1),
        Row::bulk::<Zeropage>(ANONYMOUS, 64),
        Row::bulk::<Zeropage>(ANONYMOUS, 512),
        Row::bulk::<Poison>(ANONYMOUS, 1),
        Row::bulk::<Poison>(ANONYMOUS, 64),
        Row::bulk::<Poison>(ANONYMOUS, 512),
        Row::bulk::<Move>(ANONYMOUS, 1),
        Row::bulk::<Move>(ANONYMOUS, 64),
        Row::bulk::<Move>(ANONYMOUS, 512),
        Row::bulk::<Protect>(ANONYMOUS, 1),
        Row::bulk::<Protect>(ANONYMOUS, 64),
        Row::bulk::<Protect>(ANONYMOUS, 512).budget(15).linux(150, 150),
        Row::bulk::<Unprotect>(ANONYMOUS, 1),
        Row::bulk::<Unprotect>(ANONYMOUS, 64),
        Row::bulk::<Unprotect>(ANONYMOUS, 512),
        Row::bulk::<Copy>(SHARED, 1),
        Row::bulk::<Copy>(SHARED, 64),
        Row::bulk::<Copy>(SHARED, 512),
        Row::bulk::<Zeropage>(SHARED, 512),
        Row::bulk::<Poison>(SHARED, 512),
        Row::bulk::<Continue>(SHARED, 1),
        Row::bulk::<Continue>(SHARED, 64),
        Row::bulk::<Continue>(SHARED, 512).budget(80).linux(1014, 930),
        Row::bulk::<Protect>(SHARED, 512),
        Row::bulk::<Unprotect>(SHARED, 512),
        Row::bulk::<Continue>(PRIVATE, 512),
        Row::bulk::<Copy>(PRIVATE, 512),
        Row::bulk::<Protect>(PRIVATE, 512),
        Row::bulk::<Unprotect>(PRIVATE, 512),
        Row::bulk::<Copy>(HUGE, 1),
        Row::bulk::<Continue>(HUGE, 1),
        Row::bulk::<Continue>(HUGE, 8),
        Row::bulk::<Protect>(HUGE, 8),
        Row::bulk::<Unprotect>(HUGE, 8),
        Row::bulk::<Copy>(GUEST, 512),
        Row::bulk::<Continue>(GUEST, 512),
    ]
}

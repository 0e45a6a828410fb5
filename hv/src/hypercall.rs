//! Hypercalls: what a guest may ask for ([`kernel::abi::guest`]).
//!
//! Every argument is an allegation. What cannot be is refused with a status and changes nothing; only a call that fills
//! pages may stop half way, and then says how far it came.

use kernel::abi::guest::{Call, Delivery, FAULT_FETCH, FAULT_WRITE, PAGE, Status, WITH_VIEWS};
use kernel::mm::addr::GuestPhysAddr;
use kernel::mm::fault::Access;
use kernel::mm::range::GuestRange;

use crate::exit::Violation;
use crate::fill::{Fill, FillError};
use crate::ring::Producer;
use crate::state::Registers;
use crate::vcpu::{Stop, Timer, Vcpu};
use crate::vendor::Vendor;
use crate::vm::Monitor;

/// A status, and a value.
type Answer = Result<u64, Refusal>;

/// How a monitor wants to be told: [`Call::Monitor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// By its vector.
    Injected,
    /// By #VE.
    Exceptions {
        /// Where the CPU describes violations.
        info: GuestPhysAddr,
        /// Whether the vCPU may switch views.
        views: bool,
    },
}

/// Why a call was not carried out, and how much of it was.
struct Refusal {
    status: Status,
    value: u64,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, value: 0 }
    }
}

impl<V: Vendor> Vcpu<V> {
    /// Carries out what the registers ask for. The instruction is behind the guest already.
    pub(crate) fn hypercall(&mut self, user: bool) -> Option<Stop> {
        let Registers { rax, rdi, .. } = self.registers;
        let call = Call::from_number(rax).filter(|_| !user);
        let mut stop = None;
        let answer = match call {
            None => Err(Status::NoSuchCall.into()),
            Some(Call::Exit) => {
                self.vm.flush_console();
                return Some(Stop::Exited(rdi));
            }
            Some(Call::Mark) => {
                stop = Some(Stop::Mark(rdi));
                // The value comes when the guest goes on, which may be in another machine.
                self.at_mark = true;
                Ok(0)
            }
            Some(Call::Timer) => self.set_timer(),
            Some(Call::Monitor) => self.declare_monitor(),
            Some(Call::Exempt) => self.exempt(),
            Some(Call::Copy) => self.copy(),
            Some(Call::Continue) => self.fill(self.registers.rsi, Fill::Continue),
            Some(Call::Zeropage) => self.fill(self.registers.rsi, Fill::Zeropage),
            Some(Call::Resolve) => match self.resolve() {
                Ok(resolved) => {
                    stop = resolved;
                    Ok(0)
                }
                Err(status) => Err(status.into()),
            },
        };
        let (status, value) = match answer {
            Ok(value) => (Status::Done, value),
            Err(Refusal { status, value }) => (status, value),
        };
        self.registers.rax = status as u64;
        self.registers.rdx = value;
        stop
    }

    /// Answers the mark behind which the vCPU stands, before it goes on.
    pub(crate) fn answer_mark(&mut self) {
        self.registers.rdx = self.vm.take_resumed();
    }

    fn set_timer(&mut self) -> Answer {
        let Registers { rdi: period, rsi, .. } = self.registers;
        self.timer = match period {
            0 => Timer::default(),
            _ => Timer::every(period, vector(rsi)?),
        };
        Ok(0)
    }

    fn declare_monitor(&mut self) -> Answer {
        const INJECTED: u64 = Delivery::Injected as u64;
        const EXCEPTION: u64 = Delivery::VirtualizationException as u64;
        const EXCEPTION_WITH_VIEWS: u64 = EXCEPTION | WITH_VIEWS;
        let Registers {
            rdi, rsi, rdx, r10, ..
        } = self.registers;
        if rdi == 0 {
            self.end_diversion();
            self.vm.set_monitor(None).map_err(|_| Status::OutOfMemory)?;
            return Ok(0);
        }
        let telling = match rdx {
            INJECTED => Telling::Injected,
            EXCEPTION | EXCEPTION_WITH_VIEWS => Telling::Exceptions {
                info: GuestPhysAddr::new(r10),
                views: rdx == EXCEPTION_WITH_VIEWS,
            },
            _ => return Err(Status::Invalid.into()),
        };
        self.declare_monitor_at(GuestPhysAddr::new(rdi), rsi, telling)?;
        Ok(0)
    }

    /// What [`Call::Monitor`] does, on behalf of a guest that does not ask for it itself.
    ///
    /// # Errors
    /// A page is not one of ordinary memory, the vector is an exception's, the CPU cannot, or there is no memory for it.
    pub fn declare_monitor_at(
        &mut self,
        ring: GuestPhysAddr,
        number: u64,
        telling: Telling,
    ) -> Result<(), Status> {
        let page = self.own_page(ring.as_u64())?;
        let vector = vector(number)?;
        let delivery = match telling {
            Telling::Injected => {
                self.end_diversion();
                Delivery::Injected
            }
            Telling::Exceptions { info, views } => {
                let info = self.own_page(info.as_u64())?;
                if info == page {
                    return Err(Status::Invalid);
                }
                self.divert(info, views)?;
                Delivery::VirtualizationException
            }
        };
        let told = self.vm.set_monitor(Some(Monitor {
            delivery,
            vector,
            ring: Producer::new(page),
        }));
        if told.is_err() {
            self.end_diversion();
            return Err(Status::OutOfMemory);
        }
        Ok(())
    }

    /// A page of ordinary memory.
    fn own_page(&self, addr: u64) -> Result<GuestPhysAddr, Status> {
        let range = pages(addr, PAGE)?;
        let ordinary = !self.vm.delegated().overlaps(&range) && self.vm.memory.is_backed(range);
        ordinary.then_some(range.start).ok_or(Status::BadAddress)
    }

    fn exempt(&mut self) -> Answer {
        let range = pages(self.registers.rdi, self.registers.rsi)?;
        if !self.vm.is_delegated(range) {
            return Err(Status::BadAddress.into());
        }
        self.vm.exempt(range).map_err(|_| Status::OutOfMemory)?;
        Ok(0)
    }

    fn copy(&mut self) -> Answer {
        let Registers { rsi, rdx: len, .. } = self.registers;
        let from = pages(rsi, len)?;
        // Contents that are delegated themselves could wait for this very call.
        if self.vm.delegated().overlaps(&from) || !self.vm.memory.is_backed(from) {
            return Err(Status::BadAddress.into());
        }
        self.fill(len, Fill::Copy { from: from.start })
    }

    fn fill(&mut self, len: u64, how: Fill<'_>) -> Answer {
        let range = pages(self.registers.rdi, len)?;
        if !self.vm.is_delegated(range) {
            return Err(Status::BadAddress.into());
        }
        let filled = self.vm.memory.fill(range, how);
        match filled.stop {
            None => Ok(filled.bytes),
            Some(error) => Err(Refusal {
                status: status_of(error),
                value: filled.bytes,
            }),
        }
    }

    /// A violation that came as #VE, resolved as if it had come as an exit.
    fn resolve(&mut self) -> Result<Option<Stop>, Status> {
        let Registers { rdi, rsi, .. } = self.registers;
        let access = match rsi & (FAULT_WRITE | FAULT_FETCH) {
            0 => Access::Read,
            FAULT_WRITE => Access::Write,
            FAULT_FETCH => Access::Execute,
            _ => return Err(Status::Invalid),
        };
        let addr = GuestPhysAddr::new(rdi);
        if !self.vm.memory.is_backed(GuestRange::page(addr.align_down(PAGE))) {
            return Err(Status::BadAddress);
        }
        let violation = Violation {
            addr,
            access,
            linear: None,
            walk: false,
            present: false,
            root: 0,
            in_delivery: true,
        };
        Ok(self.resolve_for_guest(violation))
    }
}

/// A vector that is not an exception's.
fn vector(number: u64) -> Result<u8, Status> {
    u8::try_from(number)
        .ok()
        .filter(|&vector| vector >= 32)
        .ok_or(Status::Invalid)
}

/// Whole pages, at least one, that do not wrap.
fn pages(start: u64, len: u64) -> Result<GuestRange, Status> {
    GuestRange::from_len(GuestPhysAddr::new(start), len)
        .filter(|range| !range.is_empty() && range.is_aligned(PAGE))
        .ok_or(Status::Invalid)
}

fn status_of(error: FillError) -> Status {
    match error {
        FillError::Exists => Status::Exists,
        FillError::Absent => Status::Absent,
        FillError::OutOfMemory => Status::OutOfMemory,
        FillError::Unbacked => Status::BadAddress,
    }
}

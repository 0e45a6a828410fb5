//! What is to be delivered to a guest, and when (SDM vol. 3C, 27.6 and 28.2.4).
//!
//! One event goes in with an entry. It can be a new one, or one whose delivery an exit has cut short. An interrupt that has
//! to give way to an exception waits here for the guest to be able to take it.

use crate::state::{Injection, SystemState};
use crate::vendor::Injected;

/// The field is in force.
pub const VALID: u32 = 1 << 31;
const HAS_CODE: u32 = 1 << 11;
const KIND: u32 = 7 << 8;
const EXTERNAL: u32 = 0;
const HARDWARE_EXCEPTION: u32 = 3 << 8;
/// Bits of an IDT-vectoring information that an entry takes as they are; bit 12 is undefined.
const DELIVERABLE: u32 = VALID | HAS_CODE | KIND | 0xff;
/// In a word of [`SystemState`], where these bits of the fields are 0.
const LEN_SHIFT: u32 = 16;
const CODE_SHIFT: u32 = 32;

/// An event, as the VM-entry fields have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Vector in bits 0-7, kind in 8-10, whether there is an error code in 11, [`VALID`].
    pub info: u32,
    /// The error code.
    pub code: u32,
    /// Length of the instruction, for software interrupts and exceptions.
    pub len: u32,
}

impl Event {
    /// A maskable interrupt.
    pub const fn interrupt(vector: u8) -> Self {
        Self {
            info: VALID | EXTERNAL | vector as u32,
            code: 0,
            len: 0,
        }
    }

    /// A hardware exception.
    pub fn exception(vector: u8, code: Option<u32>) -> Self {
        Self {
            info: VALID | HARDWARE_EXCEPTION | u32::from(vector) | code.map_or(0, |_| HAS_CODE),
            code: code.unwrap_or(0),
            len: 0,
        }
    }

    /// The event that an exit's information field describes, if it describes one; `code` and `len` say the rest.
    pub fn described(info: u32, code: impl FnOnce() -> u32, len: impl FnOnce() -> u32) -> Option<Self> {
        (info & VALID != 0).then(|| Self {
            info: info & DELIVERABLE,
            code: if info & HAS_CODE != 0 { code() } else { 0 },
            // Software interrupts and exceptions: 4, 5, 6.
            len: if info >> 8 & 4 != 0 { len() } else { 0 },
        })
    }

    /// As [`SystemState`] has it.
    fn word(&self) -> u64 {
        u64::from(self.info) | u64::from(self.len) << LEN_SHIFT | u64::from(self.code) << CODE_SHIFT
    }

    /// What [`word`](Self::word) made, if it is an event.
    fn from_word(word: u64) -> Option<Self> {
        let (low, code) = (word as u32, (word >> CODE_SHIFT) as u32);
        Self::described(low, || code, || low >> LEN_SHIFT & 0xf)
    }

    const fn is_interrupt(&self) -> bool {
        self.info & KIND == EXTERNAL
    }
}

/// What waits to be delivered to a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Events {
    /// Goes in with the next entry.
    next: Option<Event>,
    /// An interrupt that an exception has displaced.
    displaced: Option<Event>,
    /// Somebody has been told that the guest cannot take an interrupt now.
    awaited: bool,
}

impl Events {
    /// Queues something. `open`: the guest has interrupts on and is not in their shadow.
    pub fn inject(&mut self, what: Injection, open: bool) -> Injected {
        match what {
            Injection::Interrupt(vector) => {
                if !open || self.next.is_some() || self.displaced.is_some() {
                    self.awaited = true;
                    return Injected::NotNow;
                }
                self.next = Some(Event::interrupt(vector));
            }
            Injection::Exception { vector, code } => self.put_first(Event::exception(vector, code)),
        }
        Injected::Queued
    }

    /// Queues an exception before everything else. An exception that it displaces comes again when its instruction does; an
    /// interrupt would not.
    pub fn put_first(&mut self, event: Event) {
        if let Some(old) = self.next.replace(event)
            && old.is_interrupt()
        {
            self.displaced = Some(old);
        }
    }

    /// What goes in with an entry, and whether an exit is wanted once the guest can take an interrupt.
    pub fn at_entry(&mut self, open: bool) -> (Option<Event>, bool) {
        if self.next.is_none() && open {
            self.next = self.displaced.take();
        }
        (self.next, self.awaited || self.displaced.is_some())
    }

    /// Whether an entry needs nothing to be done about it.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.next.is_none() && self.displaced.is_none() && !self.awaited
    }

    /// The guest has run: what went in is delivered.
    #[inline]
    pub fn delivered(&mut self) {
        self.next = None;
    }

    /// The guest has run, and an exit has cut this short.
    pub fn deliver_again(&mut self, event: Event) {
        self.next = Some(event);
    }

    /// The guest can take an interrupt: a displaced one first. Whether whoever was put off is to be told.
    pub fn opened(&mut self) -> bool {
        if self.displaced.is_some() {
            return false;
        }
        core::mem::take(&mut self.awaited)
    }

    /// What waits, as a state has it.
    pub fn save(&self, state: &mut SystemState) {
        state.event = self.next.map_or(0, |event| event.word());
        state.displaced = self.displaced.map_or(0, |event| event.word());
    }

    /// What a state says; nobody waits for the window.
    pub fn load(state: &SystemState) -> Self {
        Self {
            next: Event::from_word(state.event),
            displaced: Event::from_word(state.displaced),
            awaited: false,
        }
    }
}
